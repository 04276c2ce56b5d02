"""Calibration and operating point."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.errors import BundleError, StudyError
from pulmofuse.evaluation import (
    Calibration,
    fit_calibration,
    identity_calibration,
    youden_threshold,
)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _nll(p: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(p[np.arange(len(y)), y]).mean())


def _draw(k: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and classes drawn from exactly these probabilities."""
    rng = np.random.default_rng(seed)
    p = _softmax(1.5 * rng.normal(size=(n, k)))
    return p, (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(max=k - 1)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_distorted_probabilities_come_back(k: int) -> None:
    p, y = _draw(k, 4000, seed=k)
    bias = np.linspace(-0.6, 0.6, k)
    distorted = _softmax(2.5 * np.log(p) - 2.5 * bias)
    fitted = fit_calibration(distorted, y)
    assert fitted.temperature == pytest.approx(2.5, rel=0.12)
    assert np.asarray(fitted.bias) == pytest.approx(bias, abs=0.15)
    assert _nll(fitted.apply(distorted), y) < _nll(distorted, y)
    assert _nll(fitted.apply(distorted), y) == pytest.approx(_nll(p, y), abs=0.01)


@pytest.mark.parametrize("k", [2, 4])
def test_calibrated_probabilities_stay(k: int) -> None:
    p, y = _draw(k, 4000, seed=20 + k)
    fitted = fit_calibration(p, y, k)
    assert np.abs(fitted.apply(p) - p).max() < 0.05


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(1, 30), st.integers(0, 10**6))
def test_a_fit_never_raises_the_loss_it_was_fitted_on(k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet(np.full(k, 0.5), size=n), rng.integers(k, size=n)
    fitted = fit_calibration(p, y)
    q = fitted.apply(p)
    assert q.sum(axis=1) == pytest.approx(1.0)
    before = _nll(np.clip(p, 1e-12, None), y)
    assert _nll(q, y) <= before + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_two_classes_keep_their_ranking(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = np.sort(rng.beta(0.3, 0.3, size=30).clip(1e-9, 1 - 1e-9))
    fitted = fit_calibration(np.c_[1 - score, score], rng.integers(2, size=30))
    after = fitted.apply(np.c_[1 - score, score])[:, 1]
    assert (np.diff(after) >= 0).all()


def test_perfect_separation_of_a_few_patients_does_not_make_certainties() -> None:
    p = np.array([[0.9, 0.1]] * 5 + [[0.1, 0.9]] * 5)
    y = np.array([0] * 5 + [1] * 5)
    fitted = fit_calibration(p, y)
    assert 0.2 < fitted.temperature < 1.0
    assert fitted.apply(p).max() < 0.9999


def test_a_class_without_validation_rows_is_not_biased_away() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), size=40)
    fitted = fit_calibration(p, rng.integers(2, size=40))
    assert fitted.bias == (0.0, 0.0, 0.0)


def test_no_rows_change_nothing() -> None:
    assert fit_calibration(np.empty((0, 2)), np.empty(0, dtype=int)) == identity_calibration(2)


def test_a_probability_of_zero_stays_finite() -> None:
    q = Calibration(0.5, (0.1, -0.1)).apply([[0.0, 1.0]])
    assert np.isfinite(q).all()
    assert q.sum() == pytest.approx(1.0)


def test_json_keeps_every_digit() -> None:
    fitted = Calibration(1.0 / 3.0, (0.1, -0.2))
    assert Calibration.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


@pytest.mark.parametrize(
    "content",
    [
        {"temperature": 1.0},
        {"temperature": 1.0, "bias": [0.0], "extra": 1},
        {"temperature": 0.0, "bias": [0.0]},
        {"temperature": "hot", "bias": [0.0]},
        {"temperature": 1.0, "bias": [float("nan")]},
        {"temperature": 1.0, "bias": []},
    ],
)
def test_a_damaged_calibration_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        Calibration.from_dict(content)


@pytest.mark.parametrize(
    ("p", "n_classes"), [([[0.5, 0.5]], 3), ([[float("nan"), 0.5]], 2)], ids=["classes", "nan"]
)
def test_impossible_input_is_a_clear_error(p: list[list[float]], n_classes: int) -> None:
    with pytest.raises(StudyError):
        fit_calibration(p, [0], n_classes)


def _youden(y: np.ndarray, p: np.ndarray, threshold: float) -> float:
    called = p >= threshold
    return float(called[y == 1].mean() + (~called[y == 0]).mean() - 1)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=40).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    )
)
def test_youden_threshold_is_as_good_as_any(rows: list[tuple[bool, int]]) -> None:
    y = np.array([label for label, _ in rows], dtype=int)
    p = np.array([score for _, score in rows]) / 12
    best = max(_youden(y, p, t) for t in [*np.unique(p), 2.0])
    threshold = youden_threshold(y, p)
    assert _youden(y, p, threshold) == pytest.approx(best, abs=1e-12)
    assert 0.0 <= threshold <= 1.0


@pytest.mark.parametrize(
    ("y", "p", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9], 0.4),
        ([0, 1, 0, 1], [0.1, 0.3, 0.6, 0.8], 0.7),  # 0.2 is as good; 0.7 is nearer to 0.5
        ([1, 1], [0.2, 0.9], 0.5),
        ([0, 1], [0.3, 0.3], 0.5),
        ([1, 0], [0.2, 0.8], 0.0),  # worse than chance everywhere: call every row positive
        ([0, 1], [0.25, np.nextafter(0.25, 1)], np.nextafter(0.25, 1)),
    ],
)
def test_youden_threshold_by_hand(y: list[int], p: list[float], expected: float) -> None:
    assert youden_threshold(y, p) == expected
