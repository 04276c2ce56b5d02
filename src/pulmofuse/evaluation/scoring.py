"""How far probabilities are from the truth: log loss, and the error of calibration.

Arguments and shapes are those of `evaluation.metrics`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pulmofuse.evaluation.metrics import IntArray
from pulmofuse.statistics import FloatArray

#: scikit-learn's: the spacing of float64.
_P_MIN = float(np.finfo(np.float64).eps)

#: Bins of the calibration error (Naeini et al. 2015 use 10).
_BINS = 10


def log_loss(y: IntArray, p: NDArray[np.floating], weights: FloatArray | None = None) -> FloatArray:
    """Mean of -log p of the true class, nats (`sklearn.metrics.log_loss`): () or (replicates,).

    Args:
        y: (n,) int.
        p: (n, k), rows sum to 1.
        weights: None, (n,) or (replicates, n).
    """
    own = np.asarray(p, dtype=np.float64)[np.arange(len(y)), np.asarray(y, dtype=np.intp)]
    loss = -np.log(np.clip(own, _P_MIN, 1.0))
    if weights is None:
        return np.asarray(loss.mean())
    return np.asarray((weights @ loss) / weights.sum(axis=-1))


def equal_mass_ece(y: IntArray, p: NDArray[np.floating], positive: int | None = None) -> float:
    """Expected calibration error over bins of equal numbers of rows, in [0, 1].

    Mean over bins of |mean probability - share that came true|: of the positive class of two (the
    second one without `positive`), otherwise of the most probable class. On few rows it is above
    zero for perfect probabilities too.
    """
    if p.shape[1] == 2:
        c = 1 if positive is None else positive
        said, came = p[:, c], np.asarray(y) == c
    else:
        said, came = p.max(axis=1), np.asarray(y) == p.argmax(axis=1)
    order = np.argsort(said, kind="stable")
    gaps = np.concatenate([[0.0], np.cumsum(said[order] - came[order])])
    edges = np.linspace(0, len(said), min(_BINS, len(said)) + 1).astype(np.intp)
    return float(np.abs(np.diff(gaps[edges])).sum() / max(1, len(said)))
