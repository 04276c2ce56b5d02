"""Figures for a handful of patients: a share, and how alike two models rank them."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from pulmofuse.evaluation.reliability import wilson_interval

#: The standard error of a rank correlation divides by n - 3.
MIN_RANKED = 4


def share(hits: int, n: int, confidence: float) -> tuple[float, float, float]:
    """A share with its Wilson score interval (Wilson 1927), which holds for few patients too.

    Args:
        hits: patients counted, of `n` >= 1.
        n: patients.
        confidence: of the interval.

    Returns:
        (share, low, high), each in [0, 1].
    """
    low, high = wilson_interval(hits, n, confidence)
    return hits / n, float(low), float(high)


def rank_correlation(
    first: ArrayLike, second: ArrayLike, confidence: float
) -> tuple[float, float, float]:
    """Spearman's correlation, with the interval of Bonett & Wright 2000 on Fisher's scale.

    Bonett & Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations", Psychometrika 65: the standard error of atanh(r) is sqrt((1 + r^2 / 2) / (n-3)).

    Args:
        first: (n,) scores of n different patients.
        second: (n,) scores of the same patients.
        confidence: of the interval.

    Returns:
        (r, low, high), each in [-1, 1]; NaN with fewer than `MIN_RANKED` patients, or where all
        patients have one score.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(a) < MIN_RANKED or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, math.nan, math.nan
    # Rounding may leave a perfect correlation a hair above one.
    r = float(np.clip(spearmanr(a, b).statistic, -1.0, 1.0))
    error = math.sqrt((1 + r**2 / 2) / (len(a) - 3))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    with np.errstate(divide="ignore"):
        middle = float(np.arctanh(r))
    return r, math.tanh(middle - reach), math.tanh(middle + reach)
