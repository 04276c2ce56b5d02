"""DeLong's variance of correlated AUCs, by midranks.

DeLong, DeLong & Clarke-Pearson (1988), doi:10.2307/2531595, write an AUC as the mean of structural
components: what each positive patient gains over the negatives, and what each negative loses. Their
covariances give that of the AUCs. Sun & Xu (2014), doi:10.1109/LSP.2014.2337313, get the
components from ranks, so that n patients cost n log n and not n^2. Ties count half.

This holds for patients who are independent of each other and stand once each. It is not for
simulated patients, nor for several records of one patient: see `evaluation.resampling`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pulmofuse.evaluation.intervals import difference_interval, logit_interval, two_sided_p
from pulmofuse.statistics import FloatArray


@dataclass(frozen=True, eq=False)
class Delong:
    """AUCs of k models on the same patients, `auc` (k,), and their `covariance` (k, k).

    NaN where a class has no patient; the covariance is NaN where one has a single patient.
    """

    auc: FloatArray
    covariance: FloatArray

    def interval(self, model: int, confidence: float = 0.95) -> tuple[float, float]:
        """Interval of one AUC, symmetrical on the logit scale and so inside [0, 1]."""
        se = np.sqrt(self.covariance[model, model])
        return logit_interval(float(self.auc[model]), float(se), confidence)

    def difference(
        self, first: int, second: int, confidence: float = 0.95
    ) -> tuple[float, float, float, float]:
        """AUC of `first` less that of `second`: (difference, low, high, two-sided p)."""
        value = float(self.auc[first] - self.auc[second])
        c = self.covariance
        variance = float(c[first, first] + c[second, second] - 2 * c[first, second])
        # Two models that rank alike differ by rounding alone; a variance is no less than zero.
        se = float(np.sqrt(np.maximum(variance, 0.0)))
        return value, *difference_interval(value, se, confidence), two_sided_p(value, se)

    def test(self, contrast: ArrayLike) -> tuple[float, int, float]:
        """Are contrasts of the AUCs zero?

        Args:
            contrast: (c, k); each row sums to zero.

        Returns:
            (chi-square, degrees of freedom, p). Contrasts that say the same twice count once.
        """
        rows = np.atleast_2d(np.asarray(contrast, dtype=np.float64))
        found = rows @ self.auc
        spread = rows @ self.covariance @ rows.T
        degrees = int(np.linalg.matrix_rank(spread, hermitian=True))
        chi2 = float(found @ np.linalg.pinv(spread, hermitian=True) @ found)
        return chi2, degrees, float(stats.chi2.sf(chi2, degrees)) if degrees else float("nan")


def delong(is_positive: ArrayLike, scores: ArrayLike) -> Delong:
    """AUCs and covariance of models on the same patients.

    Args:
        is_positive: (n,) bool.
        scores: (n,) or (k, n) float; higher means more positive.
    """
    positive = np.asarray(is_positive, dtype=bool)
    table = np.atleast_2d(np.asarray(scores))
    m, n = int(positive.sum()), int((~positive).sum())
    k = len(table)
    if not m or not n:
        return Delong(np.full(k, np.nan), np.full((k, k), np.nan))
    parts = [components(positive, score) for score in table]
    gained, lost = (np.array(part) for part in zip(*parts, strict=True))
    covariance = _covariance(gained) / m + _covariance(lost) / n
    return Delong(gained.mean(axis=1), covariance)


def components(
    is_positive: NDArray[np.bool_], score: NDArray[np.generic]
) -> tuple[FloatArray, FloatArray]:
    """DeLong's structural components of one AUC; the mean of either is the AUC.

    Args:
        is_positive: (n,) bool, one patient or more of either class.
        score: (n,); higher means more positive.

    Returns:
        Of each positive the share of negatives that it outranks, and of each negative the share of
        positives that outrank it, ties counted half.
    """
    up, down = score[is_positive], score[~is_positive]
    ranks = _midranks(score)
    gained = (ranks[is_positive] - _midranks(up)) / len(down)
    lost = 1 - (ranks[~is_positive] - _midranks(down)) / len(up)
    return gained, lost


def _midranks(values: NDArray[np.generic]) -> FloatArray:
    """Ranks from 1; equal values share the mean of theirs."""
    ranks: FloatArray = stats.rankdata(values, method="average").astype(np.float64)
    return ranks


def _covariance(components: FloatArray) -> FloatArray:
    """Covariance (k, k) of (k, n) with n - 1 below; NaN for one column."""
    k, n = components.shape
    if n < 2:
        return np.full((k, k), np.nan)
    centred = components - components.mean(axis=1, keepdims=True)
    product: FloatArray = centred @ centred.T / (n - 1)
    return product
