"""Remarks that need more than one file to be made."""

from __future__ import annotations

import json

import pandas as pd

from pulmofuse.curation import remark_rows
from pulmofuse.curation.remarks import mark_shared_files
from pulmofuse.schema import Oddity

BEFORE = json.dumps([{"kind": "clipped", "reason": "r", "remedy": "m"}])
ROWS = [
    ("ct/normal/a.png", "ct", "aa", BEFORE),
    ("cxr/normal/b.png", "cxr", "aa", "[]"),
    ("cxr/normal/c.png", "cxr", "aa", None),
    ("cxr/normal/d.png", "cxr", "bb", "[]"),
    ("cxr/normal/e.png", "cxr", "bb", "[]"),
    ("ct/normal/f.png", "ct", None, "[]"),
    ("cxr/normal/g.png", "cxr", None, "[]"),
]


def frame() -> pd.DataFrame:
    table = pd.DataFrame(ROWS, columns=["path", "modality", "sha256", "remarks"])
    return table.assign(source="made up").sample(frac=1.0, random_state=1)


def test_a_file_that_stands_under_two_modalities_is_remarked_in_both_places() -> None:
    marked = mark_shared_files(frame())
    rows = remark_rows(marked, [Oddity.WRONG_MODALITY]).set_index("path")
    wrong = rows[rows["kind"] == "wrong_modality"]
    assert set(wrong.index) == {f"{p}.png" for p in ("ct/normal/a", "cxr/normal/b", "cxr/normal/c")}
    assert wrong.loc["cxr/normal/b.png", "reason"] == (
        "cxr/normal/b.png, among CXR, is the same file as ct/normal/a.png, among CT"
    )
    assert wrong["excluded"].all()
    assert rows.loc["ct/normal/a.png", "kind"].tolist() == ["clipped", "wrong_modality"]


def test_copies_within_one_modality_and_unknown_contents_are_left_alone() -> None:
    before = frame().query("modality == 'cxr'")
    pd.testing.assert_frame_equal(mark_shared_files(before), before)
    unread = frame().query("sha256.isna()")
    pd.testing.assert_frame_equal(mark_shared_files(unread), unread)
