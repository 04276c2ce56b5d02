"""The predictions table: who is fused, under which prior, with which threshold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulmofuse.config import ThresholdTarget
from pulmofuse.inference import DecisionFusion, Scores
from pulmofuse.pipeline import PatientScores, decide, fusion_patients, operating_points
from pulmofuse.pipeline.predictions import decision_predictions, subsets
from pulmofuse.schema import Modality

CLASSES = ("no", "yes")


def _records(modalities: tuple[str, ...], patients: int) -> pd.DataFrame:
    rows = [
        {
            "record_id": f"{m}{i}",
            "patient_id": f"p{i}",
            "modality": m,
            "split": ("train", "val", "test")[i % 3],
            "y_true": CLASSES[i // 3 % 2],
        }
        for m in modalities
        for i in range(patients)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("modalities", "patients", "how", "simulated"),
    [
        (("ct", "cough"), 60, "auto", False),
        (("ct", "cough"), 12, "auto", True),
        (("ct", "cough"), 60, "simulated", True),
        (("ct", "cough"), 12, "paired", False),
        (("ct",), 12, "auto", False),
        (("ct",), 12, "simulated", False),
    ],
)
def test_patients_are_simulated_only_where_something_is_joined(
    modalities: tuple[str, ...], patients: int, how: str, simulated: bool
) -> None:
    table = fusion_patients(_records(modalities, patients), how, CLASSES, seed=1)
    assert table["simulated"].all() == simulated
    assert table["simulated"].any() == simulated


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 3), (3, 7)])
def test_every_subset_once_and_the_single_ones_first(count: int, expected: int) -> None:
    found = subsets(list(Modality)[:count])
    assert len(set(found)) == len(found) == expected
    assert [len(s) for s in found] == sorted(len(s) for s in found)


def _decision(priors: list[float], prior: float) -> DecisionFusion:
    return DecisionFusion(
        modalities=(Modality.CT, Modality.COUGH),
        prior=np.array([1 - prior, prior]),
        modality_priors=np.array([[1 - q, q] for q in priors]),
        auc_weights=np.array([0.7, 0.3]),
        dependence_weight=0.5,
    )


_PROBABILITY = st.floats(0.02, 0.98)


@given(p=_PROBABILITY, own=_PROBABILITY, prior=_PROBABILITY)
def test_one_modality_alone_is_bayes_rule_under_the_new_prior(
    p: float, own: float, prior: float
) -> None:
    decision = _decision([own, 0.5], prior)
    stacked = np.array([[[1 - p, p], [0.5, 0.5]]])
    # Posterior odds = likelihood ratio x prior odds.
    odds = (p / (1 - p)) / (own / (1 - own)) * (prior / (1 - prior))
    expected = odds / (1 + odds)
    present = np.array([[True, False]])
    assert decision.rebase(stacked)[0, 0, 1] == pytest.approx(expected)
    assert decision.apply("log_odds", stacked, present)[0, 1] == pytest.approx(expected)
    assert decision.apply("mean", stacked, present)[0, 1] == pytest.approx(expected)


def test_a_modality_that_knows_nothing_changes_no_log_odds() -> None:
    decision = _decision([0.2, 0.6], 0.3)
    stacked = np.array([[[0.1, 0.9], [0.4, 0.6]]])
    both = np.array([[True, True]])
    alone = np.array([[True, False]])
    full = DecisionFusion(**{**vars(decision), "dependence_weight": 1.0})
    assert full.apply("log_odds", stacked, both) == pytest.approx(
        full.apply("log_odds", stacked, alone)
    )


def test_a_patient_without_a_modality_is_in_no_subset_with_it() -> None:
    patients = pd.DataFrame(
        {
            "patient_id": ["a", "b"],
            "split": ["test", "test"],
            "y_true": ["yes", "no"],
            "simulated": [False, False],
            "ct": [("ct1",), ("ct2",)],
            "cxr": [(), ()],
            "cough": [("c1", "c2"), ()],
        }
    )
    columns = ["p_no", "p_yes", "p_raw_no", "p_raw_yes"]
    ct = pd.DataFrame([[0.3, 0.7] * 2, [0.8, 0.2] * 2], index=["ct1", "ct2"], columns=columns)
    cough = pd.DataFrame([[0.5, 0.5] * 2, [0.1, 0.9] * 2], index=["c1", "c2"], columns=columns)
    scores = {
        Modality.CT: Scores(ct, np.zeros((2, 3), np.float32)),
        Modality.COUGH: Scores(cough, np.zeros((2, 3), np.float32)),
    }
    table = pd.concat(
        decision_predictions(
            PatientScores(patients, scores, CLASSES), _decision([0.5, 0.5], 0.5), ["mean"]
        )
    )
    by_subset = table.groupby("subset")["patient_id"].apply(list).to_dict()
    assert by_subset == {"ct": ["a", "b"], "cough": ["a"], "ct+cough": ["a"]}
    fused = table[table["subset"] == "ct+cough"].iloc[0]
    # The cough is the mean of two recordings, .7; the mean of the two modalities follows.
    assert fused["p_yes"] == pytest.approx((0.7 + 0.7) / 2)
    assert fused["record_id"] == "ct1 & c1 & c2"


def test_thresholds_come_from_validation_and_decide_every_split() -> None:
    table = pd.DataFrame(
        {
            "patient_id": list("abcdef"),
            "record_id": list("abcdef"),
            "split": ["val", "val", "val", "test", "test", "test"],
            "site": None,
            "subset": "ct",
            "method": "unimodal",
            "simulated": False,
            "y_true": ["no", "yes", "yes", "yes", "yes", "no"],
            "p_no": [0.9, 0.8, 0.7, 0.75, 0.95, 0.1],
            "p_yes": [0.1, 0.2, 0.3, 0.25, 0.05, 0.9],
            "p_raw_no": 0.5,
            "p_raw_yes": 0.5,
        }
    )
    thresholds = operating_points(table, CLASSES, "yes", "youden")
    assert thresholds == {"ct|unimodal": pytest.approx(0.15)}
    decided = decide(table, CLASSES, "yes", thresholds)
    assert decided["y_pred"].tolist() == ["no", "yes", "yes", "yes", "no", "yes"]
    assert operating_points(table, CLASSES, "yes", "argmax") == {"ct|unimodal": 0.5}
    half = ThresholdTarget(sensitivity=0.5)
    assert operating_points(table, CLASSES, "yes", half) == {"ct|unimodal": pytest.approx(0.15)}
    sure = ThresholdTarget(specificity=0.9, confidence=0.9)
    assert operating_points(table, CLASSES, "yes", sure)["ct|unimodal"] > 1
    bagged = operating_points(table, CLASSES, "yes", "youden_bagged")
    assert bagged == operating_points(table, CLASSES, "yes", "youden_bagged")
    assert 0.1 < bagged["ct|unimodal"] < 0.3
