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
