"""What every feature-level fusion has: one projection per modality, and something that joins them.

The rest of a fusion sees projections of equal length and a mask of who is there. Absent features
are overwritten before and after the projection, so nothing that stands in their place, NaN
included, can reach the output or a gradient.

Projections are linear, of features that were centred and scaled by figures of the training rows.
A LayerNorm and a tanh in their place cost .02 of AUC on simulated pairs of few features and
overfitted sooner: the first takes each patient's own scale away, which is evidence too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

#: Spread of a modality's features, as a share of their size, below which it is not scaled up. A
#: file by itself and the same in a batch differ by 3e-7 of that size, which must stay below 1e-5 of
#: a probability; trained networks of real data spread by .24 of it and more.
_LEAST_SPREAD = 0.05


class FusionHead(nn.Module):
    """Project each modality, hide some in training, join what is present.

    Args:
        feature_dims: modality -> length of its features; its order is that of `present`.
        hidden: length of the common projection.
        dropout: rate on the projections.
        modality_dropout: chance in training to hide a present modality (Neverova et al. 2016,
            arXiv:1501.00102), so that every subset is trained. The last one is never hidden.
        joint: called with the projections (n, modalities, hidden), zero where absent, and
            `present` (n, modalities); gives logits (n, classes).
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        hidden: int,
        dropout: float,
        modality_dropout: float,
        joint: nn.Module,
    ) -> None:
        super().__init__()
        self.modalities = tuple(feature_dims)
        self.modality_dropout = modality_dropout
        self.projections = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(dim, hidden), nn.Dropout(dropout))
                for name, dim in feature_dims.items()
            }
        )
        for name, dim in feature_dims.items():
            self.register_buffer(f"centre_{name}", torch.zeros(dim))
            self.register_buffer(f"scale_{name}", torch.ones(1))
        self.joint = joint

    def learn_scale(self, features: Mapping[str, Tensor], present: Tensor) -> None:
        """Centre each feature, and scale each modality as a whole, by the rows that have it.

        One scale for all features of a modality leaves the directions in which patients differ
        most as they are, and does not blow up a feature that hardly ever changes.

        Args:
            features: of training rows, as in `forward`.
            present: of the same rows, as in `forward`.
        """
        for i, name in enumerate(self.modalities):
            values = features[name][present[:, i]]
            if len(values) > 1:
                centre = values.mean(dim=0)
                spread = (values - centre).square().mean().sqrt()
                self.get_buffer(f"centre_{name}").copy_(centre)
                # Features that hardly differ at all would be rounding errors blown up.
                least = _LEAST_SPREAD * values.square().mean().sqrt()
                scale = float(torch.maximum(spread, least))
                self.get_buffer(f"scale_{name}").fill_(scale or 1.0)

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Logits (n, classes), finite for every subset of the modalities, the empty one too.

        Args:
            features: modality -> (n, feature_dim); rows of absent modalities are ignored, and may
                hold anything, NaN included.
            present: (n, modalities) bool.
        """
        if self.training and self.modality_dropout > 0:
            present = hide_modalities(present, self.modality_dropout)
        logits: Tensor = self.joint(self.project(features, present), present)
        return logits

    def project(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """(n, modalities, hidden); zero where absent. Arguments as in `forward`."""
        rows = []
        for i, name in enumerate(self.modalities):
            absent = ~present[:, i : i + 1]
            # Masked before and after: NaN times zero is NaN, and a zero row has a projection too.
            clean = features[name].masked_fill(absent, 0.0) - self.get_buffer(f"centre_{name}")
            clean = clean / self.get_buffer(f"scale_{name}")
            rows.append(self.projections[name](clean).masked_fill(absent, 0.0))
        return torch.stack(rows, dim=1)

    def stages(self) -> list[list[nn.Module]]:
        """The projections, and all behind them as the head; for `models.unfreezing`."""
        return [[self.projections], [self.joint]]


def hide_modalities(present: Tensor, rate: float) -> Tensor:
    """Hide each present modality with a chance, but never all of a row.

    The present modality with the largest draw stays in any case: where any draw reaches `rate`
    it stays anyhow, so this changes only rows that would otherwise be empty.

    Args:
        present: (n, modalities) bool.
        rate: in [0, 1).
    """
    draws = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    return present & ((draws >= rate) | (draws == draws.amax(dim=1, keepdim=True)))
