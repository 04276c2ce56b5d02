"""The power statement: DeLong's variance, the pairs a gain takes, and the words for it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from pulmofuse.curation.sample_size import MIN_PATIENTS
from pulmofuse.evaluation.power import difference_variance, pairs_needed, smallest_gain
from pulmofuse.evaluation.power_statement import Frame, power_statement
from pulmofuse.statistics import weighted_auc

FRAME = Frame("Somewhere", people=2600, positive=500, negative=2000, recorded={}, reported_ct=150)
Scores = NDArray[np.float64]


def binormal(
    rng: np.random.Generator, n_positive: int, n_negative: int, aucs: tuple[float, float], r: float
) -> tuple[NDArray[np.bool_], Scores, Scores]:
    """Classes and two models' scores of these AUCs, correlated at r in each class."""
    positive = np.r_[np.ones(n_positive, bool), np.zeros(n_negative, bool)]
    noise = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], size=len(positive))
    shift = np.sqrt(2) * norm.ppf(aucs)  # P(N(d, 1) > N(0, 1)) = Phi(d / sqrt 2)
    scores = noise + positive[:, None] * shift
    return positive, scores[:, 0], scores[:, 1]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_variance_is_that_of_delongs_definition(data: st.DataObject) -> None:
    n = data.draw(st.integers(4, 15))
    level = st.integers(0, 4)  # few levels, many ties
    scores = np.array(data.draw(st.lists(st.tuples(level, level), min_size=n, max_size=n)), float)
    positive = np.arange(n) < data.draw(st.integers(2, n - 2))

    found = difference_variance(positive, scores[:, 0], scores[:, 1])

    up, down = scores[positive], scores[~positive]
    won = (up[:, None] > down[None]) + 0.5 * (up[:, None] == down[None])  # (pos, neg, 2)
    of_positives, of_negatives = np.cov(won.mean(1).T), np.cov(won.mean(0).T)
    assert found.gain == pytest.approx(won[..., 0].mean() - won[..., 1].mean(), abs=1e-12)
    assert found.first == pytest.approx((of_positives[0, 0], of_negatives[0, 0]), abs=1e-12)
    assert found.second == pytest.approx((of_positives[1, 1], of_negatives[1, 1]), abs=1e-12)
    difference = [s[0, 0] + s[1, 1] - 2 * s[0, 1] for s in (of_positives, of_negatives)]
    assert found.difference == pytest.approx(difference, abs=1e-12)


@pytest.mark.parametrize(
    ("aucs", "r", "prevalence", "power"),
    [((0.86, 0.80), 0.5, 0.3, 0.8), ((0.90, 0.86), 0.7, 0.2, 0.9), ((0.75, 0.65), 0.0, 0.5, 0.8)],
)
def test_the_pairs_that_are_computed_show_the_gain_as_often_as_promised(
    aucs: tuple[float, float], r: float, prevalence: float, power: float
) -> None:
    rng = np.random.default_rng(3)
    large = difference_variance(*binormal(rng, 4000, 4000, aucs, r))
    n = pairs_needed(large, aucs[0] - aucs[1], prevalence, power=power)
    n_positive = round(n * prevalence)
    shown = 0
    for _ in range(600):
        study = difference_variance(*binormal(rng, n_positive, n - n_positive, aucs, r))
        variance = study.difference[0] / n_positive + study.difference[1] / (n - n_positive)
        shown += study.gain > 1.959964 * math.sqrt(variance)
    # 600 studies know a power to about .03 (two standard errors).
    assert shown / 600 == pytest.approx(power, abs=0.05)


@settings(max_examples=50)
@given(
    r=st.floats(0, 0.9),
    gain=st.floats(0.005, 0.05),
    prevalence=st.floats(0.02, 0.98),
    m=st.integers(1, 6),
)
def test_fewer_pairs_than_needed_do_not_show_the_gain(
    r: float, gain: float, prevalence: float, m: int
) -> None:
    variance = difference_variance(
        *binormal(np.random.default_rng(5), 60, 60, (0.85, 0.8), 0.5)
    ).at_correlation(r)
    n = pairs_needed(variance, gain, prevalence, alpha=0.05 / m)
    shown = [
        smallest_gain(variance, k * prevalence, k * (1 - prevalence), 0.05 / m)  # type: ignore[arg-type]
        for k in (n - 1, n)
    ]
    assert shown[1] <= gain + 1e-12
    assert shown[0] > gain or n == math.ceil(MIN_PATIENTS / min(prevalence, 1 - prevalence))


def test_the_measured_correlation_gives_the_measured_variance() -> None:
    rng = np.random.default_rng(1)
    variance = difference_variance(*binormal(rng, 3000, 3000, (0.8, 0.8), 0.6))
    # Two equal models have the same correlation in both classes.
    same = variance.at_correlation(variance.correlation(0.5))
    assert same.of_one(0.5) == pytest.approx(variance.of_one(0.5), rel=0.02)
    assert variance.at_correlation(1.0).of_one(0.5) == pytest.approx(0, abs=1e-2)


def test_a_large_gain_still_needs_patients_of_both_classes() -> None:
    variance = difference_variance([1, 1, 0, 0], [2, 2, 1, 1], [1, 2, 1, 2])
    assert pairs_needed(variance, 0.5, 0.02) == 50 * MIN_PATIENTS


def test_what_has_no_answer_is_refused() -> None:
    variance = difference_variance([1, 1, 0, 0], [2, 2, 1, 1], [1, 2, 1, 2])
    for gain, prevalence in ((0.0, 0.5), (math.nan, 0.5), (0.1, 0.0), (0.1, 1.0)):
        with pytest.raises(ValueError, match="above 0"):
            pairs_needed(variance, gain, prevalence)
    with pytest.raises(ValueError, match="two patients"):
        difference_variance([1, 0, 0], [1, 2, 3], [1, 2, 3])


def predictions(simulated: bool = False, aucs: tuple[float, float] = (0.88, 0.80)) -> pd.DataFrame:
    """Two hundred patients by a fusion and by the better of two modalities alone."""
    rng = np.random.default_rng(7)
    tables = []
    for split in ("val", "test"):
        positive, first, second = binormal(rng, 80, 120, aucs, 0.6)
        for subset, method, score in (
            ("ct+cxr", "log_odds", first),
            ("ct+cxr", "mean", second + 0.1 * rng.normal(size=200)),
            ("ct", "unimodal", second),
        ):
            p = 1 / (1 + np.exp(-score))
            tables.append(
                pd.DataFrame(
                    {
                        "patient_id": [f"p{i}" for i in range(200)],
                        "y_true": np.where(positive, "ill", "well"),
                        "p_well": 1 - p,
                        "p_ill": p,
                        "subset": subset,
                        "method": method,
                        "split": split,
                        "simulated": simulated,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def gain_rows(table: pd.DataFrame, **changes: object) -> list[dict[str, object]]:
    """The rows of `fusion_gain`, with an interval as wide as you like."""
    test = table[table["split"] == "test"]

    def auc(subset: str, method: str) -> float:
        rows = test[(test["subset"] == subset) & (test["method"] == method)]
        return float(weighted_auc(rows["y_true"] == "ill", rows["p_ill"]))

    rows: list[dict[str, object]] = []
    for method in ("mean", "log_odds"):
        value = auc("ct+cxr", method) - auc("ct", "unimodal")
        row = {"subset": "ct+cxr", "method": method, "split": "test", "site": ""}
        row |= {"metric": "roc_auc_difference", "value": value, "low": value - 0.03}
        row |= {"high": value + 0.03, "n_patients": 200, "against": "ct"}
        rows.append({**row, "simulated": bool(table["simulated"].any()), **changes})
    return rows


def test_the_statement_is_of_the_fusion_that_was_named_beforehand() -> None:
    table = predictions()
    # On validation the mean is perfect: it is not chosen for that.
    lucky = (table["split"] == "val") & (table["method"] == "mean")
    table.loc[lucky, "p_ill"] = (table.loc[lucky, "y_true"] == "ill").astype(float)
    found = power_statement(table, gain_rows(table), "ill", FRAME)
    assert found["claimed"]
    assert found["claim"]["method"] == "log_odds"
    assert found["claim"]["comparisons"] == 2
    needed = pd.DataFrame(found["needed"])
    own = needed[needed["prevalence"] == 0.2]
    assert own["alpha"].tolist() == [0.05, 0.05, 0.025, 0.025]
    # The lower end of the gain is harder to show than the gain, the upper end easier.
    assert (own["pairs_at_low"] > own["pairs"]).all()
    assert (own["pairs_at_high"] < own["pairs"]).all()
    assert f"takes {own['pairs'].iloc[0]:,} patients who each have ct and cxr" in found["sentence"]
    share = own["pairs"].iloc[0] / 2500
    assert f"{share:.1%} of the 2,500 people of Somewhere" in found["sentence"]
    least = found["smallest_gain"][0]["gain"]
    # Whoever has exactly the pairs that are needed can show exactly the gain that is claimed.
    assert own["pairs"].iloc[0] == math.ceil(2500 * (least / found["claim"]["value"]) ** 2)
    (caveat,) = found["caveats"]
    assert "150 of them report a chest CT" in caveat


def test_simulated_patients_get_a_range_and_say_why() -> None:
    table = predictions(simulated=True)
    found = power_statement(table, gain_rows(table), "ill", None)
    pairs = [
        r["pairs"] for r in found["by_correlation"] if (r["power"], r["comparisons"]) == (0.8, 1)
    ]
    assert pairs == sorted(pairs, reverse=True)
    assert len(set(pairs)) == 5
    (caveat,) = found["caveats"]
    assert f"{max(pairs):,} to {min(pairs):,} patients" in caveat
    assert "simulated" in caveat
    assert found["prevalence"] == 0.4, "that of the test patients"
    assert "of the test patients" in found["sentence"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "compares no fusion"),
        ([{"value": -0.01}], "claims no gain"),
        ([{"value": 0.0}], "no gain"),
    ],
)
def test_nothing_is_claimed_where_there_is_no_gain(rows: list[dict[str, float]], why: str) -> None:
    table = predictions()
    gains = [row for change in rows for row in gain_rows(table, **change)]
    found = power_statement(table, gains, "ill", FRAME)
    assert not found["claimed"]
    assert why in found["sentence"]
    assert "Nothing is claimed" in found["sentence"]
    assert found["needed"] == []


def test_a_rule_that_nobody_named_claims_nothing() -> None:
    table = predictions()
    found = power_statement(table, gain_rows(table, method="vote"), "ill", FRAME)
    assert not found["claimed"]
    assert "no rule that was named beforehand" in found["sentence"]


def test_an_interval_that_holds_zero_is_said() -> None:
    table = predictions()
    found = power_statement(table, gain_rows(table, low=-0.01), "ill", FRAME)
    assert "includes zero" in found["caveats"][0]
    assert {row["pairs_at_low"] for row in found["needed"]} == {None}
