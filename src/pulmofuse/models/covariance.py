"""Pooling by covariance: which features of a middle map appear together, and how strongly.

Mean and spread of each channel (`models.levels`) say how much of a texture there is; whether two
of them lie in the same places, as septa in ground glass do, is in the covariances of the channels
over all places (second-order pooling: Lin et al. 2015, arXiv:1504.07889, also for the signed root,
without which the few strongest channels would rule). On frozen ImageNet features docs/results.md
has the gain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

#: Below this a root is replaced by a line: its gradient at 0 would be infinite.
_SMALLEST = 1e-6


def covariance_features(channels: Sequence[int]) -> int:
    """How many numbers `pool_covariance` makes of maps of these channels."""
    return sum(c * (c + 1) // 2 for c in channels)


def pool_covariance(joined: Tensor, channels: Sequence[int]) -> Tensor:
    """Signed roots of the covariances over all places, of each network's channels by themselves.

    Args:
        joined: (n, channels, h, w), the maps of several networks side by side.
        channels: of each of these maps.

    Returns:
        (n, covariance_features(channels)) float32: of each map the upper triangle, row by row.
    """
    parts = []
    for width, level in zip(
        channels, torch.split(joined.float(), list(channels), dim=1), strict=True
    ):
        places = level.flatten(2)
        centred = places - places.mean(dim=2, keepdim=True)
        covariances = centred @ centred.transpose(1, 2) / places.shape[2]
        # By numpy, so that an export sees constants: OpenVINO knows no `triu_indices`.
        chosen = np.ravel_multi_index(np.triu_indices(width), (width, width))
        upper = covariances.flatten(1)[:, torch.from_numpy(chosen).to(level.device)]
        parts.append(upper / (upper.abs() + _SMALLEST).sqrt())
    return torch.cat(parts, dim=1)
