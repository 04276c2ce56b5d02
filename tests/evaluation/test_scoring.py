"""Log loss as scikit-learn's, calibration error as worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.evaluation.reliability import ece, log_loss


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
    # Rows of one probability share a bin: half of them are off by .2 and half by .4.
    [(1, 0.3), (0, 0.3), (None, 0.3)],
)
def test_calibration_error_worked_by_hand(positive: int | None, expected: float) -> None:
    said = np.array([0.2, 0.2, 0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0.6, 0.6])
    y = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    p = np.stack([1 - said, said], axis=1)
    assert ece(y, p, None, positive) == pytest.approx(expected)


def test_true_probabilities_have_next_to_no_error() -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(size=50_000)
    y = (rng.uniform(size=len(said)) < said).astype(int)
    p = np.stack([1 - said, said], axis=1)
    assert ece(y, p, None, 1) < 0.01
    assert ece(y, p**3 / (p**3).sum(axis=1, keepdims=True), None, 1) > 0.1
