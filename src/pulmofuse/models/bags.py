"""Decisions over bags: gated attention over the instances of a record (its slices or windows).

Ilse, Tomczak and Welling 2018 (arXiv:1802.04712), equation 9. The last layer starts at zero, so
that an untrained attention is the plain mean, and training departs from it only as far as that
pays.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence


class Gathered(NamedTuple):
    """What a bag comes to.

    Pooling by softmax is associative: a bag's features are the mean of its parts' features under
    the softmax of their `log_weight`. With a linear head the same holds for logits.

    Attributes:
        features: (bags, feature_dim).
        weights: (instances,), summing to 1 within each bag.
        log_weight: (bags,) log of the sum of exp(score) over the instances.
    """

    features: Tensor
    weights: Tensor
    log_weight: Tensor


class GatedAttention(nn.Module):
    """Weigh the instances of each bag, whatever their number and order.

    Args:
        feature_dim: length of an instance's features.
        hidden: width of the attention layer.
    """

    def __init__(self, feature_dim: int, hidden: int) -> None:
        super().__init__()
        self.value = nn.Linear(feature_dim, hidden)
        self.gate = nn.Linear(feature_dim, hidden)
        # A bias would be the same for all instances, and softmax does not see it.
        self.score = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, features: Tensor, counts: Tensor) -> Gathered:
        """Pool bags in float32.

        Args:
            features: (instances, feature_dim), the instances of one bag next to each other.
            counts: (bags,) int, how many instances each bag has, at least one.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            scores = self.scores(features)
            sizes = counts.tolist()
            rows = _padded(scores, sizes, -torch.inf)
            values = _padded(features, sizes, 0.0)
            weights = rows.softmax(dim=1)
            pooled = (weights.unsqueeze(1) @ values).squeeze(1)
        real = torch.arange(rows.shape[1], device=rows.device) < counts.to(rows.device)[:, None]
        return Gathered(pooled, weights[real], rows.logsumexp(dim=1))

    def scores(self, features: Tensor) -> Tensor:
        """(instances, feature_dim) float32 -> (instances,), whose softmax are the weights."""
        gated = torch.tanh(self.value(features)) * torch.sigmoid(self.gate(features))
        scores: Tensor = self.score(gated).squeeze(1)
        return scores


def _padded(values: Tensor, sizes: list[int], padding: float) -> Tensor:
    """(instances, ...) -> (bags, longest, ...)."""
    bags = list(torch.split(values, sizes))
    return pad_sequence(bags, batch_first=True, padding_value=padding)
