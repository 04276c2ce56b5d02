"""Probabilities where the disease is rarer or commoner than in the data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def reweight(p: ArrayLike, from_prior: ArrayLike, to_prior: ArrayLike) -> FloatArray:
    """Carry probabilities from one prior to another (Saerens, Latinne & Decaestecker 2002).

        q_c = p_c to_c / from_c / Z

    Right where a class looks the same in both places and only its share differs (label shift), and
    the probabilities are calibrated under `from_prior`.

    Args:
        p: (..., classes) probabilities.
        from_prior: (classes,) shares that `p` assumes, each > 0.
        to_prior: (classes,) shares wanted, each >= 0.

    Returns:
        (..., classes); rows sum to 1.
    """
    start, target = np.asarray(from_prior, np.float64), np.asarray(to_prior, np.float64)
    if not (start > 0).all() or not (target >= 0).all() or not target.any():
        raise ValueError(f"no priors: from {start}, to {target}")
    shifted = np.asarray(p, np.float64) * (target / start)
    total = shifted.sum(axis=-1, keepdims=True)
    # A certainty of a class that the new place has not: nothing is left but the new prior.
    return np.where(total > 0, shifted / np.where(total > 0, total, 1.0), target / target.sum())


def with_prevalence(prior: ArrayLike, positive: int, prevalence: float) -> FloatArray:
    """The prior (classes,) in which the positive class has a share of `prevalence`.

    The other classes keep their shares among themselves.

    Args:
        prior: (classes,) shares.
        positive: index of the positive class.
        prevalence: in (0, 1).
    """
    shares = np.array(prior, dtype=np.float64)
    shares[positive] = 0.0
    shares *= (1 - prevalence) / shares.sum()
    shares[positive] = prevalence
    return shares
