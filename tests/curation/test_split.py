"""Splitting by patient, as properties."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.config import SplitConfig
from pulmofuse.curation import assign_splits, split_hash
from pulmofuse.errors import StudyError
from pulmofuse.schema import manifest_frame

CONFIG = SplitConfig()
SPLITS = ("train", "val", "test")


def manifest(rows) -> tuple[pd.DataFrame, pd.Series]:
    """A manifest from (patient, modality, class[, split[, source]]), and its target."""
    full = [row + (None, "s")[len(row) - 3 :] for row in rows]
    frame = manifest_frame(
        {
            "record_id": f"r{i}",
            "patient_id": patient,
            "patient_known": True,
            "modality": modality,
            "path": f"{i}.png",
            "label": "normal",
            "source": source,
            "split": split,
        }
        for i, (patient, modality, _, split, source) in enumerate(full)
    )
    return frame, pd.Series([row[2] for row in full], name="y_true")


def _patients(split: pd.DataFrame, target: pd.Series, modality: str, name: str) -> pd.Series:
    rows = split[(split["modality"] == modality) & (target == name)]
    return rows.groupby("split")["patient_id"].nunique().reindex(SPLITS, fill_value=0)


@st.composite
def cohorts(draw: st.DrawFn):
    """Patients with 1-3 records of 1-2 modalities; every (modality, class) has at least 6."""
    rows = []
    for modality in draw(st.sampled_from([["ct"], ["ct", "cough"], ["ct", "cxr", "cough"]])):
        for name in ("a", "b"):
            n = draw(st.integers(6, 30))
            rows += [(f"{modality}-{name}-{i}", modality, name) for i in range(n)]
    extra = draw(
        st.lists(
            st.tuples(
                st.integers(0, len(rows) - 1),
                st.sampled_from(["ct", "cxr", "cough"]),
                st.sampled_from(["a", "b"]),
            ),
            max_size=20,
        )
    )
    present = {modality for _, modality, _ in rows}
    rows += [(rows[i][0], m, name) for i, m, name in extra if m in present]
    return rows


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.integers(0, 1000))
def test_every_record_has_a_split_and_no_patient_two(rows, seed: int) -> None:
    frame, target = manifest(rows)
    split = assign_splits(frame, target, CONFIG, seed)
    assert split["split"].isin(SPLITS).all()
    assert split.groupby("patient_id")["split"].nunique().max() == 1
    assert frame["split"].isna().all(), "the input must stay as it was"


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.integers(0, 1000))
def test_every_modality_and_class_gets_its_share(rows, seed: int) -> None:
    frame, target = manifest(rows)
    split = assign_splits(frame, target, CONFIG, seed)
    for modality in frame["modality"].unique():
        for name in ("a", "b"):
            counts = _patients(split, target, modality, name)
            n = counts.sum()
            assert (counts > 0).all()
            # Patients with several records belong to several cells: allow one patient and a tenth.
            assert counts["test"] == pytest.approx(0.2 * n, abs=1.5 + 0.1 * n)
            assert counts["val"] == pytest.approx(0.15 * n, abs=1.5 + 0.1 * n)


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, seed: int, random) -> None:
    frame, target = manifest(rows)
    order = list(range(len(frame)))
    random.shuffle(order)
    first = assign_splits(frame, target, CONFIG, seed)
    second = assign_splits(frame.iloc[order], target.iloc[order], CONFIG, seed)
    assert second.index.tolist() == order
    assert split_hash(first) == split_hash(second)


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.data())
def test_published_splits_stay_and_the_patients_other_records_follow(rows, data) -> None:
    published = data.draw(
        st.dictionaries(st.sampled_from([r[0] for r in rows]), st.sampled_from(SPLITS), max_size=15)
    )
    seen: set[str] = set()
    full = []
    for patient, modality, name in rows:  # the first record of the patient carries the split
        full.append((patient, modality, name, None if patient in seen else published.get(patient)))
        seen.add(patient)
    full.append(("open", rows[0][1], "a"))  # or validation might be carved out
    frame, target = manifest(full)
    split = assign_splits(frame, target, CONFIG, 3)
    for patient, expected in published.items():
        assert set(split.loc[split["patient_id"] == patient, "split"]) == {expected}
    assert split.groupby("patient_id")["split"].nunique().max() == 1


@pytest.mark.parametrize(
    ("n", "expected"),
    [(3, (1, 1, 1)), (4, (2, 1, 1)), (5, (3, 1, 1)), (10, (6, 2, 2)), (100, (65, 15, 20))],
)
def test_shares_are_counted_in_patients(n: int, expected: tuple[int, int, int]) -> None:
    rows = [(f"p{i}", "ct", "a") for i in range(n) for _ in range(1 + 7 * (i == 0))]
    rows += [(f"q{i}", "ct", "b") for i in range(40)]
    frame, target = manifest(rows)
    counts = _patients(assign_splits(frame, target, CONFIG, 5), target, "ct", "a")
    assert tuple(counts) == pytest.approx(expected, abs=1)
    if n != 10:  # 6.5 and 1.5 may be rounded either way
        assert tuple(counts) == expected


def test_patients_with_both_modalities_are_in_every_split() -> None:
    rows = [(f"p{i}", "ct", "a") for i in range(200)] + [(f"p{i}", "cxr", "a") for i in range(20)]
    rows += [(f"q{i}", "cxr", "a") for i in range(200)]
    frame, target = manifest(rows)
    split = assign_splits(frame, target, CONFIG, 1)
    both = split[split["patient_id"].isin([f"p{i}" for i in range(20)])]
    counts = both.groupby("split")["patient_id"].nunique()
    assert counts.to_dict() == {"train": 13, "val": 3, "test": 4}


def test_another_seed_deals_other_patients() -> None:
    frame, target = manifest([(f"p{i}", "ct", "ab"[i % 2]) for i in range(60)])
    hashes = {split_hash(assign_splits(frame, target, CONFIG, seed)) for seed in range(5)}
    assert len(hashes) == 5


def test_validation_is_carved_by_patient_where_a_source_publishes_none() -> None:
    rows = [
        (f"{kind}{i}", "ct", "ab"[i % 2], kind, "official")
        for kind, n in (("train", 160), ("test", 40))
        for i in range(n)
        for _ in range(2)
    ]
    frame, target = manifest(rows)
    split = assign_splits(frame, target, CONFIG, 2)
    was = frame["split"]
    assert (split.loc[was == "test", "split"] == "test").all()
    carved = split[(was == "train") & (split["split"] == "val")]
    # .15 / (1 - .2) of 80 training patients of each class
    assert carved["patient_id"].nunique() == 30
    assert carved.groupby(target)["patient_id"].nunique().tolist() == [15, 15]
    assert split.groupby("patient_id")["split"].nunique().max() == 1


@pytest.mark.parametrize(
    "splits", [["train", "val", "test"], ["train", "train"], ["test", "test"]], ids="-".join
)
def test_other_published_splits_stay_to_the_letter(splits: list[str]) -> None:
    rows = [(f"{s}{k}-{i}", "ct", "a", s, "official") for k, s in enumerate(splits)
            for i in range(5)]  # fmt: skip
    frame, target = manifest(rows)
    assert assign_splits(frame, target, CONFIG, 2)["split"].tolist() == frame["split"].tolist()


def test_a_patient_whom_the_publisher_put_in_two_splits_stays_there() -> None:
    rows = [(f"p{i}", "ct", "a", "train", "official") for i in range(20)]
    rows += [(f"p{i}", "ct", "a", "test", "official") for i in range(3)]
    frame, target = manifest(rows)
    split = assign_splits(frame, target, CONFIG, 2)
    leaking = split[split["patient_id"].isin(["p0", "p1", "p2"])]
    assert sorted(leaking["split"]) == ["test"] * 3 + ["train"] * 3


def test_validation_is_not_made_where_only_some_rows_are_published() -> None:
    rows = [(f"p{i}", "ct", "a", "train") for i in range(10)]
    rows += [(f"q{i}", "ct", "a", "test") for i in range(4)]
    rows += [(f"r{i}", "ct", "a", None) for i in range(20)]
    frame, target = manifest(rows)
    split = assign_splits(frame, target, CONFIG, 2)
    assert (split["split"].iloc[:10] == "train").all()
    assert split["split"].iloc[14:].value_counts().to_dict() == {"train": 13, "val": 3, "test": 4}


def test_a_lone_open_patient_fills_the_split_that_the_publisher_left_empty() -> None:
    rows = [("p0", "ct", "a", "train"), ("p1", "ct", "a", "test"), ("p2", "ct", "a", None)]
    frame, target = manifest(rows)
    assert assign_splits(frame, target, CONFIG, 2)["split"].tolist() == ["train", "test", "val"]


def test_too_few_patients_are_named_with_class_modality_and_count() -> None:
    rows = [(f"p{i}", "ct", "a") for i in range(9)] + [("q0", "ct", "b"), ("q1", "ct", "b")] * 5
    with pytest.raises(StudyError, match=r"class b in ct: 2 patients"):
        assign_splits(*manifest(rows), CONFIG, 1)


def test_a_record_without_class_is_refused() -> None:
    frame, target = manifest([(f"p{i}", "ct", "a") for i in range(5)])
    with pytest.raises(StudyError, match="1 records"):
        assign_splits(frame, target.iloc[1:], CONFIG, 1)


def test_split_hash_sees_every_move_and_nothing_else() -> None:
    frame, target = manifest([(f"p{i}", "ct", "a") for i in range(9)])
    split = assign_splits(frame, target, CONFIG, 1)
    assert len(split_hash(split)) == 16
    assert int(split_hash(split), 16) >= 0
    assert split_hash(split) == split_hash(split.assign(age=3.0).iloc[::-1])
    moved = split.copy()
    moved.loc[0, "split"] = "val" if moved.loc[0, "split"] != "val" else "test"
    assert split_hash(moved) != split_hash(split)
