"""A modality that cannot tell some classes apart: its evidence is exact, and none within a set."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.fusion import RULES, Stacking, fuse
from pulmofuse.labelsets import Partition

CLASSES = ("normal", "pneumonia", "covid19")
COARSE = Partition.of(["normal|pneumonia"], CLASSES)
seeds = st.integers(0, 2**32 - 1)


def _posteriors(likelihood: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(symbols, classes) of a model with likelihood (classes, symbols)."""
    joint = (likelihood * prior[:, None]).T
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_log_odds_with_a_coarse_modality_is_exact_bayes_by_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    symbols = 3
    prior = rng.dirichlet(np.ones(3) * 4)
    # A joint distribution of class, CT (two parts only) and X-ray, independent given the class.
    of_parts = 0.9 * rng.dirichlet(np.ones(symbols), 2) + 0.1 / symbols
    ct, cxr = of_parts[COARSE.codes(CLASSES)], rng.dirichlet(np.ones(symbols), 3) * 0.9 + 0.1 / 3
    world = {
        (y, i, j): prior[y] * ct[y, i] * cxr[y, j]
        for y, i, j in product(range(3), range(symbols), range(symbols))
    }
    # The CT model was trained on parts, under the class frequencies of another data set.
    own_parts, own_cxr = rng.dirichlet(np.ones(2) * 4), rng.dirichlet(np.ones(3) * 4)
    within = rng.dirichlet(np.ones(3) * 4)
    p_ct = COARSE.lift(_posteriors(of_parts, own_parts), within)
    p_cxr = _posteriors(cxr, own_cxr)
    seen = list(product(range(symbols), range(symbols)))
    fused = fuse(
        "log_odds",
        np.array([[p_ct[i], p_cxr[j]] for i, j in seen]),
        np.ones((len(seen), 2), dtype=bool),
        prior=prior,
        modality_priors=np.stack([COARSE.lift(own_parts, within), own_cxr]),
        weights=np.ones(2),
    )
    expected = np.array([[world[y, i, j] for y in range(3)] for i, j in seen])
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fused, expected, atol=1e-9)


@pytest.mark.parametrize("method", ["log_odds", "stacking"])
def test_a_coarse_modality_shifts_no_odds_within_its_set(method: str) -> None:
    rng = np.random.default_rng(3)
    within = np.array([0.5, 0.2, 0.3])
    p_cxr = rng.dirichlet(np.ones(3), 20)
    p_ct = COARSE.lift(rng.dirichlet(np.ones(2), 20), within)
    p = np.stack([p_ct, p_cxr], axis=1)
    priors = np.stack([COARSE.lift(np.array([0.6, 0.4]), within), np.full(3, 1 / 3)])
    odds = []
    for ct in (False, True):
        present = np.tile([ct, True], (20, 1))
        constants = {"prior": np.full(3, 1 / 3), "modality_priors": priors}
        if method == "stacking":
            equal = Stacking(np.ones((2, 3)), np.zeros(3), simulated=False, n_patients=0)
            answer = equal.apply(p, present, **constants)
        else:
            answer = fuse(method, p, present, weights=np.ones(2), **constants)
        odds.append(answer[:, 0] / answer[:, 1])
    np.testing.assert_allclose(odds[0], odds[1], rtol=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_takes_a_lifted_modality(rule: str) -> None:
    within = np.array([0.5, 0.2, 0.3])
    p = COARSE.lift(np.array([[0.7, 0.3], [0.1, 0.9]]), within)[:, None]
    answer = fuse(
        rule,
        p,
        np.ones((2, 1), dtype=bool),
        prior=within,
        modality_priors=within[None],
        weights=np.ones(1),
    )
    np.testing.assert_allclose(answer.sum(axis=1), 1.0, atol=1e-12)
    assert answer.argmax(axis=1).tolist() == [0, 2]
