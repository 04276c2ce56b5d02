"""What a study remembers of its files, so that later data can be held against them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulmofuse.curation import find_pairs
from pulmofuse.curation.copies import components, join_pairs
from pulmofuse.curation.inspection import INSPECTION_VERSION
from pulmofuse.errors import StudyError
from pulmofuse.files import atomic_path
from pulmofuse.schema import Split

FINGERPRINTS = "fingerprints.parquet"
_COLUMNS = ["record_id", "modality", "sha256", "fingerprint", "split"]
#: Keeps the study's records apart from the same ones scanned again.
_PREFIX = "study/"
_REMEDY = "run the study again"


def write_fingerprints(out: Path, records: pd.DataFrame, more: Sequence[str] = ()) -> None:
    """Write `fingerprints.parquet`: record_id, modality, sha256, fingerprint, split, version.

    Args:
        out: folder of the file.
        records: with these columns but `version`.
        more: further columns to write.
    """
    with atomic_path(out / FINGERPRINTS) as temporary:
        table = records[[*_COLUMNS, *more]].assign(version=INSPECTION_VERSION)
        table.to_parquet(temporary, index=False)


def read_fingerprints(path: Path, remedy: str = _REMEDY) -> pd.DataFrame:
    """What `write_fingerprints` wrote.

    Raises:
        StudyError: the file is damaged, or of another version of Pulmofuse.
    """
    try:
        own = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StudyError(path, f"is damaged ({error})", remedy) from None
    if "version" not in own or (own["version"] != INSPECTION_VERSION).any():
        # Fingerprints of two kinds have nothing in common, and every copy would be missed.
        raise StudyError(path, "holds fingerprints of another version of Pulmofuse", remedy)
    return own


def copies_of_study(study: Path, records: pd.DataFrame) -> pd.Series:
    """Which split of a study holds a copy of each record, exact or near.

    Args:
        study: output folder of the study; one without fingerprints knows no copies.
        records: record_id, modality, sha256, fingerprint.

    Returns:
        "train", "val" or "test" (the earliest that holds a copy), null where none does; with the
        index of `records`.
    """
    if not (study / FINGERPRINTS).is_file():
        return pd.Series(None, index=records.index, dtype=object)
    return copies_among(read_fingerprints(study / FINGERPRINTS), records)


def copies_among(own: pd.DataFrame, records: pd.DataFrame) -> pd.Series:
    """The same of what `read_fingerprints` gave.

    Args:
        own: record_id, modality, sha256, fingerprint, split.
        records: as in `copies_of_study`.
    """
    content = _contents(own, records)
    order = {split.value: place for place, split in enumerate(Split)}
    earliest = own["split"].map(order).groupby(content[: len(own)]).min()
    names = {place: split for split, place in order.items()}
    found = pd.Series(content[len(own) :], index=records.index).map(earliest).map(names)
    return found.astype(object)


def shared_contents(
    own: pd.DataFrame, records: pd.DataFrame
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows of either table have a copy in the other, exact or near.

    Args:
        own: as in `copies_among`.
        records: as in `copies_of_study`.

    Returns:
        (len(own),) and (len(records),) bool.
    """
    content = _contents(own, records)
    first, second = content[: len(own)], content[len(own) :]
    return np.isin(first, second), np.isin(second, first)


def _contents(own: pd.DataFrame, records: pd.DataFrame) -> NDArray[np.intp]:
    """Number of the content of each row of `own`, then of `records`."""
    named = own[_COLUMNS[:-1]].assign(record_id=_PREFIX + own["record_id"])
    both = pd.concat([named, records[_COLUMNS[:-1]]], ignore_index=True)
    joined = join_pairs(both, find_pairs(both), [])
    # A large group of copies is a star of pairs: whoever hangs on it is a copy of all of it.
    return components(len(both), joined["row_a"], joined["row_b"])
