"""Fit the decision rules that join the unimodal models of a study."""

from __future__ import annotations

import numpy as np

from pulmofuse.config import StudyConfig
from pulmofuse.evaluation import METRICS
from pulmofuse.inference import DecisionFusion
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.models import codes
from pulmofuse.pipeline.predictions import PatientScores
from pulmofuse.schema import Split


def fit_decision_fusion(
    patients: PatientScores, config: StudyConfig, cohort: Cohort
) -> DecisionFusion:
    """Constants of the decision rules, from validation patients only.

    The calibrated models assume the class frequencies of the data they were calibrated on, so
    those are the priors that the log-odds rule takes out again.
    """
    classes = config.target.classes
    val = (patients.patients["split"] == Split.VAL).to_numpy()
    y = codes(patients.patients["y_true"], classes)
    priors, weights = [], []
    positive = None if config.target.positive is None else classes.index(config.target.positive)
    for j, modality in enumerate(patients.modalities):
        records = cohort.of(modality)
        labels = codes(records.loc[records["split"] == Split.VAL, "y_true"], classes)
        priors.append(_frequencies(labels, len(classes)))
        rows = val & patients.has[:, j]
        p = patients.p[rows, j]
        weights.append(excess_auc(y[rows], p, positive))
    return DecisionFusion(
        modalities=patients.modalities,
        prior=_frequencies(y[val], len(classes)),
        modality_priors=np.stack(priors),
        auc_weights=np.array(weights) / sum(weights),
        dependence_weight=config.fusion.dependence_weight,
        dependence_rho=config.fusion.dependence_rho,
    )


def excess_auc(y: np.ndarray, p: np.ndarray, positive: int | None) -> float:
    """What the weighted mean weighs a modality by: its AUC above chance, at least .01.

    A model no better than chance keeps a small say, so that the weights never sum to 0.
    """
    auc = float(METRICS["roc_auc"](y, p, p.argmax(axis=1), positive, None))
    return max(auc - 0.5, 0.01) if np.isfinite(auc) else 0.01


def _frequencies(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Class frequencies with one pseudo-count each, so that no prior is 0."""
    counts = np.bincount(y, minlength=n_classes) + 1.0
    return np.asarray(counts / counts.sum())
