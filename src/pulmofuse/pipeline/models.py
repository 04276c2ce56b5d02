"""Train the models of a study: one per modality, then what joins them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from pulmofuse.config import CoughConfig, FusionTraining, StudyConfig, TrainingConfig
from pulmofuse.errors import StudyError
from pulmofuse.evaluation import METRICS, Calibration, fit_calibration
from pulmofuse.findings import findings_matrix
from pulmofuse.inference import (
    DecisionFusion,
    FeatureFusion,
    Unimodal,
    build_model,
    instance_rows,
)
from pulmofuse.models import Classifier, GatedAttentionFusion, frozen
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.findings import add_findings_head, findings_weight
from pulmofuse.pipeline.predictions import PatientScores, feature_probabilities, subsets
from pulmofuse.preprocessing import CoughAugment, ImageAugment
from pulmofuse.schema import Modality, Split, subset_name
from pulmofuse.training import (
    FeatureSource,
    FindingsLoss,
    InstanceSource,
    Progress,
    class_weights,
    fit,
    infer,
    is_finished,
    load_best,
    mean_per_record,
)


def train_unimodal(
    modality: Modality, cohort: Cohort, config: StudyConfig, folder: Path, progress: Progress
) -> tuple[Unimodal, str]:
    """Train the model of one modality, or load it where training is done, and calibrate it.

    Args:
        modality: whose records to use.
        cohort: split records and caches.
        config: the study.
        folder: checkpoints; training goes on from what is there.
        progress: told of every step.

    Returns:
        The model with its calibration, and a note for the person.

    """
    records, part = cohort.of(modality), config.of(modality)
    classes = config.target.classes
    seed = config.seed + 1 + list(Modality).index(modality)
    torch.manual_seed(seed)
    model = build_model(modality, part, len(classes))
    instances = cohort.caches[modality].instances
    add_findings_head(model, part, records[records["split"] == Split.TRAIN])
    train = _source(records[records["split"] == Split.TRAIN], instances, classes, model)
    val = _source(records[records["split"] == Split.VAL], instances, classes)
    history = fit(
        model,
        train,
        val,
        config=part.training,
        class_weights=_loss_weights(part.training, train.targets.y, len(classes)),
        seed=seed,
        folder=folder,
        augment=augmentation(part),
        auxiliary=_auxiliary(model, part),
        progress=progress,
    )
    calibration = _calibrate(model, records[records["split"] == Split.VAL], instances, classes)
    best = history.iloc[int(history["val_auc"].to_numpy().argmax())]
    note = (
        f"best validation AUC {best['val_auc']:.3f} in epoch {int(best['epoch']) + 1}"
        f" of {len(history)}, {history['seconds'].mean():.1f} s an epoch"
    )
    return Unimodal(modality, part, model, calibration), note


def augmentation(part: object) -> nn.Module:
    """The batch augmentation of a modality's configuration."""
    if isinstance(part, CoughConfig):
        return CoughAugment(part.augmentation)
    return ImageAugment(part.augmentation)  # type: ignore[attr-defined]


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
        auc = float(METRICS["roc_auc"](y[rows], p, p.argmax(axis=1), positive, None))
        # A model no better than chance keeps a small say, so that the weights never sum to 0.
        weights.append(max(auc - 0.5, 0.01) if np.isfinite(auc) else 0.01)
    return DecisionFusion(
        modalities=patients.modalities,
        prior=_frequencies(y[val], len(classes)),
        modality_priors=np.stack(priors),
        auc_weights=np.array(weights) / sum(weights),
        dependence_weight=config.fusion.dependence_weight,
    )


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
    train, val = split == Split.TRAIN, split == Split.VAL
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
            _augmented_source(patients, parts, cohort, settings.views, seed, y, progress),
            FeatureSource({m: f[val] for m, f in plain.items()}, patients.has[val], y[val]),
            config=settings.training,
            class_weights=_loss_weights(settings.training, y[train], len(classes)),
            seed=seed,
            folder=folder,
            progress=progress,
        )
    fusion = FeatureFusion(model, settings.hidden, settings.dropout, settings.modality_dropout, {})
    for subset in subsets(patients.modalities):
        keep = patients.of(subset)[0] & val
        raw = feature_probabilities(patients, fusion, subset)
        fusion.calibration[subset_name(subset)] = fit_calibration(raw[keep], y[keep], len(classes))
    return fusion, f"best validation AUC {history['val_auc'].max():.3f}"


def codes(names: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """Class indexes (n,) of class names."""
    return pd.Categorical(names, categories=list(classes)).codes.astype(np.int64)


def _source(
    records: pd.DataFrame,
    instances: np.ndarray,
    classes: Sequence[str],
    model: Classifier | None = None,
) -> InstanceSource:
    """Instances with their class; with the findings that `model` learns, where one is given."""
    rows, counts = instance_rows(records)
    y = np.repeat(codes(records["y_true"], classes), counts)
    head = None if model is None else model.findings_head
    if head is None:
        return InstanceSource(instances, rows, y)
    stated = findings_matrix(records["findings"], head.findings)
    return InstanceSource(instances, rows, y, findings=np.repeat(stated, counts, axis=0))


def _auxiliary(model: Classifier, part: object) -> list[nn.Module]:
    """Further losses that a modality's configuration asks for."""
    head = model.findings_head
    return [] if head is None else [FindingsLoss(head, findings_weight(part))]


def _calibrate(
    model: Classifier, records: pd.DataFrame, instances: np.ndarray, classes: Sequence[str]
) -> Calibration:
    rows, counts = instance_rows(records)
    p, _ = infer(frozen(model), instances, rows)
    return fit_calibration(
        mean_per_record(p, counts), codes(records["y_true"], classes), len(classes)
    )


def _augmented_source(
    patients: PatientScores,
    parts: Mapping[Modality, Unimodal],
    cohort: Cohort,
    views: int,
    seed: int,
    y: np.ndarray,
    progress: Progress,
) -> FeatureSource:
    """Training patients as features of `views` augmented views each."""
    train = (patients.patients["split"] == Split.TRAIN).to_numpy()
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
) -> dict[Modality, np.ndarray]:
    """Features (records, feature_dim) of one augmented view; zeros outside the training split."""
    out = {}
    for modality, part in parts.items():
        records = cohort.of(modality)
        train = (records["split"] == Split.TRAIN).to_numpy()
        rows, counts = instance_rows(records[train])
        torch.manual_seed(seed)
        note = f"view {view + 1}/{views} of {modality.value}"
        _, features = infer(
            frozen(part.model),
            cohort.caches[modality].instances,
            rows,
            augment=augmentation(part.config),
            progress=lambda done, total, note=note: progress(done, total, note),  # type: ignore[misc]
        )
        values = np.zeros((len(records), features.shape[1]), dtype=np.float32)
        values[train] = mean_per_record(features, counts)
        out[modality] = values
    return out


def _loss_weights(config: TrainingConfig, y: object, n_classes: int) -> torch.Tensor:
    """Weights of the loss by class, or ones where the configuration wants none."""
    return class_weights(y, n_classes) if config.class_weights else torch.ones(n_classes)


def _frequencies(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Class frequencies with one pseudo-count each, so that no prior is 0."""
    counts = np.bincount(y, minlength=n_classes) + 1.0
    return np.asarray(counts / counts.sum())


def check_classes(cohort: Cohort, classes: Sequence[str]) -> None:
    """Make sure that every modality can be trained, before the first one is.

    Raises:
        StudyError: train or validation of a modality lacks a class.
    """
    for modality in cohort.caches:
        records = cohort.of(modality)
        for split in (Split.TRAIN, Split.VAL):
            present = set(records.loc[records["split"] == split, "y_true"])
            absent = [name for name in classes if name not in present]
            if absent:
                raise StudyError(
                    f"{modality.value} records",
                    f"none of class {', '.join(absent)} is in the {split.value} split",
                    "add data of this class, or leave it out of `target.classes`",
                )
