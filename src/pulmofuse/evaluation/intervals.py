"""Intervals: from bootstrap replicates, and from a figure and its standard error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.resampling import resample, transposed
from pulmofuse.statistics import FloatArray


def patient_interval(
    statistic: Callable[[FloatArray], FloatArray],
    patients: ArrayLike,
    config: EvaluationConfig,
    seed: int,
) -> tuple[float, float]:
    """Interval of a statistic in [0, 1] of real patients.

    Args:
        statistic: weights (replicates, n) -> (replicates,); NaN where undefined.
        patients: (n,) patient of each row.
        config: number of replicates and confidence.
        seed: of the draws; equal to `evaluate`'s for the same patients, so intervals compare.

    Returns:
        (low, high); NaN where undefined.
    """
    names = np.asarray(patients)
    drawn = resample((names,), None, config.bootstrap, seed).of(transposed(statistic))
    value = float(statistic(np.ones((1, len(names))))[0])
    error = float(drawn.standard_error())
    return logit_interval(value, error, config.confidence, degrees=drawn.degrees)


def metric_interval(
    metric: str,
    value: float,
    se: float,
    confidence: float = 0.95,
    degrees: float = np.inf,
    *,
    several: bool = False,
) -> tuple[float, float]:
    """Interval of a metric by its name: on the logit scale, of the log loss on the log scale.

    Args:
        metric: of `METRICS`, or "log_loss".
        value: the figure.
        se: its standard error.
        confidence: in (0, 1).
        degrees: of freedom of the standard error.
        several: more than two classes, or none of two is the positive one: Brier's score then
            reaches 2.
    """
    if metric == "log_loss":
        return log_interval(value, se, confidence, degrees)
    upper = 2.0 if metric == "brier" and several else 1.0
    return logit_interval(value, se, confidence, upper, degrees)


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


def log_interval(
    value: float, se: float, confidence: float = 0.95, degrees: float = np.inf
) -> tuple[float, float]:
    """Interval of a figure above 0 without an upper end, symmetrical on the log scale.

    (value, value) at 0, where the spread is zero; NaN where undefined.
    """
    if not np.isfinite(value) or not np.isfinite(se):
        return float("nan"), float("nan")
    if value <= 0:
        return value, value
    factor = float(np.exp(quantile(confidence, degrees) * se / value))
    return value / factor, value * factor


def symmetrical_interval(
    value: float, se: float, confidence: float = 0.95, degrees: float = np.inf
) -> tuple[float, float]:
    """Quantile times se to each side, for a figure of either sign; NaN where undefined."""
    if not np.isfinite(value) or not np.isfinite(se):
        return float("nan"), float("nan")
    step = quantile(confidence, degrees) * se
    return value - step, value + step


def difference_interval(
    value: float, se: float, confidence: float = 0.95, degrees: float = np.inf
) -> tuple[float, float]:
    """Interval of a difference of two figures in [0, 1], cut at -1 and 1; NaN where undefined."""
    low, high = symmetrical_interval(value, se, confidence, degrees)
    # NaN passes both cuts, which the built-in min and max do not promise.
    return float(np.maximum(low, -1.0)), float(np.minimum(high, 1.0))


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
