"""Joining modalities by attention: gated pooling, and attention of the modalities to each other.

Both read a patient's modalities as a set of any size; an absent one gets no weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Heads of the cross-modal attention; fewer where they do not divide its width.
_HEADS = 4


class GatedPooling(nn.Module):
    """Weigh the present modalities, sum, classify (Ilse et al. 2018, arXiv:1802.04712).

    Attention pooling over a bag does not ask how many things lie in the bag: here they are the
    modalities that a patient has. None gives the bias of the classifier alone.

    Args:
        n_modalities: columns of `present`.
        n_classes: number of outputs.
        hidden: length of the projections and of the attention layer.
        dropout: rate on the fused features.
    """

    def __init__(self, n_modalities: int, n_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        del n_modalities  # a bag has any size
        self.value = nn.Linear(hidden, hidden)
        self.gate = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, n_classes))

    def forward(self, projected: Tensor, present: Tensor) -> Tensor:
        """(n, modalities, hidden) and (n, modalities) -> logits (n, classes)."""
        weights = self.weights(projected, present)
        logits: Tensor = self.head((weights.unsqueeze(2) * projected).sum(dim=1))
        return logits

    def weights(self, projected: Tensor, present: Tensor) -> Tensor:
        """(n, modalities): rows sum to 1, or to 0 where no modality is present."""
        gated = torch.tanh(self.value(projected)) * torch.sigmoid(self.gate(projected))
        scores = self.score(gated).squeeze(2).float()
        # The least finite number, not -inf: a row of nothing but -inf has a NaN softmax.
        lowest = torch.finfo(scores.dtype).min
        weights: Tensor = scores.masked_fill(~present, lowest).softmax(dim=1)
        return weights.masked_fill(~present, 0.0)


class CrossAttention(nn.Module):
    """The modalities attend to each other, then a learnt class token to them.

    Cross-modal attention (Tsai et al. 2019, MulT, arXiv:1906.00295) between one token of each
    modality, and a class token that collects them (Devlin et al. 2019, arXiv:1810.04805; Vaswani
    et al. 2017, arXiv:1706.03762 for the attention). Absent modalities are masked as keys; the
    class token is always there, so that no row has nothing to attend to.

    Args:
        n_modalities: columns of `present`.
        n_classes: number of outputs.
        hidden: length of the tokens.
        dropout: rate on the fused features.
    """

    def __init__(self, n_modalities: int, n_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        heads = next(n for n in range(_HEADS, 0, -1) if hidden % n == 0)
        self.token = nn.Parameter(0.02 * torch.randn(hidden))
        #: Who speaks: projections of different modalities are otherwise alike to the attention.
        self.names = nn.Parameter(0.02 * torch.randn(n_modalities, hidden))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(3))
        self.between = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.collect = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, n_classes))

    def forward(self, projected: Tensor, present: Tensor) -> Tensor:
        """(n, modalities, hidden) and (n, modalities) -> logits (n, classes)."""
        n = len(projected)
        tokens = torch.cat([self.token.expand(n, 1, -1), projected + self.names], dim=1)
        masked = torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1)
        keys = self.norms[0](tokens)
        tokens = tokens + self._attend(self.between, keys, keys, masked)
        keys = self.norms[1](tokens)
        fused = tokens[:, :1] + self._attend(self.collect, keys[:, :1], keys, masked)
        logits: Tensor = self.head(self.norms[2](fused.squeeze(1)))
        return logits

    @staticmethod
    def _attend(attention: nn.Module, queries: Tensor, keys: Tensor, masked: Tensor) -> Tensor:
        """Queries (n, q, hidden) over keys (n, k, hidden) that are not masked (n, k)."""
        out: Tensor = attention(queries, keys, keys, key_padding_mask=masked, need_weights=False)[0]
        return out
