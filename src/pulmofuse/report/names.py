"""What things are called and which colour they have, in every figure and table alike.

Colours are those of Okabe and Ito (2008), "Color Universal Design": told apart by people with
any common form of colour blindness. Figures repeat the distinction in line style or position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pulmofuse.labelsets import members
from pulmofuse.schema import SUBSET_JOIN, Label

#: Colour per modality; "fusion" stands for every subset of more than one.
COLOURS: dict[str, str] = {
    "ct": "#0072B2",
    "cxr": "#D55E00",
    "cough": "#009E73",
    "fusion": "#000000",
}

#: Line style per modality, so that no figure depends on colour alone.
LINE_STYLES: dict[str, str] = {"ct": "-", "cxr": "--", "cough": "-.", "fusion": "-"}

MODALITY_TITLES: dict[str, str] = {"ct": "CT", "cxr": "CXR", "cough": "cough"}

METHOD_TITLES: dict[str, str] = {
    "per_record": "each file by itself",
    "unimodal": "alone",
    "mean": "mean",
    "weighted_mean": "weighted mean",
    "product": "product",
    "vote": "vote",
    "log_odds": "log-odds",
    "stacking": "stacking",
    "stacking_simulated": "stacking on simulated patients",
    "concatenation": "concatenation",
    "gated_attention": "gated attention",
    "cross_attention": "cross-attention",
    "bilinear": "bilinear",
}

#: Begins the name of the training curve of a feature-level fusion; its method follows.
FUSION_CURVE = "fusion_"

CLASS_TITLES: dict[str, str] = {
    Label.COVID19: "COVID-19",
    Label.NOT_COVID19: "not COVID-19",
}

MISSING = "–"


@dataclass(frozen=True)
class Metric:
    """How a metric of `metrics.json` is shown."""

    key: str
    title: str
    decimals: int = 2
    lower_is_better: bool = False


METRICS: tuple[Metric, ...] = (
    Metric("roc_auc", "AUC"),
    Metric("accuracy", "Accuracy"),
    Metric("recall", "Sensitivity (recall)"),
    Metric("specificity", "Specificity"),
    Metric("precision", "Precision"),
    Metric("f1", "F1"),
    Metric("average_precision", "Average precision"),
    Metric("brier", "Brier score", decimals=3, lower_is_better=True),
    Metric("ece", "ECE", decimals=3, lower_is_better=True),
)


def is_fusion(subset: str) -> bool:
    """Whether a subset holds more than one modality."""
    return SUBSET_JOIN in subset


def colour_key(subset: str) -> str:
    """Key of `COLOURS` for a subset."""
    return "fusion" if is_fusion(subset) else subset


def subset_title(subset: str) -> str:
    """A subset as a reader writes it: "ct+cough" becomes "CT + cough", "cough" becomes "Cough"."""
    title = " + ".join(MODALITY_TITLES.get(part, part) for part in subset.split(SUBSET_JOIN))
    return title[:1].upper() + title[1:]


def subset_in_words(subset: str) -> str:
    """A subset inside a sentence: "ct+cxr+cough" becomes "CT, CXR and cough"."""
    parts = [MODALITY_TITLES.get(part, part) for part in subset.split(SUBSET_JOIN)]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def method_title(method: str) -> str:
    """A method as a reader writes it."""
    return METHOD_TITLES.get(method, method.replace("_", " "))


def class_title(name: str) -> str:
    """A class as a reader writes it; of a set, its members."""
    return " or ".join(CLASS_TITLES.get(c, c.replace("_", " ")) for c in members(name))


def question_title(question: str, classes: Sequence[str]) -> str:
    """What rows of a `question` of `metrics.json` tell apart; all classes where it is empty.

    >>> question_title("normal|pneumonia, covid19", ("normal", "pneumonia", "covid19"))
    'normal or pneumonia, COVID-19'
    """
    return ", ".join(map(class_title, question.split(", ") if question else classes))


def number(value: float | None, decimals: int = 2) -> str:
    """A number with fixed decimals, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{decimals}f}"


def interval(low: float | None, high: float | None, decimals: int = 2) -> str:
    """An interval as "[0.90, 0.96]", or nothing where it is not known."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{low:.{decimals}f}, {high:.{decimals}f}]"


def with_interval(
    value: float | None, low: float | None, high: float | None, decimals: int = 2
) -> str:
    """A number and its interval as "0.93 [0.90, 0.96]"."""
    return f"{number(value, decimals)} {interval(low, high, decimals)}".strip()


def signed(value: float, decimals: int = 2) -> str:
    """A difference with its sign, and a true minus."""
    return f"{value:+.{decimals}f}".replace("-", "−")


def seconds_text(seconds: float) -> str:
    """A duration for people: "42 s", "5 min 10 s", "2 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
