"""Predictions as arrays, and the real patients that a row depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulmofuse.errors import StudyError
from pulmofuse.evaluation.metrics import METRICS, IntArray, roc_auc
from pulmofuse.evaluation.replicates import metric_replicates
from pulmofuse.evaluation.resampling import Replicates, Resamples, resample
from pulmofuse.schema import ABSENT, JOIN, SUBSET_JOIN, Modality, Split, class_columns
from pulmofuse.statistics import FloatArray

Row = dict[str, Any]

#: Methods that are no fusion: see docs/decisions/0001-shape.md.
PER_RECORD = "per_record"
UNIMODAL = "unimodal"


@dataclass(frozen=True, eq=False)
class Table:
    """Predictions of n rows as arrays.

    y, predicted (n,) int; p (n, k); one (n,) array of patients per factor; number of patients;
    `simulated`: rows join patients of several modalities.
    """

    y: IntArray
    p: FloatArray
    predicted: IntArray
    factors: tuple[NDArray[Any], ...]
    n_patients: int
    simulated: bool

    def resample(self, n_boot: int, seed: int) -> Resamples:
        """Bootstrap weights of the rows."""
        return resample(self.factors, self.y if self.simulated else None, n_boot, seed)

    def values(self, positive: int | None) -> FloatArray:
        """Every metric of `METRICS` in their order."""
        arguments = (self.y, self.p, self.predicted, positive, None)
        return np.array([float(metric(*arguments)) for metric in METRICS.values()])

    def replicates(self, positive: int | None, resamples: Resamples) -> Replicates:
        """Every metric of `METRICS` in every replicate: (metrics, replicates)."""
        return resamples.of(
            lambda weights: metric_replicates(self.y, self.p, self.predicted, positive, weights)
        )


def paired_tables(
    predictions: pd.DataFrame,
    pair: Sequence[tuple[str, str]],
    classes: Sequence[str],
    split: Split,
) -> list[Table]:
    """Tables of (subset, method) pairs on the patients of a split that all of them predict."""
    part = predictions[predictions["split"] == split]
    # A patient who fell ill between two records stands once per class (`fusion.paired_patients`).
    frames = [
        part[(part["subset"] == subset) & (part["method"] == method)].set_index(
            ["patient_id", "y_true"]
        )
        for subset, method in pair
    ]
    for (subset, method), frame in zip(pair, frames, strict=True):
        if frame.index.has_duplicates:
            raise StudyError(
                f"predictions of {subset} by {method}",
                f"patient {frame.index[frame.index.duplicated()][0][0]} stands twice in {split}",
                "compare methods that give one row per patient and class",
            )
    common = frames[0].index
    for frame in frames[1:]:
        common = common[common.isin(frame.index)]
    cohort = modalities_of(predictions)
    simulated = bool(frames[0]["simulated"].any())
    # A row of either depends on the patients of both: these are resampled.
    named = {name for subset, _ in pair for name in subset.split(SUBSET_JOIN)}
    union = SUBSET_JOIN.join(name for name in cohort.split(SUBSET_JOIN) if name in named)
    return [
        table_of(f.loc[common].reset_index(), classes, union, cohort, simulated) for f in frames
    ]


def table_of(
    frame: pd.DataFrame, classes: Sequence[str], subset: str, cohort: str, simulated: bool
) -> Table:
    """Predictions as arrays; see `Table`."""
    patients = frame["patient_id"].astype(str)
    return Table(
        y=_codes(frame["y_true"], classes),
        p=frame[class_columns(classes)].to_numpy(dtype=np.float64),
        predicted=_codes(frame["y_pred"], classes),
        factors=real_patients(patients, subset, cohort) if simulated else (patients.to_numpy(),),
        n_patients=int(patients.nunique()),
        simulated=simulated,
    )


def real_patients(patients: pd.Series, subset: str, cohort: str) -> tuple[NDArray[Any], ...]:
    """The real patients behind simulated ones: one (n,) array per modality of `subset`.

    A simulated patient joins one real patient per modality of the `cohort`; a row that uses
    some of the modalities depends on their patients only. A modality that it lacks is shared with
    nobody: there each simulated patient is a cluster of its own.
    """
    parts = [patient.split(JOIN) for patient in patients]
    widths = {len(part) for part in parts}
    if len(widths) != 1:
        return (patients.to_numpy(),)
    columns = np.array(parts, dtype=object).T
    places = cohort.split(SUBSET_JOIN)
    if len(columns) == len(places):
        columns = columns[[places.index(modality) for modality in subset.split(SUBSET_JOIN)]]
    own = patients.to_numpy(dtype=object)
    return tuple(np.where(column == ABSENT, own, column).astype(str) for column in columns)


def _codes(names: pd.Series, classes: Sequence[str]) -> IntArray:
    """Positions of class names in `classes`."""
    codes = pd.Index(list(classes)).get_indexer(pd.Index(names.astype(str)))
    if (codes < 0).any():
        stranger = names.to_numpy()[codes < 0][0]
        raise StudyError(
            "predictions",
            f"class {stranger!r} is not one of {', '.join(classes)}",
            "evaluate with the classes that the models were trained on",
        )
    return np.asarray(codes)


def modalities_of(predictions: pd.DataFrame) -> str:
    """All modalities of the cohort, whether or not a patient has all of them."""
    names = {
        name for subset in predictions["subset"].unique() for name in subset.split(SUBSET_JOIN)
    }
    return SUBSET_JOIN.join(m.value for m in Modality if m.value in names)


def full_subset(predictions: pd.DataFrame) -> str:
    """The subset of the most modalities."""
    subsets = sorted(str(subset) for subset in predictions["subset"].unique())
    return max(subsets, key=lambda subset: len(subset.split(SUBSET_JOIN)), default="")


def class_index(classes: Sequence[str], positive: str | None) -> int | None:
    """Position of the positive class, or None."""
    return None if positive is None else list(classes).index(positive)


def best_modality(
    cohort: pd.DataFrame,
    full: str,
    methods: Sequence[str],
    classes: Sequence[str],
    positive: str | None,
) -> str | None:
    """Modality with the highest validation AUC on the patients that have all modalities."""
    modalities = full.split(SUBSET_JOIN)
    if len(modalities) < 2 or not methods:
        return None
    scores: dict[str, float] = {}
    for modality in modalities:
        pair = ((modality, UNIMODAL), (full, methods[0]))
        table = paired_tables(cohort, pair, classes, Split.VAL)[0]
        if table.n_patients:
            scores[modality] = float(
                roc_auc(table.y, table.p, None, class_index(classes, positive), None)
            )
    defined = {name: score for name, score in scores.items() if np.isfinite(score)}
    return max(defined, key=lambda name: defined[name]) if defined else None


def groups_of(predictions: pd.DataFrame) -> Iterator[tuple[Row, pd.DataFrame]]:
    """Parts of the predictions that are evaluated together, with the keys of their rows."""
    keys = ["subset", "method", "simulated", "split"]
    evaluated = predictions[predictions["split"].isin([Split.VAL, Split.TEST])]
    for values, group in evaluated.groupby(keys, sort=False):
        subset, method, simulated, split = values
        yield (
            {
                "subset": str(subset),
                "method": str(method),
                "split": str(split),
                "simulated": bool(simulated),
            },
            group,
        )
