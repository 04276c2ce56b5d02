"""covid19-cough: table, channels, faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from tests.sources.trees import cough_tree

ROWS: list[dict[str, object]] = [
    {"filename": "a.mp3", "covid19": True, "source": "telegram", "verified": True},
    {"filename": "b.mp3", "covid19": False, "source": "call-center"},
]


def test_labels_channels_and_unknown_patients(tmp_path: Path) -> None:
    scan = scan_source("covid19_cough", cough_tree(tmp_path, ROWS, ["a.mp3", "b.mp3"]))
    rows = scan.records.set_index("record_id")
    assert rows["label"].to_dict() == {
        "covid19_cough:a.mp3": "covid19",
        "covid19_cough:b.mp3": "not_covid19",
    }
    assert rows["site"].tolist() == ["telegram", "call-center"]
    assert rows["patient_id"].is_unique
    assert not rows["patient_known"].any()
    assert not scan.excluded


def test_table_and_disk_must_agree(tmp_path: Path) -> None:
    scan = scan_source("covid19_cough", cough_tree(tmp_path, ROWS, ["a.mp3", "stray.mp3"]))
    assert len(scan.records) == 1
    assert {e.path: e.reason for e in scan.excluded} == {
        "raw/b.mp3": "metadata.json names it, but it is not on disk",
        "raw/stray.mp3": "metadata.json does not name it",
    }
    assert any("get this file from https://github.com/" in e.remedy for e in scan.excluded)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{"filename": "a.mp3", "source": "t"}], "entry 1: needs a filename and covid19"),
        ([{"covid19": True}], "entry 1: needs a filename"),
        ([{"filename": "a.mp3", "covid19": "yes"}], "entry 1: needs a filename"),
        ([*ROWS, {"filename": "a.mp3", "covid19": False}], "entry 3: contradicts"),
        (["a.mp3"], "entry 1: needs a filename"),
    ],
)
def test_a_faulty_table_is_an_error(
    tmp_path: Path, rows: list[dict[str, object]], why: str
) -> None:
    with pytest.raises(SourceError, match=why):
        scan_source("covid19_cough", cough_tree(tmp_path, rows, ["a.mp3"]))


@pytest.mark.parametrize("text", ["{}", "nonsense", ""])
def test_a_table_that_is_no_list_is_an_error(tmp_path: Path, text: str) -> None:
    root = cough_tree(tmp_path, [], ["a.mp3"])
    (root / "metadata.json").write_text(text)
    with pytest.raises(SourceError, match=r"metadata\.json"):
        scan_source("covid19_cough", root)


@pytest.mark.data
def test_the_published_data(data_root: Path) -> None:
    scan = scan_source("covid19_cough", data_root, "covid19-cough")
    assert not scan.excluded
    assert scan.records.groupby(["site", "label"]).size().to_dict() == {
        ("call-center", "covid19"): 496,
        ("call-center", "not_covid19"): 204,
        ("telegram", "covid19"): 186,
        ("telegram", "not_covid19"): 438,
    }
