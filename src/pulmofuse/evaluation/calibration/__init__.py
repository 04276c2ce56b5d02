"""Calibration of probabilities: four kinds of map, fitted to validation data and stored as JSON."""

from pulmofuse.evaluation.calibration.beta import BetaCalibration, fit_beta
from pulmofuse.evaluation.calibration.choice import (
    KINDS,
    CalibrationMap,
    calibration_from_dict,
    choose_kind,
    cross_fitted_losses,
    fit_calibration,
)
from pulmofuse.evaluation.calibration.isotonic import IsotonicCalibration, fit_isotonic
from pulmofuse.evaluation.calibration.vector import Calibration, fit_vector, identity_calibration

__all__ = [
    "KINDS",
    "BetaCalibration",
    "Calibration",
    "CalibrationMap",
    "IsotonicCalibration",
    "calibration_from_dict",
    "choose_kind",
    "cross_fitted_losses",
    "fit_beta",
    "fit_calibration",
    "fit_isotonic",
    "fit_vector",
    "identity_calibration",
]
