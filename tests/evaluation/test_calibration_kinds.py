"""Temperature, isotonic and beta calibration against references, and the choice between kinds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from pulmofuse.errors import BundleError
from pulmofuse.evaluation import calibration_from_dict, fit_calibration
from pulmofuse.evaluation.calibration import KINDS, cross_fitted_losses, fit_beta


def _two(score: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - score, score])


def _rows(k: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties, and classes that follow them loosely."""
    rng = np.random.default_rng(seed)
    p = rng.integers(1, 20, size=(n, k)).astype(float)
    p /= p.sum(axis=1, keepdims=True)
    y = np.array([rng.choice(k, p=0.7 * row + 0.3 / k) for row in p])
    y[:k] = np.arange(k)
    return p, y


@pytest.mark.parametrize("k", [2, 3])
def test_isotonic_equals_scikit_learn_after_json(k: int) -> None:
    p, y = _rows(k, 150, seed=k)
    new = np.random.default_rng(9).dirichlet(np.ones(k), 200)
    stored = json.loads(json.dumps(fit_calibration(p, y, kind="isotonic").to_dict()))
    low = 1 / 152
    columns = []
    for c in range(k):
        reference = IsotonicRegression(y_min=low, y_max=1 - low, out_of_bounds="clip")
        columns.append(reference.fit(p[:, c], y == c).predict(new[:, c]))
    expected = np.column_stack(columns)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibration_from_dict(stored).apply(new), expected, atol=1e-12)


def test_isotonic_of_two_classes_does_not_depend_on_their_order() -> None:
    p, y = _rows(2, 80, seed=4)
    one = fit_calibration(p, y, kind="isotonic").apply(p)
    other = fit_calibration(p[:, ::-1], 1 - y, kind="isotonic").apply(p[:, ::-1])
    np.testing.assert_allclose(one, other[:, ::-1], atol=1e-9)


def test_beta_equals_a_logistic_regression_on_both_logarithms() -> None:
    rng = np.random.default_rng(2)
    score = rng.beta(1.5, 2.5, size=3000)
    y = (rng.random(3000) < score**2 / (score**2 + 0.6 * (1 - score))).astype(int)
    fitted = fit_beta(_two(score), y, prior_sd=np.inf)
    x = np.column_stack([np.log(score), -np.log(1 - score)])
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x, y)
    expected = [*reference.coef_[0], reference.intercept_[0]]
    assert fitted.coefficients[1] == pytest.approx(expected, abs=1e-3)
    new = np.linspace(0.01, 0.99, 50)
    of_new = reference.predict_proba(np.column_stack([np.log(new), -np.log(1 - new)]))
    np.testing.assert_allclose(fitted.apply(_two(new)), of_new, atol=1e-4)


def test_beta_never_turns_the_ranking_around() -> None:
    score = np.linspace(0.05, 0.95, 40)
    y = (score < 0.5).astype(int)
    fitted = fit_calibration(_two(score), y, kind="beta").apply(_two(score))[:, 1]
    assert (np.diff(fitted) >= -1e-12).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 4])
def test_every_kind_survives_json_and_gives_probabilities(kind: str, k: int) -> None:
    p, y = _rows(k, 60, seed=k)
    fitted = fit_calibration(p, y, k, kind)
    stored = json.loads(json.dumps(fitted.to_dict()))
    assert stored["kind"] == kind
    again = calibration_from_dict(stored)
    assert again == fitted
    edge = np.vstack([p, np.eye(k)])
    q = again.apply(edge)
    assert (q > 0).all()
    np.testing.assert_allclose(q.sum(axis=1), 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_without_rows_of_a_class_every_kind_only_scales(kind: str) -> None:
    p, _ = _rows(3, 40, seed=1)
    fitted = fit_calibration(p, np.arange(40) % 2, kind=kind)
    assert fitted.to_dict()["bias"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "spline", "temperature": 1.0, "bias": [0.0]},
        {"kind": "temperature", "temperature": 1.0, "bias": [0.1, 0.0]},
        {"kind": "beta", "coefficients": [[1.0, -0.1, 0.0]]},
        {"kind": "beta", "coefficients": [[1.0, 1.0]]},
        {"kind": "beta", "coefficients": [[1.0, float("nan"), 0.0]]},
        {"kind": "beta", "coefficients": []},
        {"kind": "beta", "coefficients": [[1.0, 1.0, 0.0]], "extra": 1},
        {"kind": "isotonic", "knots": []},
        {"kind": "isotonic", "knots": [{"p": [0.1, 0.1], "q": [0.2, 0.3]}]},
        {"kind": "isotonic", "knots": [{"p": [0.1, 0.2], "q": [0.3, 0.2]}]},
        {"kind": "isotonic", "knots": [{"p": [0.1], "q": [float("nan")]}]},
        {"kind": "isotonic", "knots": [{"p": [0.1], "q": [0.0]}]},
        {"kind": "isotonic", "knots": [{"p": [0.1], "q": [0.5], "r": [1.0]}]},
        {"kind": "isotonic", "knots": [3]},
    ],
)
def test_a_damaged_calibration_of_any_kind_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        calibration_from_dict(content)


def test_a_calibration_of_before_has_no_kind_and_is_a_vector() -> None:
    assert calibration_from_dict({"temperature": 2.0, "bias": [0.0, 0.1]}).kind == "vector"


def test_cross_fitting_keeps_the_rows_of_a_patient_together() -> None:
    # Rows of a patient are copies: whoever splits them sees the answer, and isotonic learns it.
    rng = np.random.default_rng(0)
    score, y = np.repeat(rng.random(40), 10), np.repeat(rng.integers(2, size=40), 10)
    patients = np.repeat(np.arange(40), 10)
    apart = cross_fitted_losses(_two(score), y, ["isotonic"])
    together = cross_fitted_losses(_two(score), y, ["isotonic"], patients)
    assert apart is not None
    assert together is not None
    assert apart["isotonic"].mean() + 0.05 < together["isotonic"].mean()


def test_auto_takes_the_simplest_of_equals_and_a_curve_where_only_a_curve_fits() -> None:
    rng = np.random.default_rng(5)
    true = rng.random(4000)
    y = (rng.random(4000) < true).astype(int)
    hot = true**2 / (true**2 + (1 - true) ** 2)
    assert fit_calibration(_two(hot), y, kind=KINDS).kind == "temperature"
    staircase = np.where(true < 0.5, true * 0.02, 0.98 + true * 0.02)
    y = (rng.random(4000) < np.where(true < 0.25, 0.1, np.where(true < 0.75, 0.5, 0.9))).astype(int)
    assert fit_calibration(_two(staircase), y, kind=KINDS).kind == "isotonic"


def test_auto_falls_back_where_a_class_has_one_patient() -> None:
    score = np.linspace(0.1, 0.9, 9)
    assert fit_calibration(_two(score), np.arange(9) == 8, kind=KINDS).kind == "vector"
