"""Fit what joins the unimodal models of a study: decision rules and the feature-level fusion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pulmofuse.config import FusionTraining, StudyConfig
from pulmofuse.evaluation import METRICS, fit_calibration
from pulmofuse.inference import DecisionFusion, FeatureFusion, Unimodal, instance_rows
from pulmofuse.labelsets import Partition, class_frequencies
from pulmofuse.models import GatedAttentionFusion, frozen
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.models import augmentation, codes, loss_weights
from pulmofuse.pipeline.predictions import PatientScores, feature_probabilities, subsets
from pulmofuse.schema import Modality, Split, subset_name
from pulmofuse.training import FeatureSource, Progress, fit, infer_records, is_finished, load_best


def fit_decision_fusion(
    patients: PatientScores,
    config: StudyConfig,
    cohort: Cohort,
    parts: Mapping[Modality, Unimodal] | None = None,
) -> DecisionFusion:
    """Constants of the decision rules, from validation patients only.

    The calibrated models assume the class frequencies of the data they were calibrated on, so
    those are the priors that the log-odds rule takes out again. Of a model that tells parts of
    the classes apart, they are the parts' frequencies, lifted as its probabilities are.

    Args:
        patients: on which the study joins its modalities.
        config: the study.
        cohort: its records.
        parts: the models, where some tell only parts of the classes apart.
    """
    classes = config.target.classes
    val = (patients.patients["split"] == Split.VAL).to_numpy()
    names = patients.patients["y_true"].to_numpy()
    priors, weights = [], []
    for j, modality in enumerate(patients.modalities):
        records, part = cohort.of(modality), None if parts is None else parts[modality]
        labels = records.loc[records["split"] == Split.VAL, "y_true"]
        partition = Partition.fine(classes)
        if part is not None and part.partition is not None:
            partition = part.partition
        frequencies = _part_frequencies(labels, partition)
        priors.append(frequencies if part is None else part.lift(frequencies))
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


def fit_feature_fusion(
    patients: PatientScores,
    parts: Mapping[Modality, Unimodal],
    cohort: Cohort,
    config: StudyConfig,
    settings: FusionTraining,
    folder: Path,
    progress: Progress,
) -> tuple[FeatureFusion, str]:
    """Train the gated-attention fusion on features of the frozen unimodal models.

    Training features come from augmented views: features of the very images a network was fitted
    to are more separable than those of new patients, and the fusion would learn to trust them.
    """
    classes = config.target.classes
    seed = config.seed + 101
    split = patients.patients["split"].to_numpy()
    y = codes(patients.patients["y_true"], classes)
    # Whose class is known as a set only is no example of any.
    train, val = (split == Split.TRAIN) & (y >= 0), (split == Split.VAL) & (y >= 0)
    torch.manual_seed(seed)
    model = GatedAttentionFusion(
        {m.value: part.model.feature_dim for m, part in parts.items()},
        len(classes),
        settings.hidden,
        settings.dropout,
        settings.modality_dropout,
    )
    if is_finished(folder, settings.training):
        history = load_best(model, folder)
    else:
        plain = patients.features()
        history = fit(
            model,
            _augmented_source(patients, parts, cohort, settings.views, seed, y, train, progress),
            FeatureSource({m: f[val] for m, f in plain.items()}, patients.has[val], y[val]),
            config=settings.training,
            class_weights=loss_weights(settings.training, y[train], len(classes)),
            seed=seed,
            folder=folder,
            progress=progress,
        )
    fusion = FeatureFusion(model, settings.hidden, settings.dropout, settings.modality_dropout, {})
    for subset in subsets(patients.modalities):
        keep = patients.of(subset)[0] & val
        raw = feature_probabilities(patients, fusion, subset)
        fusion.calibration[subset_name(subset)] = fit_calibration(
            raw[keep],
            y[keep],
            len(classes),
            config.evaluation.calibration_kinds,
            patients.patients["patient_id"].astype(str).to_numpy()[keep],
        )
    return fusion, f"best validation AUC {history['val_auc'].max():.3f}"


def _augmented_source(
    patients: PatientScores,
    parts: Mapping[Modality, Unimodal],
    cohort: Cohort,
    views: int,
    seed: int,
    y: np.ndarray,
    train: np.ndarray,
    progress: Progress,
) -> FeatureSource:
    """Training patients, (patients,) bool, as features of `views` augmented views each."""
    stacked = [
        patients.features(_augmented_features(parts, cohort, seed + v, progress, v, views))
        for v in range(views)
    ]
    features = {m: np.concatenate([view[m][train] for view in stacked]) for m in stacked[0]}
    return FeatureSource(
        features, np.tile(patients.has[train], (views, 1)), np.tile(y[train], views)
    )


def _augmented_features(
    parts: Mapping[Modality, Unimodal],
    cohort: Cohort,
    seed: int,
    progress: Progress,
    view: int,
    views: int,
) -> dict[Modality, tuple[np.ndarray, np.ndarray | None]]:
    """Features (records, feature_dim) and log_weight of one augmented view.

    They are zeros outside the training split.
    """
    out = {}
    for modality, part in parts.items():
        records = cohort.of(modality)
        train = (records["split"] == Split.TRAIN).to_numpy()
        torch.manual_seed(seed)
        note = f"view {view + 1}/{views} of {modality.value}"
        seen = infer_records(
            frozen(part.model),
            cohort.caches[modality].instances,
            *instance_rows(records[train]),
            augment=augmentation(part.config),
            progress=lambda done, total, note=note: progress(done, total, note),  # type: ignore[misc]
        )
        features = np.zeros((len(records), seen.features.shape[1]), dtype=np.float32)
        features[train] = seen.features
        log_weight = None
        if seen.log_weight is not None:
            log_weight = np.zeros(len(records))
            log_weight[train] = seen.log_weight
        out[modality] = (features, log_weight)
    return out


def _part_frequencies(labels: pd.Series, partition: Partition) -> np.ndarray:
    """Frequencies (parts,) with one pseudo-count each, so that no prior is 0."""
    counts = np.bincount(partition.codes(labels), minlength=len(partition.parts)) + 1.0
    return np.asarray(counts / counts.sum())
