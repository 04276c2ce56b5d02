"""Feature-level fusion of any subset of modalities by gated attention.

Attention pooling over a bag (Ilse, Tomczak and Welling 2018, arXiv:1802.04712) does not ask how
many things lie in the bag: here they are the modalities that a patient has. An absent modality
gets no weight, and nothing that stands in its place can reach the output.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class GatedAttentionFusion(nn.Module):
    """Project each modality, weigh the present ones, sum, classify.

    Args:
        feature_dims: modality -> length of its features; its order is that of `present`.
        n_classes: number of outputs.
        hidden: length of the common projection and of the attention layer.
        dropout: rate on the fused features.
        modality_dropout: chance in training to hide a present modality (Neverova et al. 2016,
            arXiv:1501.00102), so that every subset is trained. The last one is never hidden.
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
        self.projections = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.Tanh())
                for name, dim in feature_dims.items()
            }
        )
        self.value = nn.Linear(hidden, hidden)
        self.gate = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, n_classes))

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Logits (n, classes); the bias of the head alone where no modality is present.

        Args:
            features: modality -> (n, feature_dim); rows of absent modalities are ignored, and may
                hold anything, NaN included.
            present: (n, modalities) bool.
        """
        if self.training and self.modality_dropout > 0:
            present = hide_modalities(present, self.modality_dropout)
        projected = self._project(features, present)
        weights = self._attention(projected, present)
        logits: Tensor = self.head((weights.unsqueeze(2) * projected).sum(dim=1))
        return logits

    def attention(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Weights (n, modalities): rows sum to 1, or to 0 where no modality is present.

        Args:
            features: as in `forward`.
            present: as in `forward`; no modality is hidden here.
        """
        return self._attention(self._project(features, present), present)

    def stages(self) -> list[list[nn.Module]]:
        """The projections, and all behind them as the head; for `training.unfreezing`."""
        return [[self.projections], [self.value, self.gate, self.score, self.head]]

    def _project(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """(n, modalities, hidden); zero where absent."""
        rows = []
        for i, name in enumerate(self.modalities):
            absent = ~present[:, i : i + 1]
            # Masked before and after: NaN times zero is NaN, and a zero row has a projection too.
            clean = features[name].masked_fill(absent, 0.0)
            rows.append(self.projections[name](clean).masked_fill(absent, 0.0))
        return torch.stack(rows, dim=1)

    def _attention(self, projected: Tensor, present: Tensor) -> Tensor:
        """Softmax over the present modalities, (n, modalities)."""
        gated = torch.tanh(self.value(projected)) * torch.sigmoid(self.gate(projected))
        scores = self.score(gated).squeeze(2).float()
        # The least finite number, not -inf: a row of nothing but -inf has a NaN softmax.
        lowest = torch.finfo(scores.dtype).min
        weights: Tensor = scores.masked_fill(~present, lowest).softmax(dim=1)
        return weights.masked_fill(~present, 0.0)


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
