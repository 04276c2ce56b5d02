"""The linear probe: a head on features that are computed once, because nothing else is trained.

A frozen network says the same of an image in every epoch. So it is run once over the images as
they are, and once over each of a fixed number of augmented views; what is left of an epoch then
takes milliseconds (a few hundred images at 448 px: minutes instead of hours on two cores).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pulmofuse.models import Classifier
from pulmofuse.training.data import Batch, Targets


class HeadOnly(nn.Module):
    """The head of a model, and that of its findings if there is one, on its pooled features.

    It shares its parameters with the model: training one trains the other.

    Args:
        model: a classifier that pools its instances one by one.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.head = model.head
        self.findings_head = model.findings_head

    def features(self, features: Tensor) -> Tensor:
        """(n, feature_dim), as they are; for auxiliary losses."""
        return features

    def classify(self, features: Tensor) -> Tensor:
        """(n, feature_dim) -> logits (n, classes)."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """(n, feature_dim) -> logits (n, classes)."""
        return self.classify(features)

    def stages(self) -> list[list[nn.Module]]:
        """The heads, with nothing below them."""
        return [list(self.children())]


class PooledSource(Dataset[Batch]):
    """Rows as pooled features, and what is known of them.

    Args:
        features: (views, n, feature_dim) float32; rows of the source are those of the first view,
            then those of the next.
        targets: of the n rows of one view.
    """

    def __init__(self, features: np.ndarray, targets: Targets) -> None:
        views, n = features.shape[:2]
        self._features = torch.from_numpy(features.reshape(views * n, -1))
        self.targets = targets.take(torch.arange(n).repeat(views))

    def __len__(self) -> int:
        """Number of rows over all views."""
        return len(self._features)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Features (batch, feature_dim), and what is known of each row."""
        chosen = torch.as_tensor(rows)
        return (self._features[chosen],), self.targets.take(chosen)
