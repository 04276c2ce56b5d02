"""McNemar and Holm against what is published and what they promise."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulmofuse.evaluation.significance import EXACT_UP_TO, holm, mcnemar


def _right(b: int, c: int, both: int = 10) -> tuple[np.ndarray, np.ndarray]:
    first = np.r_[np.ones(b), np.zeros(c), np.ones(both)].astype(bool)
    second = np.r_[np.zeros(b), np.ones(c), np.ones(both)].astype(bool)
    return first, second


@given(b=st.integers(0, 12), c=st.integers(0, 13))
def test_few_discordant_patients_get_the_exact_binomial_test(b: int, c: int) -> None:
    found = mcnemar(*_right(b, c))
    n = b + c
    tail = sum(comb(n, i) for i in range(min(b, c) + 1)) / 2**n
    assert found.exact
    assert (found.first_only, found.second_only) == (b, c)
    assert found.p == pytest.approx(min(1.0, 2 * tail), abs=1e-12)


def test_many_get_the_corrected_chi_square() -> None:
    # Agresti, Categorical Data Analysis: approval at two surveys, 150 and 86 changed their mind.
    # (150 - 86)^2 / 236 = 17.36 there; with the correction (64 - 1)^2 / 236 = 16.82, p = 4.1e-5.
    found = mcnemar(*_right(150, 86))
    assert not found.exact
    assert found.p == pytest.approx(4.115e-5, rel=1e-3)
    assert mcnemar(*_right(20, 20)).p == 1.0


def test_the_two_forms_agree_where_they_meet() -> None:
    below, above = mcnemar(*_right(18, EXACT_UP_TO - 18)), mcnemar(*_right(18, EXACT_UP_TO - 17))
    assert below.exact
    assert not above.exact
    assert above.p == pytest.approx(below.p, abs=0.05)


def test_holm_of_holms_own_scheme() -> None:
    # Smallest times 4, next times 3 ..., never falling, never above 1.
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12))
def test_holm_lies_between_the_value_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    given_, found = np.array(p), holm(p)
    tested = np.isfinite(given_)
    assert (np.isfinite(found) == tested).all()
    few, adjusted = given_[tested], found[tested]
    assert (adjusted >= few).all()
    assert (adjusted <= np.minimum(few * max(1, len(few)), 1) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(few, kind="stable")]) >= 0).all()


def test_holm_keeps_the_familywise_error() -> None:
    rng = np.random.default_rng(0)
    wrong = [holm(rng.random(8)).min() < 0.05 for _ in range(2000)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.015)
