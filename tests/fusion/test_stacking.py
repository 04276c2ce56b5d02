"""Stacking: what pairs can teach, where it falls back to log-odds, and whom it refuses."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from pulmofuse.errors import BundleError, StudyError
from pulmofuse.fusion import Stacking, fit_stacking, fuse

seeds = st.integers(0, 2**32 - 1)
HALF = np.full(2, 0.5)


def patients(seed: int, n: int = 30, classes: int = 3, modalities: int = 3) -> dict[str, Any]:
    """Random posteriors and subsets, with priors."""
    rng = np.random.default_rng(seed)
    return {
        "p": 0.98 * rng.dirichlet(np.ones(classes), (n, modalities)) + 0.02 / classes,
        "present": rng.random((n, modalities)) < 0.7,
        "prior": rng.dirichlet(np.ones(classes) * 5),
        "modality_priors": rng.dirichlet(np.ones(classes) * 5, modalities),
    }


def stacking(seed: int, classes: int = 3, modalities: int = 3) -> Stacking:
    rng = np.random.default_rng(seed)
    weights = rng.random((modalities, classes))
    return Stacking(weights, rng.normal(size=classes), simulated=False, n_patients=9)


def twins(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two modalities that say the very same, calibrated: (n, 2, 2) and classes (n,)."""
    y = rng.integers(0, 2, n)
    z = rng.normal(size=n) + (2 * y - 1)  # the log-odds of z are 2 z
    p = 1 / (1 + np.exp(-2 * z))
    return np.stack([np.stack([1 - p, p], axis=1)] * 2, axis=1), y


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_rows_are_distributions_and_absent_is_left_out(seed: int) -> None:
    given_, fitted = patients(seed), stacking(seed)
    given_["p"][~given_["present"]] = np.nan
    answer = fitted.apply(**given_)
    np.testing.assert_allclose(answer.sum(axis=1), 1.0, atol=1e-12)
    for row, subset in enumerate(given_["present"]):
        smaller = Stacking(fitted.weights[subset], fitted.bias, simulated=False, n_patients=9)
        alone = smaller.apply(
            given_["p"][row : row + 1, subset],
            np.ones((1, subset.sum()), dtype=bool),
            prior=given_["prior"],
            modality_priors=given_["modality_priors"][subset],
        )
        np.testing.assert_allclose(answer[row], alone[0], atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_the_order_of_modalities_does_not_matter(seed: int) -> None:
    given_, fitted = patients(seed), stacking(seed)
    order = np.random.default_rng(seed).permutation(3)
    turned = Stacking(fitted.weights[order], fitted.bias, simulated=False, n_patients=9)
    answer = turned.apply(
        given_["p"][:, order],
        given_["present"][:, order],
        prior=given_["prior"],
        modality_priors=given_["modality_priors"][order],
    )
    np.testing.assert_allclose(answer, fitted.apply(**given_), atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_one_modality_alone_keeps_its_posterior_and_none_gives_the_prior(seed: int) -> None:
    given_ = patients(seed)
    given_["present"][:] = False
    given_["present"][:-1, 1] = True
    answer = stacking(seed).apply(**given_)
    own = given_["p"][:-1, 1] * given_["prior"] / given_["modality_priors"][1]
    np.testing.assert_allclose(answer[:-1], own / own.sum(axis=1, keepdims=True), atol=1e-10)
    np.testing.assert_allclose(answer[-1], given_["prior"], atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_weights_of_one_are_the_log_odds_rule(seed: int) -> None:
    given_ = patients(seed)
    neutral = Stacking(np.ones((3, 3)), np.zeros(3), simulated=False, n_patients=0)
    expected = fuse("log_odds", **given_, weights=np.ones(3))
    np.testing.assert_allclose(neutral.apply(**given_), expected, atol=1e-10)


def test_many_pairs_find_what_a_regression_without_penalty_finds() -> None:
    rng = np.random.default_rng(5)
    n = 20_000
    y = rng.integers(0, 2, n)
    z = rng.normal(size=(n, 2)) + (2 * y - 1)[:, None]
    claimed = z * [3.0, 1.5]  # one modality is too sure of itself, the other not enough: truth 2 z
    p = 1 / (1 + np.exp(-claimed))
    both = np.stack([1 - p, p], axis=2)
    fitted = fit_stacking(
        both,
        np.ones((n, 2), dtype=bool),
        y,
        np.zeros(n, dtype=bool),
        prior=HALF,
        modality_priors=np.full((2, 2), 0.5),
    )
    reference = LogisticRegression(C=np.inf).fit(claimed, y).coef_[0]
    # Two classes: the evidence is half the log-odds, and each class's weight counts it once.
    np.testing.assert_allclose(fitted.weights.mean(axis=1), reference, atol=0.01)


def test_twins_are_discounted_and_pairs_that_are_few_hardly_move_the_rule() -> None:
    rng = np.random.default_rng(7)
    constants = {"prior": HALF, "modality_priors": np.full((2, 2), 0.5)}
    weights = {}
    for n in (10, 4000):
        p, y = twins(rng, n)
        present, simulated = np.ones((n, 2), dtype=bool), np.zeros(n, dtype=bool)
        weights[n] = fit_stacking(p, present, y, simulated, **constants).weights.sum(axis=0)
    # Two modalities that say the same are worth one.
    np.testing.assert_allclose(weights[4000], [1.0, 1.0], atol=0.1)
    assert (weights[10] > 1.0).all()


def test_a_modality_that_nobody_shares_keeps_its_weight() -> None:
    p, y = twins(np.random.default_rng(8), 60)
    p = np.concatenate([p, p[:, :1]], axis=1)
    present = np.tile([True, True, False], (60, 1))
    fitted = fit_stacking(
        p,
        present,
        y,
        np.zeros(60, dtype=bool),
        prior=HALF,
        modality_priors=np.full((3, 2), 0.5),
    )
    np.testing.assert_allclose(fitted.weights[2], 1.0, atol=1e-6)


def test_simulated_patients_are_refused_unless_asked_for_and_then_it_says_so() -> None:
    p, y = twins(np.random.default_rng(9), 40)
    arguments = (p, np.ones((40, 2), dtype=bool), y, np.ones(40, dtype=bool))
    constants = {"prior": HALF, "modality_priors": np.full((2, 2), 0.5)}
    with pytest.raises(StudyError, match=r"joined by their label.*fusion\.stacking: simulated"):
        fit_stacking(*arguments, **constants)
    fitted = fit_stacking(*arguments, **constants, on_simulated=True)
    assert fitted.method == "stacking_simulated"


def test_a_class_without_pairs_is_refused() -> None:
    p, y = twins(np.random.default_rng(9), 20)
    with pytest.raises(StudyError, match="no patient with two modalities"):
        fit_stacking(
            p,
            np.ones((20, 2), dtype=bool),
            np.zeros_like(y),
            np.zeros(20, dtype=bool),
            prior=HALF,
            modality_priors=np.full((2, 2), 0.5),
        )


def test_it_goes_through_json() -> None:
    fitted = stacking(4)
    again = Stacking.from_dict(json.loads(json.dumps(fitted.to_dict())), 3, 3)
    given_ = patients(4)
    np.testing.assert_array_equal(again.apply(**given_), fitted.apply(**given_))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": [[1.0, 1.0, 1.0]]}, "does not fit"),
        ({"weights": [[-1.0, 1.0, 1.0]] * 3}, "out of range"),
        ({"weights": [[float("nan"), 1.0, 1.0]] * 3}, "out of range"),
        ({"bias": "abc"}, "not a number"),
        ({"simulated": 1}, "out of range"),
        ({"n_patients": -1}, "out of range"),
        ({"extra": 1}, "keys"),
    ],
)
def test_a_damaged_one_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Stacking.from_dict(stacking(4).to_dict() | change, 3, 3)
