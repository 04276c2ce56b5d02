"""Train the models of a study: one per modality, then what joins them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
import pandas as pd
import torch
from torch import nn

from pulmofuse.config import (
    CoughConfig,
    CtConfig,
    CxrConfig,
    FusionTraining,
    StudyConfig,
    TrainingConfig,
)
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
from pulmofuse.models import Classifier, Ensemble, GatedAttentionFusion, frozen
from pulmofuse.pipeline.bags import bag_training, record_source
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.findings import add_findings_head, findings_weight
from pulmofuse.pipeline.predictions import PatientScores, feature_probabilities, subsets
from pulmofuse.preprocessing import CoughAugment, ImageAugment
from pulmofuse.schema import Modality, Split, subset_name
from pulmofuse.training import (
    BagSource,
    BatchSource,
    FeatureSource,
    FindingsLoss,
    HeadOnly,
    InstanceSource,
    PooledSource,
    Progress,
    SiteAdversary,
    check_epoch_choice,
    class_weights,
    fit,
    infer_records,
    is_finished,
    load_best,
    site_weights,
)

#: Larger than the differences between the seeds of the models of one study.
_MEMBER_STRIDE = 1009


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

    Raises:
        StudyError: `choose_epoch` or `adversarial` asks for more sites than the records have.
    """
    records, part = cohort.of(modality), config.of(modality)
    classes = config.target.classes
    seed = config.seed + 1 + list(Modality).index(modality)
    torch.manual_seed(seed)
    model = build_model(modality, part, len(classes))
    instances = cohort.caches[modality].instances
    members = list(model.each()) if isinstance(model, Ensemble) else [model]
    for number, member in enumerate(members):
        taught = records[records["split"] == Split.TRAIN]
        add_findings_head(member, part, taught, _member_seed(seed, number))
    # Several slices of a patient as separate files are one bag; predictions are made per record.
    limit = part.preprocessing.max_slices if isinstance(part, CtConfig) else None
    train = _source(model, records, Split.TRAIN, instances, classes, limit)
    val = _source(model, records, Split.VAL, instances, classes)
    check_epoch_choice(part.training, val.targets)  # before the features of a probe are computed
    curves = []
    for number, (member, place) in enumerate(
        zip(members, member_folders(folder, len(members)), strict=True)
    ):
        told = _of_member(progress, number, len(members))
        own_seed = _member_seed(seed, number)
        training = bag_training(part.training, train)
        network: nn.Module = member
        sources: tuple[BatchSource, BatchSource] = (train, val)
        changes: nn.Module | None = augmentation(part)
        if part.training.trainable == "head" and _is_plain(train) and _is_plain(val):
            network, changes = HeadOnly(member), None
            training = training.model_copy(update={"precision": "fp32"})
            if is_finished(place, training):
                curves.append(load_best(network, place))
                continue
            sources = _pooled(member, train, val, part, own_seed, told)
        curves.append(
            fit(
                network,
                *sources,
                config=training,
                class_weights=_loss_weights(training, train.targets.y, len(classes)),
                seed=own_seed,
                folder=place,
                augment=changes,
                auxiliary=_auxiliary(member, part, train, len(classes)),
                progress=told,
            )
        )
    calibration = _calibrate(model, records[records["split"] == Split.VAL], instances, classes)
    return Unimodal(modality, part, model, calibration), _note(curves)


def _is_plain(source: BatchSource) -> TypeGuard[InstanceSource]:
    """Whether its rows are single instances, not bags or volumes."""
    return type(source) is InstanceSource


def _pooled(
    model: Classifier,
    train: InstanceSource,
    val: InstanceSource,
    part: CtConfig | CxrConfig | CoughConfig,
    seed: int,
    progress: Progress,
) -> tuple[PooledSource, PooledSource]:
    """What the frozen network makes of the rows, and of `probe_views` changed views of them."""
    network, views = frozen(model), part.training.probe_views
    augment = augmentation(part).train()

    def features(source: InstanceSource, view: int) -> np.ndarray:
        torch.manual_seed(seed + view)
        return infer_records(
            network,
            source.instances,
            source.rows,
            np.ones(len(source), dtype=np.int64),
            augment=augment if view else None,
            progress=lambda done, total: progress(done, total, f"features {view + 1}/{views + 1}"),
        ).features

    views_of_train = np.stack([features(train, view) for view in range(views + 1)])
    return (
        PooledSource(views_of_train, train.targets),
        PooledSource(features(val, 0)[None], val.targets),
    )


def member_folders(folder: Path, members: int) -> list[Path]:
    """Where the checkpoints of each member of a model lie below its folder; of one, in it."""
    return [folder] if members == 1 else [folder / f"member-{i}" for i in range(members)]


def _member_seed(seed: int, number: int) -> int:
    """Seed of a member: the first has the seed of the model, and equals the model of one member."""
    return (seed + number * _MEMBER_STRIDE) % 2**31


def _of_member(progress: Progress, number: int, members: int) -> Progress:
    """Progress of one member as part of that of all."""
    if members == 1:
        return progress
    return lambda done, total, note: progress(
        number * total + done, members * total, f"model {number + 1}/{members}, {note}"
    )


def _note(curves: Sequence[pd.DataFrame]) -> str:
    """What came of the training, from the history of each member."""
    if len(curves) > 1:
        aucs = ", ".join(f"{history['val_auc'].max():.3f}" for history in curves)
        return f"best validation AUC of {len(curves)} models: {aucs}"
    history = curves[0]
    best = history.iloc[int(history["val_auc"].to_numpy().argmax())]
    return (
        f"best validation AUC {best['val_auc']:.3f} in epoch {int(best['epoch']) + 1}"
        f" of {len(history)}, {history['seconds'].mean():.1f} s an epoch"
    )


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
    model: Classifier,
    records: pd.DataFrame,
    split: Split,
    instances: np.ndarray,
    classes: Sequence[str],
    patient_limit: int | None = None,
) -> InstanceSource | BagSource:
    """Rows of one split as the model reads them; sites are numbered over all splits alike."""
    chosen = (records["split"] == split).to_numpy()
    stated = None
    if model.findings:
        stated = findings_matrix(records.loc[chosen, "findings"], model.findings)
    return record_source(
        model,
        records[chosen],
        instances,
        codes(records.loc[chosen, "y_true"], classes),
        patient_limit,
        site_codes(records)[chosen],
        stated,
    )


def site_codes(records: pd.DataFrame) -> np.ndarray:
    """(n,) int64: the site of each record; where it is not known, its data set counts as one."""
    places = zip(records["source"], records["site"], strict=True)
    names = pd.Series([s if pd.isna(site) else f"{s}/{site}" for s, site in places], dtype=object)
    return pd.factorize(names, sort=True)[0].astype(np.int64)


def _auxiliary(
    model: Classifier,
    part: CtConfig | CxrConfig | CoughConfig,
    train: InstanceSource | BagSource,
    n_classes: int,
) -> list[nn.Module]:
    """Losses on the features that a modality's configuration asks for.

    Raises:
        StudyError: an adversary is wanted, and nothing it could tell is in the training records.
    """
    y, site = train.targets.y, train.targets.site
    losses: list[nn.Module] = []
    if model.findings_head is not None:
        losses.append(FindingsLoss(model.findings_head, findings_weight(part)))
    if part.training.adversarial and site is not None:
        weights = site_weights(y, site, n_classes)
        if not bool(weights.any()):
            raise StudyError(
                f"adversarial {part.training.adversarial:g}",
                "no class has training records of two sites, so it would have no effect",
                "set `adversarial` to 0, or add data of one class from several sites",
            )
        losses.append(SiteAdversary(model.feature_dim, weights, part.training.adversarial))
    return losses


def _calibrate(
    model: Classifier, records: pd.DataFrame, instances: np.ndarray, classes: Sequence[str]
) -> Calibration:
    seen = infer_records(frozen(model), instances, *instance_rows(records))
    return fit_calibration(seen.p, codes(records["y_true"], classes), len(classes))


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


def _loss_weights(config: TrainingConfig, y: object, n_classes: int) -> torch.Tensor:
    """Weights of the loss by class; ones where none are wanted, or the rows are balanced."""
    wanted = config.class_weights and config.sampling == "shuffled"
    return class_weights(y, n_classes) if wanted else torch.ones(n_classes)


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
