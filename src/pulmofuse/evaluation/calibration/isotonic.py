"""Isotonic calibration: any rising step curve, one class against the rest (Zadrozny & Elkan 2002).

Each class's probability goes through the isotonic regression of "is this class" on it (pool
adjacent violators, scikit-learn's), and the row is normalised. The curve is flexible and therefore
wants many rows; Niculescu-Mizil & Caruana 2005 found it behind Platt's below about 1,000.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmofuse.errors import BundleError
from pulmofuse.evaluation.calibration.vector import REMEDY, FloatArray


@dataclass(frozen=True)
class IsotonicCalibration:
    """Knots of each class's curve, straight lines between them and level beyond.

    Attributes:
        knots: per class (p, q): rising p in [0, 1] and not falling q in (0, 1).
    """

    knots: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    kind = "isotonic"

    def apply(self, p: ArrayLike) -> FloatArray:
        """Calibrate probabilities (n, classes); rows of the answer sum to 1."""
        raw = np.asarray(p, dtype=np.float64)
        if raw.shape[-1] != len(self.knots):
            raise ValueError(f"p has {raw.shape[-1]} classes, the calibration {len(self.knots)}")
        columns = [np.interp(raw[..., c], *curve) for c, curve in enumerate(self.knots)]
        q = np.stack(columns, axis=-1)
        return np.asarray(q / q.sum(axis=-1, keepdims=True))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"kind": self.kind, "knots": [{"p": list(p), "q": list(q)} for p, q in self.knots]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> IsotonicCalibration:
        """Read what `to_dict` gave.

        Raises:
            BundleError: a key is missing or strange, or the knots are no rising curve.
        """
        if set(content) != {"kind", "knots"}:
            raise BundleError("calibration", f"has the keys {sorted(content)}", REMEDY)
        try:
            knots = tuple(
                (tuple(map(float, curve["p"])), tuple(map(float, curve["q"])))
                for curve in content["knots"]
            )
            strange = any(set(curve) != {"p", "q"} for curve in content["knots"])
        except (TypeError, ValueError, KeyError):
            raise BundleError("calibration", "holds knots that are none", REMEDY) from None
        if strange or not knots or not all(_is_rising(*curve) for curve in knots):
            raise BundleError("calibration", "holds knots that are no rising curve", REMEDY)
        return cls(knots)


def fit_isotonic(p: FloatArray, y: NDArray[np.intp]) -> IsotonicCalibration:
    """Fit one curve per class, each class against the rest.

    The curves are kept within [1 / (n + 2), (n + 1) / (n + 2)], Laplace's rule of succession for
    all n rows: as they come they reach 0 and 1, and one miss would then cost an infinite log loss.

    Args:
        p: (n, classes) probabilities.
        y: (n,) true classes, all of them present.
    """
    from sklearn.isotonic import IsotonicRegression

    low = 1.0 / (len(y) + 2)
    knots = []
    for c in range(p.shape[1]):
        curve = IsotonicRegression(y_min=low, y_max=1 - low, out_of_bounds="clip")
        curve.fit(p[:, c], y == c)
        at, level = curve.X_thresholds_, curve.y_thresholds_
        knots.append((tuple(map(float, at)), tuple(map(float, level))))
    return IsotonicCalibration(tuple(knots))


def _is_rising(p: tuple[float, ...], q: tuple[float, ...]) -> bool:
    """Whether two lists are the knots of a curve; comparisons are false for NaN."""
    if not p or len(p) != len(q):
        return False
    at, level = np.array(p), np.array(q)
    within = (at >= 0).all() and (at <= 1).all() and (level > 0).all() and (level < 1).all()
    return bool(within and (np.diff(at) > 0).all() and (np.diff(level) >= 0).all())
