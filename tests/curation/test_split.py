"""Splitting by patient, as properties."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pulmofuse.config import SplitConfig
from pulmofuse.curation.split import assign_splits, split_hash
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


@pytest.mark.parametrize("other", [["train", "test"], ["train"]], ids="-".join)
def test_who_is_in_two_published_sources_stays_on_one_side(other: list[str]) -> None:
    """Copies bind patients of two sources; only a group that is free in both may be carved."""
    rows = [
        (f"{source}-{kind}{i}", "ct", "ab"[i % 2], kind, source)
        for source, kinds in (("x", ["train", "test"]), ("y", other))
        for kind in kinds
        for i in range(60 if source == "x" else 90)
    ]
    frame, target = manifest(rows)
    names = frame["patient_id"]
    groups = names.where(~names.str.contains("train"), names.str[2:])
    split = assign_splits(frame, target, CONFIG, 2, groups)
    assert (split["split"] == "test").equals(frame["split"] == "test")
    assert split["split"].groupby(groups).nunique().max() == 1
    val = split[split["split"] == "val"].groupby("source")["patient_id"].nunique()
    # .15 / (1 - .2) of 60 and of 90; none where y keeps the people of x in training
    expected = {"x": 11, "y": 17} if "test" in other else {}
    assert val.to_dict() == pytest.approx(expected, abs=1)


def test_each_carved_source_gives_its_share() -> None:
    rows = [
        (f"{source}{kind}{i}", "ct", "ab"[i % 2], kind, source)
        for source, n in (("x", 160), ("y", 32))
        for kind in ("train", "test")
        for i in range(n)
    ]
    frame, target = manifest(rows)
    split = assign_splits(frame, target, CONFIG, 2)
    val = split[split["split"] == "val"].groupby("source")["patient_id"].nunique()
    assert val.to_dict() == {"x": 30, "y": 6}


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


def test_groups_take_the_place_of_patients() -> None:
    frame, target = manifest([(f"p{i}", "ct", "ab"[i % 2]) for i in range(60)])
    groups = pd.Series([f"g{i // 6}" for i in range(60)])
    split = assign_splits(frame, target, CONFIG, 1, groups)
    assert split["split"].groupby(groups).nunique().max() == 1
    # Ten groups: .65, .15 and .20 of them, and .5 may be rounded either way.
    counts = split["split"].value_counts()
    assert counts["test"] == 12
    assert (counts["train"], counts["val"]) in {(42, 6), (36, 12)}


def test_a_group_follows_its_published_member() -> None:
    rows = [(f"p{i}", "ct", "ab"[i % 2], "test" if i == 0 else None) for i in range(30)]
    frame, target = manifest(rows)
    groups = pd.Series([f"g{i // 3}" for i in range(30)])
    split = assign_splits(frame, target, CONFIG, 1, groups)
    assert split["split"].iloc[:3].tolist() == ["test"] * 3


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_every_patient_is_tested_in_one_fold_and_validated_in_one_at_most(folds: int) -> None:
    rows = [(f"p{i}", "ct", "ab"[i % 3 == 0], "train") for i in range(120) for _ in range(2)]
    frame, target = manifest(rows)
    tested: list[str] = []
    for fold in range(folds):
        config = SplitConfig(method="kfold", folds=folds, fold=fold, val=0.1)
        split = assign_splits(frame, target, config, 3)
        assert split.groupby("patient_id")["split"].nunique().max() == 1
        for name, n in (("a", 80), ("b", 40)):
            counts = _patients(split, target, "ct", name)
            assert counts["test"] == pytest.approx(n / folds, abs=1)
            assert counts["val"] == pytest.approx(n * 0.1, abs=1)
            assert counts["train"] > 0
        tested += split.loc[split["split"] == "test", "patient_id"].unique().tolist()
    assert sorted(tested) == sorted(frame["patient_id"].unique())


def test_folds_of_records_part_patients_and_groups_and_test_every_record_once() -> None:
    rows = [(f"p{i}", "ct", "ab"[i % 3 == 0], "train") for i in range(30) for _ in range(4)]
    frame, target = manifest(rows)
    groups = frame["patient_id"].str[:2]
    tested: list[str] = []
    for fold in range(5):
        config = SplitConfig(method="kfold", folds=5, fold=fold, val=0.1, unit="record")
        split = assign_splits(frame, target, config, 3, groups)
        counts = pd.crosstab(target, split["split"])
        assert counts["test"].to_dict() == {"a": 16, "b": 8}
        assert counts["val"].to_dict() == {"a": 8, "b": 4}
        assert split.groupby("patient_id")["split"].nunique().max() > 1
        tested += split.loc[split["split"] == "test", "record_id"].tolist()
    assert sorted(tested) == sorted(frame["record_id"])


@pytest.mark.parametrize("method", ["stratified", "time"])
def test_only_folds_can_deal_records(method: str) -> None:
    with pytest.raises(ValidationError, match="unit: record leaks on purpose"):
        SplitConfig(method=method, unit="record")


def test_folds_need_a_patient_of_each_class_each() -> None:
    frame, target = manifest([(f"p{i}", "ct", "ab"[i < 4]) for i in range(30)])
    config = SplitConfig(method="kfold", folds=5)
    with pytest.raises(StudyError, match="class b in ct: 4 patients, and 5 folds"):
        assign_splits(frame, target, config, 1)


def _multi_source() -> tuple[pd.DataFrame, pd.Series]:
    """30 patients of each of three sources in ct, 40 in cough of a fourth; p0 is in two."""
    rows = [(f"{s}{i}", "ct", "ab"[i % 2], "train", s) for s in "xyz" for i in range(30)]
    rows += [(f"w{i}", "cough", "ab"[i % 2], "train", "w") for i in range(40)]
    return manifest([*rows, ("x0", "ct", "a", "train", "y")])


def test_held_out_sources_are_the_test_set_of_their_modality() -> None:
    frame, target = _multi_source()
    frame["site"] = frame["patient_id"].where(frame["patient_id"] == "z5")
    config = SplitConfig(method="held_out", held_out=("x", "z5"))
    split = assign_splits(frame, target, config, 1)
    ct = split["modality"] == "ct"
    tested = set(split.loc[ct & (split["split"] == "test"), "patient_id"])
    assert tested == {f"x{i}" for i in range(30)} | {"z5"}
    assert split.groupby("patient_id")["split"].nunique().max() == 1
    rest = split[ct & ~split["patient_id"].isin(tested)].groupby("split")["patient_id"].nunique()
    # .15 / (1 - .2) of the 59 other patients
    assert rest.to_dict() == pytest.approx({"train": 48, "val": 11}, abs=1)
    coughs = split[~ct].groupby("split")["patient_id"].nunique().to_dict()
    assert coughs == {"train": 26, "val": 6, "test": 8}


def test_a_wrong_name_of_a_held_out_source_is_refused_with_the_nearest() -> None:
    frame, target = _multi_source()
    frame["source"] = frame["source"].map(lambda name: f"source-{name}")
    config = SplitConfig(method="held_out", held_out=("sorce-x",))
    with pytest.raises(StudyError, match=r"sorce-x: .* The nearest name is source-x"):
        assign_splits(frame, target, config, 1)


def test_holding_out_every_source_of_a_class_is_refused() -> None:
    frame, _ = _multi_source()
    target = frame["source"].map({"x": "a", "y": "b", "z": "b", "w": "a"})
    target[frame["source"] == "w"] = ["a", "b"] * 20
    target.iloc[-1] = "b"
    config = SplitConfig(method="held_out", held_out=("x",))
    with pytest.raises(StudyError, match="class a in ct: 0 patients, and train and val"):
        assign_splits(frame, target, config, 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=20, max_size=60), st.integers(0, 100))
def test_by_time_nothing_trained_on_is_newer_than_what_is_tested(days, seed: int) -> None:
    rows = [(f"p{i // 2}", "ct", "ab"[i // 2 % 2], "train") for i in range(2 * len(days))]
    frame, target = manifest(rows)
    first = pd.Timestamp("2020-01-01")
    dates = [
        str((first + pd.Timedelta(days=days[i // 2] - 30 * (i % 2))).date())
        for i in range(len(rows))
    ]
    split = assign_splits(frame.assign(date=dates), target, SplitConfig(method="time"), seed)
    assert split.groupby("patient_id")["split"].nunique().max() == 1
    latest = split.groupby("patient_id").agg({"date": "max", "split": "first"})
    tested = latest[latest["split"] == "test"]["date"]
    assert len(tested) == max(1, round(0.2 * len(latest)))
    assert latest[latest["split"] != "test"]["date"].max() <= tested.min()
    assert set(latest["split"]) == set(SPLITS)


def test_patients_without_a_date_are_not_tested_by_time() -> None:
    frame, target = manifest([(f"p{i}", "ct", "ab"[i % 2]) for i in range(60)])
    frame["date"] = [f"2020-{i % 12 + 1:02d}" if i < 30 else None for i in range(60)]
    split = assign_splits(frame, target, SplitConfig(method="time"), 1)
    tested = split[split["split"] == "test"]
    assert len(tested) == 6
    assert tested["date"].min() >= "2020-10"


@pytest.mark.parametrize("column", [True, False])
def test_by_time_needs_a_date(column: bool) -> None:
    frame, target = manifest([(f"p{i}", "ct", "ab"[i % 2]) for i in range(20)])
    frame = frame.assign(date=None) if column else frame.drop(columns="date")
    with pytest.raises(StudyError, match="ct records: none has a date"):
        assign_splits(frame, target, SplitConfig(method="time"), 1)


@pytest.mark.parametrize(
    "config",
    [
        SplitConfig(method="kfold", folds=3, fold=1),
        SplitConfig(method="held_out", held_out=("x",)),
        SplitConfig(method="time"),
    ],
    ids=lambda config: config.method,
)
def test_no_method_hangs_on_the_order_of_rows(config: SplitConfig) -> None:
    frame, target = _multi_source()
    frame["date"] = [f"2021-0{i % 9 + 1}" for i in range(len(frame))]
    order = frame.sample(frac=1, random_state=2).index
    first = assign_splits(frame, target, config, 4)
    again = assign_splits(frame.loc[order], target, config, 4)
    assert split_hash(again) == split_hash(first)
    assert split_hash(assign_splits(frame, target, config, 5)) != split_hash(first)
