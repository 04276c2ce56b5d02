"""The CT model: one axial slice in, class logits out.

A volume is a bag of slices; its probability is the mean over them (docs/decisions/0001-shape.md).
"""

from __future__ import annotations

from pulmofuse.config import CtConfig
from pulmofuse.models.backbones import build_backbone
from pulmofuse.models.classifier import Classifier, ImageClassifier


def build_ct_model(config: CtConfig, n_classes: int) -> Classifier:
    """A classifier of CT slices (n, 1, h, w) in [0, 1].

    Raises:
        ConfigError: no such backbone.
        WeightsError: the starting weights are missing, damaged or do not fit.
    """
    backbone = build_backbone(config.model.backbone, config.model.weights)
    return ImageClassifier(
        backbone, n_classes, config.model.dropout, config.tta, config.model.pooling
    )
