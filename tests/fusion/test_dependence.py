"""Dependence between modalities: the discount is Bayes' rule, a pairing moves nothing but pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, spearmanr

from pulmofuse.fusion import (
    copula_ranks,
    discount,
    estimate_rho,
    fuse,
    own_evidence,
    rho_interval,
    shuffled_within,
)

correlations = st.floats(0.0, 0.95)


def equicorrelated(k: int, rho: float) -> np.ndarray:
    return np.full((k, k), rho) + (1 - rho) * np.eye(k)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), correlations, st.floats(0.2, 2.0), st.integers(0, 2**32 - 1))
def test_with_the_discount_the_log_odds_rule_is_bayes_rule_for_equally_strong_modalities(
    k: int, rho: float, strength: float, seed: int
) -> None:
    z = np.random.default_rng(seed).normal(size=(5, k))
    alone = 1 / (1 + np.exp(-strength * z))
    density = [
        multivariate_normal(np.full(k, sign * strength / 2), equicorrelated(k, rho)).pdf(z)
        for sign in (-1, 1)
    ]
    bayes = density[1] / (density[0] + density[1])
    fused = fuse(
        "log_odds",
        np.stack([1 - alone, alone], axis=2),
        np.ones((5, k), dtype=bool),
        prior=np.full(2, 0.5),
        modality_priors=np.full((k, 2), 0.5),
        weights=np.full(k, discount(k, rho)),
    )
    np.testing.assert_allclose(fused[:, 1], bayes, atol=2e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.1, 3.0), min_size=2, max_size=5), correlations)
def test_for_unequal_strengths_the_discount_is_never_too_little(
    strengths: list[float], rho: float
) -> None:
    d = np.array(strengths)
    calibrated = d @ d / (d @ equicorrelated(len(d), rho) @ d)
    assert discount(len(d), rho) <= calibrated + 1e-12


@pytest.mark.parametrize(
    ("k", "rho", "expected"),
    [(0, 0.5, 1.0), (1, 0.9, 1.0), (3, 0.0, 1.0), (2, 0.5, 2 / 3), (3, 0.5, 0.5), (4, 1.0, 0.25)],
)
def test_discount(k: int, rho: float, expected: float) -> None:
    assert discount(k, rho) == pytest.approx(expected)


@pytest.mark.parametrize("rho", [-0.1, 1.1, float("nan")])
def test_a_correlation_out_of_range_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match="rho"):
        discount(2, rho)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 4), correlations, st.integers(0, 2**32 - 1))
def test_a_copula_uses_every_rank_once(n: int, k: int, rho: float, seed: int) -> None:
    ranks = copula_ranks(np.random.default_rng(seed).standard_normal((n, 1 + k)), rho)
    assert (np.sort(ranks, axis=0) == np.arange(n)[:, None]).all()


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9])
def test_a_copula_has_its_correlation(rho: float) -> None:
    ranks = copula_ranks(np.random.default_rng(1).standard_normal((20_000, 3)), rho)
    # Of a Gaussian copula (Kruskal 1958).
    expected = 6 / np.pi * np.arcsin(rho / 2)
    assert spearmanr(ranks[:, 0], ranks[:, 1])[0] == pytest.approx(expected, abs=0.02)


def test_a_copula_of_one_joins_equal_ranks() -> None:
    ranks = copula_ranks(np.random.default_rng(1).standard_normal((50, 4)), 1.0)
    assert (ranks == ranks[:, :1]).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_a_shuffle_moves_nobody_out_of_the_class_and_loses_nobody(
    groups: list[int], k: int, seed: int
) -> None:
    names = np.array(groups, dtype=int)
    order = shuffled_within(names, k, np.random.default_rng(seed))
    assert (names[order] == names[:, None]).all()
    assert (np.sort(order, axis=0) == np.arange(len(names))[:, None]).all()


def test_modalities_are_shuffled_each_by_itself() -> None:
    order = shuffled_within(np.zeros(100), 2, np.random.default_rng(0))
    assert (order[:, 0] == order[:, 1]).mean() < 0.1


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_the_correlation_of_true_pairs_is_found_whatever_the_classes_and_scales(
    rho: float,
) -> None:
    rng = np.random.default_rng(5)
    y = rng.integers(3, size=6000)
    z = rng.multivariate_normal(np.zeros(3), equicorrelated(3, rho), size=len(y))
    evidence = np.exp(z * [0.5, 1.0, 2.0]) + 4.0 * y[:, None]
    assert estimate_rho(evidence, y) == pytest.approx(rho, abs=0.03)


def test_evidence_is_the_log_odds_of_the_own_class() -> None:
    p = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [1.0, 0.0]]])
    found = own_evidence(p, [0, 1])
    np.testing.assert_allclose(found[0], [np.log(9), 0.0], atol=1e-12)
    assert found[1, 0] == pytest.approx(np.log(4))
    assert np.isfinite(found).all()


def test_the_correlation_of_no_pair_is_undefined() -> None:
    assert np.isnan(estimate_rho(np.array([[0.1, 0.2]]), np.array([0])))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        y = np.arange(60) % 2
        z = rng.multivariate_normal(np.zeros(2), equicorrelated(2, 0.5), size=len(y))
        low, high = rho_interval(estimate_rho(z, y), len(y), 2, 0.95)
        inside += low < 0.5 < high
    assert 0.92 <= inside / 300 <= 0.98


def test_too_few_pairs_have_no_interval() -> None:
    assert np.isnan(rho_interval(0.3, 5, 2, 0.95)).all()
