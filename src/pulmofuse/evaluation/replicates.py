"""All metrics of a table under thousands of weightings at once.

`evaluation.metrics` says what each metric is, for any weights, in float64. Here the same figures
come from one pass over the rows in the order of their scores, for weights (rows, replicates):
chunks of rows are multiplied by the matrix of who outranks whom, so that nearly all arithmetic is
matrix products, which is an order of magnitude faster. Sums of counts are exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmofuse.evaluation.metrics import IntArray
from pulmofuse.evaluation.reliability import BINS, judged, row_losses
from pulmofuse.statistics import FloatArray, divide, tie_groups

#: Rows of a chunk: a few times what a matrix product needs to be fast.
_CHUNK = 64

#: Replicates handled at once: a chunk's arrays then fit the processor's cache.
_REPLICATES = 512


def metric_replicates(
    y: IntArray,
    p: NDArray[np.floating],
    predicted: IntArray,
    positive: int | None,
    weights: NDArray[np.floating],
) -> FloatArray:
    """Every metric of `METRICS`, in their order.

    Args:
        y: (n,) int, the true class.
        p: (n, k) float, probabilities of the classes.
        predicted: (n,) int, the class that was called.
        positive: index of the positive class; counts only if k = 2.
        weights: (n, replicates), each >= 0.

    Returns:
        (metrics, replicates); NaN where a metric says so.
    """
    y, predicted, p = np.asarray(y), np.asarray(predicted), np.asarray(p, dtype=np.float64)
    k = p.shape[1]
    classes = [positive] if k == 2 and positive is not None else list(range(k))
    truth = y[:, None] == np.asarray(classes)
    called = predicted[:, None] == np.asarray(classes)
    error = np.square(p[:, classes] - truth).sum(axis=1)
    sums = [
        np.ones(len(y)), y == predicted, error, *truth.T, *called.T, *(truth & called).T
    ]  # fmt: skip
    total = (np.array(sums, dtype=weights.dtype) @ weights).astype(np.float64)
    rows, right, loss = total[:3]
    of_class, of_call, hits = np.split(total[3:], 3)
    ranking = [rank_replicates(truth[:, i], p[:, c], weights) for i, c in enumerate(classes)]
    by_class = {
        "precision": divide(hits, of_call, empty=0.0),
        "recall": divide(hits, of_class, empty=0.0),
        "specificity": divide(rows - of_class - of_call + hits, rows - of_class, empty=0.0),
        "f1": divide(2 * hits, of_class + of_call, empty=0.0),
        "roc_auc": np.array([auc for auc, _ in ranking]),
        "average_precision": np.array([ap for _, ap in ranking]),
    }
    return np.array(
        [
            divide(right, rows, empty=np.nan),
            *(values.mean(axis=0) for values in by_class.values()),
            divide(loss, rows, empty=np.nan),
            ece_replicates(*judged(y, p, positive), weights),
        ]
    )


def auc_replicates(
    y: IntArray, p: NDArray[np.floating], positive: int | None, weights: NDArray[np.floating]
) -> FloatArray:
    """`metrics.roc_auc` under weights (n, replicates): (replicates,)."""
    k = p.shape[1]
    classes = [positive] if k == 2 and positive is not None else list(range(k))
    truth = np.asarray(y)
    found = [rank_replicates(truth == c, p[:, c], weights)[0] for c in classes]
    return np.asarray(np.mean(found, axis=0))


def log_loss_replicates(
    y: IntArray, p: NDArray[np.floating], weights: NDArray[np.floating]
) -> FloatArray:
    """`reliability.log_loss` under weights (n, replicates): (replicates,)."""
    total = row_losses(y, p).astype(weights.dtype) @ weights
    return divide(total, weights.sum(axis=0), empty=np.nan)


def rank_replicates(
    is_positive: ArrayLike, score: ArrayLike, weights: NDArray[np.floating]
) -> tuple[FloatArray, FloatArray]:
    """AUC and average precision of one class against the rest.

    Args:
        is_positive: (n,) bool.
        score: (n,) float; higher means more positive.
        weights: (n, replicates), each >= 0.

    Returns:
        AUC and average precision, each (replicates,) and NaN where a class has no weight.
    """
    order, starts = tie_groups(-np.asarray(score))
    up = np.asarray(is_positive, dtype=bool)[order]
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(order)]))
    chunks = [
        _Chunk(up[a:b], group[a:b], order[a:b], weights.dtype) for a, b in _cuts(starts, len(order))
    ]
    out = np.empty((2, weights.shape[1]))
    for start in range(0, weights.shape[1], _REPLICATES):
        block = weights[:, start : start + _REPLICATES]
        out[:, start : start + _REPLICATES] = _pass(chunks, block)
    return out[0], out[1]


def ece_replicates(
    probability: FloatArray, outcome: NDArray[np.bool_], weights: NDArray[np.floating]
) -> FloatArray:
    """Expected calibration error over bins of equal mass, cut anew for each weighting.

    Between two cuts the error is a difference of running sums, so that of all rows only the chunks
    that hold a cut are looked into.

    Args:
        probability: (n,) in [0, 1].
        outcome: (n,) bool.
        weights: (n, replicates), each >= 0.

    Returns:
        (replicates,), as `evaluation.reliability.ece`; NaN where all weights are 0.
    """
    if not len(probability):
        return np.full(weights.shape[1], np.nan)
    order, starts = tie_groups(probability)
    gap = (outcome - probability)[order]
    chunks = list(_cuts(starts, len(order)))
    mass = np.array([weights[order[a:b]].sum(axis=0) for a, b in chunks], dtype=np.float64)
    excess = np.array(
        [gap[a:b].astype(weights.dtype) @ weights[order[a:b]] for a, b in chunks], dtype=np.float64
    )
    end, whole = np.cumsum(mass, axis=0), np.cumsum(excess, axis=0)
    total = end[-1]
    # (cuts, replicates): running sums of the excess up to each cut between two bins.
    running = np.zeros((BINS + 1, weights.shape[1]))
    running[BINS] = whole[-1]
    for (a, b), before, after, start in zip(chunks, end - mass, end, whole - excess, strict=True):
        bins = np.arange(1, BINS)[:, None]
        cut, replicate = np.nonzero((before * BINS < bins * total) & (bins * total <= after * BINS))
        if not len(cut):
            continue
        own = weights[order[a:b]][:, replicate].astype(np.float64)
        first = starts[np.searchsorted(starts, a) : np.searchsorted(starts, b)] - a
        of_group = np.add.reduceat(own, first, axis=0)
        middle = before[replicate] + np.cumsum(of_group, axis=0) - of_group / 2
        below = middle * BINS < (cut + 1) * total[replicate]
        inside = np.add.reduceat(own * gap[a:b, None], first, axis=0)
        running[cut + 1, replicate] = start[replicate] + (inside * below).sum(axis=0)
    return divide(np.abs(np.diff(running, axis=0)).sum(axis=0), total, empty=np.nan)


class _Chunk:
    """Rows that follow each other by score, and what of their ranks holds for any weights."""

    def __init__(
        self,
        up: NDArray[np.bool_],
        group: NDArray[np.intp],
        rows: NDArray[np.intp],
        dtype: np.dtype[np.floating],
    ) -> None:
        self.rows = rows
        self.one_group = len(rows) > 0 and group[0] == group[-1]
        self.sums = np.array([up, ~up], dtype=dtype)
        self.at = np.flatnonzero(up)
        if self.one_group:
            return
        of_positive = group[self.at][:, None]
        # Scores fall along the rows: what a positive row outranks stands after it.
        self.outranked = (((of_positive < group) + 0.5 * (of_positive == group)) * ~up).astype(
            dtype
        )
        self.reached = (of_positive >= group).astype(dtype)
        self.reached_up = self.reached * up.astype(dtype)


def _cuts(starts: NDArray[np.intp], n: int) -> Iterator[tuple[int, int]]:
    """Chunks that begin and end with a group of equal scores; a long group is one by itself."""
    edges = np.r_[starts, n]
    begin = 0
    while begin < n:
        fits = edges[np.searchsorted(edges, begin + _CHUNK, side="right") - 1]
        end = int(fits) if fits > begin else int(edges[np.searchsorted(edges, begin, "right")])
        yield begin, end
        begin = end


def _pass(chunks: list[_Chunk], weights: NDArray[np.floating]) -> FloatArray:
    """AUC and average precision (2, replicates) of one block of replicates."""
    replicates = weights.shape[1]
    products = [chunk.sums @ weights[chunk.rows] for chunk in chunks]
    sums = np.array(products, dtype=np.float64).reshape(-1, 2, replicates)
    # (chunks, 2, replicates): positives and negatives up to each chunk.
    above = np.cumsum(sums, axis=0) - sums
    total = sums.sum(axis=0)
    won, precision = np.zeros(replicates), np.zeros(replicates)
    for chunk, (ups, downs), (ups_above, downs_above) in zip(chunks, sums, above, strict=True):
        if not len(chunk.at):
            continue
        if chunk.one_group:
            won += ups * (downs / 2 + total[1] - downs_above - downs)
            hits = ups_above + ups
            precision += ups * divide(hits, hits + downs_above + downs, empty=0.0)
            continue
        own = weights[chunk.rows]
        weight = own[chunk.at]
        won += np.einsum("ij,ij->j", weight, chunk.outranked @ own)
        won += ups * (total[1] - downs_above - downs)
        hits = chunk.reached_up @ own + ups_above.astype(own.dtype)
        called = chunk.reached @ own + (ups_above + downs_above).astype(own.dtype)
        # A row of no weight adds nothing, even at the top, where nobody is called yet.
        np.maximum(called, np.finfo(own.dtype).tiny, out=called)
        hits /= called
        precision += np.einsum("ij,ij->j", weight, hits)
    defined = (total > 0).all(axis=0)
    auc = divide(won, total[0] * total[1], empty=np.nan)
    average = divide(precision, total[0], empty=np.nan)
    return np.where(defined, [auc, average], np.nan)
