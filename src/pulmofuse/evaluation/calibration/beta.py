"""Beta calibration, one class against the rest (Kull, Silva Filho & Flach 2017).

    logit q_c = a_c log p_c - b_c log(1 - p_c) + c_c,     a_c, b_c >= 0

and the row is normalised. With a = b it is Platt's curve on the logit; unequal a and b bend the two
ends differently, which a temperature cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmofuse.errors import BundleError
from pulmofuse.evaluation.calibration.vector import PRIOR_SD, REMEDY, FloatArray, log_of


@dataclass(frozen=True)
class BetaCalibration:
    """Per class (a, b, c), a and b not negative."""

    coefficients: tuple[tuple[float, float, float], ...]
    kind = "beta"

    def apply(self, p: ArrayLike) -> FloatArray:
        """Calibrate probabilities (n, classes); rows of the answer sum to 1."""
        raw = np.asarray(p, dtype=np.float64)
        if raw.shape[-1] != len(self.coefficients):
            raise ValueError(
                f"p has {raw.shape[-1]} classes, the calibration {len(self.coefficients)}"
            )
        a, b, c = np.array(self.coefficients).T
        logits = a * log_of(raw) - b * log_of(1 - raw) + c
        q = np.exp(-np.logaddexp(0.0, -logits))
        return np.asarray(q / q.sum(axis=-1, keepdims=True))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"kind": self.kind, "coefficients": [list(row) for row in self.coefficients]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> BetaCalibration:
        """Read what `to_dict` gave.

        Raises:
            BundleError: a key is missing or strange, or a value is out of range.
        """
        if set(content) != {"kind", "coefficients"}:
            raise BundleError("calibration", f"has the keys {sorted(content)}", REMEDY)
        try:
            rows = [tuple(map(float, row)) for row in content["coefficients"]]
        except (TypeError, ValueError):
            raise BundleError("calibration", "holds something not a number", REMEDY) from None
        if not rows or not all(
            len(row) == 3 and all(map(math.isfinite, row)) and min(row[:2]) >= 0 for row in rows
        ):
            raise BundleError("calibration", "holds a value out of range", REMEDY)
        return cls(tuple((row[0], row[1], row[2]) for row in rows))


def fit_beta(p: FloatArray, y: NDArray[np.intp], prior_sd: float = PRIOR_SD) -> BetaCalibration:
    """Fit (a, b, c) of each class against the rest by maximum a posteriori.

    Args:
        p: (n, classes) probabilities.
        y: (n,) true classes, all of them present.
        prior_sd: standard deviation of the normal prior of (a, b, c) around (1, 1, 0), the
            identity; infinite gives Kull's maximum likelihood, which on separable rows has none.
    """
    from scipy.optimize import minimize

    rows = []
    for c in range(p.shape[1]):
        x = np.column_stack([log_of(p[:, c]), -log_of(1 - p[:, c]), np.ones(len(y))])
        answer = minimize(
            _objective,
            _IDENTITY,
            args=(x, (y == c).astype(np.float64), prior_sd),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, None), (0, None), (None, None)],
            options={"ftol": 1e-15, "gtol": 1e-8, "maxiter": 1000},
        )
        rows.append((float(answer.x[0]), float(answer.x[1]), float(answer.x[2])))
    return BetaCalibration(tuple(rows))


_IDENTITY = np.array([1.0, 1.0, 0.0])


def _objective(
    theta: FloatArray, x: FloatArray, is_class: FloatArray, prior_sd: float
) -> tuple[float, FloatArray]:
    """Penalised loss of (a, b, c) and its gradient."""
    logits = x @ theta
    loss = float(np.logaddexp(0.0, logits).sum() - is_class @ logits)
    gradient = x.T @ (np.exp(-np.logaddexp(0.0, -logits)) - is_class)
    away = (theta - _IDENTITY) / prior_sd
    return loss + float(away @ away) / 2, gradient + away / prior_sd
