"""What a study says of the patients that its claim would take: the content of `power.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from pulmofuse.evaluation.claim import claimed
from pulmofuse.evaluation.comparison import AUC_DIFFERENCE
from pulmofuse.evaluation.power import (
    DifferenceVariance,
    difference_variance,
    pairs_needed,
    smallest_gain,
)
from pulmofuse.evaluation.tables import UNIMODAL, Row
from pulmofuse.schema import SUBSET_JOIN, Split
from pulmofuse.statistics import ALPHA, POWER

#: Powers that are planned for: the conventional one, and a stricter one of clinical trials.
POWERS = (POWER, 0.90)

#: From a screened population to a balanced collection.
PREVALENCES = (0.02, 0.10, 0.30, 0.50)

#: From two independent models to two that differ in little: a fusion holds the best modality.
CORRELATIONS = (0.0, 0.25, 0.50, 0.75, 0.90)


@dataclass(frozen=True)
class Frame:
    """Whom one could recruit: what a label file says of its people.

    Attributes:
        name: of the file's data set.
        people: all of them.
        positive, negative: those whose label the study maps to the one class or the other.
        recorded: modality -> people with a usable label and a recording; empty where the label file
            stands alone and does not say.
        reported_ct: people with a usable label who say that they had a chest CT, whether or not
            anybody can have it; None where nobody was asked.
    """

    name: str
    people: int
    positive: int
    negative: int
    recorded: Mapping[str, int]
    reported_ct: int | None = None

    @property
    def usable(self) -> int:
        """People with a label that the study has a class for."""
        return self.positive + self.negative

    @property
    def prevalence(self) -> float:
        """Share of the positive among the usable, in (0, 1)."""
        return self.positive / self.usable


def power_statement(
    predictions: pd.DataFrame, gains: Sequence[Row], positive: str, frame: Frame | None
) -> dict[str, Any]:
    """What it would take to show the gain that a study claims; the content of `power.json`.

    The claim is that of the fusion that was named beforehand (`evaluation.claim`), as in the
    report. The gains of all fusions are compared, so Holm's m is their number.

    Args:
        predictions: as `predictions.parquet`, of two classes.
        gains: rows of `fusion_gain`; others are passed over.
        positive: the positive class.
        frame: whom one could recruit; None takes the prevalence of the test patients.

    Returns:
        JSON values; docs/power.md explains the keys. `claimed` is false, and nothing is computed,
        where there is no fusion, none that was named beforehand, no gain, or no test set that
        could show a variance.
    """
    rows = [row for row in gains if row["metric"] == AUC_DIFFERENCE and row["value"] is not None]
    described = None if frame is None else _described(frame)
    if not rows:
        return _nothing("The study compares no fusion with a single modality.", described)
    named = claimed((row["subset"], row["method"]) for row in rows)
    if named is None:
        return _nothing("The study fuses by no rule that was named beforehand.", described)
    claim = next(row for row in rows if (row["subset"], row["method"]) == named)
    pairs = _paired_scores(predictions, claim, positive)
    counts = pairs["positive"].value_counts().reindex([True, False], fill_value=0)
    if counts.min() < 2:
        why = "The test set has fewer than two patients of a class."
        return _nothing(why, described, claim)
    variance = difference_variance(pairs["positive"], pairs["first"], pairs["second"])
    if not claim["value"] > 0:
        why = f"The study claims no gain: {_claim(claim)}."
        return _nothing(why, described, claim)
    prevalence = float(counts[True] / counts.sum()) if frame is None else frame.prevalence
    planned = _Planned(claim, variance, prevalence, len(rows), frame)
    return {
        "claimed": True,
        "sentence": planned.sentence(positive),
        "caveats": planned.caveats(),
        "claim": {**claim, "comparisons": len(rows)},
        "variance": asdict(variance),
        "correlation": _finite(variance.correlation(prevalence)),
        "prevalence": prevalence,
        "frame": described,
        "needed": planned.needed(),
        "by_correlation": planned.by_correlation(),
        "smallest_gain": planned.smallest_gains(),
    }


@dataclass(frozen=True)
class _Planned:
    """A claimed gain, and for whom it is planned."""

    claim: Row
    variance: DifferenceVariance
    prevalence: float
    comparisons: int
    frame: Frame | None

    def pairs(
        self,
        power: float,
        comparisons: int,
        *,
        gain: float | None = None,
        prevalence: float | None = None,
        correlation: float | None = None,
    ) -> int | None:
        """Patients needed; None where the gain is none."""
        gain = self.claim["value"] if gain is None else gain
        if gain <= 0:
            return None
        variance = self.variance
        if correlation is not None:
            variance = variance.at_correlation(correlation)
        q = self.prevalence if prevalence is None else prevalence
        return pairs_needed(variance, gain, q, ALPHA / comparisons, power)

    def levels(self) -> list[tuple[float, int]]:
        """Every power with every number of comparisons."""
        return [(p, m) for m in dict.fromkeys((1, self.comparisons)) for p in POWERS]

    def needed(self) -> list[Row]:
        """Patients for the claim and for the ends of its interval, at each prevalence."""
        low, high = self.claim["low"], self.claim["high"]
        rows: list[Row] = []
        for q in dict.fromkeys((self.prevalence, *PREVALENCES)):
            for power, m in self.levels():
                pairs = self.pairs(power, m, prevalence=q)
                assert pairs is not None  # noqa: S101  # the claim is positive
                rows.append(
                    {
                        "prevalence": q,
                        "power": power,
                        "comparisons": m,
                        "alpha": ALPHA / m,
                        "pairs": pairs,
                        "positives": math.ceil(pairs * q),
                        "pairs_at_low": None
                        if low is None
                        else self.pairs(power, m, gain=low, prevalence=q),
                        "pairs_at_high": None
                        if high is None
                        else self.pairs(power, m, gain=high, prevalence=q),
                    }
                )
        return rows

    def by_correlation(self) -> list[Row]:
        """Patients for the claim, if the two AUCs were correlated otherwise than they are."""
        return [
            {
                "correlation": r,
                "power": power,
                "comparisons": m,
                "alpha": ALPHA / m,
                "pairs": self.pairs(power, m, correlation=r),
            }
            for r in CORRELATIONS
            for power, m in self.levels()
        ]

    def smallest_gains(self) -> list[Row]:
        """What everybody of the frame, with every modality, could show."""
        if self.frame is None:
            return []
        n = (self.frame.positive, self.frame.negative)
        return [
            {
                "power": power,
                "comparisons": m,
                "alpha": ALPHA / m,
                "gain": smallest_gain(self.variance, *n, ALPHA / m, power),
            }
            for power, m in self.levels()
        ]

    def sentence(self, positive: str) -> str:
        """The answer in one plain sentence."""
        pairs = self.pairs(POWER, 1)
        assert pairs is not None  # noqa: S101  # the claim is positive
        modalities = str(self.claim["subset"]).replace(SUBSET_JOIN, " and ")
        low = self.claim["low"]
        shown = low is not None and low > 0
        # Whether the gain stands after Holm is for the paired tests to say.
        start = "A gain was measured" if shown else "The gain may be chance"
        text = (
            f"{start}: {_claim(self.claim)}; to show one of that size with {POWER:.0%} power at"
            f" alpha {ALPHA:.2g} takes {pairs:,} patients who each have {modalities}"
            f" ({math.ceil(pairs * self.prevalence):,} of them {positive},"
            f" {self.pairs(POWERS[1], 1):,} patients for {POWERS[1]:.0%} power"
        )
        if self.comparisons > 1:
            text += f", {self.pairs(POWER, self.comparisons):,} as one of {self.comparisons} claims"
        text += ")"
        if self.frame is None:
            return f"{text} at the {self.prevalence:.1%} {positive} of the test patients."
        usable = self.frame.usable
        least = smallest_gain(self.variance, self.frame.positive, self.frame.negative)
        share = f"{pairs / usable:.1%}" if pairs <= usable else f"{pairs / usable:,.1f} times"
        return (
            f"{text}, which is {share} of the {usable:,} people of {self.frame.name} with a usable"
            f" label ({self.frame.positive:,} {positive}, {self.prevalence:.1%}), who all together"
            f" could show a gain of {least:.3f}."
        )

    def caveats(self) -> list[str]:
        """What the sentence leaves unsaid."""
        found = []
        low = self.claim["low"]
        if low is None or low <= 0:
            found.append(
                "The interval of the gain includes zero: there may be none, and then no number of"
                " patients shows it."
            )
        if self.claim["simulated"]:
            spread = [self.pairs(POWER, 1, correlation=r) for r in CORRELATIONS]
            known = [n for n in spread if n is not None]
            found.append(
                "The patients are simulated, so how alike the modalities err in one person is"
                " unknown: if the two AUCs correlate at"
                f" {CORRELATIONS[0]:.1f} to {CORRELATIONS[-1]:.1f} it takes {max(known):,} to"
                f" {min(known):,} patients for the same gain, and dependence changes the gain"
                " itself too, mostly for the smaller."
            )
        if self.frame is not None:
            found.append(_frame_caveat(self.frame))
        return found


def _frame_caveat(frame: Frame) -> str:
    """How far the people of a frame are from true pairs."""
    text = (
        f"{frame.name} is a frame of people and not of pairs: nobody's CT, X-ray and cough are all"
        " in it."
    )
    if frame.recorded:
        parts = ", ".join(f"{n:,} with {modality}" for modality, n in frame.recorded.items())
        text = f"{frame.name} counts as if everybody had every modality; recorded are {parts}."
    if frame.reported_ct is not None:
        text += f" {frame.reported_ct:,} of them report a chest CT; its images are not published."
    return text


def _nothing(why: str, frame: dict[str, Any] | None, claim: Row | None = None) -> dict[str, Any]:
    """The statement of a study that claims nothing."""
    return {
        "claimed": False,
        "sentence": f"{why} Nothing is claimed, so there is nothing to show.",
        "caveats": [],
        "claim": None if claim is None else dict(claim),
        "frame": frame,
        "needed": [],
        "by_correlation": [],
        "smallest_gain": [],
    }


def _claim(row: Row) -> str:
    """The gain in words."""
    interval = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
    kind = "simulated patients" if row["simulated"] else "patients"
    return (
        f"{row['method']} over {row['subset']} has an AUC {row['value']:+.3f}{interval} against"
        f" {row['against']} alone on {row['n_patients']:,} {kind}"
    )


def _described(frame: Frame) -> dict[str, Any]:
    return {**asdict(frame), "usable": frame.usable, "prevalence": frame.prevalence}


def _of(predictions: pd.DataFrame, row: Row, subset: str, method: str) -> pd.DataFrame:
    """Test rows of one subset and method, of real or of simulated patients as `row` is."""
    wanted = {"subset": subset, "method": method, "split": Split.TEST.value}
    kept = predictions["simulated"].to_numpy() == bool(row["simulated"])
    for column, value in wanted.items():
        kept = kept & (predictions[column] == value).to_numpy()
    found: pd.DataFrame = predictions[kept]
    return found


def _paired_scores(predictions: pd.DataFrame, row: Row, positive: str) -> pd.DataFrame:
    """`positive`, `first` (the fusion) and `second` (the modality alone) of the test patients."""
    keys = ["patient_id", "y_true"]
    first = _of(predictions, row, row["subset"], row["method"])
    second = _of(predictions, row, row["against"], UNIMODAL)
    p = f"p_{positive}"
    both = first[[*keys, p]].merge(second[[*keys, p]], on=keys, suffixes=("_first", "_second"))
    return pd.DataFrame(
        {
            "positive": both["y_true"] == positive,
            "first": both[f"{p}_first"],
            "second": both[f"{p}_second"],
        }
    )


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
