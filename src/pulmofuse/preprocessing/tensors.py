"""Stored instances to tensors: the one place that knows how integers map to [0, 1] or [-1, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IMAGE_SCALE = 255
#: Not 32,768: full scale up and down are then both exactly 1.
SOUND_SCALE = 32767


def to_tensor(instances: npt.NDArray[Any]) -> Tensor:
    """Instances as float32 tensors; the data are copied, so a memory map may be given.

    Args:
        instances: uint8 (n, height, width), or int16 (n, samples).

    Returns:
        (n, 1, height, width) in [0, 1], or (n, samples) in [-1, 1].

    Raises:
        ValueError: another type or number of axes.
    """
    if instances.dtype == np.uint8 and instances.ndim == 3:
        return torch.from_numpy(np.array(instances)).unsqueeze(1).float().div_(IMAGE_SCALE)
    if instances.dtype == np.int16 and instances.ndim == 2:
        return torch.from_numpy(np.array(instances)).float().div_(SOUND_SCALE)
    raise ValueError(
        f"no instances have type {instances.dtype} and {instances.ndim} axes;"
        " images are uint8 (n, height, width), coughs int16 (n, samples)"
    )


def to_volumes(slices: Tensor, counts: Tensor, depth: int) -> Tensor:
    """Records of any number of slices as volumes of one depth, interpolated linearly.

    The first and last slices stay where they are; a record of one slice is that slice `depth`
    times.

    Args:
        slices: (n, 1, height, width), those of one record next to each other and in order.
        counts: (records,) int, how many slices each record has, at least one.
        depth: slices of each volume.

    Returns:
        (records, depth, height, width). The slices stand where images have channels, so that a
        batch augmentation changes all slices of a volume alike.
    """
    last = (counts - 1)[:, None]
    # A volume of one slice is cut half-way along the axis.
    place = torch.arange(depth) * last / (depth - 1) if depth > 1 else last / 2
    low = place.floor()
    start = (counts.cumsum(0) - counts)[:, None]
    first = start + low.long()
    second = start + torch.minimum(low.long() + 1, last)
    flat = slices.squeeze(1)
    return torch.lerp(flat[first], flat[second], (place - low)[..., None, None])
