"""Metrics under scikit-learn's names and rules, for one weighting or thousands at a time.

Every metric takes the same arguments, so that a table of metrics is a loop over `METRICS`:

    y          (n,) int, the true class
    p          (n, k) float, probabilities of the k classes
    predicted  (n,) int, the class that was called; None will do where only p counts
    positive   index of the positive class; counts only if k = 2
    weights    None, (n,) or (replicates, n), each >= 0

and returns an array of shape () or (replicates,). With two classes and a positive one, a metric is
that of the positive class. Otherwise it is the macro average over all k classes, one against the
rest (scikit-learn's `average="macro", labels=range(k)`, for AUC `multi_class="ovr"`). Precision,
recall, specificity and F1 are 0 where nothing is there to divide by (`zero_division=0`). AUC and
average precision are NaN where a class has no row or is all there is; for average precision this
differs from scikit-learn, which warns and answers 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pulmofuse.evaluation.reliability import ece
from pulmofuse.statistics import FloatArray, divide, tie_groups, weighted_auc

IntArray = NDArray[np.integer]
Metric = Callable[
    [IntArray, NDArray[np.floating], IntArray, int | None, FloatArray | None], FloatArray
]


def accuracy(
    y: IntArray,
    p: NDArray[np.floating],  # noqa: ARG001  # every metric has the same arguments
    predicted: IntArray,
    positive: int | None = None,  # noqa: ARG001
    weights: FloatArray | None = None,
) -> FloatArray:
    """Share of rows called right (`accuracy_score`), in [0, 1]."""
    return _mean(np.asarray(y) == np.asarray(predicted), weights)


def precision(
    y: IntArray,
    p: NDArray[np.floating],
    predicted: IntArray,
    positive: int | None = None,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Share of the rows called positive that are (`precision_score`), in [0, 1]."""

    def one(c: int) -> FloatArray:
        hits = _total((y == c) & (predicted == c), weights)
        return divide(hits, _total(predicted == c, weights), empty=0.0)

    return _macro(one, _averaged(p, positive))


def recall(
    y: IntArray,
    p: NDArray[np.floating],
    predicted: IntArray,
    positive: int | None = None,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Sensitivity: share of the positive rows that are called so (`recall_score`), in [0, 1]."""

    def one(c: int) -> FloatArray:
        hits = _total((y == c) & (predicted == c), weights)
        return divide(hits, _total(y == c, weights), empty=0.0)

    return _macro(one, _averaged(p, positive))


def specificity(
    y: IntArray,
    p: NDArray[np.floating],
    predicted: IntArray,
    positive: int | None = None,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Share of the negative rows that are called so (recall of "the rest"), in [0, 1]."""

    def one(c: int) -> FloatArray:
        rejected = _total((y != c) & (predicted != c), weights)
        return divide(rejected, _total(y != c, weights), empty=0.0)

    return _macro(one, _averaged(p, positive))


def f1(
    y: IntArray,
    p: NDArray[np.floating],
    predicted: IntArray,
    positive: int | None = None,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Harmonic mean of precision and recall (`f1_score`), in [0, 1]."""

    def one(c: int) -> FloatArray:
        hits = _total((y == c) & (predicted == c), weights)
        called, true = _total(predicted == c, weights), _total(y == c, weights)
        return divide(2 * hits, called + true, empty=0.0)

    return _macro(one, _averaged(p, positive))


def roc_auc(
    y: IntArray,
    p: NDArray[np.floating],
    predicted: IntArray | None = None,  # noqa: ARG001
    positive: int | None = None,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Area under the ROC curve (`roc_auc_score`), ties counted half; in [0, 1] or NaN."""
    return _macro(lambda c: weighted_auc(y == c, p[:, c], weights), _averaged(p, positive))


def average_precision(
    y: IntArray,
    p: NDArray[np.floating],
    predicted: IntArray | None = None,  # noqa: ARG001
    positive: int | None = None,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Sum of precision times step of recall (`average_precision_score`), in [0, 1] or NaN."""
    return _macro(
        lambda c: _average_precision(np.asarray(y) == c, p[:, c], weights), _averaged(p, positive)
    )


def brier(
    y: IntArray,
    p: NDArray[np.floating],
    predicted: IntArray | None = None,  # noqa: ARG001
    positive: int | None = None,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Brier score, as `brier_score_loss`.

    Two classes with a positive one: mean of (p_positive - y)^2, in [0, 1]. Otherwise Brier's own
    definition (1950): mean over rows of the sum over classes of (p_c - y_c)^2, in [0, 2].
    """
    columns = _averaged(p, positive)
    truth = np.asarray(y)[:, None] == np.asarray(columns)
    error = np.square(np.asarray(p, dtype=np.float64)[:, columns] - truth).sum(axis=1)
    return _mean(error, weights)


#: Metrics of `metrics.json` in their order.
METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
    "f1": f1,
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "brier": brier,
    "ece": ece,
}


def confusion(y: IntArray, predicted: IntArray, k: int) -> NDArray[np.int64]:
    """Confusion matrix (k, k) of counts: row = true class, column = called class."""
    cell = np.asarray(y) * k + np.asarray(predicted)
    return np.bincount(cell, minlength=k * k).reshape(k, k).astype(np.int64)


def _averaged(p: NDArray[np.floating], positive: int | None) -> list[int]:
    """Classes whose one-against-the-rest metrics are averaged."""
    k = p.shape[1]
    return [positive] if k == 2 and positive is not None else list(range(k))


def _macro(one: Callable[[int], FloatArray], classes: Sequence[int]) -> FloatArray:
    """Mean of a one-against-the-rest metric over `classes`; NaN if one of them is undefined."""
    values: FloatArray = np.mean([one(c) for c in classes], axis=0)
    return values


def _total(values: NDArray[np.generic], weights: FloatArray | None) -> FloatArray:
    """Weighted sum of (n,) values: () or (replicates,)."""
    column = np.asarray(values, dtype=np.float64)
    return np.asarray(column.sum() if weights is None else weights @ column)


def _mean(values: NDArray[np.generic], weights: FloatArray | None) -> FloatArray:
    """Weighted mean of (n,) values; NaN if all weights are zero."""
    return divide(_total(values, weights), _total(np.ones(len(values)), weights), empty=np.nan)


def _average_precision(
    is_positive: NDArray[np.bool_], score: NDArray[np.floating], weights: FloatArray | None
) -> FloatArray:
    """Average precision of one class against the rest, over thresholds from high to low."""
    weight = np.ones(len(is_positive)) if weights is None else np.asarray(weights, dtype=float)
    if len(is_positive) == 0:
        return np.full(weight.shape[:-1], np.nan)
    order, starts = tie_groups(-np.asarray(score))
    weight = weight[..., order]
    step = np.add.reduceat(weight * is_positive[order], starts, axis=-1)
    called = np.cumsum(np.add.reduceat(weight, starts, axis=-1), axis=-1)
    hits = np.cumsum(step, axis=-1)
    positives, rows = hits[..., -1], called[..., -1]
    value = divide((step * divide(hits, called, empty=0.0)).sum(axis=-1), positives, empty=np.nan)
    return np.where(positives == rows, np.nan, value)
