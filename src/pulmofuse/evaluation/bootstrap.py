"""Bootstrap by patient, also where a row belongs to several patients at once.

Records of one patient are alike, so patients are drawn, never records. A simulated patient is made
of a CT patient, an X-ray patient and a cough patient, and each of them recurs in several rows: the
rows are then dependent along crossed factors. The pigeonhole bootstrap draws each factor by itself
and weighs a row by the product of its factors' counts (Owen 2007, "The pigeonhole bootstrap";
Owen & Eckles 2012, "Bootstrapping data arrays of arbitrary order"). No bootstrap of crossed data
is exact; this one errs on the side of intervals that are a little too wide.
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
