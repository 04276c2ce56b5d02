"""Fit the decision rules that join the unimodal models of a study."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pulmofuse.config import StudyConfig
from pulmofuse.evaluation import METRICS
from pulmofuse.inference import DecisionFusion
from pulmofuse.labelsets import Partition, class_frequencies
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.models import prior_within, told_apart
from pulmofuse.pipeline.predictions import PatientScores
from pulmofuse.schema import Split


def fit_decision_fusion(
    patients: PatientScores, config: StudyConfig, cohort: Cohort
) -> DecisionFusion:
    """Constants of the decision rules, from validation patients only.

    The calibrated models assume the class frequencies of the data they were calibrated on, so
    those are the priors that the log-odds rule takes out again. Of a model that tells parts of
    the classes apart, they are the parts' frequencies, lifted as its probabilities are.

    Args:
        patients: on which the study joins its modalities.
        config: the study.
        cohort: its records, which the models learned from.
    """
    classes = config.target.classes
    val = (patients.patients["split"] == Split.VAL).to_numpy()
    names = patients.patients["y_true"].to_numpy()
    priors, weights, within = [], [], prior_within(cohort, classes)
    for j, modality in enumerate(patients.modalities):
        records = cohort.of(modality)
        labels = records.loc[records["split"] == Split.VAL, "y_true"]
        partition = told_apart(records, classes)
        priors.append(partition.lift(_part_frequencies(labels, partition), within))
        rows = val & patients.has[:, j]
        y, p = partition.codes(names[rows]), partition.collapse(patients.p[rows, j])
        positive = config.target.positive if config.target.positive in partition.names else None
        at = None if positive is None else partition.names.index(positive)
        weights.append(excess_auc(y[y >= 0], p[y >= 0], at))
    return DecisionFusion(
        modalities=patients.modalities,
        prior=class_frequencies(names[val], classes),
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


def _part_frequencies(labels: pd.Series, partition: Partition) -> np.ndarray:
    """Frequencies (parts,) with one pseudo-count each, so that no prior is 0."""
    counts = np.bincount(partition.codes(labels), minlength=len(partition.parts)) + 1.0
    return np.asarray(counts / counts.sum())
