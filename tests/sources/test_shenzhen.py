"""Shenzhen: labels in names, sex and age in free text."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from pulmofuse.sources.shenzhen import read_person
from tests.sources.trees import touch


def tree(root: Path, top: str = "") -> Path:
    touch(
        root,
        f"{top}CXR_png/CHNCXR_0001_0.png",
        f"{top}CXR_png/CHNCXR_0327_1.png",
        f"{top}CXR_png/Thumbs.db",
        f"{top}CXR_png/scan.png",
        f"{top}ClinicalReadings/.keep",
    )
    for stem, text in (
        ("CHNCXR_0001_0", "male 45yrs\nnormal\n"),
        ("CHNCXR_0400_1", "Female , 24yr\nbilateral PTB"),
    ):
        (root / f"{top}ClinicalReadings/{stem}.txt").write_text(text)
    return root


@pytest.mark.parametrize("top", ["", "ChinaSet_AllFiles/"])
def test_labels_people_and_what_is_missing(tmp_path: Path, top: str) -> None:
    scan = scan_source("shenzhen", tree(tmp_path, top))
    rows = scan.records[["record_id", "label", "sex", "age"]].fillna("-")
    assert rows.values.tolist() == [
        ["shenzhen:CHNCXR_0001_0", "normal", "M", 45],
        ["shenzhen:CHNCXR_0327_1", "tuberculosis", "-", "-"],
    ]
    assert not scan.records["patient_known"].any()
    told = {e.path: e.reason for e in scan.excluded}
    assert set(told) == {
        f"{top}CXR_png/{name}" for name in ("Thumbs.db", "scan.png", "CHNCXR_0400_1.png")
    }
    assert "not on disk" in told[f"{top}CXR_png/CHNCXR_0400_1.png"]
    assert "has no label" in told[f"{top}CXR_png/scan.png"]


@pytest.mark.parametrize(
    ("text", "sex", "age"),
    [
        ("male 45yrs", "M", 45.0),
        ("Female , 24yr", "F", 24.0),
        ("femal 32yrs", "F", 32.0),
        ("female24yrs", "F", 24.0),
        ("male 18month", "M", 1.5),
        ("female 64days", "F", 64 / 365.25),
        ("male 42", "M", 42.0),
        ("male 450yrs", "M", None),
        ("normal", None, None),
    ],
)
def test_who_a_reading_is_about(text: str, sex: str | None, age: float | None) -> None:
    assert read_person(text) == (sex, pytest.approx(age) if age is not None else None)


def test_numbers_in_the_reading_are_no_age(tmp_path: Path) -> None:
    root = tree(tmp_path)
    reading = root / "ClinicalReadings/CHNCXR_0001_0.txt"
    reading.write_text("male\nnodule of 12 mm")
    rows = scan_source("shenzhen", root).records
    assert rows["age"].isna().all()


def test_images_suffice_and_their_folder_is_needed(tmp_path: Path) -> None:
    assert len(scan_source("shenzhen", touch(tmp_path, "CXR_png/CHNCXR_0001_0.png")).records) == 1
    (tmp_path / "CXR_png").rename(tmp_path / "png")
    with pytest.raises(SourceError, match="CXR_png: it is missing"):
        scan_source("shenzhen", tmp_path)
