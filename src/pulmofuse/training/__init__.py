"""Training of every model, and prediction with what was trained."""

from pulmofuse.training.data import InstanceSource, Targets
from pulmofuse.training.findings import FindingsLoss, learnable_findings, new_findings_head
from pulmofuse.training.fit import Progress, fit, is_finished, load_best
from pulmofuse.training.fusion import FeatureSource, patient_features
from pulmofuse.training.module import class_weights
from pulmofuse.training.predict import infer, mean_per_record

__all__ = [
    "FeatureSource",
    "FindingsLoss",
    "InstanceSource",
    "Progress",
    "Targets",
    "class_weights",
    "fit",
    "infer",
    "is_finished",
    "learnable_findings",
    "load_best",
    "mean_per_record",
    "new_findings_head",
    "patient_features",
]
