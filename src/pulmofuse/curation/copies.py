"""What pairs of copies mean for the records: who is joined, and who contradicts whom.

A *pair* says that two records hold the same content (`kind` "exact": byte for byte; "near": the
same picture or sound, written anew). Pairs are found elsewhere; here they are only read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pulmofuse.labelsets import common
from pulmofuse.schema import LABEL_SETS, Label

#: Columns of a table of pairs.
PAIR_COLUMNS = ("record_a", "record_b", "kind", "score")

Codes = NDArray[np.intp]

#: Class of the study and label of the data set, null where not given.
_Said = tuple[str | None, str | None]


def no_pairs() -> pd.DataFrame:
    """A table of pairs without a row."""
    columns = {name: pd.Series(dtype=object) for name in PAIR_COLUMNS}
    return pd.DataFrame(columns).astype({"score": float})


def join_pairs(records: pd.DataFrame, pairs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Pairs with the columns of both their records, as `<column>_a` and `<column>_b`.

    Args:
        records: record_id (unique) and `columns`; any order.
        pairs: record_a, record_b, kind, score; pairs of records that are not there are left out.
        columns: of the records to add.

    Returns:
        One row per pair, in the order of `pairs`; `row_a` and `row_b` are positions in `records`.
    """
    places = pd.Index(records["record_id"].astype(str))
    a = places.get_indexer(pd.Index(pairs["record_a"].astype(str)))
    b = places.get_indexer(pd.Index(pairs["record_b"].astype(str)))
    both = (a >= 0) & (b >= 0)
    a, b = a[both], b[both]
    out = pairs.loc[both, list(PAIR_COLUMNS)].reset_index(drop=True)
    sides = {"a": a, "b": b}
    for side, rows in sides.items():
        out[f"row_{side}"] = rows
        for column in columns:
            out[f"{column}_{side}"] = records[column].to_numpy(dtype=object)[rows]
    return out


def components(n: int, a: ArrayLike, b: ArrayLike) -> Codes:
    """Number of the connected component of each of `n` nodes, joined by edges (a, b)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, columns = np.asarray(a, dtype=np.intp), np.asarray(b, dtype=np.intp)
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def contradicting_pairs(joined: pd.DataFrame) -> NDArray[np.bool_]:
    """Which pairs carry labels that cannot both be right.

    Classes of the study (`y_true`) are compared where both records have one, else the labels of the
    data sets. A label that stands for a set does not contradict a member of it ("not_covid19" and
    "normal" can both be right), and "unknown" contradicts nothing.

    Args:
        joined: of `join_pairs`, with y_true and label of both sides.

    Returns:
        (pairs,) bool.
    """
    columns = ("y_true_a", "label_a", "y_true_b", "label_b")
    rows = zip(*(joined[column] for column in columns), strict=True)
    return np.array([_contradict((a, b), (c, d)) for a, b, c, d in rows], dtype=bool)


def contradicting_components(
    records: pd.DataFrame, joined: pd.DataFrame
) -> tuple[Codes, NDArray[np.bool_]]:
    """Contents, and which records belong to one whose copies carry labels that contradict.

    Copies of copies are one content: if a = b and b = c, and c has another class than b, then
    nobody can say which class a has either.

    Args:
        records: y_true, label.
        joined: of `join_pairs` over the same records.

    Returns:
        Component of each record (n,), and whether that component contradicts itself (n,) bool.
    """
    a, b = (joined[side].to_numpy(dtype=np.intp) for side in ("row_a", "row_b"))
    part = components(len(records), a, b)
    paired = np.unique(np.concatenate([a, b]))
    words = zip(records["y_true"].iloc[paired], records["label"].iloc[paired], strict=True)
    said: dict[int, set[_Said]] = defaultdict(set)
    for content, (y_true, label) in zip(part[paired], words, strict=True):
        said[int(content)].add((_text(y_true), _text(label)))
    torn = [
        content
        for content, own in said.items()
        if any(_contradict(one, other) for one, other in combinations(own, 2))
    ]
    return part, np.isin(part, np.asarray(torn, dtype=np.intp))


def series_keys(records: pd.DataFrame) -> pd.Series:
    """Name of each record's series (slices of one volume) over all data sets; null for none.

    Args:
        records: source, modality, series_id.
    """
    series = records["series_id"]
    key = (
        records["source"].astype(str)
        + "/"
        + records["modality"].astype(str)
        + "/"
        + series.astype(str)
    )
    return key.astype(object).where(series.notna(), None)


def patient_groups(records: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Who must stay on one side of a split.

    Patients are joined who share a file (exact or near copy) or a series: they are likely one
    person, or at least one picture.

    Args:
        records: record_id, patient_id, source, modality, series_id.
        pairs: record_a, record_b, kind, score.

    Returns:
        Group of each record with the index of `records`: the first of its patients' names, so that
        a patient without a copy is a group of their own name.
    """
    patient, names = pd.factorize(records["patient_id"].astype(str), sort=True)
    joined = join_pairs(records, pairs, [])
    edges_a = [patient[joined["row_a"].to_numpy(dtype=np.intp)]]
    edges_b = [patient[joined["row_b"].to_numpy(dtype=np.intp)]]
    series, _ = pd.factorize(series_keys(records))
    sliced = pd.DataFrame({"series": series, "patient": patient})[series >= 0].drop_duplicates()
    first = sliced.groupby("series")["patient"].transform("first")
    edges_a.append(sliced["patient"].to_numpy(dtype=np.intp))
    edges_b.append(first.to_numpy(dtype=np.intp))
    part = components(len(names), np.concatenate(edges_a), np.concatenate(edges_b))
    # Names are sorted, so the first patient met of each component is its smallest name.
    _, first_of = np.unique(part, return_index=True)
    return pd.Series(names.to_numpy()[first_of[part]][patient], index=records.index, dtype=object)


def labels_agree(one: str, other: str) -> bool:
    """Whether two labels, or classes of a study, can both be right of one content."""
    return not _contradict((None, one), (None, other))


def _contradict(one: _Said, other: _Said) -> bool:
    """Whether two (class, label) cannot both be said of one content."""
    (class_a, label_a), (class_b, label_b) = map(_texts, (one, other))
    if class_a is not None and class_b is not None:
        if common((class_a, class_b)) is not None:  # one class, or sets that share one
            return False
        # Two labels of the same meaning under two classes are a contradiction of the study's own.
        return label_a == label_b or not _same_set(label_a, label_b)
    return label_a != label_b and not _same_set(label_a, label_b)


def _same_set(one: str | None, other: str | None) -> bool:
    """Whether one of two labels says nothing, or stands for a set that shares a label with it."""
    first, second = _meanings(one), _meanings(other)
    if not first or not second:
        return True
    return max(len(first), len(second)) > 1 and bool(first & second)


def _meanings(label: str | None) -> frozenset[str]:
    """The labels that a label may stand for; none for one that says nothing."""
    if label is None or label == Label.UNKNOWN:
        return frozenset()
    sets = {str(name): frozenset(map(str, members)) for name, members in LABEL_SETS.items()}
    return sets.get(label, frozenset({label}))


def _texts(said: _Said) -> _Said:
    return _text(said[0]), _text(said[1])


def _text(value: object) -> str | None:
    return None if value is None or pd.isna(value) else str(value)  # type: ignore[call-overload]
