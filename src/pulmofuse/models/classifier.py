"""A model is a backbone and a head: the interface that every unimodal model shares.

The three steps have names of their own because others need them: Grad-CAM the feature map, the
feature-level fusion the pooled features, a prediction all of them. Where `counts` are given, the
rows are the instances of records, and features and logits are those of the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pulmofuse.config import TestTimeViews
from pulmofuse.findings import Finding
from pulmofuse.models.backbones import Backbone, side_by_side
from pulmofuse.models.bags import GatedAttention, Gathered
from pulmofuse.models.covariance import covariance_features, pool_covariance
from pulmofuse.models.findings_head import FindingsHead
from pulmofuse.models.levels import join_levels, pool_levels
from pulmofuse.models.views import views_of

#: Images that are looked at together where no gradient is wanted: validation has large batches.
_NO_GRAD_IMAGES = 64


class Classifier(nn.Module):
    """Base of the unimodal models; a model implements `feature_map`.

    Args:
        feature_dim: length of the pooled features.
        n_classes: number of outputs.
        dropout: rate on the pooled features.

    Attributes:
        depth: slices of the volumes that it reads; None where it reads instances one by one.
        instance_attention: what joins the instances of a record; None where their probabilities
            (and features) are averaged.
        findings_head: a second head for findings; None where the model has learnt none.
        compiled: what another runtime made of `feature_map` and `pool`, and pooled features come
            from; None where torch runs them. It is no part of the state.
    """

    depth: int | None = None
    compiled: Callable[[Tensor], Tensor] | None = None
    instance_attention: GatedAttention | None
    findings_head: FindingsHead | None

    def __init__(self, feature_dim: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(feature_dim, n_classes))
        self.instance_attention = None
        self.findings_head = None

    def attend_to_instances(self, hidden: int) -> None:
        """Join the instances of a record by attention of this width, from now on."""
        self.instance_attention = GatedAttention(self.feature_dim, hidden)

    @property
    def attends(self) -> bool:
        """Whether `gather` joins the instances of a record."""
        return self.instance_attention is not None

    def learn_findings(self, findings: Sequence[str]) -> None:
        """Have an untrained head for findings of these names, from now on."""
        self.findings_head = FindingsHead(self.feature_dim, findings)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What `findings_probabilities` tells; empty where the model has learnt none."""
        return () if self.findings_head is None else self.findings_head.findings

    def feature_map(self, x: Tensor) -> Tensor:
        """What the backbone sees: (n, channels, h, w), or (n, channels, 1, steps) if recurrent.

        Args:
            x: as `preprocessing.to_tensor` gives it.
        """
        raise NotImplementedError

    def pool(self, feature_map: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, feature_dim): the mean over all places, in float32."""
        return feature_map.float().mean(dim=(2, 3))

    def views(self, x: Tensor) -> Iterator[Tensor]:
        """What `features` averages over: the batch as it is, and in some models more.

        Args:
            x: (n, ...) as `feature_map` takes it; so is every view.
        """
        yield x

    def features(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        """(n, ...) as `feature_map` takes it -> (n, feature_dim), the mean over the views.

        Args:
            x: instances; those of one record lie next to each other.
            counts: (records,) how many instances each record has; only for a model that attends.

        Returns:
            (records, feature_dim) where `counts` are given.
        """
        if torch.is_grad_enabled():
            features = self._pooled(x)
        else:
            parts = torch.split(x, max(1, _NO_GRAD_IMAGES // (self.depth or 1)))
            features = torch.cat([self._pooled(part) for part in parts])
        return features if counts is None else self.gather(features, counts).features

    def _pooled(self, x: Tensor) -> Tensor:
        pooled = [self._pooled_view(view) for view in self.views(x)]
        return sum(pooled[1:], pooled[0]) / len(pooled) if len(pooled) > 1 else pooled[0]

    def _pooled_view(self, view: Tensor) -> Tensor:
        if self.compiled is not None:
            return self.compiled(view)
        return self.pool(self.feature_map(view))

    def gather(self, features: Tensor, counts: Tensor) -> Gathered:
        """Join instances (n, feature_dim) into records; only for a model that attends."""
        if self.instance_attention is None:
            raise TypeError("this model averages over instances; it does not attend to them")
        gathered: Gathered = self.instance_attention(features, counts)
        return gathered

    def classify(self, features: Tensor) -> Tensor:
        """(n, feature_dim) -> logits (n, classes)."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        """As `features` takes it -> logits (n, classes), or (records, classes)."""
        return self.classify(self.features(x, counts))

    def findings_probabilities(self, features: Tensor) -> Tensor:
        """(n, feature_dim) -> probabilities (n, findings), float64; not calibrated."""
        if self.findings_head is None:
            raise TypeError("this model has learnt no findings")
        return self.findings_head.probabilities(features)

    def stages(self) -> list[list[nn.Module]]:
        """Parts from the input to the output, for `models.unfreezing`: the last is the heads."""
        heads = self.heads()
        return [[module for module in self.children() if module not in heads], heads]

    def heads(self) -> list[nn.Module]:
        """The head, the attention to instances and the findings head: never pre-trained."""
        heads = (self.head, self.instance_attention, self.findings_head)
        return [head for head in heads if head is not None]


class ImageClassifier(Classifier):
    """An image backbone, a global mean and a linear head.

    In evaluation mode the pooled features are the mean over test-time views; since the head is
    linear, so are the logits. `feature_map`, and with it Grad-CAM, is that of the plain view.

    Args:
        backbone: (n, 1, h, w) in [0, 1] -> (n, out_channels, h', w').
        n_classes: number of outputs.
        dropout: rate on the pooled features.
        tta: the views; none but the image itself by default.
        pooling: "last" pools the last feature map, "levels" finer ones too (`models.levels`),
            "covariance" the one before the last by its covariances (`models.covariance`). The last
            two normalise what they pooled, for it differs in scale.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_classes: int,
        dropout: float,
        tta: TestTimeViews | None = None,
        pooling: Literal["last", "levels", "covariance"] = "last",
    ) -> None:
        if pooling == "covariance":
            channels = backbone.texture_channels()
            feature_dim = covariance_features(channels)
        else:
            channels = backbone.level_channels() if pooling == "levels" else [backbone.out_channels]
            feature_dim = channels[-1] + 2 * sum(channels[:-1])
        super().__init__(feature_dim, n_classes, dropout)
        if pooling != "last":
            self.head.insert(0, nn.BatchNorm1d(feature_dim))
        self.backbone = backbone
        self._channels = channels
        self._pooling = pooling
        self._tta = tta or TestTimeViews()

    def views(self, x: Tensor) -> Iterator[Tensor]:
        """(n, 1, h, w): the batch itself, and in evaluation mode its test-time views."""
        if self.training:
            yield x
        else:
            yield from views_of(x, self._tta)

    def stages(self) -> list[list[nn.Module]]:
        """The stages of the backbone, then all that stands behind it."""
        behind = [module for name, module in self.named_children() if name != "backbone"]
        return [*self.backbone.stages(), behind]

    def feature_map(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) in [0, 1] -> (n, channels, h', w')."""
        if self._pooling == "covariance":
            return side_by_side(self.backbone.texture_maps(x))
        if self._pooling == "levels":
            return join_levels(self.backbone.levels(x))
        y: Tensor = self.backbone(x)
        return y

    def pool(self, feature_map: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, feature_dim), as the pooling says: by default the mean."""
        if self._pooling == "covariance":
            return pool_covariance(feature_map, self._channels)
        if self._pooling == "levels":
            return pool_levels(feature_map, self._channels)
        return super().pool(feature_map)
