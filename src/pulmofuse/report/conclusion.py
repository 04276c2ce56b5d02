"""What the figures of a study allow to be said, by rules that a reader can follow.

Each rule looks at figures and gives one statement or none. A statement says what was measured; the
verdict is the gravest of what they found. No rule ever says that a model is fit for use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from pulmofuse.report.doubts import accepted_leaks, known_pairs
from pulmofuse.report.fusion_files import FusionFiles
from pulmofuse.report.names import (
    method_title,
    number,
    subset_in_words,
    with_interval,
)
from pulmofuse.report.results import Headline, headline
from pulmofuse.report.shortcut_rules import SHORTCUT_RULES
from pulmofuse.report.statements import CHANCE, Rule, Statement, figures, row_of, rows_of
from pulmofuse.report.study_files import StudyFiles

#: Level of the paired tests, after Holm over all comparisons of the study.
LEVEL = 0.05

#: A noise modality that costs more says that the rule believes whatever it is given.
NOISE_COST = 0.01

#: Correlation of errors, given the class, at which the claim is looked at once more: moderate in
#: the sense of Cohen 1988.
MODERATE_RHO = 0.3


@dataclass(frozen=True)
class Conclusion:
    """Verdict in a sentence, and the statements that it rests on."""

    verdict: str
    statements: tuple[Statement, ...]


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
            bool(against & {"confounders_only", "shortcuts", "content"}),
            "These figures are no evidence that disease was recognised: what has nothing to do with"
            " disease tells the classes as well or nearly so.",
        ),
        (
            head.fused is None and len(head.singles) < 2,
            "One modality was tested; what fusion is worth was not asked.",
        ),
        (head.fused is None, "No fusion was tested by a rule that was named beforehand."),
        (not gains, "No gain of fusion over the best single modality is shown."),
        (
            study.simulated,
            "Fusion gains over the best single modality if the modalities are independent given the"
            " class; whether real patients gain was not tested, for the fused patients are"
            " simulated.",
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
    gain = "gain" if len(sure) > 1 else "gains"
    text = (
        f"Of {len(head.gains)} ways to fuse, {len(sure) or 'none'}{names} {gain} over {against}"
        " with an interval above zero."
    )
    return Statement("methods", "note", text)


def _noise(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    if head.fused is None:
        return None
    fused = {"subset": head.fused.subset, "method": head.fused.method}
    row = row_of(files.controls, control="noise_modality", metric="roc_auc", **fused)
    cost = math.nan if row is None else float(row["against"]) - float(row["value"])
    if not math.isfinite(cost):
        return None
    does = "costs" if cost >= 0 else "gains"
    text = f"A modality of pure noise, added to the fusion, {does} {number(abs(cost), 3)} of AUC"
    if cost > NOISE_COST:
        return Statement("noise", "against", f"{text}: the rule trusts what knows nothing.")
    return Statement("noise", "note", f"{text}.")


def _dependence(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:
    if head.fused is None:
        return None
    rows = rows_of(files.dependence, subset=head.fused.subset, metric="roc_auc", weight_rule="one")
    rows = rows if rows.empty else rows[rows["value"].notna()].sort_values("rho")
    if rows.empty:
        return None
    row = row_of(files.controls, control="dependence", subset=head.fused.subset, metric="rho")
    measured = None if row is None else figures(row)
    worst = rows.iloc[-1]
    beyond = rows[rows["rho"] >= _looked_at(measured)]
    at = worst if beyond.empty else beyond.iloc[0]
    text = (
        f"If the modalities correlated by {number(float(at['rho']), 1)} given the class, the"
        f" fusion would reach AUC {number(float(at['value']), 3)}"
    )
    if worst["rho"] > at["rho"]:
        text += f", and {number(float(worst['value']), 3)} at {number(float(worst['rho']), 1)}"
    # The best modality by itself on the very patients of the curve, who are the same at every rho.
    best = float(at.get("best_value", math.nan))
    if math.isfinite(best):
        alone = subset_in_words(str(at["best_modality"]))
        text += f", against {number(best, 3)} for {alone} alone on the same patients"
    text += f". {_known_of_dependence(study, measured, asked=row is not None)}"
    lost = float(at["value"]) <= best
    return Statement("dependence", "against" if lost else "note", text.strip())


def _looked_at(measured: tuple[float, float, float] | None) -> float:
    """`MODERATE_RHO`, or the correlation nearest to it that the true pairs leave possible."""
    if measured is None or not all(map(math.isfinite, measured)):
        return MODERATE_RHO
    _, low, high = measured
    return min(max(MODERATE_RHO, low), high)


def _known_of_dependence(
    study: StudyFiles, measured: tuple[float, float, float] | None, *, asked: bool
) -> str:
    """What the data say of the correlation itself."""
    if measured is not None:
        figure = with_interval(*measured).replace("-", "−")
        return f"In the true pairs of validation they correlate by {figure}."
    if asked:
        return "The true pairs of validation are too few to say how much they do."
    if study.simulated:
        return "The data cannot say how much they correlate in real patients."
    return ""


def _shares(study: StudyFiles, head: Headline, files: FusionFiles) -> Statement | None:  # noqa: ARG001
    if head.fused is None:
        return None
    rows = rows_of(files.shares, method=head.fused.method, metric="roc_auc")
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
        f"{known_pairs(study) or 'No patient here has more than one modality.'} The fused patients"
        " are simulated from people of one class, which makes their errors independent: that"
        " flatters fusion if real errors go together."
    )
    return Statement("pairing", "against", text)


def p_value(p: float) -> str:
    """A p-value as journals print it: two or three decimals, never 0."""
    if p < 0.001:
        return "< .001"
    return f"{p:.3f}".lstrip("0") if p < 0.1 else f"{p:.2f}".lstrip("0")


def _p_holm(comparisons: pd.DataFrame, subset: str, method: str, against: str) -> float | None:
    row = row_of(comparisons, metric="roc_auc", subset_a=subset, method_a=method, subset_b=against)
    if row is None or pd.isna(row.get("p_holm")):
        return None
    return float(row["p_holm"])


#: In the order in which they are read.
RULES: tuple[Rule, ...] = (
    _leaks,
    _alone,
    _gain,
    _methods,
    *SHORTCUT_RULES,
    _noise,
    _dependence,
    _shares,
    _pairing,
    _power,
)
