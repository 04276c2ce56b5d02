"""Copies: contradicting ones go altogether, others down to one, published splits stay."""

from __future__ import annotations

import pandas as pd
import pytest

from pulmofuse.curation import drop_duplicates


def _records(*rows: tuple[str, str, str, str | None]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["record_id", "sha256", "y_true", "split"])
    return frame.assign(path=frame["record_id"] + ".png", modality="ct", source="s")


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([("a", "1", "x", None), ("b", "2", "y", None)], ["a", "b"]),
        ([("b", "1", "x", None), ("a", "1", "x", None)], ["a"]),
        ([("a", "1", "x", None), ("b", "1", "y", None), ("c", "2", "x", None)], ["c"]),
        ([("a", "1", "x", "train"), ("b", "1", "x", "test")], ["a", "b"]),
        ([("a", "1", "x", "train"), ("b", "1", "y", "test")], []),
        ([("a", "1", "x", None), ("b", "1", "x", "test")], ["b"]),
        ([("a", "1", "x", "test"), ("b", "1", "x", None), ("c", "1", "x", None)], ["a"]),
        (
            [
                ("a", "1", "x", None),
                ("b", "1", "x", "train"),
                ("c", "1", "x", "test"),
                ("d", "2", "x", None),
                ("e", "2", "x", None),
            ],
            ["b", "c", "d"],
        ),
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
    ],
)
def test_which_records_are_kept(
    rows: list[tuple[str, str, str, str | None]], kept: list[str]
) -> None:
    records, exclusions, _ = drop_duplicates(_records(*rows))
    assert records["record_id"].tolist() == kept
    assert len(exclusions) == len(rows) - len(kept)


def test_the_reason_names_the_labels_and_the_remedy_the_copy_that_stays() -> None:
    rows = [
        ("a", "1", "x", None),
        ("b", "1", "y", None),
        ("c", "2", "x", None),
        ("d", "2", "x", None),
        ("e", "3", "x", None),
        ("f", "3", "x", "test"),
    ]
    _, exclusions, contradictions = drop_duplicates(_records(*rows))
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
    assert contradictions == 1


def test_contradictions_are_counted_by_content_not_by_file() -> None:
    rows = [(f"{sha}{i}", sha, "xy"[i % 2], None) for sha in "12" for i in range(3)]
    kept, exclusions, contradictions = drop_duplicates(_records(*rows, ("z", "3", "x", None)))
    assert (kept["record_id"].tolist(), len(exclusions), contradictions) == (["z"], 6, 2)
    assert drop_duplicates(kept)[2] == 0


def test_the_same_bytes_in_two_modalities_are_not_copies() -> None:
    records = _records(("a", "1", "x", None), ("b", "1", "y", None))
    records["modality"] = ["ct", "cxr"]
    assert len(drop_duplicates(records)[0]) == 2
