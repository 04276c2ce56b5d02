"""From `predictions.parquet` to the rows of `metrics.json`: who did how well, and who did better.

Reads predictions and nothing else, so a stranger can recompute every figure. All groups draw their
bootstrap from the same seed, so two methods on the same patients see the same resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.intervals import difference_interval, metric_interval
from pulmofuse.evaluation.metrics import METRICS
from pulmofuse.evaluation.questions import as_asked, common_question, positive_of, questions, told
from pulmofuse.evaluation.tables import (
    PER_RECORD,
    UNIMODAL,
    Row,
    Table,
    best_modality,
    class_index,
    full_subset,
    groups_of,
    modalities_of,
    paired_tables,
    table_of,
)
from pulmofuse.schema import Split

#: Name of the metric in the rows of `fusion_gain`.
AUC_DIFFERENCE = "roc_auc_difference"

#: Fewer records of a site say nothing: the 95 % interval of a share of 10 spans up to 0.6.
_MIN_SITE_RECORDS = 10


def evaluate(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    config: EvaluationConfig,
    seed: int,
) -> list[Row]:
    """Every metric of every (subset, method) on validation and test.

    Args:
        predictions: as `predictions.parquet` (docs/decisions/0001-shape.md); rows of the training
            split are not evaluated.
        classes: class names in the order of the model's outputs.
        positive: the positive class of two, or None.
        config: number of replicates and confidence of the intervals.
        seed: of the bootstrap.

    Returns:
        Rows `{subset, method, split, site, metric, value, low, high, n_patients, simulated}`, and
        `question` where labels are sets of classes: the parts that were told apart, see
        `evaluation.questions`.
        Intervals (low, high) stand on the test split only; what is undefined is None. `site` is ""
        for all sites; per-site rows are given for `per_record` and sites of at least 10 records
        and two classes.

    Raises:
        StudyError: a class of the predictions is not in `classes`.
    """
    cohort, asked = modalities_of(predictions), questions(predictions, classes)
    rows: list[Row] = []
    for keys, group in groups_of(predictions):
        subset, question = str(keys["subset"]), asked[str(keys["subset"])]
        at = class_index(question.names, positive_of(question, positive))
        for site, part in _sites(as_asked(group, question), str(keys["method"])):
            table = table_of(part, question.names, subset, cohort, bool(keys["simulated"]))
            n_boot = config.bootstrap if keys["split"] == Split.TEST else 0
            rows += [
                {**keys, "site": site, **figures, "n_patients": table.n_patients, **told(question)}
                for figures in _metric_rows(table, at, n_boot, config, seed)
            ]
    order = [
        "subset", "method", "split", "site", "metric", "value", "low", "high", "n_patients",
        "simulated", "question",
    ]  # fmt: skip
    return [{key: row[key] for key in order if key in row} for row in rows]


def comparison_table(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per subset and method on the test split, all sites together.

    Args:
        rows: of `evaluate`.

    Returns:
        Columns `subset, method, <metric>, <metric>_low, <metric>_high ..., n_patients, simulated`;
        what is undefined is NaN. Where rows have a `question`, it is the last column, "" for all
        classes.
    """
    lines: dict[tuple[str, str, bool], Row] = {}
    for row in rows:
        if row["split"] != Split.TEST or row["site"] or row["metric"] not in METRICS:
            continue
        key = (row["subset"], row["method"], row["simulated"])
        line = lines.setdefault(key, {"subset": row["subset"], "method": row["method"]})
        name = row["metric"]
        line |= {name: row["value"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
        line |= {"n_patients": row["n_patients"], "simulated": row["simulated"]}
        line["question"] = row.get("question", "")
    figures = [f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")]
    columns = ["subset", "method", *figures, "n_patients", "simulated"]
    if any(line["question"] for line in lines.values()):
        columns.append("question")
    table = pd.DataFrame(list(lines.values()), columns=columns)
    return table.astype(dict.fromkeys(figures, np.float64))


def paired_difference(
    predictions: pd.DataFrame,
    first: tuple[str, str],
    second: tuple[str, str],
    *,
    classes: Sequence[str],
    positive: str | None,
    config: EvaluationConfig,
    seed: int,
    metric: str = "roc_auc",
) -> tuple[float, float, float, int]:
    """Metric of `first` less that of `second` on the test patients that both predict.

    Both are computed with the same bootstrap weights, so what the patients have in common cancels.

    Args:
        predictions: with one row per patient, class, subset and method, all simulated or all not.
        first: (subset, method).
        second: (subset, method) to compare with.
        classes: class names in the order of the model's outputs.
        positive: the positive class of two, or None.
        config: number of replicates and confidence of the interval.
        seed: of the bootstrap.
        metric: a name in `METRICS`.

    Returns:
        (difference, low, high, number of patients); NaN where undefined.
    """
    question = common_question(questions(predictions, classes), (first[0], second[0]), classes)
    tables = paired_tables(predictions, (first, second), question, Split.TEST)
    if not tables[0].n_patients:
        return float("nan"), float("nan"), float("nan"), 0
    at = class_index(question.names, positive_of(question, positive))
    of = list(METRICS).index(metric)
    value = float(tables[0].values(at)[of] - tables[1].values(at)[of])
    # Both tables hold the same patients in the same order, so one draw serves both.
    resamples = tables[0].resample(config.bootstrap, seed)
    first_values, second_values = (table.replicates(at, resamples)[of] for table in tables)
    error = float((first_values - second_values).standard_error())
    low, high = difference_interval(value, error, config.confidence, resamples.degrees)
    return value, low, high, tables[0].n_patients


def fusion_gain(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    config: EvaluationConfig,
    seed: int,
) -> list[Row]:
    """What fusing all modalities gains over the best one, in AUC on the test patients.

    The best modality is the one with the highest AUC on *validation*: to choose it on test would
    flatter it and hide a gain.

    Args:
        predictions: as `predictions.parquet`.
        classes: class names in the order of the model's outputs.
        positive: the positive class of two, or None.
        config: number of replicates and confidence of the interval.
        seed: of the bootstrap.

    Returns:
        One row per fused method on the full subset, with the keys of `evaluate`'s rows, metric
        "roc_auc_difference", and `against`, the modality compared with. Empty if there is one
        modality only, or no validation patient of each class to choose it on.
    """
    rows: list[Row] = []
    cohort = predictions[predictions["method"] != PER_RECORD]
    for simulated, part in cohort.groupby("simulated", sort=False):
        full = full_subset(part)
        fused = part.loc[(part["subset"] == full) & (part["method"] != UNIMODAL), "method"]
        methods = list(dict.fromkeys(fused))
        best = best_modality(part, full, methods, classes, positive)
        if best is None:
            continue
        asked = told(common_question(questions(part, classes), (full, best), classes))
        for method in methods:
            value, low, high, n_patients = paired_difference(
                part,
                (full, method),
                (best, UNIMODAL),
                classes=classes,
                positive=positive,
                config=config,
                seed=seed,
            )
            rows.append(
                {
                    "subset": full,
                    "method": method,
                    "split": Split.TEST.value,
                    "site": "",
                    "metric": AUC_DIFFERENCE,
                    "value": _null(value),
                    "low": _null(low),
                    "high": _null(high),
                    "n_patients": n_patients,
                    "simulated": bool(simulated),
                    "against": best,
                    **asked,
                }
            )
    return rows


def _sites(group: pd.DataFrame, method: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The whole group as site "", then each site that is large enough."""
    yield "", group
    if method != PER_RECORD or "site" not in group:
        return
    for site, part in group.groupby("site", sort=True):  # rows of unknown site are left out
        if site and len(part) >= _MIN_SITE_RECORDS and part["y_true"].nunique() >= 2:
            yield str(site), part


def _metric_rows(
    table: Table, positive: int | None, n_boot: int, config: EvaluationConfig, seed: int
) -> Iterator[Row]:
    """`{metric, value, low, high}` of every metric; no interval if `n_boot` is 0."""
    errors, degrees = np.full(len(METRICS), np.nan), 1
    if n_boot:
        resamples = table.resample(n_boot, seed)
        errors, degrees = table.replicates(positive, resamples).standard_error(), resamples.degrees
    several = positive is None or table.p.shape[1] > 2
    for name, value, error in zip(METRICS, table.values(positive), errors, strict=True):
        low, high = metric_interval(
            name, float(value), float(error), config.confidence, degrees, several=several
        )
        yield {"metric": name, "value": _null(value), "low": _null(low), "high": _null(high)}


def _null(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
