"""Decision-level fusion: probabilities of whatever modalities are there, joined by a rule.

No rule needs patients with several modalities to be fitted, and none fills a gap with zeros:
what is absent is left out, and a patient with nothing gets the prior.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pulmofuse.errors import ConfigError

#: Probabilities are clipped to [CLIP, 1] before a logarithm, so that no single model can rule a
#: class out for good: one that has seen a few hundred patients cannot know of one in a million.
CLIP = 1e-6

#: Two classes whose probabilities differ by less, relatively, are equally probable: the last
#: digits of a prior that was divided out and multiplied in again must not decide a vote.
_TIE = 1e-9

#: (p, present, prior, modality_priors, weights) -> (n, classes), not yet normalised.
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def fuse(
    rule: str,
    p: np.ndarray,
    present: np.ndarray,
    *,
    prior: np.ndarray,
    modality_priors: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Join the probabilities of the modalities that are present.

    Args:
        rule: a key of `RULES`.
        p: (n, modalities, classes), calibrated; rows of absent modalities may hold anything.
        present: (n, modalities) bool.
        prior: (classes,) of the population to predict for.
        modality_priors: (modalities, classes) that each modality's probabilities assume.
        weights: (modalities,), not negative; `mean`, `product` and `vote` take no notice of them.

    Returns:
        (n, classes), rows sum to 1. The prior where no modality is present, or none that is
        has weight.

    Raises:
        ConfigError: no such rule.
        ValueError: shapes that do not belong together, a negative weight, or a probability of a
            present modality outside [0, 1].
    """
    if rule not in RULES:
        raise ConfigError(f"fusion rule {rule!r}", "unknown", f"the rules are {', '.join(RULES)}")
    p, present = np.asarray(p, dtype=float), np.asarray(present, dtype=bool)
    prior, modality_priors = np.asarray(prior, float), np.asarray(modality_priors, float)
    weights = np.asarray(weights, dtype=float)
    _check(p, present, prior, modality_priors, weights)
    # NaN in an absent row would survive a multiplication by zero.
    clean = np.where(present[:, :, None], p, 1.0)
    scores = RULES[rule](clean, present, prior, modality_priors, weights)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def _mean(
    p: np.ndarray,
    present: np.ndarray,
    prior: np.ndarray,
    modality_priors: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Plain mean over the present modalities."""
    return _weighted_mean(p, present, prior, modality_priors, np.ones_like(weights))


def _weighted_mean(
    p: np.ndarray,
    present: np.ndarray,
    prior: np.ndarray,
    modality_priors: np.ndarray,  # noqa: ARG001  a mean of probabilities has no place for a prior
    weights: np.ndarray,
) -> np.ndarray:
    """Mean with the weights renormalised over the present modalities."""
    w = present * weights
    total = w.sum(axis=1, keepdims=True)
    joint = np.einsum("nm,nmc->nc", w, p)
    return np.where(total > 0, joint / np.where(total > 0, total, 1.0), prior)


def _product(
    p: np.ndarray,
    present: np.ndarray,
    prior: np.ndarray,
    modality_priors: np.ndarray,  # noqa: ARG001  the probabilities assume the fused prior already
    weights: np.ndarray,  # noqa: ARG001
) -> np.ndarray:
    """Normalised product of the present modalities' probabilities.

    This is the product as it is mostly programmed. The product rule as Kittler et al. derive it
    (1998, "On combining classifiers", IEEE TPAMI 20:226, eq. 7) divides by the prior once for each
    modality but one, because every posterior holds the prior again; `log_odds` with w = 1 is that
    rule. Of one modality, or under a uniform prior, the two are the same; else this one counts the
    prior once per modality, and leans towards the frequent class the more modalities there are.
    """
    joint = np.einsum("nm,nmc->nc", present, _log(p))
    scores = np.exp(joint - joint.max(axis=1, keepdims=True))
    return np.where(present.any(axis=1, keepdims=True), scores, prior)


def _vote(
    p: np.ndarray,
    present: np.ndarray,
    prior: np.ndarray,
    modality_priors: np.ndarray,  # noqa: ARG001
    weights: np.ndarray,  # noqa: ARG001
) -> np.ndarray:
    """Share of the present modalities whose most probable class it is.

    A modality with several most probable classes divides its vote among them. The shares are
    coarse: m modalities without ties give m + 1 values, 0 and 1 among them, so they rank patients
    poorly, and neither a calibration nor a threshold can make a probability of them.
    """
    best = p >= p.max(axis=2, keepdims=True) * (1 - _TIE)
    votes = np.einsum("nm,nmc->nc", present, best / best.sum(axis=2, keepdims=True))
    return np.where(present.any(axis=1, keepdims=True), votes, prior)


def _log_odds(
    p: np.ndarray,
    present: np.ndarray,
    prior: np.ndarray,
    modality_priors: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Bayes' rule over modalities, each divided by the prior it assumes.

    log p(y|S) = log pi_y + sum over m in S of w_m (log p_m(y) - log pi_m,y) - log Z

    With w = 1 this is exact where the modalities are independent given the class; w < 1 discounts
    what they share. No w is ever learned from patients that were matched by their label.
    """
    evidence = _log(p) - _log(modality_priors)
    scores = _log(prior) + np.einsum("nm,nmc->nc", present * weights, evidence)
    return np.asarray(np.exp(scores - scores.max(axis=1, keepdims=True)))


def _log(p: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.clip(p, CLIP, 1.0)))


def _check(
    p: np.ndarray,
    present: np.ndarray,
    prior: np.ndarray,
    modality_priors: np.ndarray,
    weights: np.ndarray,
) -> None:
    if p.ndim != 3:
        raise ValueError(f"p has the shape {p.shape}, not (n, modalities, classes)")
    n, modalities, classes = p.shape
    for name, array, shape in (
        ("present", present, (n, modalities)),
        ("prior", prior, (classes,)),
        ("modality_priors", modality_priors, (modalities, classes)),
        ("weights", weights, (modalities,)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} has the shape {array.shape}, not {shape}")
    seen = p[present]
    if not ((seen >= 0) & (seen <= 1 + CLIP)).all():
        raise ValueError("a present modality has a probability outside [0, 1]")
    if not (weights >= 0).all():
        raise ValueError("a weight is negative or NaN")


#: Every decision rule by name.
RULES: dict[str, Rule] = {
    "mean": _mean,
    "weighted_mean": _weighted_mean,
    "product": _product,
    "vote": _vote,
    "log_odds": _log_odds,
}
