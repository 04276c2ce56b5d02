"""Several models of one architecture, trained from different seeds, as one model.

The mean of the members' probabilities is better calibrated than any one of them, and never has a
larger log loss than they have on average (Lakshminarayanan et al. 2017, arXiv:1612.01474).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pulmofuse.findings import Finding
from pulmofuse.models.bags import Gathered
from pulmofuse.models.classifier import Classifier


class Ensemble(Classifier):
    """A classifier whose probabilities are the mean of its members'.

    Feature maps and pooled features are the members' side by side, so that whatever works with
    those of one model (Grad-CAM, the feature-level fusion, probes) works with an ensemble's.

    Args:
        members: of one architecture; not trained together, but each by itself.
    """

    def __init__(self, members: Sequence[Classifier]) -> None:
        # Not the constructor of `Classifier`, which makes a head: the members bring theirs.
        nn.Module.__init__(self)
        self.feature_dim = sum(member.feature_dim for member in members)
        self.depth = members[0].depth
        self.instance_attention = self.findings_head = None
        self.members = nn.ModuleList(members)

    def each(self) -> Iterator[Classifier]:
        """The members."""
        return iter(cast("list[Classifier]", list(self.members)))

    def views(self, x: Tensor) -> Iterator[Tensor]:
        """Views of a batch; the same for every member."""
        return next(self.each()).views(x)

    def feature_map(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n, members * channels, h, w)."""
        return torch.cat([member.feature_map(x) for member in self.each()], dim=1)

    def pool(self, feature_map: Tensor) -> Tensor:
        """(n, members * channels, h, w) -> (n, feature_dim)."""
        parts = feature_map.chunk(len(self.members), dim=1)
        pooled = [member.pool(part) for member, part in zip(self.each(), parts, strict=True)]
        return torch.cat(pooled, dim=1)

    @property
    def attends(self) -> bool:
        """Whether the members join the instances of a record by attention."""
        return next(self.each()).attends

    def gather(self, features: Tensor, counts: Tensor) -> Gathered:
        """Each member joins its own features; weights and log_weight are the members' means.

        The mean of log_weight says about what a record weighs among those of its patient: the
        members differ in that, so pooling over records is near pooling at once, not equal to it.
        """
        parts = features.chunk(len(self.members), dim=1)
        each = [
            member.gather(part, counts) for member, part in zip(self.each(), parts, strict=True)
        ]
        return Gathered(
            torch.cat([gathered.features for gathered in each], dim=1),
            torch.stack([gathered.weights for gathered in each]).mean(dim=0),
            torch.stack([gathered.log_weight for gathered in each]).mean(dim=0),
        )

    def classify(self, features: Tensor) -> Tensor:
        """(n, feature_dim) -> (n, classes): the log of the mean of the members' probabilities."""
        parts = features.chunk(len(self.members), dim=1)
        logs = [
            member.classify(part).float().log_softmax(dim=1)
            for member, part in zip(self.each(), parts, strict=True)
        ]
        return torch.stack(logs).logsumexp(dim=0) - math.log(len(logs))

    def learn_findings(self, findings: Sequence[str]) -> None:
        """Give every member an untrained head for findings of these names."""
        for member in self.each():
            member.learn_findings(findings)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the members have all learnt."""
        return next(self.each()).findings

    def findings_probabilities(self, features: Tensor) -> Tensor:
        """(n, feature_dim) -> (n, findings): the mean of the members' probabilities, float64."""
        parts = features.chunk(len(self.members), dim=1)
        each = [
            member.findings_probabilities(part)
            for member, part in zip(self.each(), parts, strict=True)
        ]
        return torch.stack(each).mean(dim=0)

    def heads(self) -> list[nn.Module]:
        """The heads of all members."""
        return [head for member in self.each() for head in member.heads()]

    def stages(self) -> list[list[nn.Module]]:
        """The members' stages, each together with those at the same depth."""
        together = zip(*(member.stages() for member in self.each()), strict=True)
        return [[module for stage in depth for module in stage] for depth in together]
