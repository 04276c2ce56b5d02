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
from pulmofuse.fusion.patients import paired_patients, simulated_patients

__all__ = [
    "RULES",
    "copula_ranks",
    "discount",
    "estimate_rho",
    "fuse",
    "own_evidence",
    "paired_patients",
    "rho_interval",
    "shuffled_within",
    "simulated_patients",
]
