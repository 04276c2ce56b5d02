"""Exact copies of a file: none with contradicting labels is used, and of others one is kept."""

from __future__ import annotations

import pandas as pd

from pulmofuse.schema import Exclusion, iterate


def drop_duplicates(records: pd.DataFrame) -> tuple[pd.DataFrame, tuple[Exclusion, ...]]:
    """Leave out files whose content stands in the records more than once.

    Contents under two classes are left out altogether: nobody can say which label is right, so no
    copy may be trained or tested on. Of other copies the first (by record_id) is kept, unless a
    published split placed them: a published split is kept as published, and the audit reports
    what it leaks.

    Args:
        records: record_id, path, modality, source, split, y_true, sha256.

    Returns:
        The records kept, in their order, and one exclusion for each one that is not.
    """
    ordered = records.sort_values("record_id")
    content = ordered.groupby(["modality", "sha256"])
    contradicting = content["y_true"].transform("nunique") > 1
    copies = content["record_id"].transform("size") > 1
    first = content["path"].transform("first")
    again = content.cumcount() > 0
    placed = content["split"].transform("count") > 0
    classes = content["y_true"].transform(lambda names: " and ".join(sorted(set(names))))
    surplus = copies & again & ~placed & ~contradicting
    out = ordered.assign(first=first, classes=classes, contradicting=contradicting)
    exclusions = tuple(
        Exclusion(
            row["path"],
            row["modality"],
            row["source"],
            "audit",
            f"the same content is labelled {row['classes']}"
            if row["contradicting"]
            else f"a copy of {row['first']}",
            "find out which label is right, and leave the other file out"
            if row["contradicting"]
            else "none needed",
        )
        for row in iterate(out[contradicting | surplus])
    )
    return records[~(contradicting | surplus).reindex(records.index)], exclusions
