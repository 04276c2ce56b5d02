"""Tests of two classifiers on the same patients, and the correction for making many of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pulmofuse.statistics import FloatArray

#: Up to as many discordant patients the exact test is taken: McNemar's normal approximation wants
#: 25 at least (Fagerland, Lydersen & Laake 2013, doi:10.1186/1471-2288-13-91).
EXACT_UP_TO = 25


@dataclass(frozen=True)
class McNemar:
    """Patients whom only the first, or only the second, called right; and the two-sided p.

    `exact`: the binomial test was taken.
    """

    first_only: int
    second_only: int
    p: float
    exact: bool


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> McNemar:
    """McNemar's test of two accuracies on the same patients (McNemar 1947).

    With at most `EXACT_UP_TO` discordant patients the exact binomial test, and the chi-square with
    Edwards' continuity correction above. p is 1 where no patient is discordant.

    Args:
        first_right: (n,) bool, whether the first called each patient right.
        second_right: (n,) bool of the second, the same patients in the same order.
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    exact = b + c <= EXACT_UP_TO
    if b + c == 0:
        return McNemar(b, c, 1.0, exact)
    if exact:
        return McNemar(b, c, float(stats.binomtest(b, b + c, 0.5).pvalue), exact)
    chi2 = max(abs(b - c) - 1, 0) ** 2 / (b + c)
    return McNemar(b, c, float(stats.chi2.sf(chi2, 1)), exact)


def holm(p_values: ArrayLike) -> FloatArray:
    """Adjust p values, so that they hold for all tests of a family together (Holm 1979).

    Args:
        p_values: (k,) in [0, 1]; NaN is no test, is not counted and stays NaN.

    Returns:
        (k,) adjusted: rejecting those below .05 errs once or more in at most 5 % of studies,
        however the tests depend on each other.
    """
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(p.shape, np.nan)
    at = np.flatnonzero(np.isfinite(p))
    order = at[np.argsort(p[at], kind="stable")]
    factors = len(order) - np.arange(len(order))
    out[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return out
