"""AUC inside strata: the pairs are those of one stratum, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulmofuse.statistics import weighted_auc, within_auc

ROWS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 5), st.sampled_from("abc"), st.integers(0, 3)),
    min_size=1,
    max_size=30,
)


def by_hand(rows: list[tuple[bool, int, str, int]]) -> float:
    """Every pair of a positive and a negative of one stratum, counted one by one."""
    won = pairs = 0.0
    for sick, high, stratum, n in rows:
        for other_sick, low, other_stratum, m in rows:
            if sick and not other_sick and stratum == other_stratum:
                pairs += n * m
                won += n * m * (1.0 if high > low else 0.5 if high == low else 0.0)
    return won / pairs if pairs else float("nan")


@given(ROWS)
def test_counts_the_pairs_inside_the_strata(rows: list[tuple[bool, int, str, int]]) -> None:
    sick, score, stratum, weight = (np.array(column) for column in zip(*rows, strict=True))
    found = within_auc(sick, score, stratum, weight)
    assert float(found) == pytest.approx(by_hand(rows), nan_ok=True)


def test_telling_the_channel_is_worth_nothing() -> None:
    rng = np.random.default_rng(0)
    channel = rng.integers(0, 2, 400)
    sick = rng.random(400) < 0.2 + 0.6 * channel
    assert float(weighted_auc(sick, channel)) > 0.7
    assert float(within_auc(sick, channel, channel)) == 0.5


def test_replicates_are_computed_side_by_side() -> None:
    rng = np.random.default_rng(1)
    sick, score, strata = rng.random(50) < 0.5, rng.random(50), rng.integers(0, 3, 50)
    weights = rng.integers(0, 4, (7, 50)).astype(float)
    one_by_one = [float(within_auc(sick, score, strata, row)) for row in weights]
    np.testing.assert_allclose(within_auc(sick, score, strata, weights), one_by_one)
