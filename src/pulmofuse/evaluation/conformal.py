"""Prediction sets that hold the true class of a stated share of the patients of each class.

Mondrian split conformal prediction with the class as its category (Vovk, Gammerman & Shafer 2005,
section 4.5; Vovk 2012). The score of a row for a class is 1 - p_class. Of the n validation rows of
a class the ceil((n + 1) coverage)-th smallest score is its threshold, and a class is in the set of
a new row if the row's score for it is not above. If a new patient is exchangeable with the n, the
set holds their true class with a probability of at least `coverage`, class by class, however bad
the model. What weakens "exchangeable" is said in docs/calibration.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmofuse.errors import BundleError

FloatArray = NDArray[np.float64]

_REMEDY = "make the bundle again from its study"


@dataclass(frozen=True)
class Conformal:
    """Thresholds of the sets.

    Attributes:
        coverage: promised share, in (0, 1).
        thresholds: "subset|method" -> class -> largest score 1 - p of a class in the set; None
            where there were too few validation rows, so that the class is in every set.
    """

    coverage: float
    thresholds: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def sets(self, key: str, classes: Sequence[str], p: ArrayLike) -> NDArray[np.bool_]:
        """Which classes (n, classes) are in the sets of rows with probabilities (n, classes)."""
        return conformal_sets([self.thresholds[key][name] for name in classes], p)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"coverage": self.coverage, "thresholds": self.thresholds}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], classes: Sequence[str]) -> Conformal:
        """Read what `to_dict` gave.

        Raises:
            BundleError: a key is missing or strange, or a value is out of range.
        """
        if set(content) != {"coverage", "thresholds"}:
            raise BundleError("conformal", f"has the keys {sorted(content)}", _REMEDY)
        for key, row in content["thresholds"].items():
            if list(row) != list(classes):
                raise BundleError("conformal", f"{key} has the classes {list(row)}", _REMEDY)
            if not all(value is None or math.isfinite(value) for value in row.values()):
                raise BundleError("conformal", f"{key} holds a value out of range", _REMEDY)
        if not 0 < content["coverage"] < 1:
            raise BundleError("conformal", "has a coverage out of range", _REMEDY)
        return cls(
            float(content["coverage"]), {k: dict(v) for k, v in content["thresholds"].items()}
        )


def fit_conformal(p: ArrayLike, y: ArrayLike, coverage: float) -> list[float | None]:
    """The threshold of each class.

    Args:
        p: (n, classes) probabilities of validation rows.
        y: (n,) int, true classes.
        coverage: in (0, 1).

    Returns:
        One per class; None where a class has fewer than coverage / (1 - coverage) rows (9 for .9):
        no finite threshold would keep the promise.
    """
    probabilities, truth = np.asarray(p, np.float64), np.asarray(y)
    thresholds: list[float | None] = []
    for c in range(probabilities.shape[1]):
        score = np.sort(1 - probabilities[truth == c, c])
        # The small number keeps (9 + 1) .9 from rounding up to 10.
        rank = math.ceil((len(score) + 1) * coverage - 1e-9)
        thresholds.append(float(score[rank - 1]) if rank <= len(score) else None)
    return thresholds


def conformal_sets(thresholds: Sequence[float | None], p: ArrayLike) -> NDArray[np.bool_]:
    """Which classes (n, classes) are in the sets of rows with probabilities (n, classes).

    A set may be empty: such a row looks like a usual row of no class.
    """
    limit = np.array([np.inf if value is None else value for value in thresholds])
    return np.asarray(1 - np.asarray(p, np.float64) <= limit)
