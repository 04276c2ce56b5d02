"""The answer and the limits: what the report says of a study in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pulmofuse.report.limits import limits, suspicions
from pulmofuse.report.results import answer, headline
from pulmofuse.report.study_files import read_study
from tests.report.builder import write


def _change_metrics(folder: Path, change: Any) -> None:
    path = folder / "metrics.json"
    write(path, [row for row in map(change, json.loads(path.read_text())) if row is not None])


def _titles(folder: Path) -> str:
    return "\n".join(limit.title for limit in limits(read_study(folder)))


def test_headline_is_the_rule_named_in_advance_not_the_best(study_copy: Path) -> None:
    def flatter_the_mean(row: dict[str, Any]) -> dict[str, Any]:
        lucky = row["method"] == "mean" and row["metric"] == "roc_auc"
        return row | ({"value": 0.999} if lucky else {})

    _change_metrics(study_copy, flatter_the_mean)
    fused = headline(read_study(study_copy)).fused
    assert fused is not None
    assert (fused.subset, fused.method) == ("ct+cxr+cough", "log_odds")


@pytest.mark.parametrize(
    ("gain", "words"),
    [((0.04, 0.01, 0.07), "a difference of +0.040 [+0.010, +0.070] on the same patients"),
     ((0.02, -0.01, 0.05), "a difference of +0.020 [−0.010, +0.050] that may be chance"),
     ((-0.03, -0.06, -0.01), "a difference of −0.030 [−0.060, −0.010] on the same patients")],
)  # fmt: skip
def test_answer_states_the_paired_difference(
    study_copy: Path, gain: tuple[float, float, float], words: str
) -> None:
    def set_gain(row: dict[str, Any]) -> dict[str, Any]:
        if row["metric"] != "roc_auc_difference":
            return row
        return row | dict(zip(("value", "low", "high"), gain, strict=True))

    _change_metrics(study_copy, set_gain)
    assert words in answer(read_study(study_copy))


@pytest.mark.parametrize(
    ("fused_auc", "words"),
    [(0.99, "the strongest single modality"), (0.50, "no better than")],
)
def test_answer_without_a_paired_difference_compares_with_the_best_alone(
    study_copy: Path, fused_auc: float, words: str
) -> None:
    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        if row["metric"] == "roc_auc_difference":
            return None
        fused = row["subset"] == "ct+cxr+cough" and row["metric"] == "roc_auc"
        return row | ({"value": fused_auc} if fused else {})

    _change_metrics(study_copy, change)
    assert words in answer(read_study(study_copy))


def test_answer_of_one_modality(study_copy: Path) -> None:
    _change_metrics(study_copy, lambda row: row if row["subset"] == "cough" else None)
    text = answer(read_study(study_copy))
    assert text.startswith("Cough alone reaches AUC 0.")
    assert "simulated" not in text


def test_shortcut_names_the_modality_and_both_figures(two_class_study: Path) -> None:
    study = read_study(two_class_study)
    found = {limit.title: limit.text for limit in limits(study)}
    text = found["The figure of CXR is suspicious"]
    alone = next(s for s in headline(study).singles if s.subset == "cxr")
    assert "source and site alone tell the classes apart with AUC .98" in text
    assert f"{alone.value:.2f}" in text
    assert "The figure of cough is suspicious" in found
    assert "The figure of CT is suspicious" not in found


def test_fusion_inherits_the_suspicion_of_its_parts(two_class_study: Path) -> None:
    found = suspicions(read_study(two_class_study))
    assert set(found) == {"cxr", "cough", "ct+cxr+cough"}
    assert found["ct+cxr+cough"] == "inherited from CXR and cough"


@pytest.mark.parametrize(
    ("study", "said"),
    [("two_class_study", True), ("three_class_study", False)],
)
def test_simulated_patients_are_a_limit(
    study: str, said: bool, request: pytest.FixtureRequest
) -> None:
    titles = _titles(request.getfixturevalue(study))
    assert ("The patients are simulated" in titles) is said


def test_one_simulated_row_is_enough_to_say_so(study_copy: Path) -> None:
    about = json.loads((study_copy / "study.json").read_text())
    write(study_copy / "study.json", about | {"patients": "paired"})
    assert "The patients are simulated" in _titles(study_copy)


@pytest.mark.parametrize(("opened", "said"), [(1, False), (2, True), (None, False)])
def test_test_set_opened_more_than_once(study_copy: Path, opened: int | None, said: bool) -> None:
    about = json.loads((study_copy / "study.json").read_text())
    write(study_copy / "study.json", about | {"test_opened": opened})
    assert ("The test set was opened more than once" in _titles(study_copy)) is said


def test_unknown_patients_are_counted_per_modality(two_class_study: Path) -> None:
    found = {limit.title: limit.text for limit in limits(read_study(two_class_study))}
    assert "CT 200 of 250 files" in found["Some patients are not known"]


def test_external_source_silences_the_limit_on_external_validation(study_copy: Path) -> None:
    assert "No external validation" in _titles(study_copy)
    manifest = pd.read_parquet(study_copy / "manifest.parquet")
    manifest.loc[manifest["split"] == "test", "source"] += "-elsewhere"
    manifest.to_parquet(study_copy / "manifest.parquet", index=False)
    assert "No external validation" not in _titles(study_copy)


@pytest.mark.parametrize(("half", "said"), [(0.06, True), (0.04, False)])
def test_wide_interval_means_a_small_test_set(study_copy: Path, half: float, said: bool) -> None:
    def widen(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"low": row["value"] - half, "high": row["value"] + half}

    _change_metrics(study_copy, widen)
    assert ("The test set is small" in _titles(study_copy)) is said


def test_without_an_audit_nothing_is_to_be_trusted(study_copy: Path) -> None:
    (study_copy / "audit.json").unlink()
    assert "No audit" in _titles(study_copy)
