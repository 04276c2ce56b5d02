"""Fit the kind of calibration that a study names, or let cross-fitting choose one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmofuse.errors import BundleError, StudyError
from pulmofuse.evaluation.calibration.beta import BetaCalibration, fit_beta
from pulmofuse.evaluation.calibration.isotonic import IsotonicCalibration, fit_isotonic
from pulmofuse.evaluation.calibration.vector import (
    REMEDY,
    Calibration,
    FloatArray,
    fit_vector,
    identity_calibration,
    log_of,
)

#: Every kind, the simplest first: 1, k + 1, 3 k and up to n parameters for k classes and n rows.
KINDS = ("temperature", "vector", "beta", "isotonic")

#: Parts of the cross-fitting, at most; Hastie, Tibshirani & Friedman 2009, section 7.10.
_FOLDS = 5


class CalibrationMap(Protocol):
    """What every kind can do."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        ...

    def apply(self, p: ArrayLike) -> FloatArray:
        """Calibrate probabilities (n, classes); rows of the answer sum to 1."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, with "kind"."""
        ...


def calibration_from_dict(content: Mapping[str, Any]) -> CalibrationMap:
    """Read what `to_dict` of any kind gave.

    Raises:
        BundleError: an unknown kind, a key missing or strange, or a value out of range.
    """
    kind = content.get("kind", "vector")
    if kind == "isotonic":
        return IsotonicCalibration.from_dict(content)
    if kind == "beta":
        return BetaCalibration.from_dict(content)
    if kind in {"temperature", "vector"}:
        return Calibration.from_dict(content)
    raise BundleError("calibration", f"is of the unknown kind {kind!r}", REMEDY)


def fit_calibration(
    p: ArrayLike,
    y: ArrayLike,
    n_classes: int | None = None,
    kind: str | Sequence[str] = "vector",
    groups: ArrayLike | None = None,
) -> CalibrationMap:
    """Fit a calibration to validation data.

    No rows at all give the identity. Without rows of some class there is nothing to hold that
    class against, so every kind is then a temperature alone.

    Args:
        p: (n, classes) probabilities.
        y: (n,) int, true classes.
        n_classes: checked against `p` if given.
        kind: one of `KINDS`, or several to let `choose_kind` choose.
        groups: (n,) patient of each row, for the choice; each row by itself if not given.

    Raises:
        StudyError: `p` is not finite, or does not have `n_classes` columns.
    """
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
    if not isinstance(kind, str):
        kind = choose_kind(raw, truth, groups, kind)
    return _fit(raw, truth, kind)


def choose_kind(
    p: FloatArray,
    y: NDArray[np.intp],
    groups: ArrayLike | None = None,
    kinds: Sequence[str] = KINDS,
) -> str:
    """The kind with the least cross-fitted log loss, or a simpler one that is as good.

    As good is a mean loss within one standard error of the paired difference to the best one's
    (the one-standard-error rule of Breiman et al. 1984). "vector" if some class has rows of one
    patient only, so that nothing can be cross-fitted.

    Args:
        p: (n, classes) probabilities.
        y: (n,) true classes.
        groups: (n,) patient of each row, kept together.
        kinds: to choose from, the simplest first.
    """
    losses = cross_fitted_losses(p, y, kinds, groups)
    if losses is None:
        return "vector"
    best = min(kinds, key=lambda kind: float(losses[kind].mean()))
    for kind in kinds:
        excess = losses[kind] - losses[best]
        if excess.mean() <= excess.std() / np.sqrt(len(excess)):
            return kind
    return best


def cross_fitted_losses(
    p: FloatArray,
    y: NDArray[np.intp],
    kinds: Sequence[str],
    groups: ArrayLike | None = None,
) -> dict[str, FloatArray] | None:
    """Log loss of each row by a calibration fitted without its patient.

    Args:
        p: (n, classes) probabilities.
        y: (n,) true classes.
        kinds: to compare.
        groups: (n,) patient of each row, kept together.

    Returns:
        kind -> (n,); None if a class has fewer than two patients.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names = np.arange(len(y)) if groups is None else np.asarray(groups)
    fewest = min(len(np.unique(names[y == c])) for c in range(p.shape[1]))
    if fewest < 2:
        return None
    # The folds are the same for every kind and every run.
    folds = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=0)
    losses = {kind: np.empty(len(y)) for kind in kinds}
    for fitted_on, held_out in folds.split(p, y, names):
        for kind, loss in losses.items():
            q = _fit(p[fitted_on], y[fitted_on], kind).apply(p[held_out])
            loss[held_out] = -log_of(q)[np.arange(len(held_out)), y[held_out]]
    return losses


def _fit(p: FloatArray, y: NDArray[np.intp], kind: str) -> CalibrationMap:
    complete = bool((np.bincount(y, minlength=p.shape[1]) > 0).all())
    if kind == "vector":
        return fit_vector(p, y)
    if kind == "temperature" or not complete:
        return fit_vector(p, y, with_bias=False)
    if kind == "isotonic":
        return fit_isotonic(p, y)
    if kind == "beta":
        return fit_beta(p, y)
    raise ValueError(f"no calibration is called {kind!r}; there are {', '.join(KINDS)}")
