"""From the tables of a study to its figures: which panels there are, and what each one says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pulmofuse.evaluation.questions import as_asked, questions
from pulmofuse.report import figures
from pulmofuse.report.doubts import control_title, controls_by_modality, known, shortcut_checks
from pulmofuse.report.fusion_charts import draw_fusion
from pulmofuse.report.names import (
    FUSION_CURVE,
    MODALITY_TITLES,
    class_title,
    colour_key,
    is_fusion,
    method_title,
    number,
    subset_in_words,
    subset_title,
)
from pulmofuse.report.pictures import figure_uri
from pulmofuse.report.results import Headline, Score, headline, scores
from pulmofuse.report.study_files import StudyFiles
from pulmofuse.schema import iterate

#: Stem, title, note, alternative text and the figure itself.
_Drawn = tuple[str, str, str, str, Figure]


@dataclass(frozen=True)
class Chart:
    """A figure that was written, ready to be shown.

    Attributes:
        stem: file name in figures/ without suffix.
        title: one short line above the panel.
        note: a figure that belongs to the title, or nothing.
        alt: what the figure says, for who cannot see it.
        uri: the figure as a data URI.
    """

    stem: str
    title: str
    note: str
    alt: str
    uri: str


def draw_charts(study: StudyFiles, folder: Path) -> dict[str, list[Chart]]:
    """Draw every figure the study has data for, write PNG and SVG to `folder`.

    Returns:
        Section -> charts; a section without data has an empty list. Sections: forest, roc,
        precision_recall, confusion, training, calibration, truth,
        controls, grid, dependence, shares, decisions.
    """
    head = headline(study)
    shown = _shown(study, head)
    makers: dict[str, Iterator[_Drawn]] = {
        "forest": _forest(study, head),
        "roc": _curves(study, shown, "roc", figures.roc_figure),
        "precision_recall": _curves(
            study, shown, "precision_recall", figures.precision_recall_figure
        ),
        "confusion": _confusions(study, shown),
        "training": _training(study),
        "calibration": _calibration(study, shown),
        "truth": _truth(study, head),
        "controls": _controls(study),
        **draw_fusion(study),
    }
    return {
        section: [
            Chart(stem, title, note, alt, figure_uri(*figures.save_figure(figure, folder, stem)))
            for stem, title, note, alt, figure in maker
        ]
        for section, maker in makers.items()
    }


def _shown(study: StudyFiles, head: Headline) -> list[tuple[str, str]]:
    """Subset and method of the curves: each modality alone and the headline fusion."""
    if head.scores:
        return [(score.subset, score.method) for score in head.scores]
    # Without metrics.json the predictions still say which modalities there are.
    pairs = study.test[["subset", "method"]].drop_duplicates().itertuples(index=False)
    return [(s, m) for s, m in pairs if not is_fusion(s) and m == "unimodal"]


def _name(subset: str, method: str) -> str:
    title = subset_title(subset)
    return f"{title}, {method_title(method)}" if is_fusion(subset) else title


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40]


def _auc_texts(study: StudyFiles) -> dict[tuple[str, str], str]:
    return {(score.subset, score.method): score.text for score in scores(study)}


def _answered(study: StudyFiles, subset: str, method: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Test rows and what they tell apart: the classes, or parts of them where labels are sets."""
    rows = study.rows(subset, method)
    question = questions(rows, study.classes).get(subset)
    if question is None:
        return rows, study.classes
    return as_asked(rows, question), question.names


def _class_panels(study: StudyFiles) -> list[tuple[str, str]]:
    """Class and file suffix of each panel: the positive class, or every class against the rest."""
    if study.positive is not None:
        return [(study.positive, "")]
    return [(name, f"_{i}_{_slug(name)}") for i, name in enumerate(study.classes, start=1)]


def _curves(
    study: StudyFiles,
    shown: list[tuple[str, str]],
    stem: str,
    draw: Callable[[list[figures.Curve], str], Figure],
) -> Iterator[_Drawn]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    area = roc_auc_score if stem == "roc" else average_precision_score
    known = _auc_texts(study) if stem == "roc" and study.positive is not None else {}
    what = "ROC" if stem == "roc" else "Precision and recall"
    for name, suffix in _class_panels(study):
        curves = []
        for subset, method in shown:
            rows = study.rows(subset, method)
            positive = (rows["y_true"] == name).to_numpy()
            # With one outcome only there is no curve.
            if positive.all() or not positive.any():
                continue
            p = rows[f"p_{name}"].to_numpy(dtype=float)
            text = known.get((subset, method)) or number(float(area(positive, p)))
            title = "Fusion" if is_fusion(subset) else subset_title(subset)
            curves.append(figures.Curve(f"{title}  {text}", colour_key(subset), positive, p))
        if curves:
            title = f"{what}: {class_title(name)} against the rest"
            area_name = "area" if stem == "roc" else "average precision"
            alt = f"{title}. {area_name.capitalize()}: {'; '.join(c.title for c in curves)}."
            legend = "AUC" if stem == "roc" else "Average precision"
            yield f"{stem}{suffix}", title, "", alt, draw(curves, legend)


def confusion_counts(rows: pd.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    """Counts of (true, predicted) in class order."""
    table = pd.crosstab(rows["y_true"], rows["y_pred"])
    return table.reindex(index=list(classes), columns=list(classes), fill_value=0).to_numpy()


def _confusions(study: StudyFiles, shown: list[tuple[str, str]]) -> Iterator[_Drawn]:
    for subset, method in shown:
        rows, names = _answered(study, subset, method)
        if rows.empty:
            continue
        titles = [class_title(name) for name in names]
        counts = confusion_counts(rows, names)
        right = f"{int(np.trace(counts))} of {int(counts.sum())} right"
        per_class = "; ".join(
            f"{title} {int(counts[i, i])} of {int(counts[i].sum())}"
            for i, title in enumerate(titles)
        )
        name = _name(subset, method)
        alt = f"Confusion matrix of {name}: {right}. By class: {per_class}."
        figure = figures.confusion_figure(counts, titles, colour_key(subset))
        yield f"confusion_{_slug(subset)}", name, right, alt, figure


def _calibration(study: StudyFiles, shown: list[tuple[str, str]]) -> Iterator[_Drawn]:
    for subset, method in shown:
        rows, told = _answered(study, subset, method)
        if rows.empty:
            continue
        names = [study.positive] if study.positive is not None else list(told)
        # With several classes each (patient, class) pair is one probability: classwise calibration.
        positive = np.concatenate([(rows["y_true"] == name).to_numpy() for name in names])
        p = np.concatenate([rows[f"p_{name}"].to_numpy(dtype=float) for name in names])
        raw = None
        if all(f"p_raw_{name}" in rows for name in names):
            raw = np.concatenate([rows[f"p_raw_{name}"].to_numpy(dtype=float) for name in names])
            raw = raw if np.isfinite(raw).all() else None
        title = _name(subset, method)
        note = _ece_text(study, subset, method)
        alt = f"Calibration of {title}: observed share over predicted probability. {note}"
        figure = figures.calibration_figure(positive, p, raw, colour_key(subset))
        yield f"calibration_{_slug(subset)}", title, note, alt, figure


def _ece_text(study: StudyFiles, subset: str, method: str) -> str:
    rows = study.metrics
    row = rows[
        (rows["subset"] == subset)
        & (rows["method"] == method)
        & (rows["split"] == "test")
        & (rows["metric"] == "ece")
        & (rows["site"].isna() | (rows["site"] == ""))
    ]
    return "" if row.empty else f"ECE {number(float(row['value'].iloc[0]), 3)}"


def _training(study: StudyFiles) -> Iterator[_Drawn]:
    for name, history in study.history.items():
        if history.empty:
            continue
        method = name.removeprefix(FUSION_CURVE)
        fused = method != name
        title = f"Fusion, {method_title(method)}" if fused else subset_title(name)
        best = history["val_auc"].max()
        alt = f"Training of {title}: {len(history)} epochs, highest validation AUC {number(best)}."
        yield (
            f"training_{name}",
            title,
            "",
            alt,
            figures.training_figure(history, "fusion" if fused else name),
        )


def _estimate(score: Score, title: str, heading: str = "") -> figures.Estimate:
    known = np.isfinite([score.low, score.high]).all()
    low, high = (score.low, score.high) if known else (None, None)
    return figures.Estimate(title, score.key, score.value, low, high, heading)


def _forest(study: StudyFiles, head: Headline) -> Iterator[_Drawn]:
    fused = head.fused
    every = scores(study)
    groups: list[tuple[str, list[tuple[Score, str]]]] = [
        ("One modality", [(score, score.title) for score in head.singles])
    ]
    if fused is not None:
        same_rule = [s for s in every if is_fusion(s.subset) and s.method == fused.method]
        other_rule = [s for s in every if s.subset == fused.subset and s.method != fused.method]
        groups += [
            (f"Fused by {method_title(fused.method)}", [(s, s.title) for s in same_rule]),
            (f"{fused.title} by", [(s, method_title(s.method)) for s in other_rule]),
        ]
    estimates = [
        _estimate(score, title, heading if i == 0 else "")
        for heading, members in groups
        for i, (score, title) in enumerate(members)
    ]
    if not estimates:
        return
    best = head.baseline
    alt = "AUC with its interval. " + "; ".join(f"{s.title} {s.text}" for s in head.scores) + "."
    figure = figures.forest_figure(estimates, best.value if best else None)
    yield "forest", "AUC of each modality alone and of their fusion", "", alt, figure


def _control_estimates(study: StudyFiles) -> list[figures.Estimate]:
    """Lines of the forest plot: the controls, and what source and traits alone predict."""
    found = []
    for modality, part in controls_by_modality(study):
        lines = [
            figures.Estimate(
                control_title(row), modality, row["value"], known(row["low"]), known(row["high"])
            )
            for row in iterate(part)
            if known(row["value"]) is not None
        ]
        lines += [
            figures.Estimate(f"{check.id.split('.')[1].capitalize()} alone, no content", "fusion",
                     check.value, check.low, check.high)
            for check in shortcut_checks(study, modality)
            if check.value is not None
        ]  # fmt: skip
        for place, line in enumerate(lines):
            heading = MODALITY_TITLES[modality] if place == 0 else ""
            heading = heading[:1].upper() + heading[1:]
            found.append(
                figures.Estimate(line.title, line.key, line.value, line.low, line.high, heading)
            )
    return found


def _controls(study: StudyFiles) -> Iterator[_Drawn]:
    estimates = _control_estimates(study)
    if not estimates:
        return
    alt = "; ".join(f"{e.heading} {e.title} {number(e.value)}".strip() for e in estimates)
    figure = figures.forest_figure(estimates, 0.5)
    yield "controls", "What is left when the disease is taken out", "", f"AUC. {alt}.", figure


def truth_scores(study: StudyFiles, head: Headline) -> list[tuple[Score, float]]:
    """Scores with what the generator says is attainable, for the subsets it speaks of."""
    method = head.fused.method if head.fused else ""
    reached = [*head.singles, *(s for s in scores(study) if s.method == method)]
    return [
        (s, float(study.about.truth[s.subset])) for s in reached if s.subset in study.about.truth
    ]


def _truth(study: StudyFiles, head: Headline) -> Iterator[_Drawn]:
    pairs = truth_scores(study, head)
    if not pairs:
        return
    figure = figures.truth_figure(
        {score.title: goal for score, goal in pairs},
        [_estimate(score, score.title) for score, _ in pairs],
    )
    alt = "AUC reached and attainable. " + "; ".join(
        f"{subset_in_words(score.subset)} {number(score.value)} of {number(goal)}"
        for score, goal in pairs
    )
    yield "truth", "Reached and attainable AUC", "", f"{alt}.", figure
