"""Temperature scaling, alone or with a bias per class.

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
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmofuse.errors import BundleError

FloatArray = NDArray[np.float64]

#: Smallest probability whose logarithm is taken: far below what float32 softmax can tell from 0,
#: yet a single wrong certainty costs a finite -log(1e-12) = 27.6.
P_MIN = 1e-12

#: Standard deviation of the normal prior on log temperature and on each bias, whose mean is the
#: identity. Our choice: 1 leaves temperatures of 0.4 to 2.7 nearly free (exp(-1) to exp(1)), weighs
#: as much as a patient or two, and keeps ten perfectly separated patients from a temperature of 0.
PRIOR_SD = 1.0

#: What to do about a calibration that cannot be read.
REMEDY = "make the bundle again from its study"


@dataclass(frozen=True)
class Calibration:
    """Temperature (> 0) and one bias per class, on the scale of log-probabilities.

    Of kind "temperature" every bias is 0.
    """

    temperature: float
    bias: tuple[float, ...]
    kind: Literal["temperature", "vector"] = "vector"

    def apply(self, p: ArrayLike) -> FloatArray:
        """Calibrate probabilities (n, classes); rows of the answer sum to 1."""
        log_p = log_of(p)
        if log_p.shape[-1] != len(self.bias):
            raise ValueError(f"p has {log_p.shape[-1]} classes, the calibration {len(self.bias)}")
        return np.exp(log_softmax(log_p / self.temperature + np.asarray(self.bias)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"kind": self.kind, "temperature": self.temperature, "bias": list(self.bias)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Read what `to_dict` gave.

        Raises:
            BundleError: a key is missing or strange, or a value is not a finite number.
        """
        # Bundles of before had one kind and did not name it.
        kind = content.get("kind", "vector")
        if set(content) | {"kind"} != {"kind", "temperature", "bias"}:
            raise BundleError("calibration", f"has the keys {sorted(content)}", REMEDY)
        if kind not in {"temperature", "vector"}:
            raise BundleError("calibration", f"is of the unknown kind {kind!r}", REMEDY)
        try:
            temperature = float(content["temperature"])
            bias = tuple(float(b) for b in content["bias"])
        except (TypeError, ValueError):
            raise BundleError("calibration", "holds something not a number", REMEDY) from None
        if not all(map(math.isfinite, (temperature, *bias))) or temperature <= 0 or not bias:
            raise BundleError("calibration", "holds a value out of range", REMEDY)
        if kind == "temperature" and any(bias):
            raise BundleError("calibration", "is a temperature alone, yet has a bias", REMEDY)
        return cls(temperature, bias, kind)


def identity_calibration(n_classes: int) -> Calibration:
    """The calibration that changes nothing."""
    return Calibration(1.0, (0.0,) * n_classes)


def fit_vector(p: FloatArray, y: NDArray[np.intp], *, with_bias: bool = True) -> Calibration:
    """Fit the temperature, and the biases if they are wanted.

    Minimises the sum of -log q_y plus the prior's (log temperature)^2 / 2 and
    bias_c^2 / 2 (see `PRIOR_SD`). A class without rows says nothing of the biases,
    so only the temperature is fitted then.

    Args:
        p: (n, classes) probabilities.
        y: (n,) true classes.
        with_bias: false for kind "temperature".
    """
    from scipy.optimize import minimize

    k = p.shape[1]
    complete = bool((np.bincount(y, minlength=k) > 0).all())
    answer = minimize(
        _objective,
        np.zeros(k + 1),
        args=(log_of(p), np.eye(k)[y], with_bias and complete),
        jac=True,
        method="L-BFGS-B",
    )
    temperature, bias = float(np.exp(-answer.x[0])), tuple(float(b) for b in answer.x[1:])
    return Calibration(temperature, bias, "vector" if with_bias else "temperature")


def _objective(
    theta: FloatArray, log_p: FloatArray, onehot: FloatArray, with_bias: bool
) -> tuple[float, FloatArray]:
    """Penalised loss and its gradient; theta = (-log temperature, biases), (classes + 1,)."""
    scale = np.exp(theta[0])
    log_q = log_softmax(scale * log_p + theta[1:])
    residual = np.exp(log_q) - onehot
    loss = -float((onehot * log_q).sum())
    gradient = np.concatenate([[(residual * log_p).sum() * scale], residual.sum(axis=0)])
    if not with_bias:
        gradient[1:] = 0.0
    penalty = float(theta @ theta) / (2 * PRIOR_SD**2)
    return loss + penalty, gradient + theta / PRIOR_SD**2


def log_of(p: ArrayLike) -> FloatArray:
    """Logarithm of probabilities kept off zero."""
    return np.log(np.clip(np.asarray(p, dtype=np.float64), P_MIN, None))


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities of logits (n, classes)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))  # type: ignore[no-any-return]
