"""Rules of the conclusion on what may explain the figures other than disease."""

from __future__ import annotations

import math

from pulmofuse.report.doubts import (
    SHORTCUTS,
    control_title,
    controls_by_modality,
    shortcut_checks,
)
from pulmofuse.report.fusion_files import FusionFiles
from pulmofuse.report.limits import is_shortcut, teller
from pulmofuse.report.names import number, subset_in_words, with_interval
from pulmofuse.report.results import Headline
from pulmofuse.report.statements import CHANCE, Rule, Statement, figures, row_of
from pulmofuse.report.study_files import Check, StudyFiles

#: Confounders whose fusion comes as near as this to the real one explain it: half the width of the
#: interval of an AUC of .9 on about 200 patients.
NEAR = 0.03

#: The audit's check of acquisition traits.
_TRAITS = "confounding.traits"


def _confounders(head: Headline, files: FusionFiles) -> tuple[float, float, float] | None:
    """AUC of the fusion of confounders alone, with its interval; None where it is not known."""
    if head.fused is None:
        return None
    row = row_of(
        files.controls,
        control="confounders_only",
        subset=head.fused.subset,
        method=head.fused.method,
        metric="roc_auc",
    )
    # A row without a value says that there is no model of traits: then the audit has the word.
    return None if row is None else figures(row)


def _confounders_only(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    found = _confounders(head, files)
    if found is None or head.fused is None:
        return None
    value, low, high = found
    text = (
        "Fused by the same rule, acquisition traits alone (no pixel of disease) reach AUC"
        f" {with_interval(value, low, high)}, the models {head.fused.text}."
    )
    near = head.fused.value - NEAR
    if value >= near:
        return Statement("confounders_only", "against", text)
    if not high < near:  # an interval that is not known clears nothing either
        text += " Too little is known of them to tell that they explain less."
        return Statement("confounders_only", "note", text)
    if low > CHANCE:
        return Statement("confounders_only", "note", f"{text} Part of the figure may be theirs.")
    return Statement("confounders_only", "for", text)


def _shortcuts(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:
    measured = _confounders(head, files) is not None
    near = {}
    for score in head.singles:
        checks = [
            check
            for check in shortcut_checks(study, score.subset)
            # Of acquisition traits the sharper rule speaks, where it can: see _confounders_only.
            if is_shortcut(check) and not (measured and check.id == _TRAITS)
        ]
        worst = max(checks, key=_strength, default=None)
        if worst is not None and _strength(worst) >= score.value - NEAR:
            told = f"{subset_in_words(score.subset)} by {teller(worst)}"
            near[score.subset] = f"{told} {number(worst.value)} (the model {number(score.value)})"
    if not near:
        return None
    whole = len(near) == len(head.singles)
    text = (
        "Without any content, the label is told as well as by the models or nearly so:"
        f" {'; '.join(near.values())}."
    )
    return Statement("shortcuts", "against" if whole else "note", text)


def _strength(check: Check) -> float:
    return -math.inf if check.value is None else check.value


def _content(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    near = {}
    for modality, rows in controls_by_modality(study):
        part = rows[rows["value"].notna()]
        unaltered = part[part["control"] == "none"]
        reached = dict(zip(unaltered["method"], unaltered["value"], strict=True))
        # At chance nothing is left, however little the whole image told.
        part = part[part["control"].isin(SHORTCUTS) & (part["low"] > CHANCE)]
        whole = part["method"].map(reached).astype(float)
        part = part.assign(whole=whole)[part["value"] >= whole - NEAR]
        if not part.empty:
            row = part.sort_values("value").iloc[-1]
            seen = {"control": row["control"], "method": row["method"]}
            near[modality] = (
                f"{subset_in_words(modality)} {number(row['value'])} instead of"
                f" {number(row['whole'])} ({control_title(seen).lower()})"
            )
    if not near:
        return None
    told = {s.subset for s in head.singles}
    text = (
        "Where the lungs or the coughs are taken out, the classes are told apart as well as with"
        f" them or nearly so: {'; '.join(near.values())}."
    )
    return Statement("content", "against" if told and told <= set(near) else "note", text)


def _matched(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    chance = []
    for modality, rows in controls_by_modality(study):
        part = rows[rows["control"].str.startswith("matched") & rows["value"].notna()]
        part = part[part["low"] <= CHANCE].sort_values("value")
        if not part.empty:
            row = part.iloc[0]
            figure = with_interval(row["value"], row["low"], row["high"])
            chance.append(f"{subset_in_words(modality)} {row['control']} {figure}")
    if not chance:
        return None
    text = f"In records whose classes are alike in what is not disease: {'; '.join(chance)}."
    against = len(chance) == len(head.singles)
    return Statement("matched", "against" if against else "note", f"{text} That may be chance.")


#: In the order in which they are read.
SHORTCUT_RULES: tuple[Rule, ...] = (_confounders_only, _shortcuts, _content, _matched)
