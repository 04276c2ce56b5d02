"""Fusion: decision rules over probabilities, and the patients on which modalities are joined."""

from pulmofuse.fusion.decision import RULES, fuse
from pulmofuse.fusion.patients import paired_patients, simulated_patients

__all__ = ["RULES", "fuse", "paired_patients", "simulated_patients"]
