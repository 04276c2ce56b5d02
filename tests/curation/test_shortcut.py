"""What the audit draws from large tables, and what it makes of rare classes and wild numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pulmofuse.curation import confounding
from pulmofuse.curation.shortcut import draw_patients, encode, measure_shortcut, trait_table


def _records(n_patients: int, each: int) -> pd.DataFrame:
    """Records of patients who are, in turn, of class a and b."""
    patient = np.repeat(np.arange(n_patients), each)
    return pd.DataFrame(
        {"patient_id": [f"p{i}" for i in patient], "y_true": np.array(["a", "b"])[patient % 2]}
    )


def _people(records: pd.DataFrame) -> dict[str, int]:
    return records.groupby("y_true")["patient_id"].nunique().to_dict()


@pytest.mark.parametrize(
    ("patients", "each", "kept"),
    [(400, 100, 400), (4, 2000, 4), (20_000, 10, 3000)],
    ids=["volumes", "few long volumes", "200,000 records"],
)
def test_as_many_patients_as_possible_are_drawn(patients: int, each: int, kept: int) -> None:
    records = _records(patients, each)
    drawn = draw_patients(records, 1)
    assert _people(drawn) == {"a": kept // 2, "b": kept // 2}
    assert 2700 < len(drawn) <= 3000
    assert draw_patients(records, 1).index.equals(drawn.index)


def test_who_is_drawn_does_not_hang_on_the_order_of_rows() -> None:
    records = _records(5000, 2)
    again = draw_patients(records.sample(frac=1, random_state=3), 1)
    assert set(again["patient_id"]) == set(draw_patients(records, 1)["patient_id"])


def test_a_rare_class_is_kept_whole_and_a_large_one_fills_the_rest() -> None:
    rare = pd.DataFrame({"patient_id": [f"r{i}" for i in range(100)], "y_true": "rare"})
    drawn = draw_patients(pd.concat([_records(20_000, 1), rare], ignore_index=True), 1)
    assert _people(drawn) == {"a": 1450, "b": 1450, "rare": 100}


def test_a_class_of_one_patient_does_not_hide_a_shortcut() -> None:
    records = _records(60, 1).assign(modality="ct", split="train")
    records["source"], records["site"] = "east", records["y_true"]
    records.loc[0, ["y_true", "patient_id"]] = ["lone", "somebody"]
    check = confounding.source(records, "ct", 1)
    assert (check.verdict, check.value) == ("fail", 1.0)
    assert "Left out, with one patient each: lone." in check.detail


def test_one_class_with_two_patients_or_more_is_not_enough() -> None:
    records = _records(2, 50)
    features = pd.DataFrame({"x": np.arange(100.0)})
    assert measure_shortcut(features, records["y_true"], records["patient_id"], 1) is None


def test_traits_beyond_float32_are_measured() -> None:
    covid = np.arange(40) % 2 == 1
    texts = [f'{{"dose": {"1e300" if c else "-1" + "0" * 400}}}' for c in covid]
    found = measure_shortcut(
        trait_table(pd.Series(texts)), pd.Series(covid.astype(str)), pd.Series(range(40)), 1
    )
    assert found is not None
    assert found.auc == 1.0


def test_an_absent_number_stays_absent() -> None:
    column = encode(pd.DataFrame({"x": [1.0, None, np.inf]}))["x"]
    assert column.isna().tolist() == [False, True, False]
    assert np.isfinite(column.astype(np.float32)).tolist() == [True, False, True]


def _few(**columns: object) -> pd.DataFrame:
    """Two patients, one of each class."""
    plain = {"source": "east", "site": None, "traits": None, "age": np.nan, "sex": None}
    return _records(2, 2).assign(**(plain | columns))


@pytest.mark.parametrize(
    ("ask", "columns"),
    [
        (confounding.source, {"site": list("xxyy")}),
        (confounding.traits, {"traits": ['{"w": 1}', '{"w": 2}'] * 2}),
        (confounding.demographics, {"age": [20.0, 20.0, 70.0, 70.0]}),
    ],
    ids=["source", "traits", "demographics"],
)
def test_what_too_few_patients_leave_open_is_a_warning(ask, columns) -> None:
    check = ask(_few(**columns), "ct", 1)
    assert (check.verdict, check.value) == ("warn", None)
    assert "could not be measured" in check.detail
    assert check.remedy
    check = ask(_few(), "ct", 1)
    assert (check.verdict, check.value, check.remedy) == ("pass", None, "")
