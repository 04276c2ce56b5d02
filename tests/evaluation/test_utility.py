"""Decision curves and predictive values against hand counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation import decision_curves, prevalence_table
from pulmofuse.evaluation.utility import (
    CURVE_COLUMNS,
    PREVALENCE_COLUMNS,
    net_benefit,
    predictive_values,
)

CLASSES = ("not_covid19", "covid19")
CONFIG = EvaluationConfig(bootstrap=300)


def _predictions(n: int = 100, method: str = "unimodal") -> pd.DataFrame:
    rng = np.random.default_rng(4)
    y = np.arange(n) % 2
    p = 1 / (1 + np.exp(-(1.5 * y - 0.75 + rng.normal(size=n))))
    names = np.array(CLASSES)
    return pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(n)],
            "split": "test",
            "subset": "ct",
            "method": method,
            "simulated": False,
            "y_true": names[y],
            "y_pred": names[(p >= 0.5).astype(int)],
            "p_not_covid19": 1 - p,
            "p_covid19": p,
        }
    )


def test_net_benefit_counts_false_alarms_at_the_odds_of_the_threshold() -> None:
    ill = np.array([True, True, False, False, False])
    score = np.array([0.9, 0.3, 0.6, 0.2, 0.1])
    found = net_benefit(ill, score, np.array([0.2, 0.5, 0.95]))
    # At .2: 2 ill and 2 well are called; at .5: one and one; at .95 nobody.
    assert found == pytest.approx([2 / 5 - 2 / 5 / 4, 1 / 5 - 1 / 5, 0.0])


def test_net_benefit_of_weights_is_that_of_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    ill, score = rng.random(30) < 0.4, np.round(rng.random(30), 1)
    weights = rng.integers(0, 3, size=(30, 5)).astype(float)
    thresholds = np.array([0.1, 0.5, 0.7])
    found = net_benefit(ill, score, thresholds, weights)
    for i in range(5):
        rows = np.repeat(np.arange(30), weights[:, i].astype(int))
        assert found[:, i] == pytest.approx(net_benefit(ill[rows], score[rows], thresholds))


def test_a_curve_starts_at_treating_all_and_its_intervals_hold_the_value() -> None:
    curve = decision_curves(_predictions(), CLASSES, "covid19", CONFIG, seed=1)
    assert tuple(curve.columns) == CURVE_COLUMNS
    assert len(curve) == 99
    first = curve.iloc[0]  # every score is above .01
    assert first.net_benefit == pytest.approx(first.treat_all) == pytest.approx(0.5 - 0.5 / 99)
    assert ((curve.low <= curve.net_benefit) & (curve.net_benefit <= curve.high)).all()


def test_curves_are_drawn_of_two_classes_and_of_single_modalities_and_the_log_odds_rule() -> None:
    frame = pd.concat([_predictions(method=m) for m in ("unimodal", "log_odds", "vote")])
    found = decision_curves(frame, CLASSES, "covid19", CONFIG, seed=1)
    assert set(found.method) == {"unimodal", "log_odds"}
    assert decision_curves(frame, CLASSES, None, CONFIG, seed=1).empty


def test_predictive_values_by_hand() -> None:
    # Of 1,000 people 20 are ill: 18 are caught; of 980 well ones 98 are called ill.
    ppv, npv = predictive_values(np.array([0.9, 0.9]), 0.02)
    assert (ppv, npv) == pytest.approx((18 / 116, 882 / 884))
    assert np.isnan(predictive_values(np.array([0.0, 1.0]), 0.1)[0])


def test_at_the_cohorts_own_prevalence_they_are_those_of_the_cohort() -> None:
    frame = _predictions()
    config = EvaluationConfig(bootstrap=300, prevalences=(0.5, 0.02))
    table = prevalence_table(frame, CLASSES, "covid19", config, seed=1)
    assert tuple(table.columns) == PREVALENCE_COLUMNS
    called, ill = frame.y_pred == "covid19", frame.y_true == "covid19"
    own = table.iloc[0]
    assert own.ppv == pytest.approx((called & ill).sum() / called.sum())
    assert own.npv == pytest.approx((~called & ~ill).sum() / (~called).sum())
    assert own.ppv_low < own.ppv < own.ppv_high
    rare = table.iloc[1]
    assert rare.ppv < own.ppv
    assert rare.npv > own.npv


def test_one_class_has_no_predictive_value() -> None:
    table = prevalence_table(_predictions().query("y_true == 'covid19'"), CLASSES, "covid19", CONFIG, 1)  # fmt: skip  # noqa: E501
    assert table[["specificity", "ppv", "ppv_low", "npv"]].isna().all(axis=None)
