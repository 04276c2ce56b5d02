"""What the figures of a study allow to be said, by rules that a reader can follow.

Each rule looks at figures and gives one statement or none. A statement says what was measured; the
verdict is the gravest of what they found. No rule ever says that a model is fit for use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from pulmofuse.report.doubts import accepted_leaks
from pulmofuse.report.fusion_files import FusionFiles
from pulmofuse.report.limits import suspicions
from pulmofuse.report.names import (
    method_title,
    number,
    signed,
    subset_in_words,
    with_interval,
)
from pulmofuse.report.results import Headline, headline
from pulmofuse.report.study_files import StudyFiles

#: Level of the paired tests, after Holm over all comparisons of the study.
LEVEL = 0.05

#: Confounders whose fusion comes as near as this to the real one explain it: half the width of the
#: interval of an AUC of .9 on about 200 patients.
NEAR = 0.03

#: A noise modality that costs more says that the rule believes whatever it is given.
NOISE_COST = 0.01

#: Correlation of errors, given the class, at which the claim is looked at once more: moderate in
#: the sense of Cohen 1988.
MODERATE_RHO = 0.3

CHANCE = 0.5


@dataclass(frozen=True)
class Statement:
    """One thing that the figures say.

    Attributes:
        rule: name of the rule that made it.
        tone: "for" supports the study's claim, "against" speaks against it, "note" does neither.
        text: a sentence or two.
    """

    rule: str
    tone: str
    text: str


@dataclass(frozen=True)
class Conclusion:
    """Verdict in a sentence, and the statements that it rests on."""

    verdict: str
    statements: tuple[Statement, ...]


_Rule = Callable[[StudyFiles, Headline, FusionFiles], Statement | None]


def conclude(study: StudyFiles) -> Conclusion:
    """The conclusion of a study from its files alone."""
    head, files = headline(study), study.fusion
    made = [rule(study, head, files) for rule in RULES]
    statements = tuple(statement for statement in made if statement is not None)
    return Conclusion(_verdict(study, head, statements), statements)


def _verdict(study: StudyFiles, head: Headline, statements: tuple[Statement, ...]) -> str:
    against = {s.rule for s in statements if s.tone == "against"}
    gains = any(s.rule == "gain" and s.tone == "for" for s in statements)
    verdicts = (
        (not head.scores, "Nothing can be concluded: the study holds no AUC on its test split."),
        (bool(accepted_leaks(study)), "Nothing can be concluded: leaks were found and accepted."),
        (
            bool(against & {"confounders_only", "shortcuts"}),
            "These figures are no evidence that disease was recognised: what has nothing to do with"
            " disease tells the classes as well or nearly so.",
        ),
        (head.fused is None, "One modality was tested; what fusion is worth was not asked."),
        (not gains, "No gain of fusion over the best single modality is shown."),
        (
            study.simulated,
            "Fusion gains over the best single modality if the modalities are independent given the"
            " class; whether real patients gain was not tested, for none has more than one modality"
            " here.",
        ),
        (
            bool(study.about.truth),
            "Fusion gains over the best single modality in this synthetic cohort, which holds no"
            " patient.",
        ),
    )
    otherwise = (
        "Fusion gains over the best single modality on these patients; other sites remain to be"
        " tested."
    )
    return next((text for holds, text in verdicts if holds), otherwise)


def _leaks(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    leaks = accepted_leaks(study)
    if not leaks:
        return None
    names = ", ".join(check.id for check in leaks)
    return Statement("leaks", "against", f"The split leaks ({names}), and the study went on.")


def _alone(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    if not head.singles:
        return None
    parts = [f"{s.title} {s.text}" for s in head.singles]
    text = f"Alone, the modalities reach AUC: {'; '.join(parts)}."
    chance = [s.subset for s in head.singles if s.low <= CHANCE]
    if chance:
        names = subset_in_words("+".join(chance))
        text += f" For {names} the interval holds .5: it may be chance."
    return Statement("alone", "against" if len(chance) == len(head.singles) else "note", text)


def _gain(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    gain, fused = head.gain, head.fused
    if gain is None or fused is None:
        return None
    text = (
        f"Fusion of {subset_in_words(fused.subset)} by {method_title(fused.method)}, the rule named"
        f" beforehand, differs from {subset_in_words(gain.against)} alone by {gain.text} in AUC"
    )
    p_holm = _p_holm(files.comparisons, fused.subset, fused.method, gain.against)
    tested = "" if p_holm is None else f" (p = {p_value(p_holm)} after Holm)"
    sure = gain.low > 0 and (p_holm is None or p_holm < LEVEL)
    if sure:
        return Statement("gain", "for", f"{text}{tested}: more than chance explains.")
    if gain.high < 0:
        return Statement("gain", "against", f"{text}{tested}: fusing makes it worse.")
    return Statement("gain", "against", f"{text}{tested}: it may be chance.")


def _methods(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    if len(head.gains) < 2:
        return None
    sure = [g for g in head.gains if g.low > 0]
    against = subset_in_words(head.gains[0].against)
    names = (
        f" ({', '.join(method_title(g.method) for g in sure)})"
        if 0 < len(sure) < len(head.gains)
        else ""
    )
    text = (
        f"Of {len(head.gains)} ways to fuse, {len(sure) or 'none'}{names} gain over {against} with"
        " an interval above zero."
    )
    return Statement("methods", "note", text)


def _shortcuts(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:
    if not files.controls.empty and _confounders(head, files) is not None:
        return None  # the sharper rule speaks
    doubted = {s: why for s, why in suspicions(study).items() if "+" not in s}
    shown = {s.subset: s.value for s in head.singles}
    near = {}
    for check in study.audit.checks if study.audit else ():
        if check.modality in doubted and check.value is not None:
            reached = shown.get(check.modality)
            if reached is not None and check.value >= reached - NEAR:
                near[check.modality] = check.value
    if not near:
        return None
    parts = [f"{subset_in_words(m)} {number(v)}" for m, v in near.items()]
    whole = len(near) == len(head.singles)
    text = (
        f"Acquisition traits alone come as near to the label as the models do: {', '.join(parts)}."
    )
    return Statement("shortcuts", "against" if whole else "note", text)


def _confounders(head: Headline, files: FusionFiles) -> tuple[float, float, float] | None:
    """AUC of the fusion of confounders alone, with its interval."""
    if head.fused is None:
        return None
    row = _row(
        files.controls,
        control="confounders_only",
        subset=head.fused.subset,
        method=head.fused.method,
        metric="roc_auc",
    )
    return None if row is None else (float(row["value"]), float(row["low"]), float(row["high"]))


def _confounders_only(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    found = _confounders(head, files)
    if found is None or head.fused is None:
        return None
    text = (
        "Fused by the same rule, acquisition traits alone (no pixel of disease) reach AUC"
        f" {with_interval(*found)}, the models {head.fused.text}."
    )
    if found[0] >= head.fused.value - NEAR:
        return Statement("confounders_only", "against", text)
    if not math.isfinite(found[0]):
        return None
    if math.isfinite(found[1]) and found[1] > CHANCE:
        return Statement("confounders_only", "note", f"{text} Part of the figure may be theirs.")
    return Statement("confounders_only", "for", text)


def _noise(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    if head.fused is None:
        return None
    rows = _rows(
        files.controls, control="noise_modality", method=head.fused.method, metric="roc_auc"
    )
    rows = rows[rows["subset"] == head.fused.subset] if not rows.empty else rows
    if rows.empty:
        return None
    cost = float(rows.iloc[0]["against"]) - float(rows.iloc[0]["value"])
    text = f"A modality of pure noise, added to the fusion, costs {signed(cost, 3)} of AUC"
    if cost > NOISE_COST:
        return Statement("noise", "against", f"{text}: the rule trusts what knows nothing.")
    return Statement("noise", "note", f"{text}.")


def _dependence(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:
    if head.fused is None or files.dependence.empty or head.baseline is None:
        return None
    rows = _rows(files.dependence, subset=head.fused.subset, metric="roc_auc", weight_rule="one")
    if rows.empty:
        return None
    rows = rows.sort_values("rho")
    at = rows.iloc[(rows["rho"] - MODERATE_RHO).abs().argmin()]
    worst = rows.iloc[-1]
    text = (
        f"If the modalities correlated by {number(float(at['rho']), 1)} given the class, the"
        f" fusion would reach AUC {number(float(at['value']))}, and {number(float(worst['value']))}"
        f" at {number(float(worst['rho']), 1)}, against {number(head.baseline.value)} for"
        f" {subset_in_words(head.baseline.subset)} alone."
    )
    if study.simulated:
        text += " The data cannot say how much they correlate in real patients."
    lost = float(at["value"]) <= head.baseline.value
    return Statement("dependence", "against" if lost else "note", text)


def _shares(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    if head.fused is None:
        return None
    rows = _rows(files.shares, method=head.fused.method, metric="roc_auc")
    if rows.empty or rows["share"].isna().any():
        return None
    parts = [
        f"{subset_in_words(str(r['modality']))} {100 * float(r['share']):.0f} %"
        for _, r in rows.sort_values("value", ascending=False).iterrows()
    ]
    text = f"Of what the fusion knows beyond chance, the shares (Shapley) are: {', '.join(parts)}."
    return Statement("shares", "note", text)


def _power(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    sentence = str(files.power.get("sentence", ""))
    return Statement("power", "note", sentence) if sentence else None


def _pairing(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    if not study.simulated or head.fused is None:
        return None
    text = (
        "No patient here has more than one modality. The fused patients are simulated from people"
        " of one class, which makes their errors independent and so flatters every fusion."
    )
    return Statement("pairing", "against", text)


def p_value(p: float) -> str:
    """A p-value as journals print it: two or three decimals, never 0."""
    if p < 0.001:
        return "< .001"
    return f"{p:.3f}".lstrip("0") if p < 0.1 else f"{p:.2f}".lstrip("0")


def _p_holm(comparisons: pd.DataFrame, subset: str, method: str, against: str) -> float | None:
    row = _row(comparisons, metric="roc_auc", subset_a=subset, method_a=method, subset_b=against)
    if row is None or pd.isna(row.get("p_holm")):
        return None
    return float(row["p_holm"])


def _rows(frame: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Rows of a table whose columns have these values; none where a column is missing."""
    if frame.empty or any(name not in frame for name in wanted):
        return pd.DataFrame()
    keep = pd.Series(True, index=frame.index)
    for name, value in wanted.items():
        keep &= frame[name] == value
    return frame[keep]


def _row(frame: pd.DataFrame, **wanted: str) -> pd.Series | None:
    rows = _rows(frame, **wanted)
    return None if rows.empty else rows.iloc[0]


#: In the order in which they are read.
RULES: tuple[_Rule, ...] = (
    _leaks,
    _alone,
    _gain,
    _methods,
    _confounders_only,
    _shortcuts,
    _noise,
    _dependence,
    _shares,
    _pairing,
    _power,
)
