"""What a study remembers of its files, so that later data can be held against them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pulmofuse.curation import find_pairs
from pulmofuse.files import atomic_path
from pulmofuse.schema import Split

_FILE = "fingerprints.parquet"
_COLUMNS = ["record_id", "modality", "sha256", "fingerprint", "split"]
#: Keeps the study's records apart from the same ones scanned again.
_PREFIX = "study/"


def write_fingerprints(out: Path, records: pd.DataFrame) -> None:
    """Write `fingerprints.parquet`: record_id, modality, sha256, fingerprint, split."""
    with atomic_path(out / _FILE) as temporary:
        records[_COLUMNS].to_parquet(temporary, index=False)


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
    own = pd.read_parquet(study / _FILE)
    own = own.assign(record_id=_PREFIX + own["record_id"])
    pairs = find_pairs(pd.concat([own, records[_COLUMNS[:-1]]], ignore_index=True))
    first = pairs["record_a"].str.startswith(_PREFIX)
    across = pairs[first != pairs["record_b"].str.startswith(_PREFIX)]
    a, b = across["record_a"], across["record_b"]
    known = pd.DataFrame({"theirs": b.where(first, a), "ours": a.where(first, b)})
    order = {split.value: place for place, split in enumerate(Split)}
    place = known["ours"].map(own.set_index("record_id")["split"]).map(order)
    earliest = place.groupby(known["theirs"]).min().map({n: s for s, n in order.items()})
    return records["record_id"].map(earliest).astype(object)
