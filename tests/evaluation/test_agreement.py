"""Shares and rank correlations of a handful of patients, against independent references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata

from pulmofuse.evaluation.agreement import rank_correlation, share


@given(st.integers(1, 60), st.data())
def test_the_interval_of_a_share_is_where_the_score_test_rejects(
    n: int, data: st.DataObject
) -> None:
    hits = data.draw(st.integers(0, n))
    value, low, high = share(hits, n, 0.95)
    assert value == hits / n
    assert 0 <= low <= value <= high <= 1
    for end in (low, high):
        if 0 < end < 1:  # Wilson's ends are the shares from which the observed one is 1.96 away.
            distance = (value - end) / math.sqrt(end * (1 - end) / n)
            assert abs(distance) == pytest.approx(1.959964, abs=1e-3)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=30))
def test_rank_correlation_is_pearsons_of_the_midranks(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, dtype=float).T
    r, low, high = rank_correlation(first, second, 0.95)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert math.isnan(r)
        return
    assert r == pytest.approx(pearsonr(rankdata(first), rankdata(second)).statistic, abs=1e-9)
    assert -1 <= low <= r + 1e-12
    assert r - 1e-12 <= high <= 1


def test_three_patients_have_no_rank_correlation() -> None:
    assert all(math.isnan(value) for value in rank_correlation([1, 2, 3], [1, 2, 3], 0.95))


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_interval_covers_the_true_correlation_about_as_often_as_it_says(rho: float) -> None:
    rng = np.random.default_rng(2)
    truth = 6 / math.pi * math.asin(rho / 2)  # Spearman's of two normal variables (Pearson 1907)
    covered = 0
    for _ in range(500):
        sample = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=20)
        _, low, high = rank_correlation(*sample.T, 0.95)
        covered += low <= truth <= high
    assert covered / 500 == pytest.approx(0.95, abs=0.03)
