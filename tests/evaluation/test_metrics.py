"""Metrics against scikit-learn, over scores with many ties."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.evaluation import METRICS, confusion


@st.composite
def outcomes(draw: st.DrawFn, k: int):
    """(y, p, predicted, weights) with at least one row per class and coarse scores."""
    n = draw(st.integers(k, 40))
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(k), rng.integers(k, size=n - k)])
    counts = rng.integers(1, draw(st.sampled_from([3, 6, 1000])), size=(n, k))
    p = counts / counts.sum(axis=1, keepdims=True)
    # Quotients of the same counts can differ in the last bit; rounding makes the ties true ones.
    p = np.round(p, 6)
    p[:, -1] = 1 - p[:, :-1].sum(axis=1)
    weights = rng.integers(0, 4, size=n).astype(float)
    weights[:k] += 1
    if draw(st.booleans()):
        weights *= rng.uniform(0.1, 3.0, size=n)
    return y, p, p.argmax(axis=1), weights


def _naive_ece(probability, outcome, weight) -> float:
    """Rows one by one; those of equal probability go to the bin in which their middle lies."""
    weight = np.ones(len(probability)) if weight is None else weight
    total, before, gaps = weight.sum(), 0.0, [0.0] * 10
    for value in sorted(set(probability)):
        mass = 0.0
        for i in range(len(probability)):
            mass += weight[i] * (probability[i] == value)
        place = min(int((before + mass / 2) * 10 // total), 9)
        for i in range(len(probability)):
            if probability[i] == value:
                gaps[place] += weight[i] * (float(outcome[i]) - value)
        before += mass
    return sum(abs(gap) for gap in gaps) / total


def _reference_binary(name: str, y, p, predicted, weight):
    rest = {"sample_weight": weight}
    return {
        "accuracy": lambda: sk.accuracy_score(y, predicted, **rest),
        "precision": lambda: sk.precision_score(y, predicted, zero_division=0, **rest),
        "recall": lambda: sk.recall_score(y, predicted, zero_division=0, **rest),
        "specificity": lambda: sk.recall_score(y, predicted, pos_label=0, **rest),
        "f1": lambda: sk.f1_score(y, predicted, zero_division=0, **rest),
        "roc_auc": lambda: sk.roc_auc_score(y, p[:, 1], **rest),
        "average_precision": lambda: sk.average_precision_score(y, p[:, 1], **rest),
        "brier": lambda: sk.brier_score_loss(y, p[:, 1], **rest),
        "ece": lambda: _naive_ece(p[:, 1], y == 1, weight),
    }[name]()


def _reference_macro(name: str, y, p, predicted, weight):
    k = p.shape[1]
    rest = {"sample_weight": weight}
    macro = {"average": "macro", "labels": range(k), "zero_division": 0, **rest}
    onehot = np.eye(k)[y]
    return {
        "accuracy": lambda: sk.accuracy_score(y, predicted, **rest),
        "precision": lambda: sk.precision_score(y, predicted, **macro),
        "recall": lambda: sk.recall_score(y, predicted, **macro),
        "specificity": lambda: np.mean(
            [sk.recall_score(y != c, predicted != c, zero_division=0, **rest) for c in range(k)]
        ),
        "f1": lambda: sk.f1_score(y, predicted, **macro),
        "roc_auc": lambda: np.mean(
            [sk.roc_auc_score(onehot[:, c], p[:, c], **rest) for c in range(k)]
        ),
        "average_precision": lambda: sk.average_precision_score(onehot, p, average="macro", **rest),
        "brier": lambda: np.average(((p - onehot) ** 2).sum(axis=1), weights=weight),
        "ece": lambda: _naive_ece(p.max(axis=1), p.argmax(axis=1) == y, weight),
    }[name]()


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=60, deadline=None)
@given(sample=outcomes(2))
def test_two_classes_equal_scikit_learn(name: str, sample) -> None:
    y, p, predicted, weight = sample
    value = METRICS[name](y, p, predicted, 1, None)
    assert value == pytest.approx(_reference_binary(name, y, p, predicted, None), abs=1e-12)
    weighted = METRICS[name](y, p, predicted, 1, weight)
    assert weighted == pytest.approx(_reference_binary(name, y, p, predicted, weight), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=60, deadline=None)
@given(sample=outcomes(3))
def test_macro_average_equals_scikit_learn(name: str, sample) -> None:
    y, p, predicted, weight = sample
    value = METRICS[name](y, p, predicted, None, None)
    assert value == pytest.approx(_reference_macro(name, y, p, predicted, None), abs=1e-12)
    weighted = METRICS[name](y, p, predicted, None, weight)
    assert weighted == pytest.approx(_reference_macro(name, y, p, predicted, weight), abs=1e-12)


def test_multiclass_auc_and_brier_equal_scikit_learns_own_multiclass_forms() -> None:
    rng = np.random.default_rng(3)
    y, p = rng.integers(4, size=80), rng.dirichlet(np.ones(4), size=80)
    predicted = p.argmax(axis=1)
    auc = sk.roc_auc_score(y, p, multi_class="ovr", average="macro")
    assert METRICS["roc_auc"](y, p, predicted, None, None) == pytest.approx(auc, abs=1e-12)
    # Before scikit-learn 1.7 brier_score_loss knew two classes only, so the sum is written out.
    brier = np.mean([sum((p[i, c] - (y[i] == c)) ** 2 for c in range(4)) for i in range(80)])
    assert METRICS["brier"](y, p, predicted, None, None) == pytest.approx(brier, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("positive", [None, 0, 1])
def test_a_batch_of_weights_gives_each_weighting_by_itself(name: str, positive: int | None) -> None:
    rng = np.random.default_rng(5)
    y, p = rng.integers(2, size=30), np.round(rng.dirichlet([1, 1], size=30), 1)
    weights = rng.integers(0, 3, size=(7, 30)).astype(float)
    batch = METRICS[name](y, p, p.argmax(axis=1), positive, weights)
    assert batch.shape == (7,)
    for row, value in zip(weights, batch, strict=True):
        repeated = np.repeat(np.arange(30), row.astype(int))
        alone = METRICS[name](y[repeated], p[repeated], p[repeated].argmax(axis=1), positive, None)
        assert value == pytest.approx(float(alone), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 0.5),
        ("precision", 0.0),
        ("recall", 0.0),
        ("specificity", 0.5),
        ("f1", 0.0),
        ("roc_auc", np.nan),
        ("average_precision", np.nan),
    ],
)
def test_without_a_positive_row_rates_are_zero_and_areas_undefined(name, expected) -> None:
    y = np.zeros(4, dtype=int)
    predicted = np.array([0, 0, 1, 1])
    p = np.array([[0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [0.1, 0.9]])
    value = float(METRICS[name](y, p, predicted, 1, None))
    assert value == pytest.approx(expected, nan_ok=True)


def test_one_positive_of_three_classes_still_gives_the_macro_average() -> None:
    rng = np.random.default_rng(8)
    y, p = rng.integers(3, size=40), rng.dirichlet(np.ones(3), size=40)
    for metric in METRICS.values():
        one, none = (metric(y, p, p.argmax(axis=1), positive, None) for positive in (2, None))
        assert float(one) == float(none)


@settings(max_examples=30, deadline=None)
@given(sample=outcomes(3))
def test_confusion_equals_scikit_learn(sample) -> None:
    y, _, predicted, _ = sample
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = sk.confusion_matrix(y, predicted, labels=range(5))
    assert confusion(y, predicted, 5).tolist() == expected.tolist()
