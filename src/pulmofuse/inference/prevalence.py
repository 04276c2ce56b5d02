"""A prediction as it reads where the disease is rarer, or more frequent, than in the study.

Bayes' rule with another prior: p'(y) is proportional to p(y) pi'(y) / pi(y) (Saerens et al. 2002,
"Adjusting the outputs of a classifier to new a priori probabilities"). Only the positive class's
prior is changed on purpose; the others share the rest as before. The evidence stays what it was,
and so does the operating point: the threshold is moved along, so that sensitivity and specificity
are those of the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pulmofuse.errors import BundleError
from pulmofuse.inference.bundle import Bundle
from pulmofuse.inference.predictor import Prediction


def at_prevalence(prediction: Prediction, bundle: Bundle, prevalence: float) -> Prediction:
    """The same prediction under another prevalence of the positive class.

    Args:
        prediction: as the bundle made it, under the prior of its fused population.
        bundle: where the prediction is from.
        prevalence: share of the positive class among those examined, between 0 and 1.

    Raises:
        BundleError: the prevalence is out of range, or the bundle has no positive class.
    """
    if bundle.positive is None:
        raise BundleError(
            "prevalence", "this bundle names no positive class", "leave the prevalence out"
        )
    if not 0.0 < prevalence < 1.0:
        raise BundleError("prevalence", "is not between 0 and 1", "give a share such as 0.1")
    i = bundle.classes.index(bundle.positive)
    prior = bundle.decision.prior
    wanted = prior / (1.0 - prior[i]) * (1.0 - prevalence)
    wanted[i] = prevalence
    ratio = dict(zip(bundle.classes, wanted / prior, strict=True))

    threshold = prediction.threshold
    probabilities = _weighted(prediction.probabilities, ratio)
    if threshold is None:
        predicted = max(probabilities, key=lambda name: probabilities[name])
    else:
        predicted = prediction.predicted
        odds = threshold * ratio[bundle.positive]
        other = next(name for name in bundle.classes if name != bundle.positive)
        threshold = float(odds / (odds + (1.0 - threshold) * ratio[other]))
    return replace(
        prediction,
        probabilities=probabilities,
        predicted=predicted,
        threshold=threshold,
        by_modality={m: _weighted(p, ratio) for m, p in prediction.by_modality.items()},
    )


def _weighted(p: Mapping[str, float], ratio: Mapping[str, float]) -> dict[str, float]:
    raw = np.array([p[name] * ratio[name] for name in p])
    return dict(zip(p, (raw / raw.sum()).tolist(), strict=True))
