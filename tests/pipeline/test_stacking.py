"""What a study's stacking learns from: true pairs, or nothing, or what it was told to take."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pulmofuse.config import parse_config
from pulmofuse.errors import StudyError
from pulmofuse.fusion import simulated_patients
from pulmofuse.inference import DecisionFusion, Scores
from pulmofuse.pipeline import PatientScores, with_stacking
from pulmofuse.schema import Modality

CLASSES = ("no", "yes")
CONFIG = (
    """
name: pairs
question: Who teaches the stacking?
target: {classes: [no, yes], positive: yes, mapping: {normal: no, covid19: yes}}
sources: [{name: folder}]
""".replace("no", "'no'")
    .replace("yes", "'yes'")
    .replace("'no'rmal", "normal")
)


def study(paired: int, stacking: str) -> tuple[DecisionFusion, str]:
    """Forty validation patients of each modality, of which so many of each class have both."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "record_id": f"{m}{i}",
            # The first `paired` of each class are one person in both modalities.
            "patient_id": f"p{i}" if i // 2 < paired else f"{m}-{i}",
            "modality": m,
            "split": "val",
            "y_true": CLASSES[i % 2],
        }
        for m in ("ct", "cough")
        for i in range(40)
    ]
    records = pd.DataFrame(rows)
    scores = {}
    for modality in (Modality.CT, Modality.COUGH):
        own = records[records["modality"] == modality.value]
        p = rng.uniform(0.1, 0.9, len(own))
        table = pd.DataFrame(
            {"p_no": 1 - p, "p_yes": p, "p_raw_no": 1 - p, "p_raw_yes": p}, index=own["record_id"]
        )
        scores[modality] = Scores(table, np.zeros((len(own), 2), np.float32))
    half = np.full(2, 0.5)
    decision = DecisionFusion(tuple(scores), half, np.full((2, 2), 0.5), half, 1.0)
    patients = PatientScores(simulated_patients(records, 3), scores, CLASSES)
    config = parse_config(CONFIG, [f"fusion.stacking={stacking}"])
    return with_stacking(decision, patients, scores, records, config)


@pytest.mark.parametrize("stacking", ["auto", "paired", "simulated"])
def test_true_pairs_are_taken_where_there_are_enough(stacking: str) -> None:
    decision, note = study(5, stacking)
    assert decision.methods(["mean"]) == ("mean", "stacking")
    assert note == "stacking on 10 true pairs in validation"


def test_without_enough_of_them_it_is_left_out_and_said() -> None:
    decision, note = study(4, "auto")
    assert decision.methods(["mean"]) == ("mean",)
    assert note == (
        "no stacking: 4 true pairs of class no in validation, at least 5 of each class are needed"
    )


def test_a_study_that_insists_on_pairs_stops() -> None:
    with pytest.raises(StudyError, match=r"4 true pairs.*fusion\.stacking: auto"):
        study(4, "paired")


def test_a_study_that_was_told_to_takes_simulated_patients_and_says_so() -> None:
    decision, note = study(0, "simulated")
    assert decision.methods([]) == ("stacking_simulated",)
    assert note == "stacking_simulated on 40 simulated patients in validation"


def test_a_study_that_wants_none_has_none() -> None:
    assert study(20, "none")[0].stacking is None
