"""A model is a backbone and a head: the interface that every unimodal model shares.

The three steps have names of their own because others need them: Grad-CAM the feature map, the
feature-level fusion the pooled features, a prediction all of them.
"""

from __future__ import annotations

from torch import Tensor, nn

from pulmofuse.models.backbones import Backbone
from pulmofuse.models.findings_head import FindingsHead


class Classifier(nn.Module):
    """Base of the unimodal models; a model implements `feature_map`.

    Args:
        feature_dim: length of the pooled features.
        n_classes: number of outputs.
        dropout: rate on the pooled features.

    Attributes:
        findings_head: a second head for findings; None where the model has learnt none.
    """

    findings_head: FindingsHead | None

    def __init__(self, feature_dim: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(feature_dim, n_classes))
        self.findings_head = None

    def feature_map(self, x: Tensor) -> Tensor:
        """What the backbone sees: (n, channels, h, w), or (n, channels, 1, steps) if recurrent.

        Args:
            x: as `preprocessing.to_tensor` gives it.
        """
        raise NotImplementedError

    def pool(self, feature_map: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, feature_dim): the mean over all places, in float32."""
        return feature_map.float().mean(dim=(2, 3))

    def features(self, x: Tensor) -> Tensor:
        """(n, ...) as `feature_map` takes it -> (n, feature_dim)."""
        return self.pool(self.feature_map(x))

    def classify(self, features: Tensor) -> Tensor:
        """(n, feature_dim) -> logits (n, classes)."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """(n, ...) as `feature_map` takes it -> logits (n, classes)."""
        return self.classify(self.features(x))

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of the backbone and of the heads, for two learning rates."""
        head = list(self.head.parameters())
        if self.findings_head is not None:
            head += self.findings_head.parameters()
        in_head = {id(p) for p in head}
        return [p for p in self.parameters() if id(p) not in in_head], head


class ImageClassifier(Classifier):
    """An image backbone, a global mean and a linear head.

    Args:
        backbone: (n, 1, h, w) in [0, 1] -> (n, out_channels, h', w').
        n_classes: number of outputs.
        dropout: rate on the pooled features.
    """

    def __init__(self, backbone: Backbone, n_classes: int, dropout: float) -> None:
        super().__init__(backbone.out_channels, n_classes, dropout)
        self.backbone = backbone

    def feature_map(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) in [0, 1] -> (n, channels, h', w')."""
        y: Tensor = self.backbone(x)
        return y
