"""The curve against assumed dependence, where the dependence is known: Gaussian evidence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.rho_curve import COLUMNS, Evidence, rho_curve

CONFIG = EvaluationConfig(bootstrap=100)
STRENGTHS = np.array([1.2, 1.2, 1.2])
NAMES = ("ct", "cxr", "cough")


def evidence(strengths: np.ndarray, n: int = 4000, seed: int = 3) -> Evidence:
    """Exact posteriors of independent modalities of unpaired patients."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    z = (y[:, None] - 0.5) * strengths + rng.normal(size=(n, len(strengths)))
    p = 1 / (1 + np.exp(-strengths * z))
    real = np.array([[f"{j}-{i}" for j in range(len(strengths))] for i in range(n)])
    half = np.full((len(strengths), 2), 0.5)
    return Evidence(np.stack([1 - p, p], axis=2), real, y, half[0], half, best=0)


def bayes_auc(strengths: np.ndarray, rho: float) -> float:
    k = len(strengths)
    sigma = np.full((k, k), rho) + (1 - rho) * np.eye(k)
    return float(norm.cdf(np.sqrt(strengths @ np.linalg.solve(sigma, strengths) / 2)))


def figures(table: pd.DataFrame, rho: float, rule: str) -> pd.Series:
    rows = table[(table["rho"] == rho) & (table["weight_rule"] == rule)]
    return rows.set_index("metric")["value"]


@pytest.fixture(scope="module")
def equal() -> pd.DataFrame:
    rows = rho_curve(evidence(STRENGTHS), "ct+cxr+cough", NAMES, 1, CONFIG, 1, (0.0, 0.5, 0.9))
    return pd.DataFrame(rows)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_of_equal_modalities_the_rule_is_as_good_as_bayes_at_every_correlation(
    equal: pd.DataFrame, rho: float
) -> None:
    expected = bayes_auc(STRENGTHS, rho)
    for rule in ("one", "dependence"):
        # .005 is asked for; the 4,000 drawn patients bring a standard error of .004 themselves.
        assert figures(equal, rho, rule)["roc_auc"] == pytest.approx(expected, abs=0.01)


def test_at_correlation_one_half_independence_is_over_confident_and_the_weight_mends_it(
    equal: pd.DataFrame,
) -> None:
    before, after = (figures(equal, 0.5, rule) for rule in ("one", "dependence"))
    # .101 and .011.
    assert before["ece"] > 0.08
    assert after["ece"] < 0.02
    assert after["log_loss"] < before["log_loss"] - 0.05
    assert after["brier"] < before["brier"]


def test_at_correlation_zero_both_rules_are_one(equal: pd.DataFrame) -> None:
    one, dependence = (figures(equal, 0.0, rule) for rule in ("one", "dependence"))
    pd.testing.assert_series_equal(one, dependence)
    assert one["ece"] < 0.02


def test_the_best_modality_alone_is_a_horizontal_line(equal: pd.DataFrame) -> None:
    assert set(equal["best_modality"]) == {"ct"}
    lines = equal.groupby("metric")["best_value"].agg(["min", "max"])
    assert (lines["min"] == lines["max"]).all()
    assert lines.loc["roc_auc", "min"] == pytest.approx(norm.cdf(1.2 / np.sqrt(2)), abs=0.02)


def test_rows_are_complete(equal: pd.DataFrame) -> None:
    assert list(equal.columns) == list(COLUMNS)
    assert len(equal) == 3 * 2 * 4
    assert (equal["low"] <= equal["high"]).all()


def test_unequal_modalities_are_mended_too() -> None:
    strengths = np.array([1.5, 1.2, 1.0])
    rows = rho_curve(evidence(strengths), "ct+cxr+cough", NAMES, 1, CONFIG, 1, (0.5,))
    table = pd.DataFrame(rows)
    assert figures(table, 0.5, "dependence")["ece"] < 0.025
    assert figures(table, 0.5, "one")["ece"] > 0.08


def test_a_patient_who_stands_in_many_virtual_ones_counts_once_for_the_interval() -> None:
    """40 real coughs in 4,000 virtual patients leave the doubt of 40."""
    few = evidence(STRENGTHS[:2], n=4000)
    at = np.arange(4000) % 40
    p, real = few.p.copy(), few.real.copy()
    p[:, 1], real[:, 1] = few.p[at, 1], few.real[at, 1]
    spread = []
    for case in (few, Evidence(p, real, few.y, few.prior, few.modality_priors, 0)):
        rows = pd.DataFrame(rho_curve(case, "ct+cough", NAMES[:2], 1, CONFIG, 1, (0.0,)))
        row = rows[rows["metric"] == "roc_auc"].iloc[0]
        spread.append(row["high"] - row["low"])
    assert spread[1] > 3 * spread[0]


def test_the_same_seed_gives_the_same_curve() -> None:
    small = evidence(STRENGTHS[:2], n=60)
    runs = [rho_curve(small, "ct+cxr", NAMES[:2], 1, CONFIG, 5, (0.2,)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_no_interval_passes_what_a_figure_can_reach() -> None:
    few = evidence(np.array([3.0, 3.0]), n=80)
    table = pd.DataFrame(rho_curve(few, "ct+cxr", NAMES[:2], 1, CONFIG, 1, (0.0, 0.9)))
    auc = table[table["metric"] == "roc_auc"]
    assert (auc["high"] <= 1).all()
    assert (auc["high"] >= auc["value"]).all()
