"""One fold of a cross-validation: who is in it, what of it leaks, and what its model says.

Two protocols. *patient*: patients, and copies of one picture or recording, stay together, and the
files are cleaned as in a study. *image*: "as published"; records are dealt one by one, and every
file of the data set is kept, copies included. The second one leaks, which is what it is for: the
leak is counted, and the difference of the two is what it is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pulmofuse.config import SplitConfig, StudyConfig
from pulmofuse.inference import Scores, Unimodal, instance_rows, score_records
from pulmofuse.pipeline.cohort import Cohort, split_cohort
from pulmofuse.pipeline.models import train_unimodal
from pulmofuse.pipeline.predictions import (
    decide,
    operating_points,
    record_predictions,
    subset_partitions,
)
from pulmofuse.preprocessing.controls import CONTROLS, Control, find
from pulmofuse.schema import Modality, Split
from pulmofuse.training import Progress

Protocol = Literal["patient", "image"]

#: Name of the rows of unaltered records.
NO_CONTROL = "none"

#: Records altered and scored at once: their instances are copied.
_BLOCK_RECORDS = 64


@dataclass(frozen=True)
class Deal:
    """One way to hold a fold back.

    Attributes:
        protocol: who stays together.
        seed: of the deal, and of the training.
        fold: the one that is tested, from 0.
        split: of each record of the cohort, in its order.
    """

    protocol: Protocol
    seed: int
    fold: int
    split: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.protocol}-{self.seed}-{self.fold}"


def protocol_config(
    config: StudyConfig, protocol: Protocol, folds: int, fold: int = 0, seed: int | None = None
) -> StudyConfig:
    """The study with its split, cleaning and seed replaced by those of one fold."""
    by_image = protocol == "image"
    split = SplitConfig(
        method="kfold",
        folds=folds,
        fold=fold,
        unit="record" if by_image else "patient",
        test=config.split.test,
        val=config.split.val,
    )
    copies = "keep" if by_image else "drop"
    cleaning = config.cleaning.model_copy(update={"copies": copies})
    update = {"split": split, "cleaning": cleaning, "seed": config.seed if seed is None else seed}
    return config.model_copy(update=update)


def deal_fold(cohort: Cohort, config: StudyConfig, protocol: Protocol) -> Deal:
    """Hold one fold of a cohort back.

    Args:
        cohort: not split yet.
        config: of `protocol_config`.
        protocol: the one that `config` was made for.
    """
    split = split_cohort(cohort, config).records["split"]
    return Deal(protocol, config.seed, config.split.fold, tuple(split))


def dealt(cohort: Cohort, deal: Deal) -> Cohort:
    """The cohort with the split of a deal."""
    return replace(cohort, records=cohort.records.assign(split=list(deal.split)))


def count_known(cohort: Cohort, pretrained: pd.Series) -> pd.DataFrame:
    """How many test records share a patient, or content, with what the model was made with.

    Args:
        cohort: split; its pairs are copies, exact and near.
        pretrained: of its records, as `known_to_pretraining` gives it.

    Returns:
        One row per modality: modality, n_test, same_patient, copy, either, pretrained. Made with:
        training or validation; `pretrained` counts what the starting weights know.
    """
    records = cohort.records
    tested = records["split"] == Split.TEST
    known = records[~tested]
    made_with = set(known["record_id"])
    ends = cohort.pairs[["record_a", "record_b"]].to_numpy(dtype=object).reshape(-1, 2)
    both = np.concatenate([ends, ends[:, ::-1]])
    copied = {a for a, b in both if b in made_with}
    test = records[tested]
    patient = test["patient_id"].isin(set(known["patient_id"]))
    copy = test["record_id"].isin(copied)
    table = pd.DataFrame(
        {
            "modality": test["modality"],
            "n_test": 1,
            "same_patient": patient.astype(int),
            "copy": copy.astype(int),
            "either": (patient | copy).astype(int),
            "pretrained": pretrained[test.index].astype(int),
        }
    )
    return table.groupby("modality", sort=True).sum().reset_index()


def run_fold(
    modality: Modality, cohort: Cohort, config: StudyConfig, folder: Path, progress: Progress
) -> tuple[pd.DataFrame, str]:
    """Train on the training part, choose on validation, and open the test fold once.

    Args:
        modality: whose model.
        cohort: split.
        config: of `protocol_config`.
        folder: checkpoints; training goes on from what is there.
        progress: told of every step.

    Returns:
        Test rows of every control ("none" is the records as they are) with the columns of
        `predictions.parquet` and `control`, `threshold` (null where the class is the most probable
        one), and a note for the person.
    """
    part, note = train_unimodal(modality, cohort, config, folder, progress)
    records, instances = cohort.of(modality), cohort.caches[modality].instances
    val, test = (records[records["split"] == split] for split in (Split.VAL, Split.TEST))
    classes, positive = config.target.classes, config.target.positive
    chosen = record_predictions(
        val, score_records(part, classes, val, instances), modality, classes
    )
    thresholds = operating_points(chosen, classes, positive, config.evaluation.threshold)
    threshold = next(iter(thresholds.values()), float("nan"))
    partitions = subset_partitions({modality: part}, classes)
    scored = scores_under_controls(part, classes, test, instances, progress)
    tables = []
    for control, scores in scored.items():
        table = record_predictions(test, scores, modality, classes)
        table = decide(table, classes, positive, thresholds, partitions)
        tables.append(table.assign(control=control, threshold=threshold))
    return pd.concat(tables, ignore_index=True), note


def scores_under_controls(
    part: Unimodal,
    classes: tuple[str, ...],
    records: pd.DataFrame,
    instances: np.ndarray,
    progress: Progress,
) -> dict[str, Scores]:
    """What the model says of records as they are ("none"), and with the disease taken out.

    Args:
        part: model and calibration.
        classes: in the order of the model's outputs.
        records: with record_id, start and stop.
        instances: (rows, ...) of the cache.
        progress: told of every block of records.

    Returns:
        "none" and every control of `healthy_controls` -> scores of all records.
    """
    controls = healthy_controls(part.modality)
    tables: dict[str, list[Scores]] = {name: [] for name in controls}
    for start in range(0, len(records), _BLOCK_RECORDS):
        progress(start, len(records), "negative controls")
        block = records.iloc[start : start + _BLOCK_RECORDS]
        rows, counts = instance_rows(block)
        plain = np.asarray(instances[rows])
        stops = np.cumsum(counts)
        local = block.assign(start=stops - counts, stop=stops)
        masks = find(plain, part.modality, part.config.preprocessing).masks
        for name, control in controls.items():
            altered = control.alter(plain, masks)
            tables[name].append(score_records(part, classes, local, altered))
    plain_scores = score_records(part, classes, records, instances)
    return {NO_CONTROL: plain_scores} | {name: _joined(s) for name, s in tables.items()}


def healthy_controls(modality: Modality) -> dict[str, Control]:
    """Controls that leave a picture or sound with the disease gone."""
    return {
        name: control
        for name, control in CONTROLS.items()
        if modality in control.modalities and control.healthy and control.picture
    }


def _joined(scores: list[Scores]) -> Scores:
    return Scores(
        pd.concat([part.table for part in scores]),
        np.concatenate([part.features for part in scores]),
    )
