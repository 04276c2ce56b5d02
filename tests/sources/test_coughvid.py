"""COUGHVID: what people said of themselves, the cough detector, two files of one recording."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from tests.sources.trees import touch

HEADER = (
    ",uuid,datetime,cough_detected,SNR,age,gender,respiratory_condition,status,status_SSL,"
    "quality_1,diagnosis_1,quality_2"
)
DAY = "2020-04-13T21:30:59.801831+00:00"


def tree(root: Path, *rows: str, header: str = HEADER) -> Path:
    """COUGHVID with the table rows given and no recording."""
    numbered = [f"{number},{row}" for number, row in enumerate(rows)]
    (root / "metadata_compiled.csv").write_text("\n".join([header, *numbered]) + "\n")
    return root


@pytest.mark.parametrize(
    ("status", "condition", "label"),
    [
        ("COVID-19", "False", "covid19"),
        ("COVID-19", "True", "covid19"),
        ("healthy", "False", "normal"),
        ("healthy", "True", "unknown"),
        ("healthy", "", "normal"),
        ("symptomatic", "False", "unknown"),
        ("", "", "unknown"),
    ],
)
def test_labels(tmp_path: Path, status: str, condition: str, label: str) -> None:
    root = tree(tmp_path, f"u1,{DAY},0.96,16.1,15.0,male,{condition},{status},COVID-19,,COVID-19,")
    (record,) = scan_source("coughvid", touch(root, "u1.webm")).records.to_dict("records")
    assert record["label"] == label


def test_what_is_known_of_a_recording(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        f"u1,{DAY},0.8,16.1,15.0,male,False,healthy,,good,healthy_cough,",
        "u2,,1.0,,,,,,,,,",
    )
    touch(root, "coughvid_20211012/u1.ogg", "coughvid_20211012/u1.json", "u2.WAV")
    rows = scan_source("coughvid", root).records.set_index("record_id")
    assert rows["path"].tolist() == ["coughvid_20211012/u1.ogg", "u2.WAV"]
    assert rows.loc["coughvid:u1", ["age", "sex", "date"]].tolist() == [15.0, "M", "2020-04-13"]
    assert rows.loc["coughvid:u2", ["age", "sex", "date", "site"]].isna().all()
    assert rows["patient_id"].is_unique
    assert not rows["patient_known"].any()


def test_what_is_left_out_says_why(tmp_path: Path) -> None:
    kept = f"{DAY},0.9,16.1,15.0,male,False,healthy,,,,"
    root = tree(
        tmp_path,
        f"u1,{kept}",
        f"u2,{DAY},0.7999,16.1,15.0,male,False,healthy,,,,",
        f"u3,{DAY},,16.1,15.0,male,False,healthy,,,,",
        f"u4,{DAY},0.9,16.1,15.0,male,False,healthy,,good,,no_cough",
        f"u5,{DAY},0.9,16.1,15.0,male,False,cured,,,,",
        f"u6,{kept}",
        f"u1,{kept}",
    )
    touch(root, *(f"{name}.webm" for name in ("u1", "u2", "u3", "u4", "u5", "stray")), "u1.wav")
    scan = scan_source("coughvid", root)
    assert scan.records["path"].tolist() == ["u1.webm"]
    found = {(e.path, e.reason) for e in scan.excluded}
    assert found == {
        ("u1.webm", "metadata_compiled.csv names it twice"),
        ("u1.wav", "the same recording as u1.webm"),
        ("u2.webm", "a cough is in it with probability 0.7999 < 0.8"),
        ("u3.webm", "the table does not say whether there is a cough"),
        ("u4.webm", "an expert heard no cough in it"),
        ("u5.webm", "status 'cured' has no label"),
        ("u6", "metadata_compiled.csv names it, but it is not on disk"),
        ("stray.webm", "metadata_compiled.csv does not name it"),
    }
    assert all(e.remedy for e in scan.excluded)


def test_a_missing_or_foreign_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"metadata_compiled\.csv: the file is missing.*zenodo"):
        scan_source("coughvid", tmp_path)
    with pytest.raises(SourceError, match="column cough_detected is missing"):
        scan_source("coughvid", tree(tmp_path, header=HEADER.replace("cough_detected", "p")))
