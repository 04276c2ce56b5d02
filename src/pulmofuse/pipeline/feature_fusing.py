"""Train the feature-level fusions of a study, on features of the frozen unimodal models.

Training features come from augmented views: features of the very images a network was fitted to
are more separable than those of new patients, and a fusion would learn to trust them. The views
are computed once, kept in a file per modality, and shared by all methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file

from pulmofuse.config import FusionTraining, StudyConfig
from pulmofuse.evaluation import fit_calibration
from pulmofuse.files import atomic_path
from pulmofuse.fusion import paired_patients
from pulmofuse.inference import FeatureFusion, Scores, Unimodal, instance_rows
from pulmofuse.labelsets import members
from pulmofuse.models import build_fusion, frozen, infer_records
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.models import augmentation, codes
from pulmofuse.pipeline.predictions import PatientScores, feature_probabilities, subsets
from pulmofuse.schema import Modality, Split, subset_name
from pulmofuse.training import (
    FeatureSource,
    Progress,
    class_weights,
    fair_weights,
    fit,
    is_finished,
    load_best,
)

#: Larger than the number of seeds that the unimodal models and their members take.
_SEED_OFFSET = 101


def write_views(
    path: Path,
    part: Unimodal,
    cohort: Cohort,
    views: int,
    seed: int,
    progress: Progress,
) -> str:
    """Write features of augmented views of the training records of one modality.

    Args:
        path: a safetensors file: features (views, records, feature_dim) and, of a model with
            attention, log_weight (views, records), in the order of the training records.
        part: the trained model.
        cohort: split records and caches.
        views: how many.
        seed: of the study.
        progress: told of every batch.

    Returns:
        A note for the person.
    """
    records = cohort.of(part.modality)
    train = records[records["split"] == Split.TRAIN]
    model, augment = frozen(part.model), augmentation(part.config)
    seen = []
    for view in range(views):
        torch.manual_seed(seed + _SEED_OFFSET + view)
        note = f"view {view + 1}/{views} of {part.modality.value}"
        seen.append(
            infer_records(
                model,
                cohort.caches[part.modality].instances,
                *instance_rows(train),
                augment=augment,
                progress=lambda done, total, note=note: progress(done, total, note),  # type: ignore[misc]
            )
        )
    arrays = {"features": np.stack([s.features for s in seen])}
    weights = [s.log_weight for s in seen if s.log_weight is not None]
    if weights:
        arrays["log_weight"] = np.stack(weights).astype(np.float64)
    with atomic_path(path) as temporary:
        save_file(arrays, temporary)
    return f"{views} views of {len(train):,} records"


def training_patients(patients: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Who a fusion learns from: every real patient's own records, and simulated patients if any.

    A real patient with one modality is a row too: its label is known, and a fusion answers for
    any subset.

    Args:
        patients: table of `fusion_patients`.
        records: record_id, patient_id, modality, split, y_true.

    Returns:
        Rows of the training split, with the columns of `patients`. Of whom only a set of classes is
        known is no example of any.
    """
    chosen = patients[patients["split"] == Split.TRAIN]
    if chosen["simulated"].any():
        real = paired_patients(records[records["split"] == Split.TRAIN])
        chosen = pd.concat([real, chosen], ignore_index=True)
    single = np.array([len(members(str(name))) == 1 for name in chosen["y_true"]], dtype=bool)
    return chosen[single].reset_index(drop=True)


def describe_rows(
    rows: pd.DataFrame, modalities: Sequence[Modality], config: StudyConfig
) -> pd.DataFrame:
    """What a fusion was trained on.

    Returns:
        Columns subset, simulated, y_true, patients (rows of that kind) and drawn (their share of
        the draws of an epoch).
    """
    has, y = _has(rows, modalities), codes(rows["y_true"], config.target.classes)
    subset = [subset_name(m for m, h in zip(modalities, row, strict=True) if h) for row in has]
    table = rows[["simulated", "y_true"]].assign(
        subset=subset, drawn=_draws(has, y, config) / len(rows)
    )
    keys = ["subset", "simulated", "y_true"]
    grouped = table.groupby(keys)["drawn"]
    counted = pd.DataFrame({"patients": grouped.size(), "drawn": grouped.sum()})
    return counted.reset_index()


def fusion_source(
    rows: pd.DataFrame,
    scores: Mapping[Modality, Scores],
    folder: Path,
    cohort: Cohort,
    config: StudyConfig,
) -> FeatureSource:
    """Training patients as features of every augmented view.

    Args:
        rows: of `training_patients`.
        scores: of each modality; their features are not used.
        folder: with the files of `write_views`, named after the modalities.
        cohort: split records.
        config: the study.
    """
    y = codes(rows["y_true"], config.target.classes)
    patients = PatientScores(rows, scores, config.target.classes)
    stored = {m: load_file(folder / f"{m.value}.safetensors") for m in scores}
    views = len(next(iter(stored.values()))["features"])
    trained = {m: (cohort.of(m)["split"] == Split.TRAIN).to_numpy() for m in scores}
    stacked = [
        patients.features({m: _of_view(stored[m], view, trained[m]) for m in scores})
        for view in range(views)
    ]
    return FeatureSource(
        {m: np.concatenate([one[m] for one in stacked]) for m in stacked[0]},
        np.tile(patients.has, (views, 1)),
        np.tile(y, views),
        np.tile(_draws(patients.has, y, config), views),
    )


def fit_feature_fusion(
    method: str,
    patients: PatientScores,
    source: Callable[[], FeatureSource],
    parts: Mapping[Modality, Unimodal],
    config: StudyConfig,
    settings: FusionTraining,
    folder: Path,
    progress: Progress,
) -> tuple[FeatureFusion, str]:
    """Train one fusion, or load it where training is done, and calibrate it for each subset.

    Args:
        method: a key of `models.FUSIONS`.
        patients: whose validation split chooses the epoch and calibrates: those that the study
            is judged on, of the other split.
        source: makes the training rows; not called where training is done.
        parts: the unimodal models.
        config: the study.
        settings: of the fusion.
        folder: checkpoints; training goes on from what is there.
        progress: told of every step.

    Returns:
        The fusion with its calibration, and a note for the person.
    """
    classes, seed = config.target.classes, config.seed + _SEED_OFFSET
    y = codes(patients.patients["y_true"], classes)
    val = (patients.patients["split"] == Split.VAL).to_numpy() & (y >= 0)
    torch.manual_seed(seed)
    model = build_fusion(
        method,
        {m.value: part.model.feature_dim for m, part in parts.items()},
        len(classes),
        settings.hidden,
        settings.dropout,
        settings.modality_dropout,
    )
    if is_finished(folder, settings.training):
        history = load_best(model, folder)
    else:
        plain, train = patients.features(), source()
        model.learn_scale(train.features, train.present)
        history = fit(
            model,
            train,
            FeatureSource({m: f[val] for m, f in plain.items()}, patients.has[val], y[val]),
            config=settings.training,
            class_weights=_loss_weights(train, settings, len(classes)),
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


def _loss_weights(source: FeatureSource, settings: FusionTraining, n_classes: int) -> torch.Tensor:
    """Weights of the loss by class, against what is left of their imbalance in the draws."""
    if not settings.training.class_weights:
        return torch.ones(n_classes)
    return class_weights(source.targets.y, n_classes, source.weights)


def _draws(has: np.ndarray, y: np.ndarray, config: StudyConfig) -> np.ndarray:
    """How often each patient (n,) is drawn; classes alike unless the study wants them as found."""
    settings = config.fusion.feature
    assert settings is not None  # noqa: S101  # nobody asks where there is no fusion
    training = settings.training
    balance = training.class_weights or training.sampling == "balanced"
    return fair_weights(has, y, balance=balance)


def _has(rows: pd.DataFrame, modalities: Sequence[Modality]) -> np.ndarray:
    """(patients, modalities) bool."""
    return np.asarray((rows[[m.value for m in modalities]].map(len) > 0).to_numpy())


def _of_view(
    stored: Mapping[str, np.ndarray], view: int, trained: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Features (records, feature_dim) and log_weight of one view; zeros outside training."""
    features = np.zeros((len(trained), stored["features"].shape[2]), dtype=np.float32)
    features[trained] = stored["features"][view]
    if "log_weight" not in stored:
        return features, None
    log_weight = np.zeros(len(trained))
    log_weight[trained] = stored["log_weight"][view]
    return features, log_weight
