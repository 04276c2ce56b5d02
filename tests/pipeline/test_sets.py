"""Labels that stand for sets of classes, on their way through the pipeline."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pulmofuse.errors import StudyError
from pulmofuse.inference import Scores
from pulmofuse.labelsets import Partition
from pulmofuse.pipeline import Cohort, PatientScores, check_classes, decide
from pulmofuse.pipeline.models import told_apart
from pulmofuse.schema import Modality

CLASSES = ("a", "b", "c")


def _records(said: dict[str, list[str]], modality: str = "ct") -> pd.DataFrame:
    """One record per split and name."""
    rows = [
        {
            "record_id": f"{split}{i}",
            "patient_id": f"{split}{i}",
            "modality": modality,
            "split": split,
            "y_true": name,
        }
        for split, names in said.items()
        for i, name in enumerate(names)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"train": ["a", "b", "c"], "val": ["a", "b", "c"]}, ("a", "b", "c")),
        ({"train": ["a|b", "c"], "val": ["a|b", "c"]}, ("a|b", "c")),
        # Some records are finer: the coarsest that all have in common.
        ({"train": ["a", "b", "a|b", "c"], "val": ["a", "c"]}, ("a|b", "c")),
        # What only the test set cannot tell is learned.
        ({"train": ["a", "b", "c"], "val": ["a", "b", "c"], "test": ["a|b"]}, ("a", "b", "c")),
    ],
)
def test_a_model_learns_what_its_labels_tell_apart(
    said: dict[str, list[str]], expected: tuple[str, ...]
) -> None:
    assert told_apart(_records(said), CLASSES).names == expected


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"train": ["a|b", "b|c"], "val": ["a|b", "b|c"]}, "no two classes"),
        ({"train": ["a|b", "c"], "val": ["a|b"]}, "none of class c is in the val split"),
        ({"train": ["c"], "val": ["a|b", "c"]}, r"none of class a\|b is in the train split"),
    ],
)
def test_labels_that_teach_nothing_stop_the_study(said: dict[str, list[str]], words: str) -> None:
    cohort = Cohort(_records(said), pd.DataFrame(), {Modality.CT: None})  # type: ignore[dict-item]
    with pytest.raises(StudyError, match=words):
        check_classes(cohort, CLASSES)


def test_the_audit_sees_the_parts_of_each_modality() -> None:
    records = pd.concat(
        [_records({"train": ["a", "a|b", "c"]}), _records({"train": ["a", "b", "c"]}, "cxr")],
        ignore_index=True,
    )
    cohort = Cohort(records, pd.DataFrame(), {})
    assert cohort.audited["y_true"].tolist() == ["a|b", "a|b", "c", "a", "b", "c"]


def test_the_most_probable_part_is_called_where_no_class_can_be() -> None:
    table = pd.DataFrame(
        {
            "patient_id": ["p", "q"],
            "record_id": ["p", "q"],
            "split": "test",
            "site": None,
            "subset": ["ct", "cxr"],
            "method": "unimodal",
            "simulated": False,
            "y_true": ["a|b", "c"],
            "p_a": 0.3,
            "p_b": 0.25,
            "p_c": 0.45,
            "p_raw_a": 0.3,
            "p_raw_b": 0.3,
            "p_raw_c": 0.4,
        }
    )
    partitions = {"ct": Partition.of(["a|b"], CLASSES)}
    assert decide(table, CLASSES, None, {}, partitions)["y_pred"].tolist() == ["a|b", "c"]


def test_a_row_is_held_to_what_the_records_behind_it_say() -> None:
    patients = pd.DataFrame(
        {
            "patient_id": ["t & x"],
            "split": ["test"],
            "y_true": ["a"],
            "simulated": [True],
            "ct": [("t",)],
            "cxr": [("x",)],
            "cough": [()],
        }
    )
    columns = [f"{kind}_{name}" for kind in ("p", "p_raw") for name in CLASSES]
    scores = {
        modality: Scores(
            pd.DataFrame([[0.2, 0.3, 0.5] * 2], index=[record], columns=columns),
            np.zeros((1, 2), np.float32),
        )
        for modality, record in ((Modality.CT, "t"), (Modality.CXR, "x"))
    }
    truth = {"t": "a|b", "x": "a"}
    found = PatientScores(patients, scores, CLASSES, truth)
    p = found.p[:, 0]
    for subset, expected in (
        ((Modality.CT,), "a|b"),
        ((Modality.CXR,), "a"),
        ((Modality.CT, Modality.CXR), "a"),
    ):
        assert found.rows(subset, "log_odds", p, p)["y_true"].tolist() == [expected]
