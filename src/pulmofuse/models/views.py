"""Views of an image that a trained model averages over (test-time augmentation)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional

from pulmofuse.config import TestTimeViews


def views_of(x: Tensor, config: TestTimeViews) -> Iterator[Tensor]:
    """The image itself first, then its other views.

    Args:
        x: (n, channels, h, w).
        config: which views.

    Yields:
        (n, channels, h, w), `len(zooms)` views or twice as many.
    """
    for zoom in sorted(config.zooms, key=lambda zoom: zoom != 1.0):
        view = zoomed(x, zoom)
        yield view
        if config.flip_horizontal:
            yield view.flip(3)


def zoomed(x: Tensor, zoom: float) -> Tensor:
    """The image at `zoom` times its size about its middle, cut or filled to the size it had.

    Args:
        x: (n, channels, h, w).
        zoom: above 1 larger; below 1 smaller, and the edge of the image is repeated around it.
    """
    if zoom == 1.0:
        return x
    theta = x.new_tensor([[1 / zoom, 0.0, 0.0], [0.0, 1 / zoom, 0.0]]).expand(len(x), 2, 3)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
