"""Copies of a file: none with contradicting labels is used, and of exact ones one is kept."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pulmofuse.curation.copies import components, contradicting_components, join_pairs
from pulmofuse.schema import Exclusion, iterate


def drop_duplicates(
    records: pd.DataFrame, pairs: pd.DataFrame, unused: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, tuple[Exclusion, ...], pd.DataFrame]:
    """Leave out files whose content stands in the records more than once.

    Contents under two classes are left out altogether, near copies included: nobody can say which
    label is right, so no copy may be trained or tested on. Of exact copies of one class, one that a
    published split placed is kept as published, and the audit reports what the split leaks; copies
    without a split go where another copy is placed, lest they be dealt to the other side of it;
    else the first of them (by record_id) is kept. Near copies of one class all stay:
    `patient_groups` keeps them on one side.

    Args:
        records: record_id, path, modality, source, label, split, y_true.
        pairs: record_a, record_b, kind, score.
        unused: further records, with labels that the study does not use (y_true null); a copy
            there contradicts as well as any other.

    Returns:
        The records kept, in their order; one exclusion for each one that is not; and the records
        left out, in their order, then the unused ones whose content they have.
    """
    unused = records.head(0) if unused is None else unused
    everything = pd.concat([records, unused], ignore_index=True) if len(unused) else records
    table = _contents(everything, pairs).assign(unused=np.arange(len(everything)) >= len(records))
    # Placed copies first, so that the first of each content is the one that stays.
    ordered = table.sort_values(["unused", "free", "record_id"])
    ordered["first"] = ordered.groupby("bytes")["path"].transform("first")
    again = ordered.groupby("bytes").cumcount() > 0
    surplus = again & ordered["free"] & ~ordered["contradicting"]
    out = ordered[(ordered["contradicting"] | surplus) & ~ordered["unused"]]
    told = table[table["content"].isin(out["content"])]
    classes = told.groupby("content")["said"].agg(lambda names: " and ".join(sorted(set(names))))
    exclusions = tuple(
        _exclusion(row, classes[row["content"]]) for row in iterate(out.sort_values("record_id"))
    )
    dropped = table.index.isin(out.index)
    shown = dropped | (table["unused"] & table["content"].isin(out["content"])).to_numpy()
    return records[~dropped[: len(records)]], exclusions, everything[shown]


def _contents(records: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Who has the same content, near copies included, and the same bytes; one row per record."""
    joined = join_pairs(records, pairs, ["y_true", "label"])
    content, contradicting = contradicting_components(records, joined)
    exact = joined[joined["kind"] == "exact"]
    table = records[["path", "modality", "source", "record_id"]].reset_index(drop=True)
    return table.assign(
        said=records["y_true"].fillna(records["label"]).to_numpy(),
        free=records["split"].isna().to_numpy(),
        content=content,
        bytes=components(len(records), exact["row_a"], exact["row_b"]),
        contradicting=contradicting,
    )


def _exclusion(row: dict[str, object], classes: str) -> Exclusion:
    """Why one file was left out, and what can be done."""
    if row["contradicting"]:
        reason = f"the same content is labelled {classes}"
        remedy = "find out which label is right, and leave the other file out"
    else:
        reason, remedy = "an exact copy of another file", f"none needed: {row['first']} is kept"
    path, modality, source = str(row["path"]), str(row["modality"]), str(row["source"])
    return Exclusion(path, modality, source, "audit", reason, remedy)
