"""Nearest neighbours among many vectors in sub-quadratic time: an inverted file over cells.

The vectors are divided into about sqrt(n) cells by spherical k-means, and a query looks only into
the cells nearest to it (Sivic & Zisserman, ICCV 2003; Jégou et al., IEEE TPAMI 33, 2011), which
costs n^1.5 in all. No random numbers: the same vectors in the same order give the same cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

#: Up to here one cell is faster than finding cells.
_ONE_CELL = 4096
#: Vectors per cell that the cells are found from; more does not move them (faiss uses 39 to 256).
_SAMPLE_PER_CELL = 40
_ITERATIONS = 8
#: Cells that a query looks into.
_PROBES = 8
#: Similarities held at a time; 4 M floats are 16 MiB.
_BLOCK = 1 << 22


@dataclass(frozen=True, eq=False)
class Cells:
    """Vectors by cell.

    Attributes:
        centres: (cells, d), unit length.
        vectors: (n, d), those of one cell side by side.
        rows: (n,), the row that each vector had before.
        starts: (cells + 1,), where each cell begins in `vectors`.
    """

    centres: Vectors
    vectors: Vectors
    rows: Rows
    starts: Rows


def build_cells(vectors: Vectors) -> Cells:
    """Divide vectors (n, d) of unit length into cells."""
    n = len(vectors)
    n_cells = 1 if n <= _ONE_CELL else int(np.sqrt(n))
    centres = _centres(vectors, n_cells)
    cell = _nearest(vectors, centres, 1)[:, 0]
    rows = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[rows], np.arange(n_cells + 1))
    return Cells(centres, vectors[rows], rows, starts)


def neighbours(
    cells: Cells, queries: Iterable[tuple[Rows, Vectors]], least: float, most: int
) -> tuple[Rows, Rows]:
    """Pairs (query's label, row) whose cosine is at least `least`, the `most` best of each label.

    Args:
        cells: what is searched.
        queries: blocks of labels (m,) and vectors (m, d) of unit length; a label may come again,
            with another view of the same thing.
        least: smallest cosine.
        most: neighbours kept for each query; bounds the work where everything looks alike.

    Returns:
        Labels and rows, each pair once, sorted. A label's own row is among them if it is as near.
    """
    keys, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    n = len(cells.rows)
    for labels, vectors in queries:
        found = _search(cells, vectors, least, most)
        new = labels[found[0]].astype(np.int64) * n + found[1]
        keys, scores = np.concatenate([keys, new]), np.concatenate([scores, found[2]])
        keys, scores = _best(keys, scores, n, most)
    order = np.argsort(keys)
    return keys[order] // n, keys[order] % n


def _search(
    cells: Cells, vectors: Vectors, least: float, most: int
) -> tuple[Rows, Rows, npt.NDArray[np.float32]]:
    """Query indices, rows and cosines found in the cells nearest to each query."""
    probed = _nearest(vectors, cells.centres, min(_PROBES, len(cells.centres)))
    asking = np.argsort(probed.ravel(), kind="stable")
    bounds = np.searchsorted(probed.ravel()[asking], np.arange(len(cells.centres) + 1))
    asking //= probed.shape[1]
    found = []
    for cell in range(len(cells.centres)):
        start, stop = cells.starts[cell], cells.starts[cell + 1]
        if start == stop:
            continue
        members = cells.vectors[start:stop].T
        step = max(1, _BLOCK // (stop - start))
        for begin in range(bounds[cell], bounds[cell + 1], step):
            queries = asking[begin : min(begin + step, bounds[cell + 1])]
            similar = vectors[queries] @ members
            which, member = np.nonzero(_cut(similar, least, most))
            found.append((queries[which], cells.rows[start + member], similar[which, member]))
    if not found:
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.float32)
    queries, rows, scores = (np.concatenate(part) for part in zip(*found, strict=True))
    return queries, rows, scores


def _cut(similar: Vectors, least: float, most: int) -> npt.NDArray[np.bool_]:
    """Which similarities (queries, members) are high enough and among the `most` of their row."""
    high = similar >= least
    crowded = np.flatnonzero(high.sum(axis=1) > most)
    if len(crowded):
        rows = similar[crowded]
        bar = np.partition(rows, -most, axis=1)[:, -most]
        high[crowded] = rows >= bar[:, None]
    return high


def _best(
    keys: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], n: int, most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Each key once with its best score, and of each label (key // n) the `most` best."""
    order = np.lexsort((-scores, keys))
    keys, scores = keys[order], scores[order]
    first = np.r_[True, keys[1:] != keys[:-1]] if len(keys) else np.empty(0, bool)
    keys, scores = keys[first], scores[first]
    order = np.lexsort((keys, -scores, keys // n))
    label = keys[order] // n
    place = np.arange(len(label)) - np.searchsorted(label, label)
    kept = order[place < most]
    return keys[kept], scores[kept]


def _centres(vectors: Vectors, n_cells: int) -> Vectors:
    """Spherical k-means on vectors at equal distances in the table; (n_cells, d)."""
    take = min(len(vectors), n_cells * _SAMPLE_PER_CELL)
    sample = vectors[np.linspace(0, len(vectors) - 1, take).astype(np.intp)]
    centres = sample[np.linspace(0, take - 1, n_cells).astype(np.intp)]
    for _ in range(_ITERATIONS if n_cells > 1 else 0):
        cell = _nearest(sample, centres, 1)[:, 0]
        order = np.argsort(cell, kind="stable")
        filled, starts = np.unique(cell[order], return_index=True)
        centres = centres.copy()
        centres[filled] = unit(np.add.reduceat(sample[order], starts, axis=0))
    return centres


def _nearest(vectors: Vectors, centres: Vectors, count: int) -> Rows:
    """Indices (n, count) of the nearest centres of each vector."""
    step = max(1, _BLOCK // len(centres))
    out = np.empty((len(vectors), count), np.intp)
    for begin in range(0, len(vectors), step):
        similar = vectors[begin : begin + step] @ centres.T
        if count == 1:
            out[begin : begin + step, 0] = similar.argmax(axis=1)
        elif count < len(centres):
            out[begin : begin + step] = np.argpartition(similar, -count, axis=1)[:, -count:]
        else:
            out[begin : begin + step] = np.arange(count)
    return out


def unit(vectors: Vectors) -> Vectors:
    """Vectors (n, d) at unit length; a zero vector stays zero."""
    length = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    out: Vectors = vectors / np.maximum(length, np.finfo(np.float32).tiny)
    return out
