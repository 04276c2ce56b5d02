"""EfficientNet-Lite 0, 1 and 2: small image networks without squeeze-excitation.

EfficientNet (Tan and Le 2019, arXiv:1905.11946) stacks inverted residual blocks (Sandler et al.
2018, arXiv:1801.04381) and scales depth and width together. The Lite release (Google, 2020,
Apache-2.0) makes it friendly to integer hardware: ReLU6 for swish, no squeeze-excitation, and a
stem, a head, a first and a last stage that are not scaled.

The released weights were trained in TensorFlow, whose "same" padding puts the odd pixel of a
stride-2 convolution at the bottom and right; padding both sides alike would shift every map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Channels of the feature map that `EfficientNetLite` returns; the same for every variant.
OUT_CHANNELS = 1280

_STEM_CHANNELS = 32
_BATCH_NORM_EPS = 1e-3  # of the release
_CHANNEL_MULTIPLE = 8  # widths are rounded to it, as in MobileNetV2
_LARGEST_SHRINKAGE = 0.9  # rounding may take at most a tenth of the channels
_DROP_PATH = 0.2  # stochastic depth of the last block in the release; grows linearly from 0


@dataclass(frozen=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# Table 1 of Tan and Le 2019; the Lite release keeps it.
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: ceil(size / stride) outputs per axis.

    Stride 1 pads both sides alike; stride 2 pads what the size of the input asks for, and the
    odd pixel goes to the bottom and right.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(
            in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, ceil(h / stride), ceil(w / stride))."""
        if self.stride[0] > 1:
            rows = _same_padding(x.shape[-2], self.kernel_size[0], self.stride[0])
            columns = _same_padding(x.shape[-1], self.kernel_size[1], self.stride[1])
            x = functional.pad(
                x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
            )
        if self.groups > 1 and x.device.type == "cpu" and x.dtype is torch.bfloat16:
            # oneDNN has no fast bf16 gradient of depthwise convolutions: a training step of Lite0
            # takes a third longer with them (benchmarks/depthwise.py).
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float()).to(x.dtype)
        return super().forward(x)


class _InvertedResidual(nn.Module):
    """Expand 1x1, depthwise k x k, project 1x1; a shortcut where the shapes agree."""

    def __init__(
        self, in_channels: int, out_channels: int, stage: _Stage, stride: int, drop_path: float
    ) -> None:
        super().__init__()
        wide = in_channels * stage.expansion
        self.expand = _conv_unit(in_channels, wide, 1) if stage.expansion > 1 else nn.Identity()
        self.depthwise = _conv_unit(wide, wide, stage.kernel, stride, groups=wide)
        self.project = _conv_unit(wide, out_channels, 1, activation=False)
        self.drop_path = drop_path
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, h', w')."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        if not self.shortcut:
            return y
        return x + (_drop_path(y, self.drop_path) if self.training else y)


class EfficientNetLite(nn.Module):
    """The convolutional part of an EfficientNet-Lite, without pooling and classifier.

    Args:
        width: multiplier of the channels (1.0 for Lite0 and Lite1, 1.1 for Lite2).
        depth: multiplier of the blocks per stage (1.0, 1.1, 1.2).
        in_channels: of the input.

    `forward` takes (n, in_channels, h, w), normalised as (x - 0.5) / 0.5 of [0, 1] for the
    released weights, and returns (n, 1280, ceil(h / 32), ceil(w / 32)).
    """

    def __init__(self, width: float, depth: float, in_channels: int = 1) -> None:
        super().__init__()
        self.stem = _conv_unit(in_channels, _STEM_CHANNELS, 3, stride=2)
        plan = list(_plan(width, depth))
        self.blocks = nn.Sequential(
            *(
                _InvertedResidual(before, after, stage, stride, _DROP_PATH * i / len(plan))
                for i, (before, after, stage, stride) in enumerate(plan)
            )
        )
        self.head = _conv_unit(plan[-1][1], OUT_CHANNELS, 1)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, 1280, ceil(h / 32), ceil(w / 32))."""
        y: Tensor = self.head(self.blocks(self.stem(x)))
        return y


def released_key(key: str) -> str | None:
    """Our name of a parameter of the released state dicts; None for the ImageNet classifier."""
    part, _, rest = key.partition(".")
    if part == "_fc":
        return None
    prefix = ""
    names = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1"}
    if part == "_blocks":
        index, _, rest = rest.partition(".")
        part, _, rest = rest.partition(".")
        prefix = f"blocks.{index}."
        names = {
            "_expand_conv": "expand.0",
            "_bn0": "expand.1",
            "_depthwise_conv": "depthwise.0",
            "_bn1": "depthwise.1",
            "_project_conv": "project.0",
            "_bn2": "project.1",
        }
    return f"{prefix}{names[part]}.{rest}" if part in names else key


def stage_names(width: float, depth: float) -> tuple[tuple[str, ...], ...]:
    """Names of the modules of each stage: the stem, the blocks of each row of `_STAGES`, the head.

    Args:
        width: as in `EfficientNetLite`.
        depth: as there.
    """
    rows = [stage for _, _, stage, _ in _plan(width, depth)]
    blocks = (tuple(f"blocks.{i}" for i, s in enumerate(rows) if s is stage) for stage in _STAGES)
    return (("stem",), *blocks, ("head",))


def _plan(width: float, depth: float) -> Iterator[tuple[int, int, _Stage, int]]:
    """(channels in, channels out, stage, stride) of every block."""
    before = _STEM_CHANNELS
    for i, stage in enumerate(_STAGES):
        scaled = 0 < i < len(_STAGES) - 1
        repeats = math.ceil(stage.repeats * depth) if scaled else stage.repeats
        after = _round_channels(stage.channels * width)
        for block in range(repeats):
            yield before, after, stage, stage.stride if block == 0 else 1
            before = after


def _round_channels(channels: float) -> int:
    rounded = max(
        _CHANNEL_MULTIPLE,
        int(channels + _CHANNEL_MULTIPLE / 2) // _CHANNEL_MULTIPLE * _CHANNEL_MULTIPLE,
    )
    return rounded + _CHANNEL_MULTIPLE if rounded < _LARGEST_SHRINKAGE * channels else rounded


def _conv_unit(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    activation: bool = True,
) -> nn.Sequential:
    """Convolution, batch normalisation and, if wanted, ReLU6."""
    # The release averages batch statistics over about 100 steps (momentum 0.01): a data set of a
    # few hundred images would end training before they moved away from ImageNet. PyTorch's 0.1.
    layers: list[nn.Module] = [
        SameConv2d(in_channels, out_channels, kernel, stride, groups),
        nn.BatchNorm2d(out_channels, eps=_BATCH_NORM_EPS),
    ]
    return nn.Sequential(*layers, nn.ReLU6()) if activation else nn.Sequential(*layers)


def _same_padding(size: int, kernel: int, stride: int) -> int:
    return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)


def _drop_path(x: Tensor, rate: float) -> Tensor:
    """Stochastic depth (Huang et al. 2016, arXiv:1603.09382): drop the branch of some samples."""
    if rate == 0.0:
        return x
    keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= rate
    return x * (keep.to(x.dtype) / (1.0 - rate))


def _initialise(network: nn.Module) -> None:
    """He initialisation by fan-out, as in the release, for training from scratch."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
