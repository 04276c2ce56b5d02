"""Learning many findings at once from data sets that each speak of a few of them.

What a data set does not say is left out of the loss (Cohen et al. 2020, "On the limits of
cross-domain generalization in automated X-ray prediction", train on seven X-ray sets so): taken for
negatives, the missing labels of one set would teach the model to tell the sets apart.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pulmofuse.findings import Finding, findings_matrix
from pulmofuse.models import FindingsHead
from pulmofuse.training.data import Targets

#: Largest weight of positive rows, and one over the smallest: ten positives in 10,000 rows would
#: otherwise weigh a thousandfold, and their noise with them.
MAX_POSITIVE_WEIGHT = 20.0


class FindingsLoss(nn.Module):
    """Masked binary cross-entropy of a model's findings head: an `Auxiliary` loss.

    The mean runs over the known entries of a batch only; a batch without one gives 0, and no
    gradient.

    Args:
        head: of the model that is trained. It stays the model's: what it learns is averaged and
            kept with the model, and its parameters are not listed here again.
        weight: factor of the loss beside the cross-entropy of the classes.
    """

    def __init__(self, head: FindingsHead, weight: float) -> None:
        super().__init__()
        # A bound method, for a module in an attribute would become a part of this one.
        self._logits = head.forward
        self._weight = weight
        self.register_buffer("positive_weight", cast(torch.Tensor, head.positive_weight).clone())

    def forward(self, features: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Features (batch, feature_dim) and what is known of them -> a scalar, weighted."""
        stated = targets.findings
        if stated is None:
            raise ValueError("FindingsLoss needs `Targets.findings`")
        known = ~torch.isnan(stated)
        entries = binary_cross_entropy_with_logits(
            self._logits(features).float(),
            stated.nan_to_num(0.0),
            pos_weight=cast(torch.Tensor, self.positive_weight),
            reduction="none",
        )
        total = torch.where(known, entries, 0.0).sum()
        return self._weight * total / known.sum().clamp(min=1)


def learnable_findings(stated: NDArray[np.floating]) -> list[Finding]:
    """Findings of `Finding`'s order that are present in some training rows and absent in others.

    Args:
        stated: (n, len(Finding)) as `findings_matrix` gives it, of the training rows.
    """
    both = (stated == 1).any(axis=0) & (stated == 0).any(axis=0)
    return [finding for finding, usable in zip(Finding, both, strict=True) if usable]


def new_findings_head(feature_dim: int, texts: list[str | None]) -> FindingsHead | None:
    """An untrained head for what training rows can teach; None where they teach nothing.

    Positive rows weigh as much as negative ones, with weights of at most `MAX_POSITIVE_WEIGHT` and
    at least one over it.

    Args:
        feature_dim: of the model.
        texts: (n,) cells of the manifest's column `findings`, of the training rows.
    """
    names = learnable_findings(findings_matrix(texts, Finding))
    if not names:
        return None
    stated = torch.as_tensor(findings_matrix(texts, names))
    ratio = (stated == 0).sum(dim=0) / (stated == 1).sum(dim=0)
    weight = ratio.clamp(1 / MAX_POSITIVE_WEIGHT, MAX_POSITIVE_WEIGHT)
    return FindingsHead(feature_dim, names, weight)
