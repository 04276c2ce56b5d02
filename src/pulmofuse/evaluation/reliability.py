"""How far probabilities can be taken at their word: calibration error, Brier's parts, Cox's line.

Of two classes with a positive one, the probability judged is that of the positive class and the
outcome is whether it is true. Otherwise it is the largest probability of the row and the outcome
is whether that class is true (top label, Guo et al. 2017).

Bins are of equal mass unless said otherwise: rows in the order of their probability, cut where the
share of rows before passes 1/10, 2/10 ...; rows of equal probability stay together, in the bin
where their middle lies. Equal widths ([0, .1), [.1, .2) ... [.9, 1]) leave most bins of a small
test set nearly empty; Nixon et al. 2019 and Roelofs et al. 2022 found equal masses less biased.

The calibration error of a small sample is biased upwards: chance alone makes |observed - predicted|
positive. `ece_floor` says how much a perfectly calibrated model would show, `ece_debiased` takes
out part of what chance adds. A bootstrap adds chance once more, so an interval of the ECE lies too
high.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pulmofuse.statistics import FloatArray, divide, tie_groups

IntArray = NDArray[np.integer]

#: Bins of every figure here, as most papers have it (Naeini et al. 2015).
BINS = 10

#: Smallest distance from 0 and 1 of a probability whose logit is taken.
_EDGE = 1e-12

#: Smallest probability whose logarithm is taken in the log loss: scikit-learn's.
_SPACING = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class BrierParts:
    """Murphy's (1973) decomposition; `binned` = reliability - resolution + uncertainty, exactly.

    Attributes:
        brier: the Brier score of the probabilities as they are.
        binned: the same with each probability replaced by the mean of its bin.
        reliability: mean squared distance of observed share and prediction; 0 is perfect.
        resolution: variance of the observed share between bins; more is better.
        uncertainty: share (1 - share) of the outcome, which no forecast changes.
    """

    brier: float
    binned: float
    reliability: float
    resolution: float
    uncertainty: float


@dataclass(frozen=True)
class CoxLine:
    """logit P(outcome) = intercept + slope logit p (Cox 1958); perfect is slope 1, intercept 0.

    Attributes:
        slope: below 1 the probabilities are too extreme. NaN where the outcomes can be separated.
        intercept: with the slope fixed at 1 (calibration in the large): above 0 the probabilities
            are too low on the whole.
    """

    slope: float
    intercept: float


def judged(
    y: IntArray, p: NDArray[np.floating], positive: int | None
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Probability (n,) and outcome (n,) that are compared; see the module's text."""
    probabilities, truth = np.asarray(p, dtype=np.float64), np.asarray(y)
    if probabilities.shape[1] == 2 and positive is not None:
        return probabilities[:, positive], truth == positive
    if not len(truth):
        return np.empty(0), np.empty(0, dtype=bool)
    return probabilities.max(axis=1), truth == probabilities.argmax(axis=1)


def ece(
    y: IntArray,
    p: NDArray[np.floating],
    predicted: IntArray | None = None,  # noqa: ARG001  # every metric has the same arguments
    positive: int | None = None,
    weights: FloatArray | None = None,
    *,
    equal_mass: bool = True,
) -> FloatArray:
    """Expected calibration error: mean over rows of |observed - predicted| of their bin, in [0, 1].

    A metric as those of `evaluation.metrics`: weights (replicates, n) give (replicates,), NaN where
    all weights are 0. Bins of equal mass are cut anew for each weighting.
    """
    return _error(*judged(y, p, positive), weights, equal_mass)


def classwise_ece(
    y: IntArray, p: NDArray[np.floating], weights: FloatArray | None = None
) -> FloatArray:
    """Mean over all classes of the class's own error, one against the rest (Kull et al. 2019)."""
    truth, k = np.asarray(y), p.shape[1]
    errors = [_error(np.asarray(p[:, c], float), truth == c, weights, True) for c in range(k)]
    return np.asarray(np.mean(errors, axis=0))


def ece_floor(y: IntArray, p: NDArray[np.floating], positive: int | None = None) -> float:
    """The ECE that chance would give probabilities that are perfectly calibrated.

    In a bin of n rows the difference of shares then has the variance sum p (1 - p) / n^2 and, taken
    as normal, the mean size sqrt(2 / pi) of its standard deviation.
    """
    probability, outcome = judged(y, p, positive)
    if not len(probability):
        return float("nan")
    n, _, _, spread = _bins_of(probability, outcome)
    return float(np.sqrt(2 / np.pi) * np.sqrt(spread).sum() / n.sum())


def ece_debiased(y: IntArray, p: NDArray[np.floating], positive: int | None = None) -> float:
    """The ECE less what chance adds to it (after Kumar, Liang & Ma 2019), at least 0.

    Each bin's difference d, with standard error s by the observed share, gives 2 |d| less the mean
    size of a normal variable about d with deviation s. It takes out about two fifths of the bias of
    probabilities that are right (their ECE is all bias), and leaves a large error as it is.
    """
    from scipy.stats import norm

    probability, outcome = judged(y, p, positive)
    if not len(probability):
        return float("nan")
    n, hits, total, _ = _bins_of(probability, outcome)
    distance, share = np.abs(hits - total) / n, hits / n
    error = np.sqrt(np.maximum(share * (1 - share) / np.maximum(n - 1, 1), _EDGE))
    ratio = distance / error
    folded = error * 2 * norm.pdf(ratio) + distance * (1 - 2 * norm.cdf(-ratio))
    return float(max((n * (2 * distance - folded)).sum() / n.sum(), 0.0))


def log_loss(y: IntArray, p: NDArray[np.floating], weights: FloatArray | None = None) -> FloatArray:
    """Mean of -log p of the true class, nats (`sklearn.metrics.log_loss`): () or (replicates,).

    Args:
        y: (n,) int.
        p: (n, k), rows sum to 1.
        weights: None, (n,) or (replicates, n).
    """
    loss = row_losses(y, p)
    if weights is None:
        return np.asarray(loss.mean())
    return np.asarray((weights @ loss) / weights.sum(axis=-1))


def row_losses(y: IntArray, p: NDArray[np.floating]) -> FloatArray:
    """-log p of the true class of each row, nats: (n,)."""
    own = np.asarray(p, dtype=np.float64)[np.arange(len(y)), np.asarray(y, dtype=np.intp)]
    return np.asarray(-np.log(np.clip(own, _SPACING, 1.0)))


def brier_parts(y: IntArray, p: NDArray[np.floating], positive: int | None = None) -> BrierParts:
    """Murphy's decomposition over bins of equal mass.

    Of two classes with a positive one it is that of the positive class; otherwise the sum over all
    classes, each against the rest, as the Brier score itself (`evaluation.metrics.brier`).
    """
    probabilities, truth = np.asarray(p, dtype=np.float64), np.asarray(y)
    k = probabilities.shape[1]
    columns = [positive] if k == 2 and positive is not None else range(k)
    parts = np.zeros(5)
    for c in columns:
        outcome = truth == c
        n, hits, total, _ = _bins_of(probabilities[:, c], outcome)
        share, mean, base = hits / n, total / n, outcome.mean()
        rows = n.sum()
        binned = (hits * (1 - mean) ** 2 + (n - hits) * mean**2).sum() / rows
        reliability = (n * (mean - share) ** 2).sum() / rows
        resolution = (n * (share - base) ** 2).sum() / rows
        raw = np.square(probabilities[:, c] - outcome).mean()
        parts += [raw, binned, reliability, resolution, base * (1 - base)]
    return BrierParts(*map(float, parts))


def cox_line(y: IntArray, p: NDArray[np.floating], positive: int | None = None) -> CoxLine:
    """Calibration slope, and intercept in the large; see `CoxLine`."""
    probability, outcome = judged(y, p, positive)
    if not len(outcome) or outcome.all() or not outcome.any():
        return CoxLine(float("nan"), float("nan"))
    clipped = np.clip(probability, _EDGE, 1 - _EDGE)
    logit = np.log(clipped) - np.log1p(-clipped)
    one = np.ones((len(logit), 1))
    line = _logistic(np.column_stack([one, logit]), outcome, np.zeros(len(logit)))
    large = _logistic(one, outcome, logit)
    return CoxLine(float(line[1]), float(large[0]))


def reliability_curve(
    positive: ArrayLike, p: ArrayLike, confidence: float = 0.95, bins: int = BINS
) -> pd.DataFrame:
    """The points of a reliability diagram, over bins of equal mass.

    Args:
        positive: (n,) bool, the outcome.
        p: (n,) in [0, 1], its probability.
        confidence: of the intervals.
        bins: at most this many.

    Returns:
        One row per bin that holds rows: bin (from 0), predicted (mean probability), observed
        (share of the outcome), low, high (Wilson's interval of it), n.
    """
    probability, outcome = np.asarray(p, dtype=np.float64), np.asarray(positive, dtype=bool)
    if not len(probability):
        return pd.DataFrame(columns=["bin", "predicted", "observed", "low", "high", "n"])
    n, hits, total, _ = _bins_of(probability, outcome, bins)
    low, high = wilson_interval(hits, n, confidence)
    return pd.DataFrame(
        {
            "bin": np.arange(len(n)),
            "predicted": total / n,
            "observed": hits / n,
            "low": low,
            "high": high,
            "n": n.astype(int),
        }
    )


def wilson_interval(
    hits: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Score interval of a share (Wilson 1927), which holds the share itself.

    Args:
        hits: successes.
        n: trials, each > 0.
        confidence: in (0, 1).
    """
    from scipy.stats import norm

    size = np.asarray(n, dtype=np.float64)
    share = np.asarray(hits, dtype=np.float64) / size
    z = float(norm.ppf((1 + confidence) / 2))
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    # Exactly at 0 and 1 rounding may miss the share by 1e-17.
    low, high = np.minimum(centre - half, share), np.maximum(centre + half, share)
    return np.maximum(low, 0.0), np.minimum(high, 1.0)


def _error(
    probability: FloatArray,
    outcome: NDArray[np.bool_],
    weights: FloatArray | None,
    equal_mass: bool,
) -> FloatArray:
    """The ECE of one column: () or (replicates,)."""
    weight = np.ones(len(outcome)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(outcome):
        return np.full(weight.shape[:-1], np.nan)
    rows = np.atleast_2d(weight)
    order, starts = tie_groups(probability)
    gap = (outcome - probability)[order]
    mass = np.add.reduceat(rows[:, order], starts, axis=1)
    excess = np.add.reduceat(rows[:, order] * gap, starts, axis=1)
    total = mass.sum(axis=1)
    if equal_mass:
        place = _places(mass, BINS)
    else:
        width = np.minimum((probability[order][starts] * BINS).astype(int), BINS - 1)
        place = np.broadcast_to(width, mass.shape)
    cells = (place + BINS * np.arange(len(rows))[:, None]).ravel()
    sums = np.bincount(cells, excess.ravel(), minlength=BINS * len(rows)).reshape(-1, BINS)
    values = divide(np.abs(sums).sum(axis=1), total, empty=np.nan)
    return values.reshape(weight.shape[:-1])


def _places(mass: FloatArray, bins: int) -> NDArray[np.intp]:
    """Bin of equal mass of each group of ties, (replicates, groups), by where its middle lies."""
    middle = np.cumsum(mass, axis=-1) - mass / 2
    total = np.maximum(mass.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
    return np.asarray(np.minimum(middle * bins // total, bins - 1), dtype=np.intp)


def _bins_of(
    probability: FloatArray, outcome: NDArray[np.bool_], bins: int = BINS
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Rows, outcomes, sum of p and sum of p (1 - p) of each bin of equal mass that holds rows."""
    order, starts = tie_groups(probability)
    sizes = np.diff(np.append(starts, len(order)))
    place = np.repeat(_places(sizes[None].astype(np.float64), bins)[0], sizes)
    p, hit = probability[order], outcome[order]
    columns = (np.ones(len(p)), hit.astype(np.float64), p, p * (1 - p))
    sums = [np.bincount(place, column, minlength=bins) for column in columns]
    filled = sums[0] > 0
    n, hits, total, spread = (np.asarray(s[filled], dtype=np.float64) for s in sums)
    return n, hits, total, spread


def _logistic(x: FloatArray, outcome: NDArray[np.bool_], offset: FloatArray) -> FloatArray:
    """Maximum likelihood coefficients of a logistic regression; NaN if there are none."""
    from scipy.optimize import minimize

    sign = 2.0 * outcome - 1

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        margin = sign * (x @ theta + offset)
        pull = sign * np.exp(-np.logaddexp(0, margin))
        return float(np.logaddexp(0, -margin).mean()), -x.T @ pull / len(sign)

    answer = minimize(loss, np.zeros(x.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9})
    # Rows that a threshold tells apart drive the slope to infinity and the loss to 0.
    separated = answer.fun < 1e-6
    return np.full(x.shape[1], np.nan) if separated else np.asarray(answer.x)
