"""Intervals: from bootstrap replicates, and from a figure and its standard error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.bootstrap import cluster_weights, percentile_interval
from pulmofuse.statistics import FloatArray

#: Weights handed over at once; 4 million float64 are 32 MB per intermediate array.
_BLOCK = 4_000_000


def patient_interval(
    statistic: Callable[[FloatArray], FloatArray],
    patients: ArrayLike,
    config: EvaluationConfig,
    seed: int,
) -> tuple[float, float]:
    """Percentile interval of a statistic, patients drawn with replacement.

    Args:
        statistic: weights (replicates, n) -> (replicates,); NaN where undefined.
        patients: (n,) patient of each row.
        config: number of replicates and confidence.
        seed: of the draws; equal to `evaluate`'s for the same patients, so intervals compare.

    Returns:
        (low, high); NaN if no replicate is defined.
    """
    names = np.asarray(patients)
    weights = cluster_weights((names,), config.bootstrap, seed)
    step = max(1, _BLOCK // max(1, len(names)))
    blocks = [statistic(weights[start : start + step]) for start in range(0, len(weights), step)]
    return percentile_interval(np.concatenate(blocks), config.confidence)


def logit_interval(
    value: float,
    se: float,
    confidence: float = 0.95,
    upper: float = 1.0,
    degrees: float = np.inf,
) -> tuple[float, float]:
    """Interval of a figure in [0, upper], symmetrical on the logit scale.

    A share or an AUC near its end cannot move as far outwards as inwards. The logit takes that
    into account, and the interval never leaves the range (Agresti 2013, section 3.1; for AUC
    Pepe 2003, section 5.2). How often it covers stands in docs/decisions/0014.

    Args:
        value: the figure.
        se: its standard error, on the figure's own scale.
        confidence: in (0, 1).
        upper: largest possible value.
        degrees: of freedom of the standard error; infinitely many take the normal quantile.

    Returns:
        (low, high); (value, value) at an end of the range, where the spread is zero; NaN where
        undefined.
    """
    if not np.isfinite(value) or not np.isfinite(se):
        return float("nan"), float("nan")
    share = value / upper
    if not 0 < share < 1:
        return value, value
    step = quantile(confidence, degrees) * se / upper / (share * (1 - share))
    odds = np.log(share / (1 - share)) + np.array([-step, step])
    # Not 1 / (1 + exp(-x)), which overflows for the widest intervals.
    low, high = upper * 0.5 * (1 + np.tanh(odds / 2))
    return float(low), float(high)


def difference_interval(
    value: float, se: float, confidence: float = 0.95, degrees: float = np.inf
) -> tuple[float, float]:
    """Interval of a difference of two figures in [0, 1], cut at -1 and 1; NaN where undefined."""
    if not np.isfinite(value) or not np.isfinite(se):
        return float("nan"), float("nan")
    step = quantile(confidence, degrees) * se
    return max(value - step, -1.0), min(value + step, 1.0)


def two_sided_p(value: float, se: float, degrees: float = np.inf) -> float:
    """P of "the difference is zero", the one that `difference_interval` belongs to.

    1 where nothing differs; NaN where undefined, or where a difference has no spread at all.
    """
    if not np.isfinite(value) or not np.isfinite(se):
        return float("nan")
    if se == 0:
        return 1.0 if value == 0 else float("nan")
    return float(2 * stats.t.sf(abs(value) / se, degrees))


def quantile(confidence: float, degrees: float = np.inf) -> float:
    """How many standard errors an interval of this confidence reaches to each side."""
    return float(stats.t.isf((1 - confidence) / 2, degrees))
