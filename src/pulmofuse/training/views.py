"""Views of an image for self-supervision: what may change without changing what is seen."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from pulmofuse.config import ImageAugmentation, PretrainConfig
from pulmofuse.preprocessing import ImageAugment

#: Sides of a crop relate at most as 4 to 3 (Szegedy et al. 2015).
_MOST_ASPECT = 4 / 3
_LEAST_BLUR = 0.1  # px: a kernel of one pixel


class RandomView(nn.Module):
    """One view of each image: a crop at the size of training, blurred and otherwise changed.

    All draws come from torch's global generator.

    Args:
        config: how far a view may go.
        flip: whether half of the views are mirrored.
    """

    def __init__(self, config: PretrainConfig, *, flip: bool) -> None:
        super().__init__()
        self._config = config
        self._change = ImageAugment(
            ImageAugmentation(
                rotate_deg=config.rotate_deg,
                translate=0.0,
                scale=0.0,
                shear_deg=0.0,
                flip_horizontal=flip,
                brightness=config.brightness,
                contrast=config.contrast,
                gamma=config.gamma,
                noise=config.noise,
                cutout=config.cutout,
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1, h, w) in [0, 1] -> (n, 1, size, size) in [0, 1]."""
        out = random_crop(images, self._config.size, *self._config.crop)
        if self._config.blur:
            out = random_blur(out, self._config.blur)
        changed: Tensor = self._change(out)
        return changed


def random_crop(images: Tensor, size: int, least: float, most: float) -> Tensor:
    """A box of each image, of a share of its area between `least` and `most`, as a square.

    Args:
        images: (n, 1, h, w).
        size: side of the result, pixels.
        least: share of the area.
        most: the same.

    Returns:
        (n, 1, size, size).
    """
    n = len(images)
    draws = torch.rand(4, n, device=images.device)
    area = least + (most - least) * draws[0]
    aspect = torch.exp((2.0 * draws[1] - 1.0) * math.log(_MOST_ASPECT))
    width, height = ((area * a).sqrt().clamp(max=1.0) for a in (aspect, 1.0 / aspect))
    # The grid runs from -1 to 1, so a box of half that width has room for 1 - width either way.
    x, y = (
        (1.0 - side) * (2.0 * d - 1.0) for side, d in zip((width, height), draws[2:], strict=True)
    )
    zero = torch.zeros_like(x)
    theta = torch.stack(
        [torch.stack([width, zero, x], dim=1), torch.stack([zero, height, y], dim=1)], dim=1
    )
    grid = affine_grid(theta, [n, 1, size, size], align_corners=False)
    # At the very edge, half a pixel of the grid lies outside the image.
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def random_blur(images: Tensor, most: float) -> Tensor:
    """Half of the images (n, 1, h, w) under a Gaussian of a width of up to `most` pixels."""
    n = len(images)
    draws = torch.rand(2, n, 1, device=images.device)
    sigma = torch.where(draws[0] < 0.5, most * draws[1], 0.0).clamp(min=_LEAST_BLUR)
    reach = math.ceil(2 * most)
    offset = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).to(images.dtype)
    # Every image is a channel with a kernel of its own.
    out = pad(images.transpose(0, 1), [reach] * 4, mode="reflect")
    out = conv2d(out, kernel[:, None, :, None], groups=n)
    out = conv2d(out, kernel[:, None, None, :], groups=n)
    return out.transpose(0, 1)
