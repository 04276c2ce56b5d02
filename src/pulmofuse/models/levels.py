"""Pooling over several depths of a network: what textures there are, and how evenly.

The last feature map of an ImageNet network knows objects; what CT tells, ground glass among it, is
texture, which the middle stages know better (Cimpoi et al. 2015, arXiv:1411.6836; bilinear and
higher moments of such maps: Lin et al. 2015, arXiv:1504.07889). Each finer map gives its mean and
its standard deviation over all places. On frozen ImageNet features docs/results.md has the gain.

All maps are joined into one at the coarsest resolution, as means and mean squares of the places
that fall together, so that a feature map stays one tensor for Grad-CAM, views and ensembles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_SMALLEST_VARIANCE = 1e-5  # the gradient of a square root at 0 is infinite


def join_levels(maps: Sequence[Tensor]) -> Tensor:
    """One map of all levels.

    Args:
        maps: (n, c_i, h_i, w_i) from fine to coarse, as `Backbone.levels` gives them.

    Returns:
        (n, c_last + 2 * (c_0 + c_1 + ...), h, w) float32: the last map, then of each finer one its
        means and its mean squares. Sides that do not divide share a row or column between means.
    """
    last = maps[-1].float()
    size = (last.shape[2], last.shape[3])
    parts = [last]
    for level in maps[:-1]:
        values = level.float()
        parts += [functional.adaptive_avg_pool2d(v, size) for v in (values, values.square())]
    return torch.cat(parts, dim=1)


def pool_levels(joined: Tensor, channels: Sequence[int]) -> Tensor:
    """Means of all levels, and standard deviations of the finer ones.

    Args:
        joined: (n, channels, h, w) as `join_levels` gives it.
        channels: of each map that was joined, from fine to coarse.

    Returns:
        (n, as many) float32.
    """
    widths = [channels[-1], *(width for c in channels[:-1] for width in (c, c))]
    last, *finer = torch.split(joined.float().mean(dim=(2, 3)), widths, dim=1)
    parts = [last]
    for mean, square in zip(finer[::2], finer[1::2], strict=True):
        parts += [mean, (square - mean.square()).clamp_min(_SMALLEST_VARIANCE).sqrt()]
    return torch.cat(parts, dim=1)
