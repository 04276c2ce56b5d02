"""The fusion of a study, to be tried on other scores, pairings and weights of its patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pulmofuse.config import StudyConfig
from pulmofuse.evaluation import UNIMODAL, roc_auc
from pulmofuse.evaluation.intervals import metric_interval
from pulmofuse.evaluation.questions import positive_of, told
from pulmofuse.evaluation.reliability import log_loss
from pulmofuse.evaluation.replicates import auc_replicates, log_loss_replicates
from pulmofuse.evaluation.resampling import Resamples, resample
from pulmofuse.evaluation.tables import class_index, real_patients
from pulmofuse.fusion import RULES
from pulmofuse.inference import DecisionFusion
from pulmofuse.labelsets import Partition
from pulmofuse.pipeline.predictions import PatientScores, subsets
from pulmofuse.schema import Modality, Split, subset_name
from pulmofuse.statistics import FloatArray

#: Metrics of the controls, and how a sentence calls them.
WORDS = {"roc_auc": "AUC", "log_loss": "log loss"}


@dataclass(frozen=True, eq=False)
class Group:
    """The patients of a split that have all of a subset, and what they can be asked.

    Attributes:
        subset: the modalities.
        rows: (n,) places of the patients in the cohort.
        y: (n,) codes of the parts of the question.
        question: the parts of the classes that the subset is held to.
        positive: code of the positive part of two, or None.
    """

    subset: tuple[Modality, ...]
    rows: np.ndarray
    y: np.ndarray
    question: Partition
    positive: int | None


@dataclass(frozen=True, eq=False)
class Bench:
    """Scores of the fusion cohort, the constants of the rules, and the study they belong to.

    `asked` has the question of each subset (`evaluation.questions`); of one that it lacks, every
    class is asked for.
    """

    patients: PatientScores
    decision: DecisionFusion
    config: StudyConfig
    asked: Mapping[str, Partition] = field(default_factory=dict)

    @property
    def rules(self) -> list[str]:
        """The study's rules that are fixed before any pair is seen."""
        return [rule for rule in self.config.fusion.rules if rule in RULES]

    @property
    def simulated(self) -> bool:
        """Whether the patients were joined by their label."""
        return bool(self.patients.patients["simulated"].any())

    def group(self, subset: tuple[Modality, ...], split: Split = Split.TEST) -> Group:
        """The patients of a split that have all of `subset` and answer its question."""
        classes, positive = self.config.target.classes, self.config.target.positive
        question = self.asked.get(subset_name(subset), Partition.fine(classes))
        own = (self.patients.patients["split"] == split).to_numpy()
        at = np.flatnonzero(self.patients.of(subset)[0] & own)
        y = question.codes(self.patients.said(subset)[at])
        at, y = at[y >= 0], y[y >= 0]
        return Group(
            subset, at, y, question, class_index(question.names, positive_of(question, positive))
        )

    def usable(self, least: int) -> Iterator[Group]:
        """The test patients of the subsets of at least so many modalities that hold two classes."""
        for subset in subsets(self.patients.modalities):
            if len(subset) >= least:
                group = self.group(subset)
                if len(set(group.y)) > 1:
                    yield group

    def methods(self, subset: Sequence[Modality]) -> list[str]:
        """The rules, or `UNIMODAL` for one modality."""
        return self.rules if len(subset) > 1 else [UNIMODAL]

    def fused(self, group: Group, method: str, p: np.ndarray | None = None) -> FloatArray:
        """Probabilities (n, classes) of a method for a group.

        Args:
            group: whose subset is fused.
            method: a rule, or `UNIMODAL`.
            p: (n, modalities, classes) in the place of the group's own.
        """
        values = self.patients.p[group.rows] if p is None else p
        if method == UNIMODAL:
            return self.decision.rebase(values)[:, self.patients.modalities.index(group.subset[0])]
        present = np.array([m in group.subset for m in self.patients.modalities])
        return self.decision.apply(method, values, np.broadcast_to(present, values.shape[:2]))

    def figures(self, group: Group, p: FloatArray) -> dict[str, float]:
        """Metrics of `WORDS` of probabilities (n, classes)."""
        asked = group.question.collapse(p)
        return {
            "roc_auc": float(roc_auc(group.y, asked, None, group.positive)),
            "log_loss": float(log_loss(group.y, asked)),
        }

    def intervals(
        self, group: Group, p: FloatArray, resamples: Resamples
    ) -> dict[str, tuple[float, float]]:
        """Intervals of the figures, the patients drawn."""
        config, asked, out = self.config.evaluation, group.question.collapse(p), {}
        of = {
            "roc_auc": lambda weights: auc_replicates(group.y, asked, group.positive, weights),
            "log_loss": lambda weights: log_loss_replicates(group.y, asked, weights),
        }
        for metric, value in self.figures(group, p).items():
            drawn = resamples.of(of[metric])
            error = float(drawn.standard_error())
            out[metric] = metric_interval(metric, value, error, config.confidence, drawn.degrees)
        return out

    def resample(self, group: Group) -> Resamples:
        """Bootstrap weights of patients, as `evaluate` draws them."""
        ids = self.patients.patients["patient_id"].iloc[group.rows].astype(str)
        ids = ids.reset_index(drop=True)
        cohort = subset_name(self.patients.modalities)
        factors = (
            real_patients(ids, subset_name(group.subset), cohort)
            if self.simulated
            else (ids.to_numpy(),)
        )
        y = group.y if self.simulated else None
        return resample(factors, y, self.config.evaluation.bootstrap, self.config.seed)

    def row(
        self,
        control: str,
        group: Group,
        method: str,
        metric: str,
        values: tuple[float, float, float],
        against: float,
        detail: str,
    ) -> dict[str, Any]:
        """A row of the table; what is not finite is None, and `question` only where it is told."""
        value, low, high = map(_null, values)
        if value is None and not np.isfinite(against):
            detail = "a class has no test patient with these modalities, so there is no figure"
        return {
            "control": control, "subset": subset_name(group.subset), "method": method,
            "metric": metric, "value": value, "low": low, "high": high, "against": _null(against),
            "n_patients": len(group.rows), "simulated": self.simulated, "detail": detail,
            **told(group.question),
        }  # fmt: skip


def _null(value: float) -> float | None:
    """A figure that is not defined is an empty cell."""
    return float(value) if np.isfinite(value) else None
