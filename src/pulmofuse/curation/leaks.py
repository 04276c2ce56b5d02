"""What to do about a leak: stop, or drop what the model must not see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmofuse.curation.copies import join_pairs, patient_groups, series_keys
from pulmofuse.errors import LeakageFound
from pulmofuse.schema import Exclusion, Split, iterate

_CONTRADICTION = "labels.contradiction"
_PRETRAINING = "leakage.pretraining"

#: Checks whose failure means that no figure on the test set can be believed.
_LEAKS = ("leakage.", _CONTRADICTION)


def is_leak(check: str, verdict: str) -> bool:
    """Whether the answer of a check (by its id) means that figures cannot be believed."""
    return check.startswith(_LEAKS) and verdict == "fail"


def stop_on_leaks(checks: Iterable[Mapping[str, Any]], page: Path | None = None) -> None:
    """Refuse to go on with a split that leaks.

    Args:
        checks: of `audit.json`, or `Audit.to_json()["checks"]`.
        page: where a reader sees the pairs; null where there is no page.

    Raises:
        LeakageFound: a check of leakage or of contradicting labels failed. The first is told in
            words, the others by their counts: it is one line that somebody reads in a terminal.
    """
    failed = [c for c in checks if is_leak(str(c["id"]), str(c["verdict"]))]
    if failed:
        counts = ", ".join(f"{check['id']} {check['value'] or 0:,.0f}" for check in failed)
        way = "--drop-leaks drops the training copies"
        if all(c["id"] == _PRETRAINING for c in failed):
            way = str(failed[0]["remedy"])
        if any(c["id"] == _CONTRADICTION for c in failed):
            way = "leave the copies with a wrong label out (`cleaning.copies: drop` leaves out all)"
        look = f"see every pair in {page}; then " if page is not None else ""
        raise LeakageFound(
            f"the audit ({counts})",
            str(failed[0]["detail"]),
            f"{look}{way}, or --accept-leaks goes on and prints it on every page",
        )


def drop_leaks(
    records: pd.DataFrame, pairs: pd.DataFrame, groups: pd.Series | None = None
) -> tuple[pd.DataFrame, tuple[Exclusion, ...]]:
    """Leave out the training and validation records that the test set shares something with.

    The test set stays as it is, so that figures remain comparable with published ones. Whoever is
    joined with it by patient, copy (exact or near) or series, directly or over others
    (`patient_groups`), leaves training and validation; then training gives up what it shares with
    validation.

    Args:
        records: record_id, path, patient_id, modality, source, series_id, split.
        pairs: record_a, record_b, kind, score.
        groups: of `patient_groups`, where it was called on more records than these.

    Returns:
        The records kept, in their order, and one exclusion for each one that is not.
    """
    group = patient_groups(records, pairs) if groups is None else groups
    split = records["split"].astype(object)
    stays = pd.Series(True, index=records.index)
    exclusions: list[Exclusion] = []
    for keeper, losers in ((Split.TEST, (Split.TRAIN, Split.VAL)), (Split.VAL, (Split.TRAIN,))):
        kept = records[stays & (split == keeper.value)]
        shared = group.isin(set(group[kept.index]))
        lost = stays & shared & split.isin([s.value for s in losers])
        if lost.any():
            out = records[lost].assign(why=_reasons(records, kept, lost, pairs))
            exclusions += [_exclusion(row, keeper) for row in iterate(out)]
        stays &= ~lost
    return records[stays], tuple(sorted(exclusions, key=lambda e: e.path))


def _reasons(
    records: pd.DataFrame, kept: pd.DataFrame, lost: pd.Series, pairs: pd.DataFrame
) -> pd.Series:
    """What each lost record shares with the kept ones, in words; the gravest first."""
    joined = join_pairs(records, pairs, [])
    is_kept = records.index.isin(kept.index)
    words = pd.Series("is linked to a record", index=records.index)
    series = series_keys(records)
    words[series.isin(series[is_kept].dropna())] = "is a slice of a volume"
    for kind, text in (("near", "is nearly the same as a file"), ("exact", "is a copy of a file")):
        rows = joined[joined["kind"] == kind]
        a, b = rows["row_a"].to_numpy(dtype=np.intp), rows["row_b"].to_numpy(dtype=np.intp)
        touching = np.concatenate([a[is_kept[b]], b[is_kept[a]]])
        words.iloc[touching] = text
    words[records["patient_id"].isin(kept["patient_id"])] = "is of a patient"
    return words[lost]


def _exclusion(row: dict[str, object], keeper: Split) -> Exclusion:
    path, modality, source = str(row["path"]), str(row["modality"]), str(row["source"])
    reason = f"{row['why']} of the {keeper.value} split, and stood in {row['split']}"
    return Exclusion(path, modality, source, "audit", reason, "none needed")
