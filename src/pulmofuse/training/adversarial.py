"""Features that do not tell the site: a gradient-reversal head on the pooled features.

Domain-adversarial training (Ganin et al. 2016, "Domain-adversarial training of neural networks",
JMLR 17:59): a small network learns to tell the site from the features, and the reversed gradient
makes the features worse for it. Where the site goes with the class, plain reversal would erase the
class as well. So there is one head per class (Li et al. 2018, "Deep domain generalization via
conditional invariant adversarial networks"), each of whose sites weighs the same: what a head can
then tell is not what the class says.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pulmofuse.training.data import Targets

#: gamma of the paper's ramp, 2 / (1 + exp(-gamma p)) - 1: at a tenth of the training the strength
#: is .46 of its final value, at three tenths .91.
_RAMP = 10.0
_HIDDEN = 64

#: Logit of what is no answer; finite, so that it can be multiplied by 0.
_NEVER = -1e9


class _Reversal(torch.autograd.Function):
    """Identity forwards; the gradient times `-scale` backwards."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradients[0], None


def reverse_gradient(features: Tensor, scale: float) -> Tensor:
    """The same features, whose gradient is multiplied by `-scale` on its way back."""
    return cast(Tensor, _Reversal.apply(features, scale))  # type: ignore[no-untyped-call]


class SiteAdversary(nn.Module):
    """An `Auxiliary` loss: how well the site is told inside each class, reversed for the features.

    Rows of unknown site (-1) are left out, and so is a class that was recorded at one site only:
    inside it nothing can be told.

    Args:
        feature_dim: length of the pooled features.
        weights: (classes, sites) of the rows' losses, as `site_weights` gives them.
        strength: final factor of the reversed gradient; the heads themselves learn at full speed.
    """

    weights: Tensor

    def __init__(self, feature_dim: int, weights: Tensor, strength: float) -> None:
        super().__init__()
        n_classes, n_sites = weights.shape
        self.trunk = nn.Sequential(nn.Linear(feature_dim, _HIDDEN), nn.ReLU())
        self.heads = nn.Linear(_HIDDEN, n_classes * n_sites)
        self.register_buffer("weights", weights.float(), persistent=False)
        self.strength = strength
        #: Share of the training that is done; `TrainingModule` sets it before every step.
        self.progress = 0.0

    def forward(self, features: Tensor, targets: Targets) -> Tensor:
        """Weighted mean cross-entropy of the site, (); 0 where no row can be told.

        Args:
            features: (batch, feature_dim).
            targets: with `site`.
        """
        if targets.site is None:
            raise ValueError("SiteAdversary needs targets with sites")
        scale = self.strength * ramp(self.progress)
        with torch.autocast(features.device.type, enabled=False):
            hidden = self.trunk(reverse_gradient(features.float(), scale))
            logits = self.heads(hidden).view(len(features), *self.weights.shape)
            own = logits[torch.arange(len(features)), targets.y]
            # A site that the class was never recorded at is no answer.
            own = own.masked_fill(self.weights[targets.y] == 0, _NEVER)
            site = targets.site.clamp_min(0)
            weight = self.weights[targets.y, site] * (targets.site >= 0)
            losses = cross_entropy(own, site, reduction="none")
            # Multiplied, not selected: with no row left the graph still reaches the features.
            return (losses * weight).sum() / weight.sum().clamp_min(1e-6)


def site_weights(y: Tensor, site: Tensor, n_classes: int) -> Tensor:
    """1 / p(site | class) with mean 1 over the rows of each class that can be told.

    Args:
        y: (n,) int64 class index of the training rows.
        site: (n,) int64 index of their site, -1 if not known.
        n_classes: number of classes.

    Returns:
        (classes, sites); 0 for a site without rows of the class, and in a class of one site.
    """
    known = site >= 0
    n_sites = int(site.max()) + 1 if bool(known.any()) else 1
    counts = torch.bincount(y[known] * n_sites + site[known], minlength=n_classes * n_sites)
    counts = counts.view(n_classes, n_sites).double()
    n_present = (counts > 0).sum(dim=1, keepdim=True)
    weights = counts.sum(dim=1, keepdim=True) / (n_present * counts).clamp_min(1.0)
    return torch.where((counts > 0) & (n_present > 1), weights, 0.0).float()


def ramp(progress: float) -> float:
    """Share of the final strength, from 0 at the start to nearly 1 at the end (Ganin et al.).

    Args:
        progress: share of the training that is done, 0 to 1.
    """
    return 2.0 / (1.0 + math.exp(-_RAMP * progress)) - 1.0
