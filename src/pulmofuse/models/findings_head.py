"""A second head on a model's features: one probability for each finding of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pulmofuse.findings import Finding


class FindingsHead(nn.Module):
    """A linear layer with one logit per finding, each of them a question of its own.

    A rare finding is trained with a weight w on its positive rows, which shifts the log-odds that
    are learnt by log w. `probabilities` takes the shift out again, so that a probability speaks of
    the prevalence of the training rows. The weights are stored beside the layer's.

    Args:
        feature_dim: length of the pooled features.
        findings: names of the outputs.
        positive_weight: (findings,) weight of positive rows, ones by default.
    """

    def __init__(
        self, feature_dim: int, findings: Sequence[str], positive_weight: Tensor | None = None
    ) -> None:
        super().__init__()
        self.findings = tuple(Finding(name) for name in findings)
        self.linear = nn.Linear(feature_dim, len(self.findings))
        weight = torch.ones(len(self.findings)) if positive_weight is None else positive_weight
        self.register_buffer("positive_weight", weight.float())

    def forward(self, features: Tensor) -> Tensor:
        """(batch, feature_dim) -> logits (batch, findings) of the weighted rows."""
        logits: Tensor = self.linear(features)
        return logits

    def probabilities(self, features: Tensor) -> Tensor:
        """(batch, feature_dim) -> probabilities (batch, findings), float64; not calibrated."""
        weight = cast(Tensor, self.positive_weight).double()
        p: Tensor = (self(features).double() - weight.log()).sigmoid()
        return p
