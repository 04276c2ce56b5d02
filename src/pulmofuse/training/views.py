"""Views of an image for self-supervision: what may change without changing what is seen."""

from __future__ import annotations

from torch import Tensor, nn

from pulmofuse.config import ImageAugmentation, PretrainConfig
from pulmofuse.preprocessing import ImageAugment
from pulmofuse.preprocessing.acquisition import REFERENCE_SIDE, random_blur, random_crop

_BLURRED = 0.5  # share of the views


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
        size = self._config.size
        out = random_crop(images, *self._config.crop, (size, size))
        if self._config.blur:
            # Its pixels are those of a view.
            out = random_blur(out, self._config.blur * REFERENCE_SIDE / size, _BLURRED)
        changed: Tensor = self._change(out)
        return changed
