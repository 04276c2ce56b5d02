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
from pulmofuse.training.joining import joined, patient_probabilities, patient_vector, record_shares
from pulmofuse.training.memory import remember_features
from pulmofuse.training.module import class_weights
from pulmofuse.training.predict import Inferred, infer_records, mean_per_record, model_input
from pulmofuse.training.probe import HeadOnly, PooledSource
from pulmofuse.training.unfreezing import check_stages

__all__ = [
    "BEST",
    "LAST",
    "BagSource",
    "BatchSource",
    "FeatureSource",
    "FindingsLoss",
    "HeadOnly",
    "Inferred",
    "InstanceSource",
    "PooledSource",
    "Progress",
    "SiteAdversary",
    "Targets",
    "VolumeSource",
    "check_epoch_choice",
    "check_stages",
    "class_weights",
    "fair_weights",
    "fit",
    "infer_records",
    "is_finished",
    "joined",
    "learnable_findings",
    "load_best",
    "mean_per_record",
    "model_input",
    "new_findings_head",
    "patient_features",
    "patient_probabilities",
    "patient_vector",
    "record_shares",
    "remember_features",
    "site_weights",
]
