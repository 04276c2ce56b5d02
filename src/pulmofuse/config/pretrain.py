"""Self-supervised pre-training of an image backbone, and the views it learns from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pulmofuse.config.base import Count, Fraction, Node, Positive
from pulmofuse.config.data import SourceConfig


class PretrainConfig(Node):
    """BYOL (Grill et al. 2020): two views of an image are told to look alike.

    `extra` names further data sets, whose labels are not asked for. `momentum` is that of the
    target network at the start; it rises to 1. A view is a crop of `crop` (share of the area) that
    is shrunk to `size`, turned, blurred and changed in its grey values; it is mirrored where the
    modality's own augmentation mirrors.
    """

    extra: tuple[SourceConfig, ...] = ()
    epochs: Count = 40
    size: Annotated[int, Field(ge=32, le=1024)] = 128
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr_backbone: Positive = 2e-4
    lr_head: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02
    warmup: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    hidden: Count = 512
    projection: Annotated[int, Field(ge=2)] = 128
    crop: tuple[Annotated[float, Field(gt=0.0)], Fraction] = (0.3, 1.0)
    rotate_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 10.0
    brightness: Fraction = 0.3
    contrast: Fraction = 0.4
    gamma: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.4
    noise: Fraction = 0.03
    blur: Annotated[float, Field(ge=0.0, le=5.0)] = 1.0
    cutout: Fraction = 0.2
    gradient_clip: Positive = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"

    @model_validator(mode="after")
    def _ordered(self) -> PretrainConfig:
        if self.crop[0] > self.crop[1]:
            raise ValueError("crop must give the lower bound first")
        return self
