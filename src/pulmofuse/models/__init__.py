"""Models: backbones, the three unimodal classifiers and the feature-level fusion."""

from pulmofuse.models.audio_model import ARCHITECTURES, build_audio_model
from pulmofuse.models.backbones import BACKBONES, Backbone, BackboneEntry, build_backbone
from pulmofuse.models.bags import GatedAttention, Gathered
from pulmofuse.models.classifier import Classifier, ImageClassifier
from pulmofuse.models.ct_model import build_ct_model
from pulmofuse.models.cxr_model import build_cxr_model
from pulmofuse.models.ensemble import Ensemble
from pulmofuse.models.findings_head import FindingsHead
from pulmofuse.models.frozen import frozen
from pulmofuse.models.fusion_head import FusionHead
from pulmofuse.models.fusion_model import FUSION_CONTROLS, FUSIONS, build_fusion
from pulmofuse.models.volume import VolumeClassifier

__all__ = [
    "ARCHITECTURES",
    "BACKBONES",
    "FUSIONS",
    "FUSION_CONTROLS",
    "Backbone",
    "BackboneEntry",
    "Classifier",
    "Ensemble",
    "FindingsHead",
    "FusionHead",
    "GatedAttention",
    "Gathered",
    "ImageClassifier",
    "VolumeClassifier",
    "build_audio_model",
    "build_backbone",
    "build_ct_model",
    "build_cxr_model",
    "build_fusion",
    "frozen",
]
