"""Predictions from a bundle, and their explanation."""

from pulmofuse.inference.bundle import (
    Bundle,
    DecisionFusion,
    FeatureFusion,
    Unimodal,
    build_model,
    load_bundle,
    save_bundle,
    subset_partition,
)
from pulmofuse.inference.explain import grad_cam
from pulmofuse.inference.predictor import DEFAULT_METHOD, FEATURE_METHOD, Prediction, Predictor
from pulmofuse.inference.scoring import (
    Scores,
    findings_probabilities,
    instance_rows,
    score_records,
)

__all__ = [
    "DEFAULT_METHOD",
    "FEATURE_METHOD",
    "Bundle",
    "DecisionFusion",
    "FeatureFusion",
    "Prediction",
    "Predictor",
    "Scores",
    "Unimodal",
    "build_model",
    "findings_probabilities",
    "grad_cam",
    "instance_rows",
    "load_bundle",
    "save_bundle",
    "score_records",
    "subset_partition",
]
