"""The figures in words and rows: the answer, the table of subsets and methods, the sites.

Nothing is computed here that `metrics.json` holds: a figure in the report is a figure of the
file, only shorter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from pulmofuse.evaluation.claim import claimed
from pulmofuse.report.doubts import pairing
from pulmofuse.report.names import (
    METHOD_TITLES,
    METRICS,
    Metric,
    colour_key,
    interval,
    is_fusion,
    method_title,
    number,
    question_title,
    signed,
    subset_in_words,
    subset_title,
    with_interval,
)
from pulmofuse.report.study_files import StudyFiles
from pulmofuse.schema import SUBSET_JOIN, Modality, Split

_HEADLINE_METRIC = "roc_auc"
_GAIN_METRIC = "roc_auc_difference"
_GAIN_DECIMALS = 3
_PER_FILE = "per_record"
_ORDER = [m.value for m in Modality]


@dataclass(frozen=True)
class Score:
    """AUC of one subset and method on the test split."""

    subset: str
    method: str
    value: float
    low: float
    high: float
    n_patients: int

    @property
    def title(self) -> str:
        """What a tile or a legend calls it."""
        return subset_title(self.subset)

    @property
    def key(self) -> str:
        """Key of `names.COLOURS`."""
        return colour_key(self.subset)

    @property
    def text(self) -> str:
        """The AUC with its interval."""
        return with_interval(self.value, self.low, self.high)


@dataclass(frozen=True)
class Cell:
    """One figure of a table; `best` marks the best of its column as displayed."""

    value: str
    interval: str
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """One subset and method, or one site of it.

    Attributes:
        subset: title of the subset.
        method: title of the method.
        label: what tells the row from the others of its group.
        group: title of the group above its first row; empty on the others, and in a group of one.
        question: what the row tells apart, where the study has several questions; else empty.
    """

    subset: str
    key: str
    method: str
    label: str
    group: str
    grouped: bool
    n_patients: str
    cells: tuple[Cell, ...]
    question: str = ""


@dataclass(frozen=True)
class Gain:
    """AUC of a fusion less that of one modality, on the same patients and resamples."""

    method: str
    against: str
    value: float
    low: float
    high: float
    n_patients: int

    @property
    def text(self) -> str:
        """The difference with its interval."""
        # One decimal more than an AUC: "0.99 against 0.99, a difference of +0.01" reads as a slip.
        text = signed(self.value, _GAIN_DECIMALS)
        known = math.isfinite(self.low) and math.isfinite(self.high)
        ends = f"{signed(self.low, _GAIN_DECIMALS)}, {signed(self.high, _GAIN_DECIMALS)}"
        return f"{text} [{ends}]" if known else text

    @property
    def may_be_chance(self) -> bool:
        """Whether the interval holds zero, or is not known."""
        return not (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Headline:
    """What the one-sentence answer is made of; `fused` is null where nothing was fused.

    `gains` are those of all rules on the subset of the headline; `metrics.json` may hold none.
    """

    singles: tuple[Score, ...]
    fused: Score | None
    gains: tuple[Gain, ...] = ()

    @property
    def gain(self) -> Gain | None:
        """The gain of the headline's rule."""
        return next((g for g in self.gains if self.fused and g.method == self.fused.method), None)

    @property
    def baseline(self) -> Score | None:
        """The single modality to compare with: chosen on validation, else the best on test."""
        if self.gain is not None:
            return next((s for s in self.singles if s.subset == self.gain.against), None)
        return max(self.singles, key=lambda score: score.value, default=None)

    @property
    def scores(self) -> tuple[Score, ...]:
        """Single modalities, then the fusion."""
        return self.singles + ((self.fused,) if self.fused else ())


def subset_order(subset: str) -> tuple[int, list[int]]:
    """Sort key: fewer modalities first, then CT, CXR, cough."""
    parts = subset.split(SUBSET_JOIN)
    return len(parts), [_ORDER.index(p) if p in _ORDER else len(_ORDER) for p in parts]


def overall(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows of the test split over all sites."""
    site = metrics["site"]
    return metrics[(metrics["split"] == Split.TEST.value) & (site.isna() | (site == ""))]


def scores(study: StudyFiles) -> list[Score]:
    """AUC of every subset and method on the test split, in display order."""
    rows = overall(study.metrics)
    rows = rows[(rows["metric"] == _HEADLINE_METRIC) & rows["value"].notna()]
    found = [
        Score(
            subset=str(row["subset"]),
            method=str(row["method"]),
            value=float(row["value"]),
            low=float(row["low"]),
            high=float(row["high"]),
            n_patients=0 if pd.isna(row["n_patients"]) else int(row["n_patients"]),
        )
        for _, row in rows.iterrows()
    ]
    return sorted(found, key=lambda s: (subset_order(s.subset), _method_order(s.method)))


def headline(study: StudyFiles) -> Headline:
    """Each modality alone, and the fusion that the study claims: see `evaluation.claim`."""
    found = scores(study)
    singles: dict[str, Score] = {}
    for score in found:
        # "unimodal" sorts after "per_record" and replaces it: the same patients as the fusion.
        if not is_fusion(score.subset):
            singles[score.subset] = score
    claim = claimed((s.subset, s.method) for s in found)
    fused = next((s for s in found if (s.subset, s.method) == claim), None)
    return Headline(tuple(singles.values()), fused, _gains(study, fused))


def _gains(study: StudyFiles, fused: Score | None) -> tuple[Gain, ...]:
    """Gains of all rules on the subset of the headline, in display order."""
    rows = overall(study.metrics)
    rows = rows[(rows["metric"] == _GAIN_METRIC) & rows["value"].notna()]
    gains = [
        Gain(
            method=str(row["method"]),
            against=str(row["against"]),
            value=float(row["value"]),
            low=float(row["low"]),
            high=float(row["high"]),
            n_patients=int(row["n_patients"]),
        )
        for _, row in rows.iterrows()
        if fused is not None and row["subset"] == fused.subset
    ]
    return tuple(sorted(gains, key=lambda gain: _method_order(gain.method)))


def answer(study: StudyFiles) -> str:
    """The result of the study in one sentence, with paired or simulated said in the same breath."""
    head = headline(study)
    best, fused = head.baseline, head.fused
    if best is None and fused is None:
        return "There is no answer yet: the study holds no AUC on its test split."
    if fused is None and best is not None:
        return f"{best.title} alone reaches AUC {best.text} on {best.n_patients} test patients."
    if fused is None:
        return ""
    kind = pairing(study)
    start = f"Fusion of {subset_in_words(fused.subset)} by {method_title(fused.method)}"
    text = f"{start} reaches AUC {fused.text} on {fused.n_patients} {kind} test patients"
    if best is not None:
        text += f", {_compared(fused, best, head.gain)}"
    if study.simulated:
        text += (
            "; the patients are simulated from different people of one class, so this shows how"
            " the rule combines evidence, not a clinical gain"
        )
    elif study.about.truth:
        text += "; the cohort is synthetic: its patients are drawn, not real"
    return text + "."


def _compared(fused: Score, best: Score, gain: Gain | None) -> str:
    alone = f"{best.text} for {subset_in_words(best.subset)} alone"
    if gain is not None:
        alone += ", the strongest on validation"
        doubt = " that may be chance" if gain.may_be_chance else " on the same patients"
        return f"against {alone}: a difference of {gain.text}{doubt}"
    if fused.value <= best.value:
        return f"no better than {alone}, the strongest single modality"
    overlap = " (the intervals overlap)" if fused.low <= best.high else ""
    return f"against {alone}, the strongest single modality{overlap}"


def result_tables(study: StudyFiles) -> tuple[list[TableRow], list[TableRow]]:
    """Rows per patient of the fusion cohort, and rows per file of one modality."""
    rows = overall(study.metrics)
    per_file = rows["method"] == _PER_FILE
    return _table(study, rows[~per_file]), _table(study, rows[per_file])


def several_questions(study: StudyFiles) -> bool:
    """Whether labels that stand for sets of classes leave subsets with different questions."""
    return len(set(overall(study.metrics)["question"])) > 1


def site_table(study: StudyFiles) -> list[TableRow]:
    """One row per site, for each modality by itself and the headline fusion."""
    rows = study.metrics
    rows = rows[(rows["split"] == Split.TEST.value) & rows["site"].notna() & (rows["site"] != "")]
    fused = headline(study).fused
    single = ~rows["subset"].map(is_fusion).astype(bool)
    shown = single & (rows["method"] == _PER_FILE)
    if not shown.any():
        shown = single
    if fused is not None:
        shown |= (rows["subset"] == fused.subset) & (rows["method"] == fused.method)
    return _table(study, rows[shown], by_site=True)


def _table(study: StudyFiles, rows: pd.DataFrame, *, by_site: bool = False) -> list[TableRow]:
    """Table rows in display order; the best figure of each column is marked.

    Not across sites, and not across questions, whose figures cannot be ranked.

    Rows are grouped by subset, or by subset and method where each row is a site.
    """
    groups = rows.assign(site=rows["site"].fillna("")).groupby(["subset", "method", "site"])
    found = sorted(
        (((str(s), str(m), str(site)), group) for (s, m, site), group in groups),
        key=lambda item: (subset_order(item[0][0]), _method_order(item[0][1]), item[0][2]),
    )
    columns = [{m.key: _cell(group, m) for m in METRICS} for _, group in found]
    best = {m.key: _best(m, (cells[m.key].value for cells in columns)) for m in METRICS}
    mark = not by_site and len(found) > 1 and len(set(rows["question"])) == 1
    several = several_questions(study)
    group_of = [key[: 2 if by_site else 1] for key, _ in found]
    table: list[TableRow] = []
    for i, ((subset, method, site), group) in enumerate(found):
        grouped = by_site or group_of.count(group_of[i]) > 1
        first = i == 0 or group_of[i] != group_of[i - 1]
        title = subset_title(subset)
        n = group["n_patients"].max()
        row = TableRow(
            subset=title,
            key=colour_key(subset),
            method=method_title(method),
            label=site if by_site else "" if method == _PER_FILE else method_title(method),
            group=(f"{title}, {method_title(method)}" if by_site else title)
            if grouped and first
            else "",
            grouped=grouped,
            n_patients="" if pd.isna(n) else str(int(n)),
            cells=tuple(
                replace(cell, best=mark and cell.value == best[key])
                for key, cell in columns[i].items()
            ),
            question=question_title(group["question"].iloc[0], study.classes) if several else "",
        )
        table.append(row)
    return table


def _cell(group: pd.DataFrame, metric: Metric) -> Cell:
    row = group[group["metric"] == metric.key]
    if row.empty:
        return Cell(number(None), "")
    value, low, high = row[["value", "low", "high"]].iloc[0]
    return Cell(number(value, metric.decimals), interval(low, high, metric.decimals))


def _best(metric: Metric, values: Iterable[str]) -> str | None:
    """The best of a column as displayed: figures that read the same are equally good."""
    known = [value for value in values if value != number(None)]
    return (min if metric.lower_is_better else max)(known, key=float, default=None)


def _method_order(method: str) -> int:
    known = list(METHOD_TITLES)
    return known.index(method) if method in known else len(known)
