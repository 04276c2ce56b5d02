"""Intervals from a figure and its standard error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulmofuse.evaluation.intervals import (
    difference_interval,
    logit_interval,
    metric_interval,
    two_sided_p,
)


def test_of_a_share_is_the_wald_interval_of_its_log_odds() -> None:
    # 80 of 100: log odds 1.386, standard error 1 / sqrt(100 * .8 * .2) = .25; in R
    # plogis(qlogis(.8) + c(-1, 1) * 1.959964 * .25) is .7102 and .8672.
    found = logit_interval(0.8, np.sqrt(0.8 * 0.2 / 100))
    assert found == pytest.approx((0.7102, 0.8672), abs=5e-5)


@given(value=st.floats(0, 1), se=st.floats(0, 5), degrees=st.integers(1, 100))
def test_stays_in_range_and_around_the_value(value: float, se: float, degrees: int) -> None:
    low, high = logit_interval(value, se, degrees=degrees)
    assert 0 <= low <= value + 1e-9
    assert value - 1e-9 <= high <= 1


def test_few_degrees_of_freedom_widen() -> None:
    narrow, wide = (difference_interval(0.1, 0.02, degrees=d) for d in (np.inf, 9))
    # The quantiles that every table prints.
    assert (narrow[1] - 0.1) / 0.02 == pytest.approx(1.960, abs=5e-4)
    assert (wide[1] - 0.1) / 0.02 == pytest.approx(2.262, abs=5e-4)
    assert two_sided_p(2.262, 1.0, 9) == pytest.approx(0.05, abs=5e-5)


def test_a_figure_of_another_range_is_scaled() -> None:
    low, high = logit_interval(0.4, 0.1)
    assert logit_interval(0.8, 0.2, upper=2.0) == pytest.approx((2 * low, 2 * high))


def test_what_has_no_spread_or_no_value() -> None:
    assert logit_interval(1.0, 0.0) == (1.0, 1.0)
    assert np.isnan(logit_interval(float("nan"), 0.1)).all()
    assert np.isnan(difference_interval(0.1, float("nan"))).all()
    assert two_sided_p(0.0, 0.0) == 1.0
    assert np.isnan(two_sided_p(0.1, 0.0))
    assert difference_interval(0.9, 0.2) == (pytest.approx(0.508, abs=1e-3), 1.0)


def test_a_log_loss_has_no_upper_end_and_never_falls_below_zero() -> None:
    low, high = metric_interval("log_loss", 0.2, 0.15)
    # exp(1.959964 * .15 / .2) = 4.3488
    assert (low, high) == pytest.approx((0.2 / 4.3488, 0.2 * 4.3488), rel=1e-4)
    assert metric_interval("log_loss", 0.0, 0.0) == (0.0, 0.0)
    assert np.isnan(metric_interval("log_loss", 0.2, float("nan"))).all()


def test_briers_score_of_several_classes_reaches_two() -> None:
    assert metric_interval("brier", 1.2, 0.3, several=True)[1] < 2
    assert metric_interval("brier", 0.4, 0.1) == logit_interval(0.4, 0.1)
