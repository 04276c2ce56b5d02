"""A small network for CT volumes: convolutions in the plane and along the axis, taken apart.

A (2+1)D residual network (Tran et al. 2018, arXiv:1711.11248) of 1.7 million parameters. Both
halves of a 3 x 3 x 3 convolution are written as 2D convolutions: within slices on
(n * depth, c, h, w), along the axis on (n, c, depth, h * w). In channels-last memory the one is a
view of the other, and a CPU has fast kernels for both.
"""

from __future__ import annotations

from torch import Tensor, nn

from pulmofuse.models.classifier import Classifier

_STEM = 32
#: Channels, stride in the plane and stride along the axis of each residual block.
_BLOCKS = (
    (64, 2, 1),
    (64, 1, 1),
    (128, 2, 2),
    (128, 1, 1),
    (256, 2, 2),
    (256, 1, 1),
)
# Grey level of ImageNet, as for the image backbones; no weights ask for it here.
_MEAN, _STD = 0.449, 0.226


class _Block(nn.Module):
    """A convolution in the plane, one along the axis, and a way around both."""

    def __init__(self, before: int, after: int, stride: int, axis_stride: int) -> None:
        super().__init__()
        self.plane = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        )
        self.axis = nn.Sequential(
            nn.Conv2d(after, after, (3, 1), (axis_stride, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(after),
        )
        self.around = (
            nn.Identity()
            if before == after
            else nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        )
        self._stride, self._axis_stride = stride, axis_stride

    def forward(self, x: Tensor, n: int) -> Tensor:
        """(n * depth, before, h, w) -> (n * depth / axis_stride, after, h / stride, w / stride)."""
        height, width = (-(-length // self._stride) for length in x.shape[2:])
        deep = self.axis(_by_volume(self.plane(x), n))
        around = _by_volume(self.around(x), n)[:, :, :: self._axis_stride]
        return _by_slice((deep + around).relu(), height, width)


class VolumeClassifier(Classifier):
    """A volume as a whole: (2+1)D convolutions, a global mean and a linear head.

    Args:
        depth: slices of the volumes that it reads; records are brought to it by `to_volumes`.
        n_classes: number of outputs.
        dropout: rate on the pooled features.
    """

    def __init__(self, depth: int, n_classes: int, dropout: float) -> None:
        super().__init__(_BLOCKS[-1][0], n_classes, dropout)
        self.depth = depth
        self.stem = nn.Sequential(
            nn.Conv2d(1, _STEM, 7, 2, padding=3, bias=False), nn.BatchNorm2d(_STEM), nn.ReLU()
        )
        widths = (_STEM, *(width for width, _, _ in _BLOCKS))
        self.blocks = nn.ModuleList(
            _Block(before, *block) for before, block in zip(widths, _BLOCKS, strict=False)
        )

    def feature_map(self, x: Tensor) -> Tensor:
        """(n, depth, h, w) in [0, 1] -> (n, channels, h', w'), the mean along the axis.

        The mean over the places of what remains is the mean over the volume, and Grad-CAM gets a
        map in the plane.
        """
        n, depth, height, width = x.shape
        slices = x.contiguous().view(n * depth, 1, height, width)
        y = self.stem((slices - _MEAN) / _STD)
        for block in self.blocks:
            y = block(y, n)
        out: Tensor = y.reshape(n, -1, *y.shape[1:]).mean(dim=1)
        return out


def _by_volume(x: Tensor, n: int) -> Tensor:
    """(n * depth, c, h, w) -> (n, c, depth, h * w)."""
    slices, channels, height, width = x.shape
    channels_last = x.permute(0, 2, 3, 1)
    return channels_last.reshape(n, slices // n, height * width, channels).permute(0, 3, 1, 2)


def _by_slice(x: Tensor, height: int, width: int) -> Tensor:
    """(n, c, depth, h * w) -> (n * depth, c, h, w)."""
    n, channels, depth, _ = x.shape
    channels_last = x.permute(0, 2, 3, 1)
    return channels_last.reshape(n * depth, height, width, channels).permute(0, 3, 1, 2)
