"""RSNA pneumonia: classes, boxes, the mapping to NIH patients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from tests.sources.trees import touch

CLASSES = (
    "patientId,class\n"
    "aa,No Lung Opacity / Not Normal\n"
    "bb,Normal\n"
    "cc,Lung Opacity\n"
    "cc,Lung Opacity\n"
)
BOXES = (
    "patientId,x,y,width,height,Target\n"
    "aa,,,,,0\nbb,,,,,0\n"
    "cc,264.0,152.0,213.0,379.0,1\ncc,562.0,152.0,256.0,453.0,1\n"
)


def tree(root: Path, classes: str = CLASSES, boxes: str | None = BOXES) -> Path:
    (root / "stage_2_detailed_class_info.csv").write_text(classes)
    if boxes is not None:
        (root / "stage_2_train_labels.csv").write_text(boxes)
    return touch(root, *(f"stage_2_train_images/{image}.dcm" for image in ("aa", "bb", "cc")))


def mapping(root: Path, entries: object) -> Path:
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(entries))
    return root


@pytest.mark.parametrize("boxes", [BOXES, None])
def test_classes_and_unknown_patients(tmp_path: Path, boxes: str | None) -> None:
    scan = scan_source("rsna_pneumonia", tree(tmp_path, boxes=boxes))
    assert not scan.excluded
    assert scan.records[["record_id", "label"]].values.tolist() == [
        ["rsna_pneumonia:aa", "other_abnormal"],
        ["rsna_pneumonia:bb", "normal"],
        ["rsna_pneumonia:cc", "pneumonia"],
    ]
    assert [json.loads(text) for text in scan.records["findings"]] == [
        {"pneumonia": 0, "lung_opacity": 0},
        {"pneumonia": 0, "lung_opacity": 0},
        {"pneumonia": 1, "lung_opacity": 1},
    ]
    assert not scan.records["patient_known"].any()
    assert scan.records["patient_id"].is_unique


def test_the_mapping_tells_the_patients(tmp_path: Path) -> None:
    entries = [
        {"img_id": "00000007_001.png", "subset_img_id": "aa", "SOPInstanceUID": "1"},
        {"img_id": "00000007_004.png", "subset_img_id": "bb"},
    ]
    rows = scan_source("rsna_pneumonia", mapping(tree(tmp_path), entries)).records
    assert rows["patient_id"].tolist() == [
        "rsna_pneumonia:nih_00000007",
        "rsna_pneumonia:nih_00000007",
        "rsna_pneumonia:cc",
    ]
    assert rows["patient_known"].tolist() == [True, True, False]


def test_tables_and_disk_must_agree(tmp_path: Path) -> None:
    root = tree(tmp_path, boxes=BOXES.replace("bb,,,,,0", "bb,1,1,1,1,1"))
    (root / "stage_2_train_images/aa.dcm").unlink()
    touch(root, "stage_2_train_images/dd.dcm", "stage_2_test_images/ee.dcm")
    scan = scan_source("rsna_pneumonia", root)
    assert scan.records["record_id"].tolist() == ["rsna_pneumonia:cc"]
    table = "stage_2_detailed_class_info.csv"
    assert {e.path: e.reason for e in scan.excluded} == {
        "stage_2_train_images/aa.dcm": f"{table} names it, but it is not on disk",
        "stage_2_train_images/bb.dcm": (
            f"its Target in stage_2_train_labels.csv contradicts its class in {table}"
        ),
        "stage_2_train_images/dd.dcm": f"{table} does not name it",
        "stage_2_test_images/ee.dcm": f"{table} does not name it",
    }


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ("patientId,class\naa,Sick\n", "line 2: needs a patientId and a class"),
        ("patientId,class\n,Normal\n", "line 2"),
        (CLASSES + "cc,Normal\n", "line 6: contradicts an earlier row of cc"),
        ("patientId\naa\n", "column class is missing"),
    ],
)
def test_a_faulty_table_is_an_error(tmp_path: Path, classes: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        scan_source("rsna_pneumonia", tree(tmp_path, classes))


@pytest.mark.parametrize(
    "entries", [{}, ["x"], [{"img_id": "7.png", "subset_img_id": "aa"}], [{"img_id": "a"}]]
)
def test_a_faulty_mapping_is_an_error(tmp_path: Path, entries: object) -> None:
    with pytest.raises(SourceError, match="entry 1"):
        scan_source("rsna_pneumonia", mapping(tree(tmp_path), entries))
    (tmp_path / "pneumonia-challenge-dataset-mappings_2018.json").write_text("{")
    with pytest.raises(SourceError, match="cannot be read as JSON"):
        scan_source("rsna_pneumonia", tmp_path)


@pytest.mark.parametrize("missing", ["stage_2_train_images", "stage_2_detailed_class_info.csv"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    (tree(tmp_path) / missing).rename(tmp_path / "moved")
    with pytest.raises(SourceError, match=missing):
        scan_source("rsna_pneumonia", tmp_path)
