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
from pulmofuse.inference import Scores
from pulmofuse.pipeline.models import codes
from pulmofuse.pipeline.probe import regression
from pulmofuse.schema import Split, class_columns
from pulmofuse.statistics import FloatArray

#: A trait with no more values than this has a column for each, so that none need lie between two.
_FEW_VALUES = 8


def trait_scores(records: pd.DataFrame, config: StudyConfig) -> tuple[Scores | None, str]:
    """Calibrated probabilities of every record from its acquisition traits alone.

    Args:
        records: record_id, patient_id, split, y_true, traits (JSON text) of one modality. At most
            3,000 training records are learned from, patient by patient.
        config: classes, the positive one, and the seed of the draw.

    Returns:
        Scores without features, and ""; or None, and why there are none.
    """
    classes, positive = config.target.classes, config.target.positive
    y = codes(records["y_true"], classes)
    train, val = ((records["split"] == split).to_numpy() for split in (Split.TRAIN, Split.VAL))
    for rows, name in ((train, "training"), (val, "validation")):
        if absent := [c for i, c in enumerate(classes) if i not in set(y[rows])]:
            return None, f"the {name} records lack {' and '.join(absent)}"
    drawn = draw_patients(records[train], config.seed)["record_id"]
    learned = train & records["record_id"].isin(drawn).to_numpy()
    columns = trait_columns(trait_table(records["traits"]), learned)
    at = None if positive is None else classes.index(positive)
    raw = np.full((len(y), len(classes)), 1 / len(classes))  # what equal traits tell: nothing
    if columns.shape[1]:
        raw = regression(columns, y, learned, val, at)
    p = fit_calibration(raw[val], y[val], len(classes)).apply(raw)
    table = pd.DataFrame(
        np.hstack([p, raw]),
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
