"""Fusion: decision rules over probabilities, and the patients on which modalities are joined."""

from pulmofuse.fusion.decision import RULES, fuse
from pulmofuse.fusion.dependence import (
    copula_ranks,
    discount,
    estimate_rho,
    own_evidence,
    rho_interval,
    shuffled_within,
)
from pulmofuse.fusion.patients import narrowed, paired_patients, simulated_patients
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
    "copula_ranks",
    "discount",
    "estimate_rho",
    "fit_stacking",
    "fuse",
    "narrowed",
    "own_evidence",
    "paired_patients",
    "rho_interval",
    "shuffled_within",
    "simulated_patients",
]
