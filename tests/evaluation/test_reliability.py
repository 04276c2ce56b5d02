"""Calibration error, Brier's parts and the points of a reliability diagram."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from pulmofuse.evaluation import (
    brier_parts,
    classwise_ece,
    cox_line,
    ece,
    ece_debiased,
    ece_floor,
    log_loss,
    reliability_curve,
    wilson_interval,
)


def _draw(n: int, seed: int, k: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(y, p): classes drawn from exactly these probabilities."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k), size=n)
    return (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(max=k - 1), p


def test_bins_of_equal_mass_by_hand() -> None:
    # Twenty rows, two a bin; the first bin is all wrong by .1 and -.2, the others are exact.
    p = np.r_[0.1, 0.2, np.zeros(9), np.ones(9)]
    positive = np.r_[0, 0, np.zeros(9), np.ones(9)].astype(int)
    assert float(ece(positive, np.c_[1 - p, p], None, 1)) == pytest.approx(0.3 / 20)


def test_bins_of_equal_width_by_hand() -> None:
    p = np.array([0.05, 0.09, 0.1, 1.0])
    y = np.array([0, 1, 0, 1])
    expected = (abs(1 - 0.14) + 0.1) / 4
    assert float(ece(y, np.c_[1 - p, p], None, 1, equal_mass=False)) == pytest.approx(expected)


def test_no_weight_and_no_rows_are_undefined() -> None:
    y, p = _draw(5, 0)
    assert np.isnan(ece(y, p, None, 1, np.zeros((2, 5)))).all()
    assert np.isnan(ece(y[:0], p[:0], None, 1))
    assert np.isnan(ece_floor(y[:0], p[:0], 1))


def test_classwise_error_is_the_mean_over_classes() -> None:
    y, p = _draw(90, 1, k=3)
    alone = [float(ece(y == c, np.c_[1 - p[:, c], p[:, c]], None, 1)) for c in range(3)]
    assert float(classwise_ece(y, p)) == pytest.approx(np.mean(alone), abs=1e-12)


@pytest.mark.parametrize("n", [60, 400])
def test_of_calibrated_probabilities_the_floor_is_the_mean_error_and_debiasing_lowers_it(
    n: int,
) -> None:
    found = np.array(
        [
            [float(ece(y, p, None, 1)), ece_floor(y, p, 1), ece_debiased(y, p, 1)]
            for y, p in (_draw(n, seed) for seed in range(200))
        ]
    ).mean(axis=0)
    assert found[1] == pytest.approx(found[0], rel=0.05)
    assert found[2] < 0.65 * found[0]


def test_debiasing_leaves_an_error_that_is_large() -> None:
    y, p = _draw(400, 3)
    wrong = np.c_[0.1 + 0 * p[:, 0], 0.9 + 0 * p[:, 0]]
    assert ece_debiased(y, wrong, 1) == pytest.approx(float(ece(y, wrong, None, 1)), abs=0.005)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(2, 4), st.integers(1, 30), st.integers(0, 10**6))
def test_brier_parts_add_up(n: int, k: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.integers(1, levels + 1, size=(n, k)).astype(float)
    p /= p.sum(axis=1, keepdims=True)
    y = rng.integers(k, size=n)
    positive = 1 if k == 2 else None
    parts = brier_parts(y, p, positive)
    total = parts.reliability - parts.resolution + parts.uncertainty
    assert parts.binned == pytest.approx(total, abs=1e-12)
    if k == 2:
        assert parts.brier == pytest.approx(sk.brier_score_loss(y == 1, p[:, 1]), abs=1e-12)


def test_brier_parts_of_one_bin_a_level_are_those_of_the_probabilities_themselves() -> None:
    # Few levels, one bin each: nothing is lost by binning.
    rng = np.random.default_rng(0)
    score = rng.choice([0.1, 0.4, 0.8], size=300)
    parts = brier_parts((rng.random(300) < score).astype(int), np.c_[1 - score, score], 1)
    assert parts.binned == pytest.approx(parts.brier, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_log_loss_equals_scikit_learn(k: int) -> None:
    y, p = _draw(80, k, k)
    assert log_loss(y, p) == pytest.approx(sk.log_loss(y, p, labels=range(k)), abs=1e-12)


def test_cox_line_equals_logistic_regression() -> None:
    y, p = _draw(500, 7)
    hot = p**3 / (p**3).sum(axis=1, keepdims=True)
    logit = np.log(hot[:, 1] / hot[:, 0])
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], y)
    line = cox_line(y, hot, 1)
    assert line.slope == pytest.approx(reference.coef_[0, 0], abs=1e-4)
    assert line.slope == pytest.approx(1 / 3, abs=0.06)
    # In the large the intercept makes the mean probability that of the outcome.
    moved = 1 / (1 + np.exp(-(logit + line.intercept)))
    assert moved.mean() == pytest.approx(y.mean(), abs=1e-6)


def test_cox_line_of_separated_rows_has_no_slope() -> None:
    p = np.array([0.2, 0.3, 0.7, 0.8])
    line = cox_line(np.array([0, 0, 1, 1]), np.c_[1 - p, p], 1)
    assert np.isnan(line.slope)
    assert np.isfinite(line.intercept)
    assert np.isnan(cox_line(np.array([1, 1]), np.full((2, 2), 0.5), 1).intercept)


def test_the_curve_holds_every_row_once_and_adds_up_to_the_error() -> None:
    y, p = _draw(137, 5)
    curve = reliability_curve(y == 1, p[:, 1])
    assert curve["n"].sum() == 137
    assert curve["n"].between(13, 14).all()
    total = (curve["n"] * (curve["observed"] - curve["predicted"]).abs()).sum() / 137
    assert total == pytest.approx(float(ece(y, p, None, 1)), abs=1e-12)
    assert ((curve["low"] <= curve["observed"]) & (curve["observed"] <= curve["high"])).all()


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 20), (20, 20)])
def test_wilson_interval_ends_where_the_score_test_turns(hits: int, n: int) -> None:
    low, high = wilson_interval(hits, n, 0.9)
    z = norm.ppf(0.95)

    def score(truth: float) -> float:
        return abs(hits / n - truth) - z * np.sqrt(truth * (1 - truth) / n)

    if hits > 0:
        assert float(low) == pytest.approx(brentq(score, 1e-9, hits / n - 1e-9), abs=1e-6)
    if hits < n:
        assert float(high) == pytest.approx(brentq(score, hits / n + 1e-9, 1 - 1e-9), abs=1e-6)
