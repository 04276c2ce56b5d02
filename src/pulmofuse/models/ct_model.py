"""The CT model: axial slices in, class logits out.

A volume is a bag of slices. `aggregation` says how they are joined: by the mean of their
probabilities, by attention over their features, or by a network that sees the volume as a whole.
"""

from __future__ import annotations

from pulmofuse.config import CtConfig
from pulmofuse.models.backbones import build_backbone
from pulmofuse.models.classifier import Classifier, ImageClassifier
from pulmofuse.models.volume import VolumeClassifier


def build_ct_model(config: CtConfig, n_classes: int) -> Classifier:
    """A classifier of CT slices (n, 1, h, w), or of volumes (n, depth, h, w), in [0, 1].

    Raises:
        ConfigError: no such backbone.
        WeightsError: the starting weights are missing, damaged or do not fit.
    """
    settings = config.model
    if settings.aggregation == "volume":
        return VolumeClassifier(settings.depth, n_classes, settings.dropout)
    backbone = build_backbone(settings.backbone, settings.weights)
    model = ImageClassifier(backbone, n_classes, settings.dropout, config.tta, settings.pooling)
    if settings.aggregation == "attention":
        model.attend_to_instances(settings.attention_hidden)
    return model
