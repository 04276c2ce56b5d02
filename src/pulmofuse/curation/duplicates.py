"""Exact copies of a file: none with contradicting labels is used, and of others one is kept."""

from __future__ import annotations

import pandas as pd

from pulmofuse.schema import Exclusion, iterate


def drop_duplicates(
    records: pd.DataFrame,
) -> tuple[pd.DataFrame, tuple[Exclusion, ...], int]:
    """Leave out files whose content stands in the records more than once.

    Contents under two classes are left out altogether: nobody can say which label is right, so no
    copy may be trained or tested on. A copy that a published split placed is kept as published, and
    the audit reports what the split leaks. Copies without a split go where another copy is placed,
    lest they be dealt to the other side of it; else the first of them (by record_id) is kept.

    Args:
        records: record_id, path, modality, source, split, y_true, sha256.

    Returns:
        The records kept, in their order; one exclusion for each one that is not; and the number of
        contents that stood under two classes.
    """
    # Placed copies first, so that the first of each content is the one that stays.
    ordered = records.assign(free=records["split"].isna()).sort_values(["free", "record_id"])
    content = ordered.groupby(["modality", "sha256"])
    contradicting = content["y_true"].transform("nunique") > 1
    copies = content["record_id"].transform("size") > 1
    first = content["path"].transform("first")
    again = content.cumcount() > 0
    classes = content["y_true"].transform(lambda names: " and ".join(sorted(set(names))))
    surplus = copies & again & ordered["free"] & ~contradicting
    dropped = contradicting | surplus
    out = ordered.assign(first=first, classes=classes, contradicting=contradicting)[dropped]
    exclusions = tuple(
        Exclusion(
            row["path"],
            row["modality"],
            row["source"],
            "audit",
            f"the same content is labelled {row['classes']}"
            if row["contradicting"]
            else "an exact copy of another file",
            "find out which label is right, and leave the other file out"
            if row["contradicting"]
            else f"none needed: {row['first']} is kept",
        )
        for row in iterate(out.sort_values("record_id"))
    )
    contradictions = int(content["y_true"].nunique().gt(1).sum())
    return records[~dropped.reindex(records.index)], exclusions, contradictions
