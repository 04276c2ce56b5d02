"""The operating point of two classes, chosen on validation rows.

A row is called positive if its score is at least the threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

#: Threshold of a set of scores that cannot say: the more probable of two classes.
_EVEN = 0.5

#: Resamples behind `bagged_youden_threshold`: 40 and 100 gave the same loss within .001.
_RESAMPLES = 100


def youden_threshold(y: ArrayLike, p_positive: ArrayLike) -> float:
    """Threshold that maximises sensitivity + specificity - 1 (Youden 1950).

    A row is called positive if its score is at least the threshold. Thresholds lie half-way
    between neighbouring scores, or at 0 (every row positive) where no other does better than
    chance; of equally good ones the nearest to 0.5 is taken.

    Args:
        y: (n,) bool or 0/1, 1 = positive.
        p_positive: (n,) in [0, 1].

    Returns:
        The threshold in [0, 1]; 0.5 if only one class or only one score is there.
    """
    positive = np.asarray(y).astype(bool)
    score = np.asarray(p_positive, dtype=np.float64)
    levels = np.unique(score)
    if len(levels) < 2 or positive.all() or not positive.any():
        return _EVEN
    middle = levels[:-1] + np.diff(levels) / 2
    # Between two neighbouring floats there is no middle: take the upper one.
    thresholds = np.concatenate([[0.0], np.where(middle > levels[:-1], middle, levels[1:])])
    ranked_up, ranked_down = np.sort(score[positive]), np.sort(score[~positive])
    # Counts keep equal values of the index exactly equal, which shares would not.
    caught = len(ranked_up) - np.searchsorted(ranked_up, thresholds)
    rejected = np.searchsorted(ranked_down, thresholds)
    index = caught * len(ranked_down) + rejected * len(ranked_up)
    best = thresholds[index == index.max()]
    return float(best[np.argmin(np.abs(best - _EVEN))])


def bagged_youden_threshold(y: ArrayLike, p_positive: ArrayLike, rng: np.random.Generator) -> float:
    """Mean of `youden_threshold` over resamples of the rows (bagging, Breiman 1996).

    The index is flat about its best, so on a hundred rows its greatest value lies where chance put
    it. The mean over resamples loses about half as much true sensitivity + specificity
    (docs/calibration.md). Each class keeps its number of rows.

    Args:
        y: (n,) bool or 0/1, 1 = positive.
        p_positive: (n,) in [0, 1].
        rng: source of the resamples.

    Returns:
        The threshold in [0, 1]; 0.5 if only one class or only one score is there.
    """
    positive = np.asarray(y).astype(bool)
    score = np.asarray(p_positive, dtype=np.float64)
    up, down = np.flatnonzero(positive), np.flatnonzero(~positive)
    if not len(up) or not len(down) or score.min() == score.max():
        return _EVEN
    found = []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([rng.choice(up, len(up)), rng.choice(down, len(down))])
        found.append(youden_threshold(positive[rows], score[rows]))
    return float(np.mean(found))


def sensitivity_threshold(
    y: ArrayLike, p_positive: ArrayLike, sensitivity: float, confidence: float | None = None
) -> float:
    """The highest threshold that promises a sensitivity to patients like the validation ones.

    With n positive rows and the threshold at their k-th lowest score, the sensitivity on new
    patients follows Beta(n + 1 - k, k), whatever the distribution of the scores (Wilks 1941,
    tolerance limits). The largest k is taken with which

    - without `confidence`, its mean (n + 1 - k) / (n + 1) is at least `sensitivity`;
    - with it, it is at least `sensitivity` with this probability.

    A share counted on validation alone promises neither. Where n is too small for any k (mean:
    n < s / (1 - s), 19 for .95; 95 % confidence: 59), only calling everybody positive keeps the
    promise, and the threshold is 0.

    Args:
        y: (n,) bool or 0/1, 1 = positive.
        p_positive: (n,) in [0, 1].
        sensitivity: wanted, in (0, 1).
        confidence: in (0, 1), or None.

    Returns:
        The threshold in [0, 1], half-way to the next score below it.
    """
    positive = np.asarray(y).astype(bool)
    score = np.asarray(p_positive, dtype=np.float64)
    k = _spared(int(positive.sum()), sensitivity, confidence)
    if k == 0:
        return 0.0
    at = np.sort(score[positive])[k - 1]
    below = score[score < at]
    # Lower than need be: calls the same rows, and more of the new ones.
    return float((at + below.max()) / 2) if len(below) else 0.0


def specificity_threshold(
    y: ArrayLike, p_positive: ArrayLike, specificity: float, confidence: float | None = None
) -> float:
    """The lowest threshold that promises a specificity; see `sensitivity_threshold`.

    Where there are too few negative rows nobody is called positive, and the threshold is just
    above 1.
    """
    negative = ~np.asarray(y).astype(bool)
    score = np.asarray(p_positive, dtype=np.float64)
    k = _spared(int(negative.sum()), specificity, confidence)
    nobody = float(np.nextafter(1.0, 2.0))
    if k == 0:
        return nobody
    at = np.sort(score[negative])[-k]
    above = score[score > at]
    return float(np.nextafter((at + above.min()) / 2, 2.0)) if len(above) else nobody


def _spared(n: int, share: float, confidence: float | None) -> int:
    """How many extreme rows of n the threshold may reach, that one included; 0 for none."""
    if confidence is None:
        # The small number keeps (20) (1 - .95) from rounding to 0.999...
        return int(np.floor((n + 1) * (1 - share) + 1e-9))
    from scipy.stats import beta

    ranks = np.arange(1, n + 1)
    return int((beta.sf(share, n + 1 - ranks, ranks) >= confidence).sum())
