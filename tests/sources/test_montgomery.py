"""Montgomery: labels in names, DICOM-like readings, notes of the same patient, masks left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from pulmofuse.sources.montgomery import parse_reading
from pulmofuse.sources.nlm import Reading
from tests.sources.trees import touch

READINGS = {
    "MCUCXR_0001_0": "Patient's Sex: F \nPatient's Age: 027Y\nnormal\n",
    "MCUCXR_0162_1": "Patient's Sex: M \nPatient's Age: 049Y\ncavitary infiltrate\n",
    "MCUCXR_0170_1": "Patient's Sex: M\nPatient's Age: 049Y\nNO REPORT (same pt as MCUCXR_0162_1)",
}


def tree(root: Path, top: str = "") -> Path:
    for stem, text in READINGS.items():
        touch(root, f"{top}CXR_png/{stem}.png", f"{top}ManualMask/leftMask/{stem}.png")
        (root / f"{top}ClinicalReadings").mkdir(exist_ok=True, parents=True)
        (root / f"{top}ClinicalReadings/{stem}.txt").write_text(text)
    return root


@pytest.mark.parametrize("top", ["", "MontgomerySet/"])
def test_labels_people_and_who_is_the_same(tmp_path: Path, top: str) -> None:
    scan = scan_source("montgomery", tree(tmp_path, top))
    assert not scan.excluded
    columns = ["record_id", "patient_id", "label", "sex", "age", "view"]
    assert scan.records[columns].values.tolist() == [
        ["montgomery:MCUCXR_0001_0", "montgomery:MCUCXR_0001_0", "normal", "F", 27, "PA"],
        ["montgomery:MCUCXR_0162_1", "montgomery:MCUCXR_0162_1", "tuberculosis", "M", 49, "PA"],
        ["montgomery:MCUCXR_0170_1", "montgomery:MCUCXR_0162_1", "tuberculosis", "M", 49, "PA"],
    ]
    assert scan.records["findings"].tolist() == [
        '{"tuberculosis": 0}',
        '{"tuberculosis": 1}',
        '{"tuberculosis": 1}',
    ]
    assert not scan.records["patient_known"].any()


@pytest.mark.parametrize(
    ("stem", "same"), [("MCUCXR_0001_0", "MCUCXR_0162_1"), ("MCUCXR_0162_1", "MCUCXR_0001_0")]
)
def test_a_chain_of_notes_is_one_patient(tmp_path: Path, stem: str, same: str) -> None:
    root = tree(tmp_path)
    reading = root / f"ClinicalReadings/{stem}.txt"
    reading.write_text(reading.read_text() + f"same patient as {same}")
    assert scan_source("montgomery", root).records["patient_id"].nunique() == 1


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("Patient's Sex: O Patient's Age: 005Y normal", Reading("O", 5.0, None)),
        ("Patient's Sex: M Patient's Age: 006M normal", Reading("M", 0.5, None)),
        ("Patient's Sex:  Patient's Age: normal", Reading()),
        ("nodule of 12 mm", Reading()),
    ],
)
def test_a_reading(text: str, reading: Reading) -> None:
    assert parse_reading(text) == reading


def test_readings_and_images_must_agree(tmp_path: Path) -> None:
    root = touch(tree(tmp_path), "CXR_png/other.png")
    (root / "CXR_png/MCUCXR_0001_0.png").unlink()
    told = {e.path: e.reason for e in scan_source("montgomery", root).excluded}
    assert "has no label" in told["CXR_png/other.png"]
    assert told["CXR_png/MCUCXR_0001_0.png"].startswith("ClinicalReadings/MCUCXR_0001_0.txt names")


def test_a_reading_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "ClinicalReadings/MCUCXR_0001_0.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"MCUCXR_0001_0\.txt: cannot be read"):
        scan_source("montgomery", root)
