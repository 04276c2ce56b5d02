"""Training of every model, and prediction with what was trained."""

from pulmofuse.training.adversarial import SiteAdversary, site_weights
from pulmofuse.training.data import InstanceSource, Targets
from pulmofuse.training.fit import Progress, fit, is_finished, load_best
from pulmofuse.training.fusion import FeatureSource, patient_features
from pulmofuse.training.module import class_weights
from pulmofuse.training.predict import infer, mean_per_record
from pulmofuse.training.unfreezing import check_stages

__all__ = [
    "FeatureSource",
    "InstanceSource",
    "Progress",
    "SiteAdversary",
    "Targets",
    "check_stages",
    "class_weights",
    "fit",
    "infer",
    "is_finished",
    "load_best",
    "mean_per_record",
    "patient_features",
    "site_weights",
]
