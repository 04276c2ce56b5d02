"""Prediction sets keep their promise class by class, and prevalence leaves it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.errors import BundleError
from pulmofuse.evaluation import (
    Conformal,
    conformal_sets,
    fit_calibration,
    fit_conformal,
    reweight,
    with_prevalence,
)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _cohort(
    rng: np.random.Generator, n: int, k: int, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(p, y) of an overconfident model."""
    y = rng.choice(k, size=n, p=shares)
    return _softmax(3 * (rng.normal(size=(n, k)) + 1.2 * np.eye(k)[y])), y


@pytest.mark.parametrize("calibrated", [False, True], ids=["as it is", "map of the same rows"])
@pytest.mark.parametrize("k", [2, 3])
def test_coverage_is_within_two_points_of_nominal_over_200_seeds(k: int, calibrated: bool) -> None:
    shares = np.array([0.6, 0.4]) if k == 2 else np.array([0.5, 0.3, 0.2])
    covered = np.zeros((200, k))
    for seed in range(200):
        rng = np.random.default_rng(seed)
        p, y = _cohort(rng, 150, k, shares)
        new, truth = _cohort(rng, 1000, k, shares)
        if calibrated:
            fitted = fit_calibration(p, y)
            p, new = fitted.apply(p), fitted.apply(new)
        inside = conformal_sets(fit_conformal(p, y, 0.9), new)
        covered[seed] = [inside[truth == c, c].mean() for c in range(k)]
    # A class of n rows is covered by ceil(.9 (n + 1)) / (n + 1) on average: up to 1 / (n + 1) more,
    # and the smallest class here has 30 of 150 rows.
    assert covered.mean(axis=0) == pytest.approx(np.full(k, 0.9), abs=0.02)
    assert (covered.mean(axis=0) > 0.9 - 0.005).all()


def test_the_threshold_is_the_order_statistic() -> None:
    p = np.r_[np.linspace(0.9, 0.1, 9), 0.5]
    rows = np.c_[p, 1 - p]
    # Nine rows of class 0: ceil(10 x .9) = 9, the largest score. One row of class 1: none.
    assert fit_conformal(rows, np.r_[np.zeros(9, int), 1], 0.9) == [pytest.approx(0.9), None]
    assert fit_conformal(rows[:9], np.zeros(9, int), 0.8) == [pytest.approx(0.8), None]
    assert fit_conformal(rows[:8], np.zeros(8, int), 0.9) == [None, None]


def test_a_class_of_too_few_rows_is_in_every_set() -> None:
    sets = conformal_sets([0.3, None], [[0.9, 0.1], [0.1, 0.9], [1.0, 0.0]])
    assert sets.tolist() == [[True, True], [False, True], [True, True]]


def test_json_keeps_the_sets() -> None:
    found = Conformal(0.9, {"ct|unimodal": {"no": 1 / 3, "yes": None}})
    stored = json.loads(json.dumps(found.to_dict()))
    assert Conformal.from_dict(stored, ("no", "yes")) == found


@pytest.mark.parametrize(
    "content",
    [
        {"coverage": 0.9},
        {"coverage": 1.5, "thresholds": {}},
        {"coverage": 0.9, "thresholds": {"ct|mean": {"yes": 0.1}}},
        {"coverage": 0.9, "thresholds": {"ct|mean": {"no": 0.1, "yes": float("nan")}}},
    ],
)
def test_damaged_sets_are_refused(content: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        Conformal.from_dict(content, ("no", "yes"))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(0, 10**6))
def test_reweighting_there_and_back_changes_nothing(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k), size=20)
    here, there = rng.dirichlet(np.full(k, 3.0), size=2)
    np.testing.assert_allclose(reweight(reweight(p, here, there), there, here), p, atol=1e-9)
    np.testing.assert_allclose(reweight(p, here, here), p, atol=1e-12)


def test_reweighted_probabilities_are_those_of_the_other_population() -> None:
    # Two normal classes: Bayes' rule under either prior is known.
    x = np.linspace(-3, 3, 50)
    likelihood = np.c_[np.exp(-((x + 1) ** 2) / 2), np.exp(-((x - 1) ** 2) / 2)]

    def posterior(prior: np.ndarray) -> np.ndarray:
        joint = likelihood * prior
        return joint / joint.sum(axis=1, keepdims=True)

    here, there = np.array([0.5, 0.5]), np.array([0.98, 0.02])
    np.testing.assert_allclose(reweight(posterior(here), here, there), posterior(there), atol=1e-12)


def test_with_prevalence_keeps_the_other_classes_in_proportion() -> None:
    found = with_prevalence([0.2, 0.3, 0.5], 1, 0.02)
    assert found == pytest.approx([0.98 * 2 / 7, 0.02, 0.98 * 5 / 7])


def test_impossible_priors_are_refused() -> None:
    with pytest.raises(ValueError, match="no priors"):
        reweight([0.5, 0.5], [0.0, 1.0], [0.5, 0.5])
    np.testing.assert_allclose(reweight([1.0, 0.0], [0.5, 0.5], [0.0, 1.0]), [0.0, 1.0])
