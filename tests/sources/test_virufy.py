"""Virufy clinical: segments and whole recordings, PCR results, names that say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from tests.sources.trees import touch

HEADER = (
    "date,corona_test,age,gender,medical_history,smoker,patient_reported_symptoms,cough_filename"
)
NEGATIVE = '4/21/2020,negative,53,male,"None,",yes,"None,",neg-0421-083-cough-m-53.mp3'
POSITIVE = '4/22/2020,positive,24,female,"Asthma,",no,"Fever,",pos-0422-098-cough-f-24.mp3'


def tree(root: Path, *rows: str, files: tuple[str, ...] = ()) -> Path:
    """The clinical folder with the table rows and the recordings given."""
    touch(root, *(f"clinical/{name}" for name in files))
    (root / "clinical").mkdir(exist_ok=True)
    (root / "clinical" / "labels.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return root


def test_the_segments_of_a_patient_belong_together(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        NEGATIVE,
        POSITIVE,
        files=(
            "original/neg/neg-0421-083-cough-m-53.mp3",
            "segmented/neg/neg-0421-083-cough-m-53-0.mp3",
            "segmented/neg/neg-0421-083-cough-m-53-11.mp3",
            "original/pos/pos-0422-098-cough-f-24.mp3",
        ),
    )
    scan = scan_source("virufy", root)
    columns = ["path", "patient_id", "patient_known", "label", "age", "sex", "date"]
    assert scan.records[columns].to_numpy().tolist() == [
        ["clinical/original/pos/pos-0422-098-cough-f-24.mp3",
         "virufy:0422-098", True, "covid19", 24.0, "F", "2020-04-22"],
        ["clinical/segmented/neg/neg-0421-083-cough-m-53-0.mp3",
         "virufy:0421-083", True, "not_covid19", 53.0, "M", "2020-04-21"],
        ["clinical/segmented/neg/neg-0421-083-cough-m-53-11.mp3",
         "virufy:0421-083", True, "not_covid19", 53.0, "M", "2020-04-21"],
    ]  # fmt: skip
    assert [(e.path, e.reason) for e in scan.excluded] == [
        ("clinical/original/neg/neg-0421-083-cough-m-53.mp3",
         "its 2 coughs are in clinical/segmented"),
    ]  # fmt: skip


def test_table_and_disk_must_agree(tmp_path: Path) -> None:
    files = ("segmented/pos/pos-0421-084-cough-m-50-0.mp3", "original/neg/notes.mp3", "a.txt")
    scan = scan_source("virufy", tree(tmp_path, NEGATIVE, files=files))
    assert scan.records.empty
    assert {e.path: e.reason for e in scan.excluded} == {
        "clinical/segmented/pos/pos-0421-084-cough-m-50-0.mp3":
            "clinical/labels.csv does not name its recording",
        "clinical/original/neg/notes.mp3": "clinical/labels.csv does not name its recording",
        "clinical/original/neg/neg-0421-083-cough-m-53.mp3":
            "clinical/labels.csv names it, but it is not on disk",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([NEGATIVE.replace("negative", "positive")], "line 2: the test is positive, and the file"),
        ([POSITIVE, NEGATIVE.replace("negative", "")], "line 3: needs a cough_filename"),
        ([NEGATIVE.replace("neg-0421", "neg_0421")], "line 2: needs a cough_filename"),
        ([NEGATIVE, NEGATIVE.replace(",53,", ",54,")], "line 3: contradicts an earlier row"),
    ],
)
def test_a_faulty_table_is_an_error(tmp_path: Path, rows: list[str], why: str) -> None:
    with pytest.raises(SourceError, match=why):
        scan_source("virufy", tree(tmp_path, *rows))
