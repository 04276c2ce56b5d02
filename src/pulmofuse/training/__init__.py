"""Training of every model, and prediction with what was trained."""

from pulmofuse.training.adversarial import SiteAdversary, site_weights
from pulmofuse.training.checkpoint import BEST, LAST
from pulmofuse.training.data import BagSource, BatchSource, InstanceSource, Targets, VolumeSource
from pulmofuse.training.findings import FindingsLoss, learnable_findings, new_findings_head
from pulmofuse.training.fit import Progress, check_epoch_choice, fit, is_finished, load_best
from pulmofuse.training.fusion import (
    FeatureSource,
    fair_weights,
    patient_features,
)
from pulmofuse.training.module import class_weights
from pulmofuse.training.probe import HeadOnly, PooledSource

__all__ = [
    "BEST",
    "LAST",
    "BagSource",
    "BatchSource",
    "FeatureSource",
    "FindingsLoss",
    "HeadOnly",
    "InstanceSource",
    "PooledSource",
    "Progress",
    "SiteAdversary",
    "Targets",
    "VolumeSource",
    "check_epoch_choice",
    "class_weights",
    "fair_weights",
    "fit",
    "is_finished",
    "learnable_findings",
    "load_best",
    "new_findings_head",
    "patient_features",
    "site_weights",
]
