"""Joining modalities side by side or as a product, and the control that others have to beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pulmofuse.models.fusion_head import hide_modalities

#: Terms of the low-rank product: a very low rank is enough, a high one unstable (Liu et al. 2018).
_RANK = 4


class Concatenation(nn.Module):
    """Projections side by side, a learnt token in place of each absent one, one hidden layer.

    Args:
        n_modalities: columns of `present`.
        n_classes: number of outputs.
        hidden: length of the projections and of the hidden layer.
        dropout: rate on the fused features.
    """

    def __init__(self, n_modalities: int, n_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.absent = nn.Parameter(0.02 * torch.randn(n_modalities, hidden))
        self.head = nn.Sequential(
            nn.Linear(n_modalities * hidden, hidden),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(hidden, n_classes),
        )

    def forward(self, projected: Tensor, present: Tensor) -> Tensor:
        """(n, modalities, hidden) and (n, modalities) -> logits (n, classes)."""
        tokens = torch.where(present.unsqueeze(2), projected, self.absent)
        logits: Tensor = self.head(tokens.flatten(1))
        return logits


class LowRankBilinear(nn.Module):
    """Sum over a few ranks of the product of the modalities (LMF, arXiv:1806.00064).

    Each modality enters as [x, 1] (the appended one is the bias of its factor), so that the product
    holds every interaction of one, two and three modalities (Zadeh et al. 2017, arXiv:1707.07250).
    The factor of an absent modality is 1, the neutral element: what remains is the same model of
    the others. Factors start near 1, where a product is nearly a sum and trains like one.

    Args:
        n_modalities: columns of `present`.
        n_classes: number of outputs.
        hidden: length of the projections and of the product.
        dropout: rate on the fused features.
    """

    def __init__(self, n_modalities: int, n_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.factors = nn.ModuleList(nn.Linear(hidden, _RANK * hidden) for _ in range(n_modalities))
        for factor in self.factors:
            nn.init.ones_(factor.bias)  # type: ignore[arg-type]
        self.mix = nn.Parameter(torch.full((_RANK, 1), 1 / _RANK))
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, n_classes))

    def forward(self, projected: Tensor, present: Tensor) -> Tensor:
        """(n, modalities, hidden) and (n, modalities) -> logits (n, classes)."""
        logits: Tensor = self.head(self.product(projected, present))
        return logits

    def product(self, projected: Tensor, present: Tensor) -> Tensor:
        """The fused features (n, hidden)."""
        n, _, hidden = projected.shape
        product = projected.new_ones(n, _RANK * hidden)
        for i, factor in enumerate(self.factors):
            product = product * factor(projected[:, i]).masked_fill(~present[:, i : i + 1], 1.0)
        return (product.view(n, _RANK, hidden) * self.mix).sum(dim=1)


class ZeroFilled(nn.Module):
    """The usual network that does not know what is missing: zeros for it, one hidden layer.

    A control that the fusions are measured against; no study uses it.

    Args:
        feature_dims, hidden, modality_dropout: as in `FusionHead`.
        n_classes: number of outputs.
        dropout: rate on the hidden layer.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        n_classes: int,
        hidden: int,
        dropout: float,
        modality_dropout: float,
    ) -> None:
        super().__init__()
        self.modalities = tuple(feature_dims)
        self.modality_dropout = modality_dropout
        self.body = nn.Sequential(
            nn.Linear(sum(feature_dims.values()), len(feature_dims) * hidden), nn.Tanh()
        )
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(len(feature_dims) * hidden, n_classes)
        )

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Logits (n, classes); see `FusionHead.forward`."""
        if self.training and self.modality_dropout > 0:
            present = hide_modalities(present, self.modality_dropout)
        filled = [
            features[name].masked_fill(~present[:, i : i + 1], 0.0)
            for i, name in enumerate(self.modalities)
        ]
        logits: Tensor = self.head(self.body(torch.cat(filled, dim=1)))
        return logits

    def stages(self) -> list[list[nn.Module]]:
        """The hidden layer, and the head; for `models.unfreezing`."""
        return [[self.body], [self.head]]
