"""Prediction sets from validation patients, and the tables on how far probabilities are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmofuse.evaluation import (
    Conformal,
    brier_parts,
    classwise_ece,
    conformal_sets,
    cox_line,
    ece,
    ece_debiased,
    ece_floor,
    fit_conformal,
    log_loss,
    reliability_curve,
    wilson_interval,
)
from pulmofuse.evaluation.questions import as_asked, positive_of, questions
from pulmofuse.files import write_csv
from pulmofuse.schema import Split, class_columns

#: What `write_calibration` leaves in a study's folder.
CALIBRATION_FILES = ("calibration.csv", "calibration_measures.csv", "conformal.csv")

_KEYS = ["subset", "method", "simulated"]

_CURVE = ["of", "stage", "bin", "predicted", "observed", "low", "high", "n"]
_SETS = [
    "class", "n", "coverage", "low", "high", "mean_set_size", "empty", "always_in", "promised",
]  # fmt: skip

#: `of` of a row that judges the most probable class, whichever it is.
_TOP_LABEL = "top label"


def fit_prediction_sets(table: pd.DataFrame, classes: Sequence[str], coverage: float) -> Conformal:
    """Thresholds of every (subset, method) from its validation rows.

    Args:
        table: prediction rows.
        classes: of the study.
        coverage: promised share of each class.
    """
    thresholds = {}
    for (subset, method), rows in table.groupby(["subset", "method"], sort=True):
        val = rows[rows["split"] == Split.VAL]
        found = fit_conformal(*_arrays(val, classes), coverage)
        thresholds[f"{subset}|{method}"] = dict(zip(classes, found, strict=True))
    return Conformal(coverage, thresholds)


def write_calibration(
    out: Path,
    predictions: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    conformal: Conformal | None,
    confidence: float,
) -> None:
    """Write `CALIBRATION_FILES` on the test rows of every (subset, method).

    Args:
        out: folder of the study.
        predictions: as `predictions.parquet`.
        classes: in the order of the model's outputs.
        positive: the positive class of two, or None.
        conformal: prediction sets; without them there is no conformal.csv.
        confidence: of Wilson's intervals.
    """
    bins, measures, sets = [], [], []
    asked = questions(predictions, classes)
    test = predictions[predictions["split"] == Split.TEST]
    for values, rows in test.groupby(_KEYS, sort=False):
        keys: dict[str, Any] = dict(zip(_KEYS, values, strict=True))
        # A label that stands for a set of classes judges the parts that it tells apart.
        question = asked[str(keys["subset"])]
        parts, one = question.names, positive_of(question, positive)
        told = as_asked(rows, question)
        bins += [
            curve.assign(**keys, of=of, stage=stage)
            for of, stage, curve in _curves(told, parts, one, confidence)
        ]
        measures.append({**keys, **_measures(told, parts, one)})
        key = f"{keys['subset']}|{keys['method']}"
        if conformal is not None and key in conformal.thresholds:
            limits = [conformal.thresholds[key][name] for name in classes]
            found = _coverage(rows[rows["y_true"].isin(classes)], classes, limits, confidence)
            sets += [{**keys, **row, "promised": conformal.coverage} for row in found]
    curves = pd.concat(bins) if bins else pd.DataFrame(columns=[*_KEYS, *_CURVE])
    write_csv(out / CALIBRATION_FILES[0], curves[[*_KEYS, *_CURVE]])
    write_csv(out / CALIBRATION_FILES[1], pd.DataFrame(measures))
    if conformal is None:
        (out / CALIBRATION_FILES[2]).unlink(missing_ok=True)
    else:
        write_csv(out / CALIBRATION_FILES[2], pd.DataFrame(sets, columns=[*_KEYS, *_SETS]))


def _arrays(
    rows: pd.DataFrame, classes: Sequence[str], raw: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, classes) and true classes (n,)."""
    y = pd.Categorical(rows["y_true"], categories=list(classes)).codes.astype(np.int64)
    return rows[class_columns(classes, raw=raw)].to_numpy(dtype=np.float64), y


def _curves(
    rows: pd.DataFrame, classes: Sequence[str], positive: str | None, confidence: float
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(class or top label, "raw" or "calibrated", points of the reliability diagram)."""
    for stage in ("raw", "calibrated"):
        p, y = _arrays(rows, classes, raw=stage == "raw")
        binary = positive is not None and len(classes) == 2
        if not binary:
            hit = p.argmax(axis=1) == y
            yield _TOP_LABEL, stage, reliability_curve(hit, p.max(axis=1), confidence)
        for c, name in enumerate(classes):
            if not binary or name == positive:
                yield name, stage, reliability_curve(y == c, p[:, c], confidence)


def _measures(rows: pd.DataFrame, classes: Sequence[str], positive: str | None) -> dict[str, Any]:
    """One row of calibration_measures.csv."""
    p, y = _arrays(rows, classes)
    at = None if positive is None else list(classes).index(positive)
    parts, line = brier_parts(y, p, at), cox_line(y, p, at)
    return {
        "n": len(y),
        "ece": float(ece(y, p, None, at)),
        "ece_floor": ece_floor(y, p, at),
        "ece_debiased": ece_debiased(y, p, at),
        "ece_equal_width": float(ece(y, p, None, at, equal_mass=False)),
        "ece_raw": float(ece(y, _arrays(rows, classes, raw=True)[0], None, at)),
        "classwise_ece": float(classwise_ece(y, p)),
        "log_loss": log_loss(y, p),
        "brier": parts.brier,
        "brier_binned": parts.binned,
        "reliability": parts.reliability,
        "resolution": parts.resolution,
        "uncertainty": parts.uncertainty,
        "slope": line.slope,
        "intercept": line.intercept,
    }


def _coverage(
    rows: pd.DataFrame,
    classes: Sequence[str],
    limits: Sequence[float | None],
    confidence: float,
) -> Iterator[dict[str, Any]]:
    """Rows of conformal.csv: every class of which there are patients, then all of them ("")."""
    p, y = _arrays(rows, classes)
    inside = conformal_sets(limits, p)
    own = inside[np.arange(len(y)), y]
    for c, name in [*enumerate(classes), (None, "")]:
        chosen = np.ones(len(y), dtype=bool) if c is None else y == c
        n = int(chosen.sum())
        if not n:
            continue
        low, high = wilson_interval(own[chosen].sum(), n, confidence)
        size = inside[chosen].sum(axis=1)
        yield {
            "class": name,
            "n": n,
            "coverage": float(own[chosen].mean()),
            "low": float(low),
            "high": float(high),
            "mean_set_size": float(size.mean()),
            "empty": float((size == 0).mean()),
            "always_in": c is not None and limits[c] is None,
        }
