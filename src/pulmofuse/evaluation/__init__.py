"""Metrics, intervals, calibration and comparison of predictions."""

from pulmofuse.evaluation.calibration import (
    Calibration,
    CalibrationMap,
    calibration_from_dict,
    fit_calibration,
    identity_calibration,
)
from pulmofuse.evaluation.comparison import (
    comparison_table,
    evaluate,
    fusion_gain,
    paired_difference,
)
from pulmofuse.evaluation.comparisons import comparisons
from pulmofuse.evaluation.conformal import Conformal, conformal_sets, fit_conformal
from pulmofuse.evaluation.delong import Delong, delong
from pulmofuse.evaluation.metrics import METRICS, confusion, roc_auc
from pulmofuse.evaluation.prevalence import reweight, with_prevalence
from pulmofuse.evaluation.reliability import (
    brier_parts,
    classwise_ece,
    cox_line,
    ece,
    ece_debiased,
    ece_floor,
    log_loss,
    reliability_curve,
    wilson_interval,
)
from pulmofuse.evaluation.significance import McNemar, holm, mcnemar
from pulmofuse.evaluation.tables import PER_RECORD, UNIMODAL
from pulmofuse.evaluation.thresholds import (
    bagged_youden_threshold,
    sensitivity_threshold,
    specificity_threshold,
    youden_threshold,
)
from pulmofuse.evaluation.utility import decision_curves, prevalence_table

__all__ = [
    "METRICS",
    "PER_RECORD",
    "UNIMODAL",
    "Calibration",
    "CalibrationMap",
    "Conformal",
    "Delong",
    "McNemar",
    "bagged_youden_threshold",
    "brier_parts",
    "calibration_from_dict",
    "classwise_ece",
    "comparison_table",
    "comparisons",
    "conformal_sets",
    "confusion",
    "cox_line",
    "decision_curves",
    "delong",
    "ece",
    "ece_debiased",
    "ece_floor",
    "evaluate",
    "fit_calibration",
    "fit_conformal",
    "fusion_gain",
    "holm",
    "identity_calibration",
    "log_loss",
    "mcnemar",
    "paired_difference",
    "prevalence_table",
    "reliability_curve",
    "reweight",
    "roc_auc",
    "sensitivity_threshold",
    "specificity_threshold",
    "wilson_interval",
    "with_prevalence",
    "youden_threshold",
]
