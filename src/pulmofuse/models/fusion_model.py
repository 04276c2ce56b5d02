"""Feature-level fusion of any subset of modalities: the ways there are, and how one is built.

Every fusion is called with features per modality and the mask of who is present, and gives logits.
Adding one is a module that joins projections, and one entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from pulmofuse.models.fusion_attention import CrossAttention, GatedPooling
from pulmofuse.models.fusion_head import FusionHead
from pulmofuse.models.fusion_joint import Concatenation, LowRankBilinear, ZeroFilled

#: Method -> what joins the projections; called with (modalities, classes, hidden, dropout).
FUSIONS: dict[str, Callable[[int, int, int, float], nn.Module]] = {
    "concatenation": Concatenation,
    "gated_attention": GatedPooling,
    "cross_attention": CrossAttention,
    "bilinear": LowRankBilinear,
}

#: Networks that no study offers, to measure the fusions against.
FUSION_CONTROLS: dict[str, Callable[[Mapping[str, int], int, int, float, float], nn.Module]] = {
    "zero_filled": ZeroFilled,
}


def build_fusion(
    method: str,
    feature_dims: Mapping[str, int],
    n_classes: int,
    hidden: int,
    dropout: float,
    modality_dropout: float,
) -> FusionHead:
    """An untrained fusion.

    Args:
        method: a key of `FUSIONS`.
        feature_dims: modality -> length of its features; its order is that of `present`.
        n_classes: number of outputs.
        hidden: length of the common projection.
        dropout: rate on the projections and on the fused features.
        modality_dropout: as in `FusionHead`.

    Raises:
        KeyError: no such method.
    """
    joint = FUSIONS[method](len(feature_dims), n_classes, hidden, dropout)
    return FusionHead(feature_dims, hidden, dropout, modality_dropout, joint)
