"""Fusion: decision rules over probabilities, and the patients on which modalities are joined."""

from pulmofuse.fusion.decision import RULES, fuse
from pulmofuse.fusion.patients import paired_patients, simulated_patients
from pulmofuse.fusion.stacking import (
    MIN_PAIRS_PER_CLASS,
    STACKING,
    STACKING_SIMULATED,
    Stacking,
    fit_stacking,
)

__all__ = [
    "MIN_PAIRS_PER_CLASS",
    "RULES",
    "STACKING",
    "STACKING_SIMULATED",
    "Stacking",
    "fit_stacking",
    "fuse",
    "paired_patients",
    "simulated_patients",
]
