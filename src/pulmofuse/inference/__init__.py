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
from pulmofuse.inference.explain import activation_map, grad_cam
from pulmofuse.inference.explanation import Explanation, explain, explain_instances
from pulmofuse.inference.exporting import export_bundle
from pulmofuse.inference.gate import (
    GATE_MODES,
    Gate,
    GateMode,
    GateRemark,
    GateStatistics,
    fit_statistics,
    refusal,
)
from pulmofuse.inference.predictor import DEFAULT_METHOD, Prediction, Predictor
from pulmofuse.inference.runtime import RUNTIMES, Runtime, run_by
from pulmofuse.inference.scoring import (
    Scores,
    findings_probabilities,
    instance_rows,
    score_records,
)

__all__ = [
    "DEFAULT_METHOD",
    "GATE_MODES",
    "RUNTIMES",
    "Bundle",
    "DecisionFusion",
    "Explanation",
    "FeatureFusion",
    "Gate",
    "GateMode",
    "GateRemark",
    "GateStatistics",
    "Prediction",
    "Predictor",
    "Runtime",
    "Scores",
    "Unimodal",
    "activation_map",
    "build_model",
    "explain",
    "explain_instances",
    "export_bundle",
    "findings_probabilities",
    "fit_statistics",
    "grad_cam",
    "instance_rows",
    "load_bundle",
    "refusal",
    "run_by",
    "save_bundle",
    "score_records",
    "subset_partition",
]
