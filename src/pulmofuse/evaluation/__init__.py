"""Metrics, intervals, calibration and comparison of predictions."""

from pulmofuse.evaluation.bootstrap import cluster_weights, percentile_interval
from pulmofuse.evaluation.calibration import (
    Calibration,
    fit_calibration,
    identity_calibration,
    youden_threshold,
)
from pulmofuse.evaluation.comparison import (
    comparison_table,
    evaluate,
    fusion_gain,
    paired_difference,
)
from pulmofuse.evaluation.comparisons import comparisons
from pulmofuse.evaluation.delong import Delong, delong
from pulmofuse.evaluation.metrics import METRICS, confusion, roc_auc
from pulmofuse.evaluation.significance import McNemar, holm, mcnemar
from pulmofuse.evaluation.tables import PER_RECORD, UNIMODAL
from pulmofuse.evaluation.utility import decision_curves, prevalence_table

__all__ = [
    "METRICS",
    "PER_RECORD",
    "UNIMODAL",
    "Calibration",
    "Delong",
    "McNemar",
    "cluster_weights",
    "comparison_table",
    "comparisons",
    "confusion",
    "decision_curves",
    "delong",
    "evaluate",
    "fit_calibration",
    "fusion_gain",
    "holm",
    "identity_calibration",
    "mcnemar",
    "paired_difference",
    "percentile_interval",
    "prevalence_table",
    "roc_auc",
    "youden_threshold",
]
