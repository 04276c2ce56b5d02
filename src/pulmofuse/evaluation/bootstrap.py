"""Bootstrap weights by patient for percentile intervals.

Records of one patient are alike, so patients are drawn, never records. Several crossed factors give
the pigeonhole bootstrap (Owen 2007, "The pigeonhole bootstrap"): each is drawn by itself and a row
weighs the product of its factors' counts. For simulated patients that makes intervals about twice
too wide (docs/decisions/0014); `evaluation.resampling` is used for them, and this is what
benchmarks/interval_coverage.py compares it with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pulmofuse.statistics import FloatArray, cluster_counts, percentile_interval

__all__ = ["cluster_weights", "percentile_interval"]


def cluster_weights(clusters: Sequence[ArrayLike], n_boot: int, seed: int) -> FloatArray:
    """Weights of the rows in each bootstrap replicate.

    Args:
        clusters: one (n,) array of cluster names per crossed factor; an ordinary table of
            patients has one factor.
        n_boot: number of replicates.
        seed: of the draws; the same seed and clusters give the same weights.

    Returns:
        (n_boot, n) whole numbers >= 0 as float64.
    """
    if not clusters:
        raise ValueError("clusters needs at least one factor")
    rng = np.random.default_rng(seed)
    weights = cluster_counts(clusters[0], n_boot, rng)
    for factor in clusters[1:]:
        weights *= cluster_counts(factor, n_boot, rng)
    return weights
