"""What the sources with label lists share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulmofuse.errors import SourceError
from pulmofuse.schema import Modality, Split
from pulmofuse.sources.base import Listing
from pulmofuse.sources.listed import (
    absent_lists,
    age_in_years,
    by_name,
    find_lists,
    read_lines,
)

LIST = re.compile(r"(train|val|test)(?:_v(\d))?\.txt")


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("058Y", 58.0),
        ("58", 58.0),
        ("45yrs", 45.0),
        ("006M", 0.5),
        ("16 month", 16 / 12),
        ("026W", 26 * 7 / 365.25),
        ("365D", 365 / 365.25),
        ("3.5 years", 3.5),
        ("130", 130.0),
        ("131", None),
        ("1600M", None),
        ("", None),
        ("young", None),
    ],
)
def test_age_in_years(text: str, age: float | None) -> None:
    assert age_in_years(text) == (None if age is None else pytest.approx(age))


@given(st.text())
def test_no_text_gives_an_age_that_a_manifest_refuses(text: str) -> None:
    age = age_in_years(text)
    assert age is None or 0 <= age <= 130


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf one \r\n\r\n two\r\n")
    assert read_lines(tmp_path / "a.txt", "") == [(1, "one"), (3, "two")]
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(SourceError, match="cannot be read"):
        read_lines(tmp_path / "a.txt", "get it again")


def test_lists_of_one_version(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no label list"):
        find_lists(tmp_path, LIST, "get it")
    for name in ("train_v2.txt", "test_v2.txt", "notes.txt"):
        (tmp_path / name).write_text("")
    version, lists = find_lists(tmp_path, LIST, "get it")
    assert version == "2"
    assert set(lists) == {Split.TRAIN, Split.TEST}
    (absent,) = absent_lists(lists, Split, Modality.CXR, "x", "get it")
    assert (absent.path, absent.remedy) == ("val_v2.txt", "get it")
    (tmp_path / "train.txt").write_text("")
    with pytest.raises(SourceError, match="2 versions"):
        find_lists(tmp_path, LIST, "get it")


def test_names_are_found_wherever_they_lie() -> None:
    listing = Listing(("a/1.png", "a/2.txt", "b/1.png", "b/3.png"), ())
    paths, excluded = by_name(listing, Modality.CXR, "x")
    assert paths == {"1.png": "a/1.png", "3.png": "b/3.png"}
    assert {e.path: e.reason for e in excluded} == {
        "a/2.txt": ".txt is not a cxr file",
        "b/1.png": "a file of the same name stands at a/1.png",
    }
