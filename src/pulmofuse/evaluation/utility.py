"""What a classifier is worth where it would be used: decision curves, and predictive values.

Both need a prevalence, and a cohort's own is that of its data sets. A decision curve is drawn at
that prevalence all the same (its column `treat_all` shows it); PPV and NPV are recomputed from
sensitivity and specificity at the prevalences that the study names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.intervals import logit_interval, quantile
from pulmofuse.evaluation.questions import as_asked, positive_of, questions
from pulmofuse.evaluation.tables import (
    PER_RECORD,
    UNIMODAL,
    Row,
    Table,
    class_index,
    groups_of,
    modalities_of,
    table_of,
)
from pulmofuse.schema import Split
from pulmofuse.statistics import FloatArray, divide

CURVE_COLUMNS = (
    "subset", "method", "threshold", "net_benefit", "low", "high", "treat_all", "n_patients",
    "simulated",
)  # fmt: skip

PREVALENCE_COLUMNS = (
    "subset", "method", "prevalence", "sensitivity", "specificity", "ppv", "ppv_low", "ppv_high",
    "npv", "npv_low", "npv_high", "n_patients", "simulated",
)  # fmt: skip

#: Methods whose curves are drawn: single modalities, and the rule that needs no pairs.
CURVE_METHODS = (UNIMODAL, "log_odds")

#: Threshold probabilities at which a person would act.
THRESHOLDS = np.round(np.arange(0.01, 1.0, 0.01), 2)


def net_benefit(
    ill: NDArray[np.bool_],
    score: NDArray[np.floating],
    thresholds: FloatArray,
    weights: NDArray[np.floating] | None = None,
) -> FloatArray:
    """Net benefit of acting on patients whose score reaches a threshold.

    Vickers & Elkin (2006, doi:10.1177/0272989X06295361): true positives less false positives at
    the odds of the threshold, per patient. Acting on nobody has 0.

    Args:
        ill: (n,) bool.
        score: (n,) probability of being ill.
        thresholds: (t,) in (0, 1).
        weights: None, or (n, replicates) of a bootstrap.

    Returns:
        (t,) or (t, replicates).
    """
    odds = thresholds / (1 - thresholds)
    called = score >= thresholds[:, None]
    if weights is None:
        gain: FloatArray = (called * np.where(ill, 1.0, -odds[:, None])).sum(axis=1)
        return gain / len(ill)
    of_ill = (called & ill).astype(weights.dtype) @ weights
    of_well = (called & ~ill).astype(weights.dtype) @ weights
    return divide(of_ill - odds[:, None] * of_well, weights.sum(axis=0), empty=np.nan)


def decision_curves(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    config: EvaluationConfig,
    seed: int,
) -> pd.DataFrame:
    """Decision curves of the methods of `CURVE_METHODS` on the test patients.

    Args:
        predictions: as `predictions.parquet`.
        classes: class names in the order of the model's outputs.
        positive: the positive class of two, or None: then there is no curve.
        config: number of replicates and confidence of the intervals.
        seed: of the bootstrap.

    Returns:
        `CURVE_COLUMNS`; low and high are pointwise.
    """
    rows: list[pd.DataFrame] = []
    for keys, table, at in _tested(predictions, classes, positive):
        if keys["method"] not in CURVE_METHODS:
            continue
        ill, score = table.y == at, table.p[:, at]
        statistic = partial(net_benefit, ill, score, THRESHOLDS)
        drawn = table.resample(config.bootstrap, seed).of(statistic)
        value = net_benefit(ill, score, THRESHOLDS)
        step = quantile(config.confidence, drawn.degrees) * drawn.standard_error()
        prevalence = ill.mean()
        frame = pd.DataFrame(
            {
                "threshold": THRESHOLDS,
                "net_benefit": value,
                "low": value - step,
                "high": value + step,
                "treat_all": prevalence - (1 - prevalence) * THRESHOLDS / (1 - THRESHOLDS),
            }
        ).assign(
            subset=keys["subset"],
            method=keys["method"],
            n_patients=table.n_patients,
            simulated=keys["simulated"],
        )
        rows.append(frame[list(CURVE_COLUMNS)])
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=CURVE_COLUMNS)


def predictive_values(rates: FloatArray, prevalence: float) -> FloatArray:
    """PPV and NPV by Bayes' theorem.

    Args:
        rates: (2, ...) sensitivity and specificity in [0, 1].
        prevalence: of the population to call, in (0, 1).

    Returns:
        (2, ...) PPV and NPV; NaN where nobody would be called ill, or well.
    """
    sensitivity, specificity = rates
    caught, missed = prevalence * sensitivity, prevalence * (1 - sensitivity)
    spared, alarmed = (1 - prevalence) * specificity, (1 - prevalence) * (1 - specificity)
    return np.array(
        [
            divide(caught, caught + alarmed, empty=np.nan),
            divide(spared, spared + missed, empty=np.nan),
        ]
    )


def prevalence_table(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    config: EvaluationConfig,
    seed: int,
) -> pd.DataFrame:
    """PPV and NPV of every method at the prevalences of the study, on the test patients.

    Sensitivity and specificity are those of the study's own operating points (`y_pred`); they are
    taken to be the same at another prevalence.

    Args:
        predictions: as `predictions.parquet`.
        classes: class names in the order of the model's outputs.
        positive: the positive class of two, or None: then there is no such table.
        config: prevalences, number of replicates and confidence.
        seed: of the bootstrap.

    Returns:
        `PREVALENCE_COLUMNS`; what is undefined is NaN.
    """
    rows: list[Row] = []
    for keys, table, at in _tested(predictions, classes, positive):
        ill, called = table.y == at, table.predicted == at
        rates = _rates(ill, called, np.ones((len(ill), 1)))
        drawn = table.resample(config.bootstrap, seed).of(partial(_rates, ill, called))
        for prevalence in config.prevalences:
            value = predictive_values(rates, prevalence)[:, 0]
            errors = drawn.map(partial(predictive_values, prevalence=prevalence)).standard_error()
            intervals = [
                logit_interval(float(v), float(error), config.confidence, degrees=drawn.degrees)
                for v, error in zip(value, errors, strict=True)
            ]
            of = (keys["subset"], keys["method"], prevalence, *rates[:, 0])
            found = (value[0], *intervals[0], value[1], *intervals[1])
            line = (*of, *found, table.n_patients, keys["simulated"])
            rows.append(dict(zip(PREVALENCE_COLUMNS, line, strict=True)))
    return pd.DataFrame(rows, columns=list(PREVALENCE_COLUMNS))


def _rates(
    ill: NDArray[np.bool_], called: NDArray[np.bool_], weights: NDArray[np.floating]
) -> FloatArray:
    """Sensitivity and specificity (2, replicates); NaN where a class has no weight."""
    sums = np.array([ill & called, ill, ~ill & ~called, ~ill], dtype=weights.dtype) @ weights
    return divide(sums[[0, 2]], sums[[1, 3]], empty=np.nan)


def _tested(
    predictions: pd.DataFrame, classes: Sequence[str], positive: str | None
) -> Iterator[tuple[Row, Table, int]]:
    """Keys, table and positive class of every method by patient on the test split.

    Where the question of a subset has no positive class, it is left out.
    """
    cohort, asked = modalities_of(predictions), questions(predictions, classes)
    for keys, group in groups_of(predictions):
        if keys["method"] == PER_RECORD or keys["split"] != Split.TEST:
            continue
        question = asked[keys["subset"]]
        at = class_index(question.names, positive_of(question, positive))
        if at is not None:
            rows = as_asked(group, question)
            yield (
                keys,
                table_of(rows, question.names, keys["subset"], cohort, keys["simulated"]),
                at,
            )
