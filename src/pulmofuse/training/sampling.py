"""Which rows an epoch is made of: all of them shuffled, or drawn so that cells weigh the same.

A cell is a class, or a class at a site. Where the sites differ in how frequent the classes are, a
network can tell the class from traces of the site. With as many rows of every cell, the classes
that a site has are equally frequent there, and the site says nothing about the class; a class
that is missing at a site still is, which no drawing can mend.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from pulmofuse.errors import StudyError

Sampling = Literal["shuffled", "balanced", "balanced_sites"]


def balanced_cells(sampling: Sampling, y: np.ndarray, site: np.ndarray | None) -> np.ndarray | None:
    """The cell of each row, as `EpochBatches` takes them.

    Args:
        sampling: "shuffled", "balanced" (a cell is a class) or "balanced_sites" (a class at a
            site; rows of no known site count as one site more).
        y: (n,) class index of each training row.
        site: (n,) index of its site, -1 if not known; None where there are no sites.

    Returns:
        (n,) int64 from 0, or None for "shuffled".

    Raises:
        StudyError: cells are to be sites, and no site is known.
    """
    if sampling == "shuffled":
        return None
    cells = y
    if sampling == "balanced_sites":
        if site is None:
            raise StudyError(
                "sampling balanced_sites",
                "the training rows have no sites",
                "set `sampling` to balanced or shuffled",
            )
        cells = np.stack([y, site])
    return np.unique(cells, axis=-1, return_inverse=True)[1].reshape(-1).astype(np.int64)


def draw_epoch(n: int, cells: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """The rows of one epoch, in a random order.

    Every cell gets n / cells rows, rounded up or down by chance. Within a cell all rows come
    before any comes again, so that a large cell loses as few rows as can be.

    Args:
        n: rows in all, and rows drawn.
        cells: (n,) int, from `balanced_cells`; None takes every row once.
        rng: makes all draws.

    Returns:
        (n,) row numbers.
    """
    if cells is None:
        return rng.permutation(n)
    counts = np.bincount(cells)
    quota = np.full(len(counts), n // len(counts))
    quota[rng.permutation(len(counts))[: n % len(counts)]] += 1
    drawn = []
    for cell, wanted in enumerate(quota):
        rows = np.flatnonzero(cells == cell)
        rounds = -(-wanted // len(rows))
        drawn.append(np.concatenate([rng.permutation(rows) for _ in range(rounds)])[:wanted])
    return rng.permutation(np.concatenate(drawn))


def draw_weighted(weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """The rows of one epoch where some are drawn more often, in a random order.

    Systematic sampling (Madow 1949): one random start and equal steps through the rows in random
    order. Each row comes as often as its share of `n`, rounded up or down by chance, which varies
    less from epoch to epoch than independent draws; equal weights take every row once.

    Args:
        weights: (rows,), 0 or more and not all 0.
        n: rows drawn.
        rng: makes all draws.

    Returns:
        (n,) row numbers.
    """
    order = rng.permutation(len(weights))
    ends = np.cumsum(weights[order] / weights.sum()) * n
    ends[-1] = n  # no rounding error may leave the last point without a row
    drawn = order[np.searchsorted(ends, rng.random() + np.arange(n), side="right")]
    return rng.permutation(drawn)
