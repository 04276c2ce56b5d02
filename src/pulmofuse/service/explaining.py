"""Explanations of an answer: a map for each file, of the class that the answer speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pulmofuse.inference import Predictor, explain
from pulmofuse.preprocessing import Prepared
from pulmofuse.schema import Modality


def explain_answer(
    predictor: Predictor, files: Mapping[Modality, Prepared], answer: Mapping[str, Any]
) -> dict[str, Any]:
    """Modality -> what `inference.Explanation.to_dict` gives; see `answering.Explain`.

    Args:
        predictor: of the bundle that answered.
        files: those that were used, as the answer came from them.
        answer: the answer, for the class that it calls.
    """
    target = predictor.bundle.positive or answer["predicted"]
    found = explain(predictor, files, target)
    return {modality.value: explanation.to_dict() for modality, explanation in found.items()}
