"""Mixtures of training rows: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Mixture(NamedTuple):
    """A batch mixed with a shuffled copy of itself.

    Attributes:
        inputs: as the batch, each row mixed with its partner.
        partner: (batch,) int64, the row that each was mixed with.
        share: of the row itself in the mixture, in [0, 1]; the partner has the rest.
    """

    inputs: Tensor
    partner: Tensor
    share: float


def draw_mixture(inputs: Tensor, mixup: float, cutmix: float) -> Mixture:
    """Mix a batch with itself; all draws come from torch's global generator.

    Args:
        inputs: images (batch, 1, height, width) or sounds (batch, samples).
        mixup: alpha of mixup's Beta distribution; 0 is off.
        cutmix: alpha of CutMix's; 0 is off. Where both are on, either is drawn half of the time.
            A box of an image, or a stretch of a sound, is the partner's.
    """
    partner = torch.randperm(len(inputs), device=inputs.device)
    cut = cutmix > 0 and (mixup == 0 or bool(torch.rand(()) < 0.5))
    alpha = torch.tensor(cutmix if cut else mixup)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    if not cut:
        return Mixture(torch.lerp(inputs[partner], inputs, share), partner, share)
    mask = _box(inputs.shape[2:] if inputs.ndim > 2 else inputs.shape[1:], 1.0 - share)
    mask = mask.to(inputs.device)
    mixed = torch.where(mask, inputs[partner], inputs)
    # The box is cut off at the edges and made of whole pixels, so its share is measured.
    return Mixture(mixed, partner, 1.0 - float(mask.float().mean()))


def _box(shape: torch.Size, share: float) -> Tensor:
    """True in a box of about `share` of the area, its centre anywhere: bool of `shape`."""
    mask = torch.ones(shape, dtype=torch.bool)
    for axis, length in enumerate(shape):
        side = share ** (1.0 / len(shape)) * length
        centre = float(torch.rand(())) * length
        position = torch.arange(length) + 0.5
        inside = (position - centre).abs() <= side / 2
        mask &= inside.view([-1 if i == axis else 1 for i in range(len(shape))])
    return mask
