"""Calibration of probabilities, and the operating point of two classes.

A network's softmax is too sure of itself, and a fusion by log-odds adds up what its parts claim.
So each model's probabilities are calibrated on validation data by temperature scaling with a bias
per class (Guo et al. 2017, "On calibration of modern neural networks"; the bias is the intercept
of Platt 1999):

    log q_c = log p_c / temperature + bias_c - log Z

Validation sets here are small (tens of patients), so the fit is a maximum a posteriori one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmofuse.errors import BundleError, StudyError

FloatArray = NDArray[np.float64]

#: Smallest probability whose logarithm is taken: far below what float32 softmax can tell from 0,
#: yet a single wrong certainty costs a finite -log(1e-12) = 27.6.
_P_MIN = 1e-12

#: Standard deviation of the normal prior on log temperature and on each bias, whose mean is the
#: identity. Our choice: 1 leaves temperatures of 0.4 to 2.7 nearly free (exp(-1) to exp(1)), weighs
#: as much as a patient or two, and keeps ten perfectly separated patients from a temperature of 0.
_PRIOR_SD = 1.0

#: Threshold of a set of scores that cannot say: the more probable of two classes.
_EVEN = 0.5


@dataclass(frozen=True)
class Calibration:
    """Temperature (> 0) and one bias per class, on the scale of log-probabilities."""

    temperature: float
    bias: tuple[float, ...]

    def apply(self, p: ArrayLike) -> FloatArray:
        """Calibrate probabilities (n, classes); rows of the answer sum to 1."""
        log_p = _log(p)
        if log_p.shape[-1] != len(self.bias):
            raise ValueError(f"p has {log_p.shape[-1]} classes, the calibration {len(self.bias)}")
        return np.exp(_log_softmax(log_p / self.temperature + np.asarray(self.bias)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"temperature": self.temperature, "bias": list(self.bias)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Read what `to_dict` gave.

        Raises:
            BundleError: a key is missing or strange, or a value is not a finite number.
        """
        remedy = "make the bundle again from its study"
        if set(content) != {"temperature", "bias"}:
            raise BundleError("calibration", f"has the keys {sorted(content)}", remedy)
        try:
            temperature = float(content["temperature"])
            bias = tuple(float(b) for b in content["bias"])
        except (TypeError, ValueError):
            raise BundleError("calibration", "holds something not a number", remedy) from None
        if not all(map(math.isfinite, (temperature, *bias))) or temperature <= 0 or not bias:
            raise BundleError("calibration", "holds a value out of range", remedy)
        return cls(temperature, bias)


def identity_calibration(n_classes: int) -> Calibration:
    """The calibration that changes nothing."""
    return Calibration(1.0, (0.0,) * n_classes)


def fit_calibration(
    p: ArrayLike,
    y: ArrayLike,
    n_classes: int | None = None,
) -> Calibration:
    """Fit temperature and biases to validation data.

    Minimises the sum of -log q_y plus the prior's (log temperature)^2 / 2 and
    bias_c^2 / 2 (see `_PRIOR_SD`). A class without validation rows says nothing of the biases,
    so only the temperature is fitted then. No rows at all give the identity.

    Args:
        p: (n, classes) probabilities.
        y: (n,) int, true classes.
        n_classes: checked against `p` if given.

    Raises:
        StudyError: `p` is not finite, or does not have `n_classes` columns.
    """
    from scipy.optimize import minimize

    raw = np.asarray(p, dtype=np.float64)
    truth = np.asarray(y, dtype=np.intp)
    k = raw.shape[1]
    if n_classes is not None and n_classes != k:
        raise StudyError(
            "calibration", f"{k} probabilities for {n_classes} classes", "train the model again"
        )
    if not np.isfinite(raw).all():
        raise StudyError(
            "calibration", "a probability is not a finite number", "train with a lower rate"
        )
    if len(truth) == 0:
        return identity_calibration(k)
    with_bias = bool((np.bincount(truth, minlength=k) > 0).all())
    log_p = _log(raw)
    answer = minimize(
        _objective,
        np.zeros(k + 1),
        args=(log_p, np.eye(k)[truth], with_bias),
        jac=True,
        method="L-BFGS-B",
    )
    return Calibration(float(np.exp(-answer.x[0])), tuple(float(b) for b in answer.x[1:]))


def _objective(
    theta: FloatArray, log_p: FloatArray, onehot: FloatArray, with_bias: bool
) -> tuple[float, FloatArray]:
    """Penalised loss and its gradient; theta = (-log temperature, biases), (classes + 1,)."""
    scale = np.exp(theta[0])
    log_q = _log_softmax(scale * log_p + theta[1:])
    residual = np.exp(log_q) - onehot
    loss = -float((onehot * log_q).sum())
    gradient = np.concatenate([[(residual * log_p).sum() * scale], residual.sum(axis=0)])
    if not with_bias:
        gradient[1:] = 0.0
    penalty = float(theta @ theta) / (2 * _PRIOR_SD**2)
    return loss + penalty, gradient + theta / _PRIOR_SD**2


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


def _log(p: ArrayLike) -> FloatArray:
    """Logarithm of probabilities kept off zero."""
    return np.log(np.clip(np.asarray(p, dtype=np.float64), _P_MIN, None))


def _log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities of logits (n, classes)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))  # type: ignore[no-any-return]
