"""All paired tests of a study in one table, corrected for being many.

Who is compared, on the test patients that both predict:

    fusion_vs_best      each fusion of all modalities with the one that was best on validation
    fusion_vs_single    the same with each other modality
    pair_vs_member      each fusion of a smaller subset with each of its modalities
    method_vs_method    the fusions of all modalities with each other

Real patients with one row each are tested by DeLong (AUC of two classes) and McNemar (accuracy);
simulated ones, several rows of a patient and more classes by the bootstrap over patients. Holm's
correction is over all rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.delong import delong
from pulmofuse.evaluation.intervals import difference_interval, two_sided_p
from pulmofuse.evaluation.metrics import METRICS
from pulmofuse.evaluation.questions import common_question, positive_of, questions, told
from pulmofuse.evaluation.resampling import Replicates
from pulmofuse.evaluation.significance import holm, mcnemar
from pulmofuse.evaluation.tables import (
    PER_RECORD,
    UNIMODAL,
    Row,
    Table,
    best_modality,
    class_index,
    full_subset,
    paired_tables,
)
from pulmofuse.schema import SUBSET_JOIN, Split
from pulmofuse.statistics import FloatArray

Family = Literal["fusion_vs_best", "fusion_vs_single", "pair_vs_member", "method_vs_method"]

COLUMNS = (
    "family", "metric", "subset_a", "method_a", "subset_b", "method_b", "simulated", "n_patients",
    "value_a", "value_b", "difference", "low", "high", "test", "p_value", "p_holm",
)  # fmt: skip

_TESTED = ("roc_auc", "accuracy")


class _Pair(NamedTuple):
    family: Family
    a: tuple[str, str]
    b: tuple[str, str]


def comparisons(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    config: EvaluationConfig,
    seed: int,
) -> pd.DataFrame:
    """All paired tests of a study.

    Args:
        predictions: as `predictions.parquet`.
        classes: class names in the order of the model's outputs.
        positive: the positive class of two, or None.
        config: number of replicates and confidence of the intervals.
        seed: of the bootstrap.

    Returns:
        `COLUMNS`; `difference` is a less b, with its interval; `test` is delong, mcnemar or
        bootstrap; what is undefined is NaN. Where labels stand for sets of classes, `question` is
        the last column, "" for all classes. The interval of a McNemar row is the bootstrap's.
    """
    rows: list[Row] = []
    fused = predictions[predictions["method"] != PER_RECORD]
    for simulated, part in fused.groupby("simulated", sort=False):
        known: dict[tuple[object, ...], tuple[FloatArray, Replicates]] = {}
        asked = questions(part, classes)
        for pair in _pairs(part, classes, positive):
            question = common_question(asked, (pair.a[0], pair.b[0]), classes)
            tables = paired_tables(part, (pair.a, pair.b), question, Split.TEST)
            if not tables[0].n_patients:
                continue
            at = class_index(question.names, positive_of(question, positive))
            keep = {
                "family": pair.family,
                "subset_a": pair.a[0],
                "method_a": pair.a[1],
                "subset_b": pair.b[0],
                "method_b": pair.b[1],
                "simulated": bool(simulated),
                "n_patients": tables[0].n_patients,
                **told(question),
            }
            computed = [
                _computed(known, names, table, at, config, seed)
                for names, table in zip((pair.a, pair.b), tables, strict=True)
            ]
            rows += [{**keep, **row} for row in _tests(tables, computed, at, config.confidence)]
    coarse = any("question" in row for row in rows)
    table = pd.DataFrame(rows, columns=[*COLUMNS, *(["question"] if coarse else [])])
    if coarse:
        table["question"] = table["question"].fillna("")
    table["p_holm"] = holm(table["p_value"].to_numpy(dtype=np.float64))
    return table


def _pairs(cohort: pd.DataFrame, classes: Sequence[str], positive: str | None) -> Iterator[_Pair]:
    """Who is compared with whom, in the order of the table."""
    full = full_subset(cohort)
    modalities = full.split(SUBSET_JOIN)
    if len(modalities) < 2:
        return
    present = cohort[["subset", "method"]].drop_duplicates().itertuples(index=False, name=None)
    fusions = [(str(s), str(m)) for s, m in present if m != UNIMODAL and SUBSET_JOIN in str(s)]
    of_all = [fusion for fusion in fusions if fusion[0] == full]
    best = best_modality(cohort, full, [m for _, m in of_all], classes, positive)
    for fusion in of_all:
        for modality in modalities:
            family: Family = "fusion_vs_best" if modality == best else "fusion_vs_single"
            yield _Pair(family, fusion, (modality, UNIMODAL))
    for fusion in fusions:
        if fusion[0] != full:
            for modality in fusion[0].split(SUBSET_JOIN):
                yield _Pair("pair_vs_member", fusion, (modality, UNIMODAL))
    for a, b in combinations(of_all, 2):
        yield _Pair("method_vs_method", a, b)


def _computed(
    known: dict[tuple[object, ...], tuple[FloatArray, Replicates]],
    names: tuple[str, str],
    table: Table,
    positive: int | None,
    config: EvaluationConfig,
    seed: int,
) -> tuple[FloatArray, Replicates]:
    """Metrics and replicates of one side; a table meets many others on the same patients."""
    patients = "\n".join("\t".join(row) for row in zip(*table.factors, strict=True))
    key = (names, hash(patients), table.p.shape[1], table.y.tobytes())
    if key not in known:
        resamples = table.resample(config.bootstrap, seed)
        known[key] = table.values(positive), table.replicates(positive, resamples)
    return known[key]


def _tests(
    tables: Sequence[Table],
    computed: Sequence[tuple[FloatArray, Replicates]],
    positive: int | None,
    confidence: float,
) -> Iterator[Row]:
    """`{metric, value_a, value_b, difference, low, high, test, p_value}` of each metric."""
    (values_a, replicates_a), (values_b, replicates_b) = computed
    a, b = tables
    people = not a.simulated and len(a.y) == a.n_patients
    for metric in _TESTED:
        at = list(METRICS).index(metric)
        difference = float(values_a[at] - values_b[at])
        test = "bootstrap"
        if metric == "roc_auc" and people and positive is not None and a.p.shape[1] == 2:
            test = "delong"
            scores = np.array([a.p[:, positive], b.p[:, positive]])
            _, low, high, p = delong(a.y == positive, scores).difference(0, 1, confidence)
        else:
            drawn = (replicates_a - replicates_b)[at]
            error = float(drawn.standard_error())
            low, high = difference_interval(difference, error, confidence, drawn.degrees)
            p = two_sided_p(difference, error, drawn.degrees)
        if metric == "accuracy" and people:
            test, p = "mcnemar", mcnemar(a.predicted == a.y, b.predicted == b.y).p
        yield {
            "metric": metric,
            "value_a": float(values_a[at]),
            "value_b": float(values_b[at]),
            "difference": difference,
            "low": low,
            "high": high,
            "test": test,
            "p_value": p,
        }
