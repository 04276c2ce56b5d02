"""Train the models of a study, one per modality; `pipeline.fusing` joins them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from pulmofuse.config import CoughConfig, CtConfig, CxrConfig, StudyConfig, TrainingConfig
from pulmofuse.errors import StudyError
from pulmofuse.evaluation import CalibrationMap, fit_calibration
from pulmofuse.findings import findings_matrix
from pulmofuse.inference import Unimodal, build_model, instance_rows
from pulmofuse.labelsets import Partition, class_frequencies
from pulmofuse.models import Classifier, Ensemble, frozen
from pulmofuse.pipeline.bags import bag_training, record_source
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.findings import add_findings_head, findings_weight
from pulmofuse.preprocessing import CoughAugment, ImageAugment
from pulmofuse.schema import Modality, Split
from pulmofuse.training import (
    BagSource,
    BatchSource,
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
    partition = told_apart(records, config.target.classes)
    classes = partition.names
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
    train = _source(model, records, Split.TRAIN, instances, partition, limit)
    val = _source(model, records, Split.VAL, instances, partition)
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
        if (
            part.training.trainable == "head"
            and isinstance(train, InstanceSource)
            and isinstance(val, InstanceSource)
        ):
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
                class_weights=loss_weights(training, train.targets.y, len(classes)),
                seed=own_seed,
                folder=place,
                augment=changes,
                auxiliary=_auxiliary(member, part, train, len(classes)),
                progress=told,
            )
        )
    chosen = records[records["split"] == Split.VAL]
    kinds = config.evaluation.calibration_kinds
    calibration = _calibrate(model, chosen, instances, partition, kinds)
    if partition.is_fine:
        return Unimodal(modality, part, model, calibration), _note(curves)
    within = prior_within(cohort, partition.classes)
    trained = Unimodal(modality, part, model, calibration, partition, within)
    return trained, f"{_note(curves)}; tells apart {', '.join(classes)}"


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


def told_apart(records: pd.DataFrame, classes: Sequence[str]) -> Partition:
    """The parts of the classes that a modality's model learns, from its records' labels.

    It is the finest partition in which every label of training and validation lies within one
    part, also where some records name the very class: an ordinary softmax over the parts, with
    its calibration and its class weights, is then all that is needed. A marginal likelihood,
    -log of the sum over the set, would keep the finer labels, but where those come from one data
    set and the sets from another, what it learns to tell the classes apart by is the data set.
    """
    seen = records[records["split"].isin([Split.TRAIN, Split.VAL])]
    return Partition.of(seen["y_true"].unique(), classes)


def prior_within(cohort: Cohort, classes: Sequence[str]) -> np.ndarray:
    """The prior (classes,) by which a part's probability is divided among its classes.

    It is the class frequency of all records that the study learns from; sets count in proportion.
    """
    records = cohort.records
    seen = records[records["split"].isin([Split.TRAIN, Split.VAL])]
    return class_frequencies(seen["y_true"], classes)


def codes(names: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """Class indexes (n,) of class names; -1 for a set of classes."""
    return pd.Categorical(names, categories=list(classes)).codes.astype(np.int64)


def _source(
    model: Classifier,
    records: pd.DataFrame,
    split: Split,
    instances: np.ndarray,
    partition: Partition,
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
        partition.codes(records.loc[chosen, "y_true"]),
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
    model: Classifier,
    records: pd.DataFrame,
    instances: np.ndarray,
    partition: Partition,
    kind: str | Sequence[str],
) -> CalibrationMap:
    seen = infer_records(frozen(model), instances, *instance_rows(records))
    y, people = partition.codes(records["y_true"]), records["patient_id"].astype(str)
    return fit_calibration(seen.p, y, len(partition.parts), kind, people)


def loss_weights(config: TrainingConfig, y: object, n_classes: int) -> torch.Tensor:
    """Weights of the loss by class; ones where none are wanted, or the rows are balanced."""
    wanted = config.class_weights and config.sampling == "shuffled"
    return class_weights(y, n_classes) if wanted else torch.ones(n_classes)


def check_classes(cohort: Cohort, classes: Sequence[str]) -> None:
    """Make sure that every modality can be trained, before the first one is.

    Raises:
        StudyError: train or validation of a modality lacks a class, or its labels tell no two
            classes apart.
    """
    for modality in cohort.caches:
        records = cohort.of(modality)
        partition = told_apart(records, classes)
        if len(partition.parts) < 2:
            raise StudyError(
                f"{modality.value} records",
                "the sets in their labels overlap so much that no two classes are told apart",
                "send one of these labels in `target.mapping` to a smaller set, or leave it out",
            )
        for split in (Split.TRAIN, Split.VAL):
            present = set(partition.codes(records.loc[records["split"] == split, "y_true"]))
            absent = [name for i, name in enumerate(partition.names) if i not in present]
            if absent:
                raise StudyError(
                    f"{modality.value} records",
                    f"none of class {', '.join(absent)} is in the {split.value} split",
                    "add data of this class, or leave it out of `target.classes`",
                )
