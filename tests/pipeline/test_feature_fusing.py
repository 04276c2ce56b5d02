"""What the fusions of a study are trained on."""

from __future__ import annotations

import pandas as pd
import pytest

from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.pipeline import describe_rows, fusion_patients, training_patients
from pulmofuse.schema import Modality

CLASSES = ("normal", "covid19")
CONFIG = """
name: rows
question: Who is learned from?
target: {classes: [normal, covid19], positive: covid19, mapping: {normal: normal, covid19: covid19}}
sources: [{name: synthetic}]
"""


@pytest.fixture
def config() -> StudyConfig:
    return parse_config(CONFIG)


@pytest.fixture
def records() -> pd.DataFrame:
    """Of each split and class, twelve X-rays, three coughs and one patient with both."""
    rows = [
        (f"{kind}-{split}-{label}-{i}", f"{patient}-{split}-{label}-{i}", kind, split, label)
        for split in ("train", "val", "test")
        for label in CLASSES
        for kind, patient, n in (("cxr", "x", 12), ("cough", "c", 3))
        for i in range(n)
    ]
    rows += [
        (f"both-{kind}-{split}-{label}", f"b-{split}-{label}", kind, split, label)
        for split in ("train", "val", "test")
        for label in CLASSES
        for kind in ("cxr", "cough")
    ]
    columns = ["record_id", "patient_id", "modality", "split", "y_true"]
    return pd.DataFrame(rows, columns=columns)


def test_true_patients_are_the_rows_whatever_they_have(
    records: pd.DataFrame, config: StudyConfig
) -> None:
    patients = fusion_patients(records, "paired", CLASSES, 1)
    rows = training_patients(patients, records)
    assert set(rows["split"]) == {"train"}
    assert len(rows) == rows["patient_id"].nunique() == 2 * (12 + 3 + 1)
    table = describe_rows(rows, (Modality.CXR, Modality.COUGH), config)
    counts = table.groupby("subset")["patients"].sum()
    assert counts.to_dict() == {"cxr": 24, "cough": 6, "cxr+cough": 2}
    assert not table["simulated"].any()


def test_simulated_patients_come_on_top_and_say_so(
    records: pd.DataFrame, config: StudyConfig
) -> None:
    patients = fusion_patients(records, "simulated", CLASSES, 1)
    rows = training_patients(patients, records)
    table = describe_rows(rows, (Modality.CXR, Modality.COUGH), config)
    real = table[~table["simulated"]].groupby("subset")["patients"].sum()
    assert real.to_dict() == {"cxr": 24, "cough": 6, "cxr+cough": 2}
    virtual = table[table["simulated"]].groupby("subset")["patients"].sum()
    assert virtual.to_dict() == {"cxr+cough": 26}
    parts = rows.loc[rows["simulated"], ["cxr", "cough", "y_true"]]
    for row in parts.itertuples():
        for record in (*row.cxr, *row.cough):
            assert "-train-" in record
            assert f"-{row.y_true}" in record


def test_the_modality_with_most_patients_does_not_swamp_the_other(
    records: pd.DataFrame, config: StudyConfig
) -> None:
    rows = training_patients(fusion_patients(records, "paired", CLASSES, 1), records)
    table = describe_rows(rows, (Modality.CXR, Modality.COUGH), config)
    assert table["drawn"].sum() == pytest.approx(1.0)
    drawn = table.groupby("subset")["drawn"].sum()
    assert drawn["cough"] > 0.3, "6 of 32 patients"
    assert table.groupby("y_true")["drawn"].sum().tolist() == pytest.approx([0.5, 0.5])


def test_an_old_configuration_gets_every_method() -> None:
    old = parse_config(CONFIG + "fusion: {feature: {hidden: 32, views: 2}}\n")
    assert old.fusion.feature is not None
    assert old.fusion.feature.methods == (
        "concatenation", "gated_attention", "cross_attention", "bilinear",
    )  # fmt: skip
