"""From the files of the fusion to figures and tables of the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pulmofuse.report import fusion_figures as figures
from pulmofuse.report.conclusion import LEVEL, p_value
from pulmofuse.report.names import (
    colour_key,
    is_fusion,
    method_title,
    number,
    question_title,
    signed,
    subset_in_words,
    subset_title,
    with_interval,
)
from pulmofuse.report.results import headline, scores, subset_order
from pulmofuse.report.study_files import StudyFiles
from pulmofuse.schema import iterate

#: Net benefit is drawn up to here: nobody waits to be 60 % sure of an infectious disease.
_HIGHEST_THRESHOLD = 0.6

Drawn = tuple[str, str, str, str, Figure]

#: What the families of paired tests ask; see `evaluation.paired_tests`.
_CONTROL_WORDS = {
    "noise_modality": "A modality of noise added",
    "shuffled_within_class": "Modalities shuffled within the class",
    "confounders_only": "Acquisition traits alone, fused",
    "dependence": "Correlation between the modalities",
}


@dataclass(frozen=True)
class Compared:
    """One paired comparison as shown."""

    first: str
    second: str
    metric: str
    difference: str
    test: str
    p: str
    p_holm: str
    sure: bool
    question: str = ""


@dataclass(frozen=True)
class Controlled:
    """One control of the fusion as shown."""

    title: str
    key: str
    subset: str
    value: str
    against: str
    detail: str


def draw_fusion(study: StudyFiles) -> dict[str, Iterator[Drawn]]:
    """Section -> figures, as `charts.draw_charts` writes them."""
    return {
        "grid": _grid(study),
        "dependence": _dependence(study),
        "shares": _shares(study),
        "decisions": _decisions(study),
    }


def _grid(study: StudyFiles) -> Iterator[Drawn]:
    found = [s for s in scores(study) if s.method != "per_record"]
    subsets = sorted({s.subset for s in found}, key=subset_order)
    methods = [m for m in dict.fromkeys(s.method for s in found) if m != "unimodal"]
    if len(subsets) < 3 or not methods:
        return
    columns = ["unimodal", *methods]
    cells = [
        figures.GridCell(
            subsets.index(s.subset),
            columns.index(s.method),
            s.value,
            *((s.low, s.high) if s.text.endswith("]") else (None, None)),
        )
        for s in found
    ]
    names = ["alone", *(method_title(m) for m in methods)]
    figure = figures.grid_figure([subset_title(s) for s in subsets], names, cells)
    alt = "AUC on the test split. " + "; ".join(
        f"{subset_in_words(s.subset)} by {method_title(s.method)} {s.text}" for s in found
    )
    yield "grid", "AUC of every subset by every way of fusing", "", f"{alt}.", figure


def _dependence(study: StudyFiles) -> Iterator[Drawn]:
    rows, head = study.fusion.dependence, headline(study)
    if rows.empty or head.fused is None:
        return
    rows = rows[rows["subset"] == head.fused.subset]
    titles = {"roc_auc": "AUC", "ece": "ECE", "log_loss": "Log loss", "brier": "Brier score"}
    for metric in ("roc_auc", "ece"):
        part = rows[rows["metric"] == metric]
        if part.empty:
            continue
        base = head.baseline if metric == "roc_auc" else None
        figure = figures.dependence_figure(
            part,
            titles[metric],
            base.value if base else None,
            f"{base.title} alone" if base else "",
        )
        told = part[part["weight_rule"] == "one"].sort_values("rho")
        alt = "; ".join(f"{number(r['rho'], 1)}: {number(r['value'], 3)}" for r in iterate(told))
        title = f"{titles[metric]} if the modalities depended on each other"
        yield f"dependence_{metric}", title, "", f"{title}, by correlation. {alt}.", figure


def _shares(study: StudyFiles) -> Iterator[Drawn]:
    rows, head = study.fusion.shares, headline(study)
    if rows.empty or head.fused is None:
        return
    rows = rows[(rows["metric"] == "roc_auc") & (rows["method"] == head.fused.method)]
    if rows.empty:
        return
    shown = rows.assign(
        key=rows["modality"].map(colour_key), title=rows["modality"].map(subset_title)
    )
    alt = "; ".join(
        f"{r['title']} {with_interval(r['value'], r['low'], r['high'], 3)}" for r in iterate(shown)
    )
    title = f"Share of each modality in {method_title(head.fused.method)}"
    yield "shares", title, "exact Shapley values", f"{title}: {alt}.", figures.shares_figure(shown)


def _decisions(study: StudyFiles) -> Iterator[Drawn]:
    rows = study.fusion.decisions
    if rows.empty:
        return
    head = headline(study)
    wanted = {(s.subset, s.method) for s in head.scores}
    keep = [(s, m) in wanted for s, m in zip(rows["subset"], rows["method"], strict=True)]
    rows = rows[keep]
    if rows.empty:
        return
    shown = rows.assign(
        key=rows["subset"].map(colour_key),
        title=[("Fusion" if is_fusion(s) else subset_title(s)) for s in rows["subset"]],
    )
    title = "Net benefit of acting on the models"
    alt = f"{title}, against treating nobody or everybody, over threshold probabilities."
    yield "decision_curves", title, "", alt, figures.decision_figure(shown, _HIGHEST_THRESHOLD)


def compared(study: StudyFiles, most: int = 40) -> list[Compared]:
    """The paired tests, those of the headline first, then by p."""
    rows = study.fusion.comparisons
    if rows.empty:
        return []
    fused = headline(study).fused
    method = fused.method if fused else ""
    asked = "question" in rows and len(set(rows["question"])) > 1
    rows = rows.assign(own=rows["method_a"] != method, auc=rows["metric"] != "roc_auc")
    rows = rows.sort_values(["own", "auc", "p_value"], kind="stable").head(most)
    return [
        Compared(
            first=_named(str(row["subset_a"]), str(row["method_a"])),
            second=_named(str(row["subset_b"]), str(row["method_b"])),
            metric={"roc_auc": "AUC", "accuracy": "accuracy"}.get(row["metric"], row["metric"]),
            difference=_difference(row),
            test={"delong": "DeLong", "mcnemar": "McNemar"}.get(row["test"], str(row["test"])),
            p=_p(row["p_value"]),
            p_holm=_p(row["p_holm"]),
            sure=bool(pd.notna(row["p_holm"]) and float(row["p_holm"]) < LEVEL),
            question=question_title(str(row["question"]), study.classes) if asked else "",
        )
        for row in iterate(rows)
    ]


def _named(subset: str, method: str) -> str:
    title = subset_title(subset)
    return f"{title}, {method_title(method)}" if is_fusion(subset) else title


def _difference(row: dict[str, Any]) -> str:
    text = signed(float(row["difference"]), 3)
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return text
    return f"{text} [{signed(float(row['low']), 3)}, {signed(float(row['high']), 3)}]"


def _p(value: object) -> str:
    return "–" if value is None or pd.isna(value) else p_value(float(value))  # type: ignore[call-overload, arg-type]


def controlled(study: StudyFiles) -> list[Controlled]:
    """The controls of the headline's rule, on every subset, in AUC."""
    rows = study.fusion.controls
    if rows.empty:
        return []
    fused = headline(study).fused
    rows = rows[rows["metric"].isin(["roc_auc", "rho"])]
    if fused is not None:
        rows = rows[(rows["method"] == fused.method) | (rows["control"] == "dependence")]
    order = list(_CONTROL_WORDS)
    return [
        Controlled(
            title=_CONTROL_WORDS.get(str(row["control"]), str(row["control"]).replace("_", " ")),
            key=colour_key(str(row["subset"])),
            subset=subset_title(str(row["subset"])),
            value=with_interval(row["value"], row["low"], row["high"], 3),
            against=number(row["against"], 3),
            detail=str(row["detail"]),
        )
        for row in sorted(
            iterate(rows),
            key=lambda r: (
                order.index(r["control"]) if r["control"] in order else len(order),
                subset_order(str(r["subset"])),
            ),
        )
    ]


def why_uncontrolled(study: StudyFiles) -> list[str]:
    """What of the controls on a fusion is not there, and why: a sentence each."""
    if headline(study).fused is None:
        return []
    files, config = study.fusion, study.config
    if config is not None and not config.evaluation.fusion_controls:
        return ["Controls on the fusion were switched off (evaluation.fusion_controls: false)."]
    if not len(files.controls.columns):
        return ["The study folder holds no fusion_controls.csv, so the fusion was not controlled."]
    out = []
    if files.controls.empty:
        out.append(
            "The fusion was not controlled: no subset of the modalities has test patients of two"
            " classes that their labels tell apart."
        )
    if files.dependence.empty:
        out.append(
            "There is no curve against dependence: no fusion has test patients of two classes that"
            " their labels tell apart."
        )
    if files.shares.empty:
        out.append(
            "There are no Shapley shares: no test patient has every modality, no rule answers for"
            " every subset, or the labels of the modalities tell no two classes apart in common."
        )
    return out


def predictive_values(study: StudyFiles) -> list[dict[str, str]]:
    """PPV and NPV of each modality and the headline fusion at stated prevalences."""
    rows = study.fusion.prevalence
    if rows.empty:
        return []
    wanted = [(s.subset, s.method) for s in headline(study).scores]
    keep = [(s, m) in wanted for s, m in zip(rows["subset"], rows["method"], strict=True)]
    return [
        {
            "name": "Fusion" if is_fusion(str(row["subset"])) else subset_title(str(row["subset"])),
            "key": colour_key(str(row["subset"])),
            "prevalence": f"{100 * float(row['prevalence']):g} %",
            "ppv": with_interval(row["ppv"], row["ppv_low"], row["ppv_high"]),
            "npv": with_interval(row["npv"], row["npv_low"], row["npv_high"], 3),
        }
        for row in iterate(rows[keep])
    ]


def conformal_rows(study: StudyFiles) -> list[dict[str, str]]:
    """Coverage and size of the prediction sets of the headline's rows."""
    rows = study.fusion.conformal
    if rows.empty:
        return []
    wanted = [(s.subset, s.method) for s in headline(study).scores]
    keep = [(s, m) in wanted for s, m in zip(rows["subset"], rows["method"], strict=True)]
    return [{k: str(v) for k, v in row.items()} for row in iterate(rows[keep])]


def n_compared(study: StudyFiles) -> int:
    """How many paired comparisons the study made, all of which Holm corrects for."""
    return len(study.fusion.comparisons)
