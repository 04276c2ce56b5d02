"""Nearest neighbours among many vectors in sub-quadratic time: an inverted file over cells.

The vectors are divided into about sqrt(n) cells by spherical k-means, and a query looks only into
the cells nearest to it (Sivic & Zisserman, ICCV 2003; Jégou et al., IEEE TPAMI 33, 2011), which
costs n^1.5 in all. No random numbers: the same vectors in the same order give the same cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

#: Up to here one cell is faster than finding cells.
_ONE_CELL = 4096
#: Fewer vectors than this do not show what a collection has in common.
_HANDFUL = 8

#: Vectors per cell that the cells are found from; more does not move them (faiss uses 39 to 256).
_SAMPLE_PER_CELL = 40
_ITERATIONS = 8
#: Cells per square root of the number of vectors: finding the cells of a query costs about as
#: much as looking into them.
_DENSITY = 1.0
#: Cells that a query looks into.
_PROBES = 5
#: Similarities held at a time; 4 M floats are 16 MiB.
_BLOCK = 1 << 21


@dataclass(frozen=True, eq=False)
class Whitening:
    """What a collection has in common is taken away, so that only what is one's own counts.

    Attributes:
        common: (d,), the mean.
        matrix: (d, k); behind it every direction varies about equally.
    """

    common: Vectors
    matrix: Vectors

    def __call__(self, vectors: Vectors) -> Vectors:
        """Vectors (n, d) whitened and of unit length, (n, k)."""
        return unit(np.asarray((vectors - self.common) @ self.matrix, np.float32))


def whitening(vectors: Vectors, ridge: float, few: int, directions: int | None = None) -> Whitening:
    """Whitening by principal components with a ridge.

    Args:
        vectors: (n, d).
        ridge: share of the mean variance that is added to every direction.
        few: number of vectors below which their own covariance counts less and less.
        directions: how many of the directions that vary most are kept; None keeps all d.
    """
    # Of a handful, copies among them are what is common.
    common = vectors.mean(axis=0) * (len(vectors) >= _HANDFUL)
    centred = vectors - common
    variance, axes = np.linalg.eigh(centred.T @ centred / len(vectors))
    floor = max(ridge, few / len(vectors)) * max(float(variance.mean()), 0)
    scale = 1 / np.sqrt(np.maximum(variance, 0) + floor + np.finfo(np.float32).tiny)
    kept = axes * scale if directions is None else (axes * scale)[:, -directions:]
    return Whitening(common, kept.astype(np.float32))


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


@dataclass(frozen=True, eq=False)
class Found:
    """Neighbours, each pair of query and row once, sorted by them.

    Attributes:
        query, row: int64 (found,).
        view: int64 (found,), number of the view of the query that is nearest to the row.
        score: float32 (found,), the cosine.
    """

    query: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    view: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]


def build_cells(vectors: Vectors) -> Cells:
    """Divide vectors (n, d) of unit length into cells."""
    n = len(vectors)
    n_cells = 1 if n <= _ONE_CELL else int(_DENSITY * np.sqrt(n))
    centres = _centres(vectors, n_cells)
    cell = _nearest(vectors, centres, 1)[:, 0]
    rows = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[rows], np.arange(n_cells + 1))
    return Cells(centres, vectors[rows], rows, starts)


def neighbours(
    cells: Cells, views: Iterable[Vectors], owner: Rows, least: float, most: int
) -> Found:
    """For each vector of each view, the rows whose cosine is at least `least`.

    Args:
        cells: what is searched, n vectors.
        views: the n vectors themselves, then as they would look otherwise; each (n, d), unit
            length.
        owner: (n,), rows of one owner are not neighbours of one another.
        least: smallest cosine.
        most: neighbours kept for each vector; bounds the work where everything looks alike.
    """
    n = len(cells.rows)
    keys, scores, places = np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)
    for place, vectors in enumerate(views):
        queries, rows, found = _search(cells, vectors, least, most)
        other = owner[queries] != owner[rows]
        keys = np.concatenate([keys, queries[other].astype(np.int64) * n + rows[other]])
        scores = np.concatenate([scores, found[other]])
        places = np.concatenate([places, np.full(int(other.sum()), place)])
        kept = _best(keys, scores, n, most)
        keys, scores, places = keys[kept], scores[kept], places[kept]
    order = np.argsort(keys)
    return Found(keys[order] // n, keys[order] % n, places[order], scores[order])


def _search(
    cells: Cells, vectors: Vectors, least: float, most: int
) -> tuple[Rows, Rows, npt.NDArray[np.float32]]:
    """Query indices, rows and cosines found in the cells nearest to each query."""
    probed = _nearest(vectors, cells.centres, min(_PROBES, len(cells.centres)))
    asking = np.argsort(probed.ravel(), kind="stable")
    bounds = np.searchsorted(probed.ravel()[asking], np.arange(len(cells.centres) + 1))
    asking //= probed.shape[1]

    def search(cell: int) -> list[tuple[Rows, Rows, npt.NDArray[np.float32]]]:
        start, stop = cells.starts[cell], cells.starts[cell + 1]
        members = cells.vectors[start:stop].T
        step = max(1, _BLOCK // max(1, stop - start))
        found = []
        for begin in range(bounds[cell], bounds[cell + 1], step):
            queries = asking[begin : min(begin + step, bounds[cell + 1])]
            similar = vectors[queries] @ members
            which, member = np.divmod(_high(similar, least, most), max(1, stop - start))
            found.append((queries[which], cells.rows[start + member], similar[which, member]))
        return found

    with ThreadPoolExecutor() as pool:
        found = [part for parts in pool.map(search, range(len(cells.centres))) for part in parts]
    if not found:
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.float32)
    queries, rows, scores = (np.concatenate(part) for part in zip(*found, strict=True))
    return queries, rows, scores


def _high(similar: Vectors, least: float, most: int) -> Rows:
    """Flat indices of similarities (queries, members): high, and among the best of their row."""
    high = np.flatnonzero(similar >= least)
    rows = high // similar.shape[1]
    crowded = np.flatnonzero(np.bincount(rows, minlength=len(similar)) > most)
    if not len(crowded):
        return high
    bar = np.full(len(similar), least, np.float32)
    bar[crowded] = np.partition(similar[crowded], -most, axis=1)[:, -most]
    kept: Rows = high[similar.ravel()[high] >= bar[rows]]
    return kept


def _best(keys: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], n: int, most: int) -> Rows:
    """Indices of each key's best score, for the `most` best keys of each query (key // n)."""
    order = np.lexsort((-scores, keys))
    again = np.r_[False, keys[order[1:]] == keys[order[:-1]]][: len(order)]
    order = order[~again]
    order = order[np.lexsort((keys[order], -scores[order], keys[order] // n))]
    query = keys[order] // n
    kept: Rows = order[np.arange(len(query)) - np.searchsorted(query, query) < most]
    return kept


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

    def fill(begin: int) -> None:
        similar = vectors[begin : begin + step] @ centres.T
        every = np.arange(len(similar))
        # A few passes for the largest are faster than one partition of each row.
        for place in range(count):
            best = similar.argmax(axis=1)
            out[begin : begin + step, place] = best
            similar[every, best] = -np.inf

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(0, len(vectors), step)))
    return out


def unit(vectors: Vectors) -> Vectors:
    """Vectors (n, d) at unit length; a zero vector stays zero."""
    length = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    out: Vectors = vectors / np.maximum(length, np.finfo(np.float32).tiny)
    return out
