"""Log loss as scikit-learn's, calibration error as worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.evaluation.scoring import equal_mass_ece, log_loss


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(2, 40))
def test_log_loss_is_scikit_learns_weighted_or_not(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    y, p = rng.integers(k, size=n), rng.dirichlet(np.ones(k), n)
    weights = rng.integers(0, 4, size=(3, n)).astype(float) + 0.5
    labels = range(k)
    assert log_loss(y, p) == pytest.approx(sklearn.metrics.log_loss(y, p, labels=labels), abs=1e-12)
    expected = [
        sklearn.metrics.log_loss(y, p, labels=labels, sample_weight=weight) for weight in weights
    ]
    np.testing.assert_allclose(log_loss(y, p, weights), expected, atol=1e-12)


def test_a_class_ruled_out_wrongly_costs_a_finite_loss() -> None:
    assert np.isfinite(log_loss(np.array([1]), np.array([[1.0, 0.0]])))


@pytest.mark.parametrize(
    ("positive", "expected"),
    # Ten bins of one row each: half of them are off by .2 and half by .4.
    [(1, 0.3), (0, 0.3), (None, 0.3)],
)
def test_calibration_error_of_one_row_a_bin(positive: int | None, expected: float) -> None:
    said = np.array([0.2, 0.2, 0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0.6, 0.6])
    y = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    p = np.stack([1 - said, said], axis=1)
    assert equal_mass_ece(y, p, positive) == pytest.approx(expected)


def test_of_three_classes_the_most_probable_one_is_asked() -> None:
    p = np.tile([0.7, 0.2, 0.1], (100, 1))
    right = np.repeat([0, 1], [70, 30])
    # Equal probabilities are dealt to bins by their place: as many of each class to every bin.
    shuffled = right[np.random.default_rng(0).permutation(100)].reshape(10, 10)
    expected = np.abs((shuffled == 0).mean(axis=1) - 0.7).mean()
    assert equal_mass_ece(shuffled.ravel(), p) == pytest.approx(expected)


def test_true_probabilities_have_next_to_no_error() -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(size=50_000)
    y = (rng.uniform(size=len(said)) < said).astype(int)
    p = np.stack([1 - said, said], axis=1)
    assert equal_mass_ece(y, p, 1) < 0.01
    assert equal_mass_ece(y, p**3 / (p**3).sum(axis=1, keepdims=True), 1) > 0.1
