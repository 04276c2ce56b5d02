"""Joining modalities by attention: gated pooling, and attention of the modalities to each other.

Both read a patient's modalities as a set of any size; an absent one gets no weight. And both *add*
what the present ones say: three signs that agree are more evidence than one, which a mean over the
modalities, or a LayerNorm over the fused features, takes away (docs/feature_fusion.md has what that
cost).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Heads of the cross-modal attention; fewer where they do not divide its width.
_HEADS = 4

#: Length of the layer that decides on the gates. As long as the projections, with 8,300 parameters
#: in place of 1,000, it learns the training rows by heart: .005 of AUC less on simulated pairs.
_GATE_WIDTH = 8


class GatedPooling(nn.Module):
    """Weigh the present modalities, sum, classify (Ilse et al. 2018, arXiv:1802.04712).

    Attention pooling over a bag does not ask how many things lie in the bag: here they are the
    modalities that a patient has. Unlike there, the weights of k modalities have the mean 1, not
    the sum 1, so that evidence adds up. None gives the bias of the classifier alone.

    Args:
        n_modalities: columns of `present`.
        n_classes: number of outputs.
        hidden: length of the projections.
        dropout: rate on the fused features.
    """

    def __init__(self, n_modalities: int, n_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        del n_modalities  # a bag has any size
        self.value = nn.Linear(hidden, _GATE_WIDTH)
        self.gate = nn.Linear(hidden, _GATE_WIDTH)
        self.relevance = nn.Linear(_GATE_WIDTH, 1)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, n_classes))

    def forward(self, projected: Tensor, present: Tensor) -> Tensor:
        """(n, modalities, hidden) and (n, modalities) -> logits (n, classes)."""
        weights = self.weights(projected, present)
        logits: Tensor = self.head((weights.unsqueeze(2) * projected).sum(dim=1))
        return logits

    def weights(self, projected: Tensor, present: Tensor) -> Tensor:
        """(n, modalities): each row sums to the number of modalities that are present."""
        gated = torch.tanh(self.value(projected)) * torch.sigmoid(self.gate(projected))
        scores = self.relevance(gated).squeeze(2).float()
        # The least finite number, not -inf: a row of nothing but -inf has a NaN softmax.
        lowest = torch.finfo(scores.dtype).min
        weights: Tensor = scores.masked_fill(~present, lowest).softmax(dim=1)
        return weights.masked_fill(~present, 0.0) * present.sum(dim=1, keepdim=True)


class CrossAttention(nn.Module):
    """The modalities and a class token attend to each other; what they hold then is summed.

    Cross-modal attention (Tsai et al. 2019, MulT, arXiv:1906.00295) between one token of each
    modality, around which each token keeps what it says itself (a residual; Vaswani et al. 2017,
    arXiv:1706.03762), and a learnt class token (Devlin et al. 2019, arXiv:1810.04805). Absent
    modalities are masked as keys and left out of the sum; the class token is always there, so that
    no row has nothing to attend to. There is no LayerNorm: it takes away how strong a sign is.

    Args:
        n_modalities: columns of `present`.
        n_classes: number of outputs.
        hidden: length of the tokens.
        dropout: rate on what the tokens say to each other, and on the fused features.
    """

    def __init__(self, n_modalities: int, n_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        heads = next(n for n in range(_HEADS, 0, -1) if hidden % n == 0)
        self.token = nn.Parameter(0.02 * torch.randn(hidden))
        #: Who speaks: projections of different modalities are otherwise alike to the attention.
        self.names = nn.Parameter(0.02 * torch.randn(n_modalities, hidden))
        self.between = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, n_classes))

    def forward(self, projected: Tensor, present: Tensor) -> Tensor:
        """(n, modalities, hidden) and (n, modalities) -> logits (n, classes)."""
        n = len(projected)
        tokens = torch.cat([self.token.expand(n, 1, -1), projected + self.names], dim=1)
        there = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)
        said: Tensor = self.between(
            tokens, tokens, tokens, key_padding_mask=~there, need_weights=False
        )[0]
        fused = tokens + self.dropout(said)
        logits: Tensor = self.head(fused.masked_fill(~there.unsqueeze(2), 0.0).sum(dim=1))
        return logits
