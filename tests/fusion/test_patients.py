"""Patients for fusion: real ones stay whole, simulated ones stay within split and class."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.errors import StudyError
from pulmofuse.fusion import paired_patients, simulated_patients
from pulmofuse.schema import ABSENT, JOIN

COLUMNS = ["patient_id", "split", "y_true", "simulated", "ct", "cxr", "cough"]
MODALITIES = COLUMNS[4:]


def records(*rows: tuple[str, str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["record_id", "patient_id", "modality", "split", "y_true"])


@st.composite
def cohorts(draw: st.DrawFn) -> pd.DataFrame:
    """Records of unpaired data sets: each patient has one modality, split, class and 1-3 files."""
    rows = []
    for number in range(draw(st.integers(1, 40))):
        modality = draw(st.sampled_from(MODALITIES))
        split = draw(st.sampled_from(["train", "test"]))
        y_true = draw(st.sampled_from(["ill", "well"]))
        files = range(draw(st.integers(1, 3)))
        patient = (f"{modality}:{number}", modality, split, y_true)
        rows += [(f"r{number}.{file}", *patient) for file in files]
    return records(*rows)


def test_paired_patients_keep_all_their_records() -> None:
    table = paired_patients(
        records(
            ("r3", "b", "cxr", "test", "ill"),
            ("r2", "a", "ct", "train", "well"),
            ("r1", "a", "ct", "train", "well"),
            ("r4", "a", "cough", "train", "well"),
        )
    )
    assert list(table.columns) == COLUMNS
    assert table.to_numpy().tolist() == [
        ["b", "test", "ill", False, (), ("r3",), ()],
        ["a", "train", "well", False, ("r1", "r2"), (), ("r4",)],
    ]


def test_a_patient_of_two_classes_stands_once_for_each() -> None:
    table = paired_patients(
        records(("r1", "a", "ct", "train", "well"), ("r2", "a", "cxr", "train", "ill"))
    )
    assert table[["patient_id", "y_true", "ct", "cxr"]].to_numpy().tolist() == [
        ["a", "ill", (), ("r2",)],
        ["a", "well", ("r1",), ()],
    ]


def test_simulated_patients_take_whole_patients_and_name_them_in_order() -> None:
    table = simulated_patients(
        records(
            ("r1", "x", "cough", "test", "ill"),
            ("r2", "x", "cough", "test", "ill"),
            ("r3", "y", "ct", "test", "ill"),
        ),
        seed=0,
    )
    assert list(table.columns) == COLUMNS
    assert table.to_numpy().tolist() == [
        [f"y{JOIN}x", "test", "ill", True, ("r3",), (), ("r1", "r2")]
    ]


@settings(deadline=None, max_examples=60)
@given(cohorts(), st.integers(0, 1000))
def test_simulated_patients_keep_within_split_and_class(cohort: pd.DataFrame, seed: int) -> None:
    table = simulated_patients(cohort, seed)
    known = cohort.set_index("record_id")
    present = [m for m in MODALITIES if m in set(cohort["modality"])]
    assert table["simulated"].all()
    assert table["patient_id"].is_unique
    for row in table.itertuples():
        parts = dict(zip(present, row.patient_id.split(JOIN), strict=True))
        for modality in MODALITIES:
            ids = getattr(row, modality)
            taken = known.loc[list(ids)]
            assert (taken["modality"] == modality).all()
            assert (taken["split"] == row.split).all()
            assert (taken["y_true"] == row.y_true).all()
            patients = list(taken["patient_id"].unique())
            assert patients == [p for p in [parts.get(modality, ABSENT)] if p != ABSENT]


def test_an_absent_modality_keeps_its_place_in_the_name() -> None:
    table = simulated_patients(
        records(
            ("r1", "x", "ct", "test", "ill"),
            ("r2", "y", "cough", "test", "ill"),
            ("r3", "z", "cough", "test", "well"),
        ),
        seed=0,
    )
    # No record is an X-ray, so there is no part for one.
    assert table["patient_id"].tolist() == [f"x{JOIN}y", f"{ABSENT}{JOIN}z"]


@pytest.mark.parametrize("name", [f"a{JOIN}b", "a &", "& b", f"{JOIN}{JOIN}"])
def test_a_real_name_cannot_pass_for_two(name: str) -> None:
    table = simulated_patients(
        records(("r1", name, "ct", "test", "ill"), ("r2", name, "cough", "test", "ill")), seed=0
    )
    (patient,) = table["patient_id"]
    first, second = patient.split(JOIN)
    assert first == second
    assert table.loc[0, ["ct", "cough"]].tolist() == [("r1",), ("r2",)]


@settings(deadline=None, max_examples=60)
@given(cohorts(), st.integers(0, 1000))
def test_real_patients_are_used_equally_often(cohort: pd.DataFrame, seed: int) -> None:
    table = simulated_patients(cohort, seed)
    for (split, y_true), group in cohort.groupby(["split", "y_true"]):
        rows = table[(table["split"] == split) & (table["y_true"] == y_true)]
        counts = group.groupby("modality")["patient_id"].nunique()
        assert len(rows) == counts.max()
        for modality in MODALITIES:
            if modality not in counts:
                assert (rows[modality].map(len) == 0).all()
                continue
            uses = rows[modality].value_counts()
            assert len(uses) == counts[modality]
            assert uses.max() - uses.min() <= 1
            # All files of a patient, and every file of the cell.
            assert {r for ids in uses.index for r in ids} == set(
                group.loc[group["modality"] == modality, "record_id"]
            )


def big_cohort() -> pd.DataFrame:
    return records(
        *(
            (f"{m}{i}", f"{m}:{i}", m, "train", "ill")
            for m, n in zip(MODALITIES, (20, 15, 7), strict=True)
            for i in range(n)
        )
    )


def test_a_seed_decides_and_the_order_of_records_does_not() -> None:
    cohort = big_cohort()
    shuffled = cohort.iloc[np.random.default_rng(0).permutation(len(cohort))]
    first = simulated_patients(cohort, 1)
    pd.testing.assert_frame_equal(first, simulated_patients(shuffled, 1))
    assert set(first["patient_id"]) != set(simulated_patients(cohort, 2)["patient_id"])


def test_modalities_are_joined_independently() -> None:
    pairs = records(
        *((f"{m}{i}", f"{m}:{i}", m, "test", "ill") for m in ("ct", "cxr") for i in range(4))
    )
    met = [
        f"ct:0{JOIN}cxr:0" in set(simulated_patients(pairs, seed)["patient_id"])
        for seed in range(400)
    ]
    # One in four; three standard errors of 400 draws are 0.065.
    assert np.mean(met) == pytest.approx(0.25, abs=0.07)


def test_more_data_in_one_cell_moves_no_other() -> None:
    cohort = big_cohort()
    more = pd.concat([cohort, records(("z", "ct:z", "ct", "test", "ill"))])
    train = simulated_patients(more, 1).query("split == 'train'")
    pd.testing.assert_frame_equal(train.reset_index(drop=True), simulated_patients(cohort, 1))


def test_no_records_give_no_patients() -> None:
    for table in (paired_patients(records()), simulated_patients(records(), 0)):
        assert list(table.columns) == COLUMNS
        assert table.empty


@pytest.mark.parametrize("column", ["split", "y_true"])
def test_a_record_without_split_or_class_is_refused(column: str) -> None:
    cohort = big_cohort()
    cohort.loc[3, column] = None
    for make in (paired_patients, lambda c: simulated_patients(c, 0)):
        with pytest.raises(StudyError, match="1 of 42 records"):
            make(cohort)


def _with_sets(rows: list[tuple[str, str, str]], split: str = "test") -> pd.DataFrame:
    """Records of (patient, modality, class or set)."""
    return pd.DataFrame(
        [
            {
                "record_id": f"r{i}",
                "patient_id": patient,
                "modality": modality,
                "split": split,
                "y_true": y_true,
            }
            for i, (patient, modality, y_true) in enumerate(rows)
        ]
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # The X-ray says which of the set it is.
        ([("cxr", "a"), ("ct", "a|b")], [("a", ("r1",), ("r0",))]),
        # A contradiction: two rows, as of any other.
        ([("cxr", "c"), ("ct", "a|b")], [("a|b", ("r1",), ()), ("c", (), ("r0",))]),
        # Both would fit, and nobody knows which.
        (
            [("cxr", "a"), ("cxr", "b"), ("ct", "a|b")],
            [("a", (), ("r0",)), ("a|b", ("r2",), ()), ("b", (), ("r1",))],
        ),
        # Two sets leave what they share.
        ([("cxr", "b|c"), ("ct", "a|b")], [("b", ("r1",), ("r0",))]),
        ([("cxr", "a|b|c"), ("ct", "a|b")], [("a|b", ("r1",), ("r0",))]),
    ],
)
def test_a_real_patients_other_records_narrow_a_set_down(
    said: list[tuple[str, str]], expected: list[tuple[str, tuple[str, ...], tuple[str, ...]]]
) -> None:
    table = paired_patients(_with_sets([("p", modality, y) for modality, y in said]))
    found = [(row.y_true, row.ct, row.cxr) for row in table.itertuples()]
    assert found == expected


def test_simulated_patients_take_records_whose_set_holds_their_class_each_once() -> None:
    rows = [(f"x{i}", "cxr", "abbbcc"[i]) for i in range(6)]
    rows += [(f"t{i}", "ct", "a|b") for i in range(8)] + [(f"u{i}", "ct", "c") for i in range(2)]
    records = _with_sets(rows)
    table = simulated_patients(records, seed=1)
    assert table["y_true"].value_counts().to_dict() == {"b": 6, "a": 2, "c": 2}
    used = table.loc[table["y_true"] != "c", "ct"].map(lambda ids: ids[0])
    assert sorted(used) == sorted(records.loc[records["y_true"] == "a|b", "record_id"])
    turned = simulated_patients(records.sample(frac=1.0, random_state=2), seed=1)
    pd.testing.assert_frame_equal(table, turned)


def test_a_set_whose_classes_nobody_has_is_joined_as_a_class() -> None:
    rows = [("t", "ct", "a|b"), ("k", "cough", "a|b"), ("x", "cxr", "c")]
    table = simulated_patients(_with_sets(rows), seed=1)
    assert table["y_true"].tolist() == ["a|b", "c"]
    assert table["ct"].tolist() == [("r0",), ()]
