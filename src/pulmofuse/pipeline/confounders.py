"""Models of acquisition alone: what image size, bit depth, sample rate and the like say of a class.

They stand in for the models of the modalities in every way: learned on the training split, penalty
and calibration on validation, one probability vector per record. What they reach, nobody needed the
disease for.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pulmofuse.config import StudyConfig
from pulmofuse.curation.shortcut import draw_patients, trait_table
from pulmofuse.evaluation import fit_calibration
from pulmofuse.evaluation.questions import positive_of
from pulmofuse.inference import Scores
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.models import prior_within, told_apart
from pulmofuse.pipeline.probe import regression
from pulmofuse.schema import Modality, Split, class_columns
from pulmofuse.statistics import FloatArray

#: A trait with no more values than this has a column for each, so that none need lie between two.
_FEW_VALUES = 8


def trait_scores(
    cohort: Cohort, modality: Modality, config: StudyConfig
) -> tuple[Scores | None, str]:
    """Calibrated probabilities of every record from its acquisition traits alone.

    Args:
        cohort: records with record_id, patient_id, split, y_true, traits (JSON text). At most 3,000
            training records are learned from, patient by patient; the parts of the classes that
            their labels tell apart are learned, as the model of the modality does.
        modality: whose records.
        config: classes, the positive one, and the seed of the draw.

    Returns:
        Scores without features, and ""; or None, and why there are none.
    """
    records, classes = cohort.of(modality), config.target.classes
    partition = told_apart(records, classes)
    positive = positive_of(partition, config.target.positive)
    names = partition.names
    y = partition.codes(records["y_true"])
    train, val = ((records["split"] == split).to_numpy() for split in (Split.TRAIN, Split.VAL))
    for rows, name in ((train, "training"), (val, "validation")):
        if absent := [c for i, c in enumerate(names) if i not in set(y[rows])]:
            return None, f"the {name} records lack {' and '.join(absent)}"
    drawn = draw_patients(records[train], config.seed)["record_id"]
    learned = train & records["record_id"].isin(drawn).to_numpy()
    columns = trait_columns(trait_table(records["traits"]), learned)
    at = None if positive is None else names.index(positive)
    raw = np.full((len(y), len(names)), 1 / len(names))  # what equal traits tell: nothing
    if columns.shape[1]:
        raw = regression(columns, y, learned, val, at)
    p, within = (
        fit_calibration(raw[val], y[val], len(names)).apply(raw),
        prior_within(cohort, classes),
    )
    table = pd.DataFrame(
        np.hstack([partition.lift(p, within), partition.lift(raw, within)]),
        columns=[*class_columns(classes), *class_columns(classes, raw=True)],
        index=pd.Index(records["record_id"], name="record_id"),
    )
    return Scores(table, np.zeros((len(records), 0), np.float32)), ""


def trait_columns(table: pd.DataFrame, learned: np.ndarray) -> FloatArray:
    """Traits as a regression can use them: no gaps, no heavy tails.

    Args:
        table: (n, traits) of `trait_table`; NaN where a record lacks a trait.
        learned: (n,) bool, the records that values and ranks are taken from.

    Returns:
        (n, columns). A trait of at most `_FEW_VALUES` values gives an indicator of each; any other
        the share of learned records below it, the square of its distance from their middle, and
        whether it is absent. Columns that do not vary over the learned records are left out.
    """
    columns: list[np.ndarray] = []
    for name in table.columns:
        values = table[name].to_numpy(dtype=np.float64)
        known = np.unique(values[learned & ~np.isnan(values)])
        absent = np.isnan(values)
        if len(known) <= _FEW_VALUES:
            columns += [values == value for value in known]
        else:
            ordered = np.sort(values[learned & ~absent])
            below = np.searchsorted(ordered, values, "left")
            rank = (below + np.searchsorted(ordered, values, "right")) / (2 * len(ordered)) - 0.5
            rank[absent] = 0.0
            columns += [rank, np.square(rank)]
        columns.append(absent)
    varying = [c.astype(np.float64) for c in columns if len(np.unique(c[learned])) > 1]
    return np.stack(varying, axis=1) if varying else np.empty((len(table), 0))
