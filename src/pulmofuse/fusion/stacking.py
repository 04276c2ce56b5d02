"""Stacking: how much each modality's evidence counts, learned from patients who have several.

    log q(y|S) = log pi_y + b_y + sum over m in S of w_my (log p_m(y) - log pi_m,y) - log Z

is a multinomial logistic regression (Wolpert 1992, "Stacked generalization"; on probabilities of
the base models, Ting & Witten 1999) whose inputs are the modalities' evidence. Each class looks at
its own evidence only (Seewald 2002, "How to make stacking better and faster while also taking care
of an unknown weakness"): more inputs per class did harm with three classes or more. Weights are not
negative (Breiman 1996, "Stacked regressions"): evidence for a class never counts against it.

An absent modality has no term. That is neutral by Bayes' rule, for nothing was seen, and it is not
a probability of zero or a half put in its place. Where fewer than two modalities are present there
is nothing to stack, and the answer is that of log-odds with w = 1, the prior for none.

The fit is a maximum a posteriori one towards w = 1 and b = 0, which is log-odds of modalities that
are independent given the class. True pairs are few: with none the answer is the rule that needs
none, each pair moves it as far as it has something to say, and a modality that nobody shares keeps
its weight. A penalty towards 0 would throw evidence away wherever data are short.

Patients that were joined by their label cannot teach a weight: they are independent given the class
because they were made so, and would call any dependence of real patients absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pulmofuse.errors import BundleError, StudyError
from pulmofuse.fusion.decision import CLIP

#: Names of the method: fitted on true pairs, or on simulated patients.
STACKING = "stacking"
STACKING_SIMULATED = "stacking_simulated"

#: Fewest true pairs of each class in validation that are stacked on. Our choice, the number of true
#: pairs in the test split that a study asks for before it joins real patients at all.
MIN_PAIRS_PER_CLASS = 5

#: Standard deviation of the normal prior on each weight about 1: no say (0) and double weight are
#: two of it away. A patient tells q (1 - q) e^2 of a weight, q near a half and e near 1, so that it
#: takes some twenty to tell as much as this prior does. That of each bias about 0 is as in the
#: calibration of the modalities.
_WEIGHT_SD = 0.5
_BIAS_SD = 1.0


@dataclass(frozen=True, eq=False)
class Stacking:
    """A fitted stacking.

    Attributes:
        weights: (modalities, classes), w of each modality and class, not negative.
        bias: (classes,), b of each class.
        simulated: whether it was fitted on patients that were joined by their label.
        n_patients: it was fitted on.
    """

    weights: np.ndarray
    bias: np.ndarray
    simulated: bool
    n_patients: int

    @property
    def method(self) -> str:
        """Its name in tables: a fit on simulated patients says so."""
        return STACKING_SIMULATED if self.simulated else STACKING

    def apply(
        self,
        p: np.ndarray,
        present: np.ndarray,
        *,
        prior: np.ndarray,
        modality_priors: np.ndarray,
    ) -> np.ndarray:
        """Join the modalities that are present.

        Args:
            p: (n, modalities, classes), calibrated; rows of absent modalities may hold anything.
            present: (n, modalities) bool.
            prior: (classes,) of the population to predict for.
            modality_priors: (modalities, classes) that each modality's probabilities assume.

        Returns:
            (n, classes), rows sum to 1.
        """
        evidence = _evidence(p, present, modality_priors)
        joined = (present.sum(axis=1) > 1)[:, None]
        weights = np.where(joined[:, :, None], self.weights, 1.0)
        scores = np.log(prior) + joined * self.bias + (weights * evidence).sum(axis=1)
        return _softmax(scores)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "weights": self.weights.tolist(),
            "bias": self.bias.tolist(),
            "simulated": self.simulated,
            "n_patients": self.n_patients,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], modalities: int, classes: int) -> Stacking:
        """Read what `to_dict` gave.

        Args:
            content: JSON value.
            modalities: how many there are.
            classes: how many there are.

        Raises:
            BundleError: a key is missing or strange, or a value is not what it must be.
        """
        remedy = "make the bundle again from its study"
        if set(content) != {"weights", "bias", "simulated", "n_patients"}:
            raise BundleError("stacking", f"has the keys {sorted(content)}", remedy)
        try:
            weights = np.array(content["weights"], dtype=float)
            bias = np.array(content["bias"], dtype=float)
        except (TypeError, ValueError):
            raise BundleError("stacking", "holds something not a number", remedy) from None
        if weights.shape != (modalities, classes) or bias.shape != (classes,):
            raise BundleError("stacking", "does not fit the modalities and classes", remedy)
        simulated, n_patients = content["simulated"], content["n_patients"]
        finite = np.isfinite(weights).all() and np.isfinite(bias).all()
        counted = isinstance(n_patients, int) and n_patients >= 0
        if not finite or (weights < 0).any() or not isinstance(simulated, bool) or not counted:
            raise BundleError("stacking", "holds a value out of range", remedy)
        return cls(weights, bias, simulated, n_patients)


def fit_stacking(
    p: np.ndarray,
    present: np.ndarray,
    y: np.ndarray,
    simulated: np.ndarray,
    *,
    prior: np.ndarray,
    modality_priors: np.ndarray,
    on_simulated: bool = False,
) -> Stacking:
    """Fit the weights and biases; patients with fewer than two modalities say nothing of them.

    Args:
        p: (n, modalities, classes), calibrated.
        present: (n, modalities) bool.
        y: (n,) class indexes.
        simulated: (n,) bool, whether a patient was joined from several by their label.
        prior: (classes,) as in `Stacking.apply`.
        modality_priors: (modalities, classes) as in `Stacking.apply`.
        on_simulated: take simulated patients too; the fit then says so.

    Raises:
        StudyError: a patient is simulated and nobody asked for that, or a class has no pair.
    """
    from scipy.optimize import minimize

    several = present.sum(axis=1) > 1
    made = bool(np.asarray(simulated, dtype=bool)[several].any())
    if made and not on_simulated:
        raise StudyError(
            "stacking",
            "the patients were joined by their label; such patients are independent given the"
            " class because they were made so, and teach weights that real ones do not have",
            "give true pairs, or set `fusion.stacking: simulated` to have it, named as such",
        )
    k, n_modalities = p.shape[2], p.shape[1]
    truth = np.asarray(y, dtype=np.intp)[several]
    lacking = np.flatnonzero(np.bincount(truth, minlength=k) == 0)
    if len(lacking):
        raise StudyError(
            "stacking",
            f"{len(lacking)} of {k} classes have no patient with two modalities",
            "add true pairs of every class to validation, or set `fusion.stacking: none`",
        )
    evidence = _evidence(p[several], present[several], modality_priors)
    centre = np.concatenate([np.ones(n_modalities * k), np.zeros(k)])
    spread = np.concatenate([np.full(n_modalities * k, _WEIGHT_SD), np.full(k, _BIAS_SD)])
    answer = minimize(
        _objective,
        centre,
        args=(evidence, np.eye(k)[truth], np.log(prior), centre, spread),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * (n_modalities * k) + [(None, None)] * k,
    )
    weights = answer.x[:-k].reshape(n_modalities, k)
    return Stacking(weights, answer.x[-k:], made, int(several.sum()))


def _objective(
    theta: np.ndarray,
    evidence: np.ndarray,
    onehot: np.ndarray,
    log_prior: np.ndarray,
    centre: np.ndarray,
    spread: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Penalised loss and its gradient; theta = (weights, biases), (modalities * k + k,)."""
    k = len(log_prior)
    weights = theta[:-k].reshape(-1, k)
    scores = log_prior + theta[-k:] + (weights * evidence).sum(axis=1)
    log_q = scores - scores.max(axis=1, keepdims=True)
    log_q = log_q - np.log(np.exp(log_q).sum(axis=1, keepdims=True))
    residual = np.exp(log_q) - onehot
    gradient = np.concatenate(
        [(residual[:, None, :] * evidence).sum(axis=0).ravel(), residual.sum(axis=0)]
    )
    away = (theta - centre) / spread
    return -float((onehot * log_q).sum()) + float(away @ away) / 2, gradient + away / spread


def _evidence(p: np.ndarray, present: np.ndarray, modality_priors: np.ndarray) -> np.ndarray:
    """Log-likelihoods (n, modalities, classes) up to a constant per modality, 0 where absent.

    They are centred over the classes, so that weights which differ by class give an answer that
    depends on the likelihood's ratios alone.
    """
    clean = np.where(present[:, :, None], p, 1.0)
    ratio = np.log(np.clip(clean, CLIP, 1.0)) - np.log(modality_priors)
    centred = ratio - ratio.mean(axis=2, keepdims=True)
    return np.asarray(np.where(present[:, :, None], centred, 0.0))


def _softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
