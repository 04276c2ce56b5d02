"""What a cross-validation found: a page of Markdown, a forest plot and confusion matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pulmofuse.config import StudyConfig, Target
from pulmofuse.evaluation import confusion
from pulmofuse.evaluation.pooled import ENSEMBLE, FOLD_ACCURACY
from pulmofuse.evaluation.questions import as_asked, questions
from pulmofuse.files import write_text
from pulmofuse.report.figures import Estimate, confusion_figure, forest_figure, save_figure
from pulmofuse.report.names import (
    class_title,
    colour_key,
    number,
    signed,
    subset_title,
    with_interval,
)
from pulmofuse.schema import iterate

_DECIMALS = 3
_PARTED = "-"
_WIDTH = 7.2  # inches; names of figures are long
_METRICS = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "AUC",
    FOLD_ACCURACY: "Accuracy, mean of the folds",
}
_COUNTS = ("n_test", "same_patient", "copy", "either", "pretrained")
#: Figures without a line in the picture: they repeat others.
_NOT_DRAWN = frozenset({"precision", "recall", FOLD_ACCURACY})


def write_crossval(
    table: pd.DataFrame,
    leaks: pd.DataFrame,
    predictions: pd.DataFrame,
    config: StudyConfig,
    out: Path,
) -> None:
    """Write crossval.md, and for each modality crossval.png and confusion_<protocol>.png.

    With several modalities the pictures are crossval_<modality>.png and so on.

    Args:
        table: `crossval.csv`.
        leaks: `leaks.csv`.
        predictions: `predictions.parquet`.
        config: the study.
        out: the folder.
    """
    modalities = list(dict.fromkeys(table["modality"]))
    asked = questions(predictions, config.target.classes)
    for modality in modalities:
        end = f"_{modality}" if len(modalities) > 1 else ""
        own = table[table["modality"] == modality]
        estimates = list(_estimates(own, config.target, asked[modality].names))
        marked = any(estimate.mark is not None for estimate in estimates)
        axis = "Value (tall mark: published)" if marked else "Value"
        figure = forest_figure(estimates, axis=axis, width=_WIDTH)
        save_figure(figure, out, f"crossval{end}")
        rows = predictions[predictions["subset"] == modality]
        for protocol, part in rows.groupby("protocol", sort=False):
            names = asked[modality].names
            counts = _confusion(as_asked(part, asked[modality]), names)
            titles = [class_title(name) for name in names]
            drawn = confusion_figure(counts, titles, colour_key(modality))
            save_figure(drawn, out, f"confusion_{protocol}{end}")
    write_text(out / "crossval.md", _page(table, leaks, config))


def metric_title(name: str, n_classes: int) -> str:
    """A figure as a reader writes it.

    >>> metric_title("roc_auc.covid19-rest", 3), metric_title("f1", 3)
    ('AUC, COVID-19 against the rest', 'F1, macro mean')
    """
    metric, _, classes = name.partition(".")
    title = _METRICS[metric]
    if classes:
        first, _, second = classes.partition(_PARTED)
        other = "the rest" if second == "rest" else class_title(second)
        return f"{title}, {class_title(first)} against {other}"
    macro = n_classes > 2 and metric not in {"accuracy", FOLD_ACCURACY}
    return f"{title}, macro mean" if macro else title


def leak_lines(leaks: pd.DataFrame) -> Iterator[str]:
    """In words, what each protocol leaks: the mean over seeds.

    Args:
        leaks: columns of `leaks.csv`.
    """
    for (protocol, modality), part in leaks.groupby(["protocol", "modality"], sort=False):
        n, patient, copy, either, before = part[list(_COUNTS)].mean()
        text = f"{subset_title(str(modality))}, folds by {protocol}: training or validation"
        if either:
            yield (
                f"{text} knows {either:,.0f} of the {n:,.0f} test records"
                f" ({patient:,.0f} by their patient, {copy:,.0f} by a copy)"
            )
        else:
            yield f"{text} knows none of the {n:,.0f} test records"
        if before:
            yield (
                f"{subset_title(str(modality))}, folds by {protocol}: the starting weights know"
                f" {before:,.0f} of the {n:,.0f} test records from their pre-training"
            )


def control_columns(table: pd.DataFrame) -> list[str]:
    """Columns of `crossval.csv` that are negative controls."""
    columns = list(table.columns)
    return columns[columns.index("seeds") + 1 :]


def _confusion(rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Counts of the seed ensemble, or of the one seed."""
    mean = rows[rows["method"] == ENSEMBLE]
    shown = mean if len(mean) else rows
    codes = pd.Index(list(classes))
    true, called = (codes.get_indexer(pd.Index(shown[name])) for name in ("y_true", "y_pred"))
    return confusion(true, called, len(classes))


def _estimates(table: pd.DataFrame, target: Target, classes: Sequence[str]) -> Iterator[Estimate]:
    """The protocols of every figure, then what the first keeps with the disease taken out.

    Args:
        table: rows of `crossval.csv` of one modality.
        target: of the study.
        classes: that the figures are about: the study's, or parts of them.
    """
    levels = table[~table["protocol"].str.contains(_PARTED)]
    # Of the classes against the rest, the positive one's says most; crossval.md has the others.
    others = {
        f"roc_auc.{name}{_PARTED}rest" for name in classes if target.positive not in {None, name}
    }
    for metric, part in levels.groupby("metric", sort=False):
        if metric in _NOT_DRAWN | others or part["value"].isna().any():
            continue
        heading = metric_title(str(metric), len(classes))
        for row in iterate(part):
            key, mark = colour_key(row["modality"]), _known(row["published"])
            ends = _known(row["low"]), _known(row["high"])
            yield Estimate(f"By {row['protocol']}", key, row["value"], *ends, heading, mark)
            heading = ""
        row = next(iterate(part))
        for control in control_columns(table):
            if np.isfinite(row[control]):
                title = f"By {row['protocol']}, {control.replace('_', ' ')}"
                yield Estimate(title, "fusion", row[control])


def _page(table: pd.DataFrame, leaks: pd.DataFrame, config: StudyConfig) -> str:
    """The whole of crossval.md."""
    lines = [f"# Cross-validation of {config.name}", "", config.question, ""]
    lines += [*(f"- {line}." for line in leak_lines(leaks)), ""]
    for (modality, protocol), part in table.groupby(["modality", "protocol"], sort=False):
        first = next(iterate(part))
        parted = _PARTED in str(protocol)
        question = str(first.get("question", ""))
        n_classes = len(question.split(", ")) if question else len(config.target.classes)
        what = "what the leak is worth (image less patient)" if parted else f"folds by {protocol}"
        lines += [
            f"## {subset_title(str(modality))}, {what}",
            "",
            f"{first['n']:,} records of {first['n_patients']:,} patients, each tested once per"
            f" seed ({first['seeds']} seeds)."
            if not parted
            else f"Mean over seeds, on the {first['n']:,} records that both protocols have.",
            *_asked_lines(question),
            "",
            *_markdown(_cells(part, n_classes, parted)),
            "",
        ]
    lines += [
        "Intervals are 95 % bootstrap intervals of the mean over seeds, drawn by patient."
        if config.evaluation.confidence == 0.95
        else f"Intervals ({config.evaluation.confidence:.0%}) are bootstrap intervals of the mean"
        " over seeds, drawn by patient.",
        "*Ensemble*: the mean of a record's probabilities over the seeds. The last columns are what"
        " the same models reach with the disease taken out of the test records: what is well above"
        " chance there did not come from it.",
        "",
        "Research use only, not a medical device.",
    ]
    return "\n".join(lines) + "\n"


def _asked_lines(question: str) -> list[str]:
    """What the figures tell apart, where labels stand for sets of classes."""
    if not question:
        return []
    told = " / ".join(class_title(name) for name in question.split(", "))
    return ["", f"Some labels stand for a set of classes, so the figures are about {told}."]


def _cells(part: pd.DataFrame, n_classes: int, parted: bool) -> pd.DataFrame:
    """Cells of one Markdown table, as text; columns without a figure are left out."""
    shown = pd.DataFrame({"figure": [metric_title(str(m), n_classes) for m in part["metric"]]})
    intervals = part[["value", "low", "high"]].to_numpy()
    if parted:
        shown["difference"] = [
            f"{signed(v, _DECIMALS)} [{signed(a, _DECIMALS)}, {signed(b, _DECIMALS)}]"
            for v, a, b in intervals
        ]
        return shown
    shown["mean over seeds"] = [with_interval(v, a, b, _DECIMALS) for v, a, b in intervals]
    shown["seeds"] = [
        f"{number(low, _DECIMALS)} to {number(high, _DECIMALS)}"
        for low, high in part[["lowest", "highest"]].to_numpy()
    ]
    ends = ["ensemble", "ensemble_low", "ensemble_high"]
    shown["ensemble"] = [with_interval(v, a, b, _DECIMALS) for v, a, b in part[ends].to_numpy()]
    for name in ("published", *control_columns(part)):
        shown[name.replace("_", " ")] = [number(value, _DECIMALS) for value in part[name]]
    empty = [name for name in shown if set(shown[name]) == {number(None)}]
    return shown.drop(columns=empty)


def _markdown(table: pd.DataFrame) -> list[str]:
    """A table of texts in Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
