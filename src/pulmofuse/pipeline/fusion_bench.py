"""The fusion of a study, to be tried on other scores, pairings and weights of its patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pulmofuse.config import StudyConfig
from pulmofuse.evaluation import UNIMODAL, roc_auc
from pulmofuse.evaluation.intervals import metric_interval
from pulmofuse.evaluation.reliability import log_loss
from pulmofuse.evaluation.replicates import auc_replicates, log_loss_replicates
from pulmofuse.evaluation.resampling import Resamples, resample
from pulmofuse.evaluation.tables import real_patients
from pulmofuse.fusion import RULES
from pulmofuse.inference import DecisionFusion
from pulmofuse.pipeline.models import codes
from pulmofuse.pipeline.predictions import PatientScores, subsets
from pulmofuse.schema import Modality, Split, subset_name
from pulmofuse.statistics import FloatArray

#: Metrics of the controls, and how a sentence calls them.
WORDS = {"roc_auc": "AUC", "log_loss": "log loss"}


@dataclass(frozen=True, eq=False)
class Bench:
    """Scores of the fusion cohort, the constants of the rules, and the study they belong to."""

    patients: PatientScores
    decision: DecisionFusion
    config: StudyConfig

    @cached_property
    def y(self) -> np.ndarray:
        """(patients,) class codes."""
        return np.asarray(codes(self.patients.patients["y_true"], self.config.target.classes))

    @property
    def positive(self) -> int | None:
        """Code of the positive class of two."""
        target = self.config.target
        return None if target.positive is None else target.classes.index(target.positive)

    @property
    def rules(self) -> list[str]:
        """The study's rules that are fixed before any pair is seen."""
        return [rule for rule in self.config.fusion.rules if rule in RULES]

    @property
    def simulated(self) -> bool:
        """Whether the patients were joined by their label."""
        return bool(self.patients.patients["simulated"].any())

    def rows(self, subset: Sequence[Modality], split: Split = Split.TEST) -> np.ndarray:
        """Places of the patients of a split that have all of `subset`."""
        own = (self.patients.patients["split"] == split).to_numpy()
        return np.flatnonzero(self.patients.of(subset)[0] & own)

    def usable(self, least: int) -> Iterator[tuple[tuple[Modality, ...], np.ndarray]]:
        """Subsets of at least so many modalities with test rows of two classes, and these rows."""
        for subset in subsets(self.patients.modalities):
            at = self.rows(subset)
            if len(subset) >= least and len(set(self.y[at])) > 1:
                yield subset, at

    def methods(self, subset: Sequence[Modality]) -> list[str]:
        """The rules, or `UNIMODAL` for one modality."""
        return self.rules if len(subset) > 1 else [UNIMODAL]

    def fused(self, subset: Sequence[Modality], method: str, p: np.ndarray) -> FloatArray:
        """Probabilities (n, classes) of a method from those of all modalities (n, m, classes)."""
        if method == UNIMODAL:
            return self.decision.rebase(p)[:, self.patients.modalities.index(subset[0])]
        present = np.array([m in subset for m in self.patients.modalities])
        return self.decision.apply(method, p, np.broadcast_to(present, p.shape[:2]))

    def figures(self, y: np.ndarray, p: FloatArray) -> dict[str, float]:
        """Metrics of `WORDS` of probabilities (n, classes)."""
        return {
            "roc_auc": float(roc_auc(y, p, None, self.positive)),
            "log_loss": float(log_loss(y, p)),
        }

    def intervals(
        self, y: np.ndarray, p: FloatArray, resamples: Resamples
    ) -> dict[str, tuple[float, float]]:
        """Intervals of the figures, the patients drawn."""
        config, out = self.config.evaluation, {}
        of = {
            "roc_auc": lambda weights: auc_replicates(y, p, self.positive, weights),
            "log_loss": lambda weights: log_loss_replicates(y, p, weights),
        }
        for metric, value in self.figures(y, p).items():
            drawn = resamples.of(of[metric])
            error = float(drawn.standard_error())
            out[metric] = metric_interval(metric, value, error, config.confidence, drawn.degrees)
        return out

    def resample(self, subset: Sequence[Modality], rows: np.ndarray) -> Resamples:
        """Bootstrap weights of patients, as `evaluate` draws them."""
        ids = self.patients.patients["patient_id"].iloc[rows].astype(str).reset_index(drop=True)
        factors = (
            real_patients(ids, subset_name(subset), subset_name(self.patients.modalities))
            if self.simulated
            else (ids.to_numpy(),)
        )
        y = self.y[rows] if self.simulated else None
        return resample(factors, y, self.config.evaluation.bootstrap, self.config.seed)

    def row(
        self,
        control: str,
        subset: Sequence[Modality],
        method: str,
        metric: str,
        values: tuple[float, float, float],
        against: float,
        n_patients: int,
        detail: str,
    ) -> dict[str, Any]:
        """A row of the table; what is not finite is None."""
        value, low, high = map(_null, values)
        if value is None and not np.isfinite(against):
            detail = "a class has no test patient with these modalities, so there is no figure"
        return {
            "control": control, "subset": subset_name(subset), "method": method, "metric": metric,
            "value": value, "low": low, "high": high, "against": _null(against),
            "n_patients": n_patients, "simulated": self.simulated, "detail": detail,
        }  # fmt: skip


def _null(value: float) -> float | None:
    """A figure that is not defined is an empty cell."""
    return float(value) if np.isfinite(value) else None
