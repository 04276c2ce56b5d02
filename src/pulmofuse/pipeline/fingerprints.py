"""What a study remembers of its files, so that later data can be held against them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pulmofuse.curation import find_pairs
from pulmofuse.curation.copies import components, join_pairs
from pulmofuse.curation.inspection import INSPECTION_VERSION
from pulmofuse.errors import StudyError
from pulmofuse.files import atomic_path
from pulmofuse.schema import Split

_FILE = "fingerprints.parquet"
_COLUMNS = ["record_id", "modality", "sha256", "fingerprint", "split"]
#: Keeps the study's records apart from the same ones scanned again.
_PREFIX = "study/"


def write_fingerprints(out: Path, records: pd.DataFrame) -> None:
    """Write `fingerprints.parquet`: record_id, modality, sha256, fingerprint, split, version."""
    with atomic_path(out / _FILE) as temporary:
        records[_COLUMNS].assign(version=INSPECTION_VERSION).to_parquet(temporary, index=False)


def copies_of_study(study: Path, records: pd.DataFrame) -> pd.Series:
    """Which split of a study holds a copy of each record, exact or near.

    Args:
        study: output folder of the study; one without fingerprints knows no copies.
        records: record_id, modality, sha256, fingerprint.

    Returns:
        "train", "val" or "test" (the earliest that holds a copy), null where none does; with the
        index of `records`.
    """
    none = pd.Series(None, index=records.index, dtype=object)
    if not (study / _FILE).is_file():
        return none
    try:
        own = pd.read_parquet(study / _FILE)
    except (OSError, ValueError) as error:
        raise StudyError(study / _FILE, f"is damaged ({error})", "run the study again") from None
    if "version" not in own or (own["version"] != INSPECTION_VERSION).any():
        # Fingerprints of two kinds have nothing in common, and every copy would be missed.
        why = "holds fingerprints of another version of Pulmofuse"
        raise StudyError(study / _FILE, why, "run the study again")
    own = own[_COLUMNS].assign(record_id=_PREFIX + own["record_id"])
    both = pd.concat([own, records[_COLUMNS[:-1]]], ignore_index=True)
    joined = join_pairs(both, find_pairs(both), [])
    # A large group of copies is a star of pairs: whoever hangs on it is a copy of all of it.
    content = components(len(both), joined["row_a"], joined["row_b"])
    order = {split.value: place for place, split in enumerate(Split)}
    earliest = own["split"].map(order).groupby(content[: len(own)]).min()
    names = {place: split for split, place in order.items()}
    found = pd.Series(content[len(own) :], index=records.index).map(earliest).map(names)
    return found.astype(object)
