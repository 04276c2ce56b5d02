"""Models: backbones, unimodal classifiers, feature-level fusion, and what they say of records."""

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
from pulmofuse.models.joining import joined, patient_probabilities, patient_vector, record_shares
from pulmofuse.models.memory import remember_features
from pulmofuse.models.predict import Inferred, infer_records, mean_per_record, model_input
from pulmofuse.models.unfreezing import check_stages
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
    "Inferred",
    "VolumeClassifier",
    "build_audio_model",
    "build_backbone",
    "build_ct_model",
    "build_cxr_model",
    "build_fusion",
    "check_stages",
    "frozen",
    "infer_records",
    "joined",
    "mean_per_record",
    "model_input",
    "patient_probabilities",
    "patient_vector",
    "record_shares",
    "remember_features",
]
