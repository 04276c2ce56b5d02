"""The models and their training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pulmofuse.config.base import Count, Node, Positive
from pulmofuse.config.preprocessing import (
    CoughAugmentation,
    CoughPreprocessing,
    CtPreprocessing,
    CxrPreprocessing,
    ImageAugmentation,
)


class ImageModelConfig(Node):
    """A backbone and a head. `weights`: "imagenet", "none", a file or a URL."""

    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2


class CxrModelConfig(ImageModelConfig):
    """An image model that may learn findings beside the classes.

    `findings_weight` is the factor of their loss beside that of the classes; 0 is off.
    """

    findings_weight: Annotated[float, Field(ge=0.0)] = 0.0


class CoughModelConfig(Node):
    """Architecture of the cough model; `backbone` and `weights` are for spectrogram_cnn only."""

    architecture: Literal["spectrogram_cnn", "mfcc_lstm", "crnn"] = "spectrogram_cnn"
    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    hidden: Count = 64


class TrainingConfig(Node):
    """Optimisation of one model: AdamW, one cycle, two learning-rate groups.

    `mixup` and `cutmix` are the alpha of the Beta distribution that shares are drawn from; 0 is
    off, and where both are on, each batch draws one of them.
    """

    epochs: Count = 18
    batch_size: Count = 32
    accumulate: Count = 1
    lr_backbone: Positive = 4e-4
    lr_head: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02
    warmup: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    mixup: Annotated[float, Field(ge=0.0)] = 0.0
    cutmix: Annotated[float, Field(ge=0.0)] = 0.0
    class_weights: bool = True
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.98
    patience: Count = 8
    gradient_clip: Positive = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"


class CtConfig(Node):
    """Everything about the CT model."""

    preprocessing: CtPreprocessing = CtPreprocessing()
    # A mirrored CT slice is still an axial slice of a chest; a mirrored X-ray is dextrocardia.
    augmentation: ImageAugmentation = ImageAugmentation(flip_horizontal=True)
    model: ImageModelConfig = ImageModelConfig()
    training: TrainingConfig = TrainingConfig()


class CxrConfig(Node):
    """Everything about the chest X-ray model."""

    preprocessing: CxrPreprocessing = CxrPreprocessing()
    augmentation: ImageAugmentation = ImageAugmentation()
    model: CxrModelConfig = CxrModelConfig()
    training: TrainingConfig = TrainingConfig()


class CoughConfig(Node):
    """Everything about the cough model."""

    preprocessing: CoughPreprocessing = CoughPreprocessing()
    augmentation: CoughAugmentation = CoughAugmentation()
    model: CoughModelConfig = CoughModelConfig()
    training: TrainingConfig = TrainingConfig()


class FusionTraining(Node):
    """The feature-level fusion: gated attention over the features of the unimodal models."""

    hidden: Count = 64
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    modality_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    views: Count = 4
    training: TrainingConfig = TrainingConfig(
        epochs=30,
        batch_size=64,
        lr_backbone=1e-3,
        lr_head=1e-3,
        weight_decay=0.05,
        patience=10,
        ema_decay=0.9,
        precision="fp32",
    )
