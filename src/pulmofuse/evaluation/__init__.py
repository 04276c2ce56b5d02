"""Metrics, intervals, calibration and comparison of predictions."""

from pulmofuse.evaluation.bootstrap import cluster_weights, percentile_interval
from pulmofuse.evaluation.calibration import (
    Calibration,
    fit_calibration,
    identity_calibration,
    youden_threshold,
)
from pulmofuse.evaluation.comparison import (
    PER_RECORD,
    UNIMODAL,
    comparison_table,
    evaluate,
    fusion_gain,
    paired_difference,
)
from pulmofuse.evaluation.metrics import METRICS, confusion, roc_auc

__all__ = [
    "METRICS",
    "PER_RECORD",
    "UNIMODAL",
    "Calibration",
    "cluster_weights",
    "comparison_table",
    "confusion",
    "evaluate",
    "fit_calibration",
    "fusion_gain",
    "identity_calibration",
    "paired_difference",
    "percentile_interval",
    "roc_auc",
    "youden_threshold",
]
