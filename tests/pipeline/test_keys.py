"""What a trained model depends on: whatever changes it changes its key, and nothing else does."""

from __future__ import annotations

import pandas as pd
import pytest

from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.pipeline import training_inputs
from pulmofuse.schema import Modality


@pytest.fixture
def config() -> StudyConfig:
    return parse_config("name: a\nquestion: b\nsources: [{name: folder}]\n")


@pytest.fixture
def records() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "record_id": ["a", "b", "c"],
            "path": ["a.png", "b.png", "c.png"],
            "patient_id": ["p", "p", "q"],
            "split": ["train", "train", "val"],
            "y_true": ["normal", "covid19", "normal"],
            "sha256": ["1", "2", "3"],
            "source": "folder",
            "site": None,
        }
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("patient_id", ["p", "r", "q"]),
        ("split", ["train", "val", "val"]),
        ("y_true", ["normal", "normal", "normal"]),
        ("sha256", ["1", "2", "4"]),
        ("source", "other"),
        ("site", "a"),
    ],
)
def test_what_a_model_is_trained_on_is_in_its_key(
    config: StudyConfig, records: pd.DataFrame, column: str, value: object
) -> None:
    before = training_inputs(config, Modality.CT, records)
    assert training_inputs(config, Modality.CT, records.assign(**{column: value})) != before


def test_order_and_place_of_the_files_are_not(config: StudyConfig, records: pd.DataFrame) -> None:
    before = training_inputs(config, Modality.CT, records)
    moved = records.iloc[::-1].assign(path=["x", "y", "z"])
    assert training_inputs(config, Modality.CT, moved) == before
