"""Remarks that need more than one file to be made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pulmofuse.curation import read_files, remark_rows
from pulmofuse.curation.remarks import mark_shared_files
from pulmofuse.schema import Oddity
from tests.io import samples as s
from tests.io.test_series import axial, write

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


def seen(root: Path, path: str, modality: str = "ct") -> pd.DataFrame:
    """The remarks on one file or folder."""
    table = pd.DataFrame({"path": [path], "modality": [modality], "source": ["made up"]})
    files = read_files(table, root, None, lambda *_: None)
    assert files["reason"].isna().all()
    assert "flaws" not in json.loads(files["traits"].iloc[0])
    return remark_rows(files.assign(source="made up"))


def test_a_volume_tells_its_damaged_files_and_gaps(tmp_path: Path) -> None:
    folder = write(tmp_path / "scan7", axial([0, 1, 2, 4, 5]))
    (folder / "bad.dcm").write_bytes(b"\0" * 900)
    odd = seen(tmp_path, "scan7")
    odd = odd[odd["kind"] == "incomplete"]
    assert odd["path"].tolist() == ["scan7", "scan7"]
    assert "bad.dcm (nothing but zero bytes)" in odd["reason"].iloc[0]
    assert odd["reason"].iloc[1].startswith("1 slice missing: 1 between IM")
    assert odd["remedy"].str.len().min() > 10
    assert not odd["excluded"].any()


def test_a_whole_volume_has_no_such_remark(tmp_path: Path) -> None:
    write(tmp_path / "scan7", axial(range(5)))
    assert "incomplete" not in set(seen(tmp_path, "scan7")["kind"])


@pytest.mark.parametrize(
    ("stated", "modality", "remedy"),
    [
        ("MR", "ct", "leave it out: it is neither CT nor X-ray"),
        ("NM", "cxr", "leave it out: it is neither CT nor X-ray"),
        ("DX", "ct", "move it to the X-rays, or leave it out"),
        ("CT", "cxr", "move it to the CT images, or leave it out"),
    ],
)
def test_the_remedy_for_a_foreign_dicom_file_fits_what_it_is(
    tmp_path: Path, stated: str, modality: str, remedy: str
) -> None:
    pixels = s.picture(96, 96, np.uint16)
    (tmp_path / "a.dcm").write_bytes(s.dicom(pixels, stated))
    odd = seen(tmp_path, "a.dcm", modality)
    assert odd.loc[odd["kind"] == "wrong_modality", "remedy"].tolist() == [remedy]
