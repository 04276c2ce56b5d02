"""Copies: contradicting ones go altogether, exact ones down to one, published splits stay."""

from __future__ import annotations

from itertools import combinations

import pandas as pd
import pytest

from pulmofuse.curation.copies import no_pairs
from pulmofuse.curation.duplicates import drop_duplicates

Row = tuple[str, str, str | None, str | None]


def _records(*rows: Row) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["record_id", "content", "y_true", "split"]).astype(object)
    return frame.assign(
        path=frame["record_id"] + ".png", modality="ct", source="s", label=frame["y_true"]
    )


def _pairs(records: pd.DataFrame, *near: tuple[str, str]) -> pd.DataFrame:
    """Exact pairs of equal content, and the near pairs given."""
    rows = [
        (a, b, "exact", 1.0)
        for _, own in records.groupby("content")
        for a, b in combinations(own["record_id"], 2)
    ]
    rows += [(a, b, "near", 0.95) for a, b in near]
    columns = ["record_a", "record_b", "kind", "score"]
    return pd.DataFrame(rows, columns=columns) if rows else no_pairs()


@pytest.mark.parametrize(
    ("rows", "near", "kept"),
    [
        ([("a", "1", "x", None), ("b", "2", "y", None)], [], ["a", "b"]),
        ([("b", "1", "x", None), ("a", "1", "x", None)], [], ["a"]),
        ([("a", "1", "x", None), ("b", "1", "y", None), ("c", "2", "x", None)], [], ["c"]),
        ([("a", "1", "x", "train"), ("b", "1", "x", "test")], [], ["a", "b"]),
        ([("a", "1", "x", "train"), ("b", "1", "y", "test")], [], []),
        ([("a", "1", "x", None), ("b", "1", "x", "test")], [], ["b"]),
        ([("a", "1", "x", "test"), ("b", "1", "x", None), ("c", "1", "x", None)], [], ["a"]),
        (
            [
                ("a", "1", "x", None),
                ("b", "1", "x", "train"),
                ("c", "1", "x", "test"),
                ("d", "2", "x", None),
                ("e", "2", "x", None),
            ],
            [],
            ["b", "c", "d"],
        ),
        ([("a", "1", "x", None), ("b", "2", "x", None)], [("a", "b")], ["a", "b"]),
        ([("a", "1", "x", None), ("b", "2", "y", None)], [("a", "b")], []),
        (
            [("a", "1", "x", None), ("b", "2", "x", None), ("c", "3", "y", "test")],
            [("a", "b"), ("b", "c")],
            [],
        ),
        ([("a", "1", "x", None), ("b", "1", "x", None), ("c", "2", "y", None)], [("b", "c")], []),
    ],
    ids=[
        "no copies",
        "copies",
        "contradiction",
        "published split",
        "published contradiction",
        "free copy before its placed one",
        "free copies after their placed one",
        "each content by itself",
        "near copies of one class",
        "near copies of two classes",
        "a near copy of a near copy of another class",
        "an exact copy of a near copy of another class",
    ],
)
def test_which_records_are_kept(rows: list[Row], near, kept: list[str]) -> None:
    records = _records(*rows)
    left, exclusions, out = drop_duplicates(records, _pairs(records, *near))
    assert left["record_id"].tolist() == kept
    assert {e.path for e in exclusions} == set(out["path"])
    together = sorted([*left["record_id"], *out["record_id"]])
    assert together == sorted(records["record_id"])
    assert list(left.columns) == list(out.columns) == list(records.columns)


def test_the_reason_names_the_labels_and_the_remedy_the_copy_that_stays() -> None:
    records = _records(
        ("a", "1", "x", None),
        ("b", "1", "y", None),
        ("c", "2", "x", None),
        ("d", "2", "x", None),
        ("e", "3", "x", None),
        ("f", "3", "x", "test"),
    )
    _, exclusions, _ = drop_duplicates(records, _pairs(records))
    copy = "an exact copy of another file"
    assert {e.path: e.reason for e in exclusions} == {
        "a.png": "the same content is labelled x and y",
        "b.png": "the same content is labelled x and y",
        "d.png": copy,
        "e.png": copy,
    }
    kept = {e.path: e.remedy for e in exclusions if e.reason == copy}
    assert kept == {
        "d.png": "none needed: c.png is kept",
        "e.png": "none needed: f.png is kept",
    }


def test_a_label_that_is_a_set_does_not_contradict_its_members() -> None:
    records = _records(("a", "1", None, None), ("b", "1", None, None), ("c", "2", None, None))
    records["label"] = ["normal", "not_covid19", "covid19"]
    pairs = _pairs(records)
    assert drop_duplicates(records, pairs)[0]["record_id"].tolist() == ["a", "c"]
    pairs = _pairs(records, ("b", "c"))
    assert drop_duplicates(records, pairs)[0].empty


def test_two_members_of_a_set_contradict_each_other_through_it() -> None:
    """a and c are never listed as a pair, but both are copies of b."""
    records = _records(("a", "1", None, None), ("b", "2", None, None), ("c", "3", None, None))
    records["label"] = ["normal", "not_covid19", "pneumonia"]
    assert drop_duplicates(records, _pairs(records, ("a", "b"), ("b", "c")))[0].empty


def test_pairs_of_records_that_are_not_there_are_passed_over() -> None:
    records = _records(("a", "1", "x", None), ("b", "2", "y", None))
    kept, _, _ = drop_duplicates(records, _pairs(records, ("a", "gone"), ("gone", "b")))
    assert len(kept) == 2


def test_the_result_does_not_hang_on_the_order_of_rows() -> None:
    records = _records(*[(f"r{i:02d}", str(i % 9), "xy"[i % 9 > 6 and i > 20], None)
                         for i in range(30)])  # fmt: skip
    pairs = _pairs(records)
    first, _, _ = drop_duplicates(records, pairs)
    again, _, _ = drop_duplicates(records.iloc[::-1], pairs.sample(frac=1, random_state=1))
    assert sorted(again["record_id"]) == sorted(first["record_id"])
    assert again.index.tolist() == sorted(first.index, reverse=True)


def test_a_copy_with_a_label_outside_the_study_contradicts_too() -> None:
    records = _records(("a", "1", "x", None), ("b", "2", "x", None), ("c", "3", "x", None))
    unused = _records(("u", "1", None, None), ("v", "3", None, None), ("w", "4", None, None))
    records["label"] = ["covid19", "covid19", "covid19"]
    unused["label"] = ["tuberculosis", "covid19", "normal"]
    pairs = _pairs(pd.concat([records, unused], ignore_index=True))
    kept, exclusions, copies = drop_duplicates(records, pairs, unused)
    assert kept["record_id"].tolist() == ["b", "c"]
    assert [(e.path, e.reason) for e in exclusions] == [
        ("a.png", "the same content is labelled tuberculosis and x")
    ]
    assert copies["record_id"].tolist() == ["a", "u"]


def test_an_unused_copy_does_not_push_a_record_out() -> None:
    records, unused = _records(("b", "1", "x", None)), _records(("a", "1", None, "train"))
    unused["label"] = records["label"] = "covid19"
    pairs = _pairs(pd.concat([records, unused], ignore_index=True))
    kept, exclusions, copies = drop_duplicates(records, pairs, unused)
    assert kept["record_id"].tolist() == ["b"]
    assert exclusions == ()
    assert copies.empty
