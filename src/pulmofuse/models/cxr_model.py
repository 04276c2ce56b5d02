"""The chest X-ray model: one radiograph in, class logits out."""

from __future__ import annotations

from pulmofuse.config import CxrConfig
from pulmofuse.models.backbones import build_backbone
from pulmofuse.models.classifier import Classifier, ImageClassifier


def build_cxr_model(config: CxrConfig, n_classes: int) -> Classifier:
    """A classifier of chest X-rays (n, 1, h, w) in [0, 1].

    Raises:
        ConfigError: no such backbone.
        WeightsError: the starting weights are missing, damaged or do not fit.
    """
    backbone = build_backbone(config.model.backbone, config.model.weights)
    return ImageClassifier(backbone, n_classes, config.model.dropout, config.tta)
