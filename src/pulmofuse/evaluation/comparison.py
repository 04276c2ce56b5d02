"""From `predictions.parquet` to the rows of `metrics.json`: who did how well, and who did better.

Reads predictions and nothing else, so a stranger can recompute every figure. All groups draw their
bootstrap from the same seed, so two methods on the same patients see the same resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulmofuse.config import EvaluationConfig
from pulmofuse.errors import StudyError
from pulmofuse.evaluation.bootstrap import cluster_weights, percentile_interval
from pulmofuse.evaluation.metrics import METRICS, IntArray, Metric, roc_auc
from pulmofuse.evaluation.questions import as_asked, common_question, positive_of, questions
from pulmofuse.labelsets import Partition
from pulmofuse.schema import ABSENT, JOIN, SUBSET_JOIN, Modality, Split, class_columns
from pulmofuse.statistics import FloatArray

Row = dict[str, Any]

#: Methods that are no fusion: see docs/decisions/0001-shape.md.
PER_RECORD = "per_record"
UNIMODAL = "unimodal"

#: Name of the metric in the rows of `fusion_gain`.
AUC_DIFFERENCE = "roc_auc_difference"

#: Fewer records of a site say nothing: the 95 % interval of a share of 10 spans up to 0.6.
_MIN_SITE_RECORDS = 10

#: Weights held at once by one metric; 4 million float64 are 32 MB per intermediate array.
_BLOCK = 4_000_000


@dataclass(frozen=True, eq=False)
class _Table:
    """Predictions of n rows as arrays: y, predicted (n,) int; p (n, k); one (n,) per factor."""

    y: IntArray
    p: FloatArray
    predicted: IntArray
    factors: tuple[NDArray[Any], ...]
    n_patients: int


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
    cohort, asked = _modalities(predictions), questions(predictions, classes)
    rows: list[Row] = []
    for keys, group in _groups(predictions):
        subset, question = str(keys["subset"]), asked[str(keys["subset"])]
        at = _index(question.names, positive_of(question, positive))
        for site, part in _sites(as_asked(group, question), str(keys["method"])):
            table = _table(part, question.names, subset, cohort, bool(keys["simulated"]))
            n_boot = config.bootstrap if keys["split"] == Split.TEST else 0
            rows += [
                {**keys, "site": site, **figures, "n_patients": table.n_patients, **_told(question)}
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
    metric: Metric = roc_auc,
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
        metric: one of `METRICS`.

    Returns:
        (difference, low, high, number of patients); NaN where undefined.
    """
    asked = questions(predictions, classes)
    question = common_question(asked, (first[0], second[0]), classes)
    tables = _paired_tables(predictions, (first, second), question, Split.TEST)
    if not tables[0].n_patients:
        return float("nan"), float("nan"), float("nan"), 0
    at = _index(question.names, positive_of(question, positive))
    value = float(_value(metric, tables[0], at) - _value(metric, tables[1], at))
    weights = cluster_weights(tables[0].factors, config.bootstrap, seed)
    replicates = _value(metric, tables[0], at, weights) - _value(metric, tables[1], at, weights)
    low, high = percentile_interval(replicates, config.confidence)
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
        full = _full_subset(part)
        fused = part.loc[(part["subset"] == full) & (part["method"] != UNIMODAL), "method"]
        methods = list(dict.fromkeys(fused))
        best = _best_modality(part, full, methods, classes, positive)
        if best is None:
            continue
        told = _told(common_question(questions(part, classes), (full, best), classes))
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
                    **told,
                }
            )
    return rows


def _best_modality(
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
    asked = questions(cohort, classes)
    # Figures that answer different questions cannot be ranked.
    question = common_question(asked, (full, *modalities), classes)
    at = _index(question.names, positive_of(question, positive))
    for modality in modalities:
        pair = ((modality, UNIMODAL), (full, methods[0]))
        table = _paired_tables(cohort, pair, question, Split.VAL)[0]
        if table.n_patients:
            scores[modality] = float(_value(roc_auc, table, at))
    defined = {name: score for name, score in scores.items() if np.isfinite(score)}
    return max(defined, key=lambda name: defined[name]) if defined else None


def _groups(predictions: pd.DataFrame) -> Iterator[tuple[Row, pd.DataFrame]]:
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


def _sites(group: pd.DataFrame, method: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The whole group as site "", then each site that is large enough."""
    yield "", group
    if method != PER_RECORD or "site" not in group:
        return
    for site, part in group.groupby("site", sort=True):  # rows of unknown site are left out
        if site and len(part) >= _MIN_SITE_RECORDS and part["y_true"].nunique() >= 2:
            yield str(site), part


def _metric_rows(
    table: _Table, positive: int | None, n_boot: int, config: EvaluationConfig, seed: int
) -> Iterator[Row]:
    """`{metric, value, low, high}` of every metric; no interval if `n_boot` is 0."""
    weights = cluster_weights(table.factors, n_boot, seed) if n_boot else None
    for name, metric in METRICS.items():
        low, high = float("nan"), float("nan")
        if weights is not None:
            replicates = _value(metric, table, positive, weights)
            low, high = percentile_interval(replicates, config.confidence)
        value = float(_value(metric, table, positive))
        yield {"metric": name, "value": _null(value), "low": _null(low), "high": _null(high)}


def _value(
    metric: Metric, table: _Table, positive: int | None, weights: FloatArray | None = None
) -> FloatArray:
    """The metric of a table: (), or (replicates,) for weights (replicates, n)."""
    if weights is None:
        return metric(table.y, table.p, table.predicted, positive, None)
    step = max(1, _BLOCK // max(1, len(table.y)))
    blocks = [weights[start : start + step] for start in range(0, len(weights), step)]
    return np.concatenate(
        [metric(table.y, table.p, table.predicted, positive, block) for block in blocks]
    )


def _paired_tables(
    predictions: pd.DataFrame,
    pair: Sequence[tuple[str, str]],
    question: Partition,
    split: Split,
) -> list[_Table]:
    """Tables of (subset, method) pairs on the patients of a split that all of them predict."""
    part = predictions[predictions["split"] == split]
    # A patient who fell ill between two records stands once per class (`fusion.paired_patients`).
    frames = [
        _asked_rows(part[(part["subset"] == subset) & (part["method"] == method)], question)
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
    cohort = _modalities(predictions)
    simulated = bool(frames[0]["simulated"].any())
    # Every modality of the patient may matter to one of the pair, so all factors are resampled.
    names = question.names
    return [_table(f.loc[common].reset_index(), names, cohort, cohort, simulated) for f in frames]


def _asked_rows(rows: pd.DataFrame, question: Partition) -> pd.DataFrame:
    """Rows of one (subset, method), found by patient and class.

    Classes that the question does not tell apart leave a patient's rows with one class; they stay
    apart by their order.
    """
    if question.is_fine:
        return rows.set_index(["patient_id", "y_true"])
    twice = rows.duplicated(["patient_id", "y_true"]).any()
    asked = as_asked(rows.sort_values("y_true", kind="stable"), question)
    order = 0 if twice else asked.groupby(["patient_id", "y_true"]).cumcount()
    return asked.assign(order=order).set_index(["patient_id", "y_true", "order"])


def _told(question: Partition) -> Row:
    """What a row says of its question; nothing where it is about all classes."""
    return {} if question.is_fine else {"question": ", ".join(question.names)}


def _table(
    frame: pd.DataFrame, classes: Sequence[str], subset: str, cohort: str, simulated: bool
) -> _Table:
    """Predictions as arrays; see `_Table`."""
    patients = frame["patient_id"].astype(str)
    return _Table(
        y=_codes(frame["y_true"], classes),
        p=frame[class_columns(classes)].to_numpy(dtype=np.float64),
        predicted=_codes(frame["y_pred"], classes),
        factors=_factors(patients, subset, cohort) if simulated else (patients.to_numpy(),),
        n_patients=int(patients.nunique()),
    )


def _factors(patients: pd.Series, subset: str, cohort: str) -> tuple[NDArray[Any], ...]:
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


def _modalities(predictions: pd.DataFrame) -> str:
    """All modalities of the cohort, whether or not a patient has all of them."""
    names = {name for subset in set(predictions["subset"]) for name in subset.split(SUBSET_JOIN)}
    return SUBSET_JOIN.join(m.value for m in Modality if m.value in names)


def _full_subset(predictions: pd.DataFrame) -> str:
    """The subset of the most modalities."""
    subsets = sorted(set(predictions["subset"].astype(str)))
    return max(subsets, key=lambda subset: len(subset.split(SUBSET_JOIN)), default="")


def _index(classes: Sequence[str], positive: str | None) -> int | None:
    return None if positive is None else list(classes).index(positive)


def _null(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
