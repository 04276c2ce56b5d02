"""The statistics that the audit and the evaluation share: weighted AUC, resampling, intervals.

The bootstrap is written as weights: a patient who is drawn three times weighs three. A statistic
then sorts its scores once and is computed for all replicates by sums along the sorted order.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

#: Conventional two-sided level and power (Cohen 1988).
ALPHA, POWER = 0.05, 0.80


def power_quantiles(alpha: float = ALPHA, power: float = POWER) -> tuple[float, float]:
    """Standard normal quantiles of a two-sided test: what it must exceed, and what it may lose.

    A difference is shown with `power` if it is (first + second) standard errors.
    """
    return NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)


def weighted_auc(
    is_positive: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None
) -> FloatArray:
    """Area under the ROC curve, P(positive scores higher) + P(tie) / 2 (Hanley & McNeil 1982).

    Args:
        is_positive: (n,) bool.
        score: (n,) float; higher means more positive.
        weights: (n,) or (replicates, n), each >= 0; None weighs every row 1.

    Returns:
        () or (replicates,), in [0, 1]; NaN where a replicate holds one class only.
    """
    positive = np.asarray(is_positive, dtype=bool)
    scores = np.asarray(score)
    weight = np.ones(len(positive)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(positive) == 0:
        return np.full(weight.shape[:-1], np.nan)
    order, starts = tie_groups(scores)
    weight = weight[..., order]
    up = np.add.reduceat(weight * positive[order], starts, axis=-1)
    down = np.add.reduceat(weight * ~positive[order], starts, axis=-1)
    below = np.cumsum(down, axis=-1) - down / 2
    pairs = up.sum(axis=-1) * down.sum(axis=-1)
    return divide((up * below).sum(axis=-1), pairs, empty=np.nan)


def within_auc(
    is_positive: ArrayLike, score: ArrayLike, strata: ArrayLike, weights: ArrayLike | None = None
) -> FloatArray:
    """P(positive scores higher) + P(tie) / 2 over all pairs of one stratum.

    This is the mean of the strata's AUCs, weighted by their numbers of positive-negative pairs
    (the stratified Mann-Whitney statistic of van Elteren 1960, with weights by pairs). What tells
    the strata apart, and nothing else, has .5. Matching (`evaluation.matching`) compares
    across strata too, only in equal numbers, and so still pays for telling them apart.

    Args:
        is_positive: (n,) bool.
        score: (n,) float; higher means more positive.
        strata: (n,) names of the strata.
        weights: None, (n,) or (replicates, n) of a bootstrap, each >= 0.

    Returns:
        () or (replicates,), in [0, 1]; NaN where no stratum holds both classes.
    """
    positive, scores = np.asarray(is_positive, dtype=bool), np.asarray(score)
    weight = np.ones(len(positive)) if weights is None else np.asarray(weights, dtype=np.float64)
    names = np.asarray(strata)
    won, pairs = np.zeros(weight.shape[:-1]), np.zeros(weight.shape[:-1])
    for name in np.unique(names):
        own = names == name
        of_stratum = weight[..., own]
        n_pairs = (of_stratum * positive[own]).sum(-1) * (of_stratum * ~positive[own]).sum(-1)
        won += n_pairs * np.nan_to_num(weighted_auc(positive[own], scores[own], of_stratum))
        pairs += n_pairs
    return divide(won, pairs, empty=np.nan)


def tie_groups(score: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Ascending order of scores (n,), and where in it each group of equal scores starts."""
    scores = np.asarray(score)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    return order, starts


def divide(numerator: ArrayLike, denominator: ArrayLike, empty: float) -> FloatArray:
    """`numerator / denominator`, and `empty` where the denominator is zero."""
    top = np.asarray(numerator, dtype=np.float64)
    bottom = np.asarray(denominator, dtype=np.float64)
    out = np.full(np.broadcast_shapes(top.shape, bottom.shape), empty)
    np.divide(top, bottom, out=out, where=bottom != 0)
    return out


def cluster_counts(cluster: ArrayLike, n_boot: int, rng: np.random.Generator) -> FloatArray:
    """How often each row is drawn when whole clusters are drawn with replacement.

    Args:
        cluster: (n,) names of the clusters (the patients).
        n_boot: number of replicates.
        rng: source of the draws.

    Returns:
        (n_boot, n) whole numbers as float64 (sums over rows are then matrix products).
    """
    names, codes = np.unique(np.asarray(cluster), return_inverse=True)
    size = len(names)
    if size == 0:
        return np.empty((n_boot, 0))
    drawn = rng.integers(size, size=(n_boot, size)) + size * np.arange(n_boot)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n_boot * size).reshape(n_boot, size)
    return counts.astype(np.float64)[:, codes]


def percentile_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of (replicates,); undefined (NaN) replicates are left out.

    Returns:
        (low, high); (NaN, NaN) if no replicate is defined.
    """
    replicates = np.asarray(values, dtype=np.float64)
    defined = replicates[np.isfinite(replicates)]
    if defined.size == 0:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)
