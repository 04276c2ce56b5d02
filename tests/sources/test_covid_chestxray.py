"""covid-chestxray-dataset: findings, patients, duplicates, missing files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pulmofuse.errors import SourceError
from pulmofuse.schema import Label
from pulmofuse.sources import scan_source
from pulmofuse.sources.covid_chestxray import parse_finding, stated_findings
from tests.sources.trees import cohen_tree


@pytest.mark.parametrize(
    ("finding", "label"),
    [
        ("COVID-19", Label.COVID19),
        ("COVID-19, ARDS", Label.COVID19),
        ("Pneumonia/Viral/COVID-19", Label.COVID19),
        ("Pneumonia/Viral/SARS", Label.PNEUMONIA),
        ("Pneumonia/Bacterial/Streptococcus", Label.PNEUMONIA),
        ("Pneumonia", Label.PNEUMONIA),
        ("SARS", Label.PNEUMONIA),
        ("Mycoplasma Bacterial Pneumonia", Label.PNEUMONIA),
        ("Tuberculosis", Label.TUBERCULOSIS),
        ("No Finding", Label.NORMAL),
        ("ARDS", Label.OTHER_ABNORMAL),
        ("todo", Label.UNKNOWN),
        ("Unknown", Label.UNKNOWN),
        ("something new", None),
        ("", None),
    ],
)
def test_findings(finding: str, label: Label | None) -> None:
    assert parse_finding(finding) is label


@pytest.mark.parametrize(
    ("finding", "stated"),
    [
        ("COVID-19", {"covid19": 1}),
        ("COVID-19, ARDS", {"covid19": 1, "ards": 1}),
        ("Pneumonia/Viral/COVID-19", {"pneumonia": 1, "covid19": 1}),
        ("Pneumonia/Bacterial/Streptococcus", {"pneumonia": 1}),
        ("SARS", {"pneumonia": 1}),
        ("Tuberculosis", {"tuberculosis": 1}),
        ("ARDS", {"ards": 1}),
        ("No Finding", {"pneumonia": 0, "ards": 0}),
        ("todo", {}),
        ("Unknown", {}),
    ],
)
def test_what_a_finding_says(finding: str, stated: dict[str, int]) -> None:
    assert stated_findings(finding) == stated


def test_findings_are_of_xrays_only(tmp_path: Path) -> None:
    root = cohen_tree(
        tmp_path, [row("1", "a.png"), row("1", "b.png", modality="CT"), row("2", "c.png", "todo")]
    )
    rows = scan_source("covid_chestxray", root).records
    assert dict(zip(rows["path"], rows["findings"], strict=True)) == {
        "images/a.png": '{"covid19": 1}',
        "images/b.png": None,
        "images/c.png": None,
    }


def row(patient: str, name: str, finding: str = "COVID-19", **other: str) -> tuple[str, ...]:
    cells = {"sex": "M", "age": "65", "view": "PA", "modality": "X-ray", "location": "Rome, Italy"}
    cells |= {"folder": "images"} | other
    return (
        patient,
        cells["sex"],
        cells["age"],
        finding,
        cells["view"],
        cells["modality"],
        cells["location"],
        cells["folder"],
        name,
    )


def test_xray_and_ct_of_one_patient_are_paired(tmp_path: Path) -> None:
    root = cohen_tree(
        tmp_path,
        [
            row("12", "a.jpg", view="L"),
            row("12", "b.png", modality="CT", view="Axial"),
            row("360b", "c d.png", "No Finding", location="?", sex="", age="", view="?"),
        ],
    )
    rows = scan_source("covid_chestxray", root).records.set_index("path")
    assert rows["patient_id"].to_dict() == {
        "images/a.jpg": "covid_chestxray:12",
        "images/b.png": "covid_chestxray:12",
        "images/c d.png": "covid_chestxray:360b",
    }
    assert rows["modality"].tolist() == ["cxr", "ct", "cxr"]
    assert rows.loc["images/a.jpg", ["view", "site", "age", "sex"]].tolist() == [
        "L",
        "Italy",
        65.0,
        "M",
    ]
    assert rows.loc["images/c d.png", ["view", "site", "sex"]].isna().all()
    assert rows.loc["images/c d.png", "label"] == "normal"


def test_a_clear_image_of_an_infected_patient_is_not_called_normal(tmp_path: Path) -> None:
    root = cohen_tree(tmp_path, [row("1", "a.jpg"), row("1", "b.jpg", "No Finding")])
    rows = scan_source("covid_chestxray", root).records.set_index("path")["label"]
    assert rows.to_dict() == {"images/a.jpg": "covid19", "images/b.jpg": "unknown"}


def test_ids_that_share_a_file_are_one_patient(tmp_path: Path) -> None:
    root = cohen_tree(
        tmp_path,
        [row("285", "a.jpg"), row("285", "b.jpg"), row("339", "b.jpg"), row("339", "c.jpg")],
    )
    scan = scan_source("covid_chestxray", root)
    assert set(scan.records["patient_id"]) == {"covid_chestxray:285"}
    assert len(scan.records) == 3
    assert [(e.path, e.reason) for e in scan.excluded] == [
        ("images/b.jpg", "metadata.csv names it twice")
    ]


def test_what_is_left_out_says_why(tmp_path: Path) -> None:
    root = cohen_tree(
        tmp_path,
        [
            row("1", "a.jpg"),
            row("2", "gone.jpg"),
            row("3", "new.jpg", "Silicosis"),
            row("4", "v.nii.gz", modality="CT", folder="volumes"),
            row("5", "echo.png", modality="Ultrasound"),
        ],
        missing=["gone.jpg", "v.nii.gz"],
    )
    (root / "images" / "stray.jpg").write_bytes(b"")
    scan = scan_source("covid_chestxray", root)
    assert list(scan.records["path"]) == ["images/a.jpg"]
    found = {e.path: e.reason for e in scan.excluded}
    assert set(found) == {
        "images/gone.jpg",
        "images/new.jpg",
        "volumes/v.nii.gz",
        "images/echo.png",
        "images/stray.jpg",
    }
    assert "Silicosis" in found["images/new.jpg"]
    assert "not on disk" in found["images/gone.jpg"]
    assert "does not name it" in found["images/stray.jpg"]


@pytest.mark.parametrize(
    ("published", "date"),
    [
        ("2020", "2020"),
        ("March 10, 2020", "2020-03-10"),
        ("Mar 3, 2020", "2020-03-03"),
        ("12 March 2020", "2020-03-12"),
        ("March 2003", "2003-03"),
        ("03/16/20", "2020-03-16"),
        ("3/7/2020", "2020-03-07"),
        ("January 12", None),
        ("?", None),
        ("", None),
    ],
)
def test_dates(tmp_path: Path, published: str, date: str | None) -> None:
    root = cohen_tree(tmp_path, [row("1", "a.jpg")])
    table = pd.read_csv(root / "metadata.csv", dtype=str).assign(date=published)
    table.to_csv(root / "metadata.csv", index=False)
    assert scan_source("covid_chestxray", root).records["date"].tolist() == [date]


@pytest.mark.parametrize(("offset", "day"), [("5", 5.0), ("-12", -12.0), ("?", None), ("", None)])
def test_days(tmp_path: Path, offset: str, day: float | None) -> None:
    root = cohen_tree(tmp_path, [row("1", "a.jpg")])
    table = pd.read_csv(root / "metadata.csv", dtype=str).assign(offset=offset)
    table.to_csv(root / "metadata.csv", index=False)
    (found,) = scan_source("covid_chestxray", root).records["day"]
    assert found == day if day is not None else pd.isna(found)


def test_a_missing_file_is_to_be_had_from_two_places(tmp_path: Path) -> None:
    root = cohen_tree(tmp_path, [row("1", "a.jpg")], missing=["a.jpg"])
    table = pd.read_csv(root / "metadata.csv", dtype=str).assign(url="https://example.org/case/4")
    table.to_csv(root / "metadata.csv", index=False)
    (left_out,) = scan_source("covid_chestxray", root).excluded
    assert left_out.remedy == (
        "get this file from https://github.com/ieee8023/covid-chestxray-dataset or"
        " https://example.org/case/4"
    )


@pytest.mark.parametrize("gone", ["metadata.csv", "images"])
def test_a_missing_part_is_named(tmp_path: Path, gone: str) -> None:
    root = cohen_tree(tmp_path, [row("1", "a.jpg")])
    (root / gone).rename(root / "moved")
    with pytest.raises(SourceError) as caught:
        scan_source("covid_chestxray", root)
    assert caught.value.what.endswith(gone)


@pytest.mark.data
def test_the_published_data(data_root: Path) -> None:
    scan = scan_source("covid_chestxray", data_root, "covid-chestxray-dataset")
    rows = scan.records
    assert rows.groupby(["modality", "label"]).size().to_dict() == {
        ("ct", "covid19"): 59,
        ("ct", "normal"): 1,
        ("ct", "unknown"): 3,
        ("cxr", "covid19"): 451,
        ("cxr", "normal"): 5,
        ("cxr", "other_abnormal"): 4,
        ("cxr", "pneumonia"): 96,
        ("cxr", "unknown"): 92,
    }
    both = rows.groupby("patient_id")["modality"].nunique() == 2
    assert both.sum() == 17
    # Counted with the csv module over the rows whose file is there: 527 dates with a year, and
    # seven cells without one ("?", "January 12").
    assert rows["date"].notna().sum() == 527
    reasons = [e.reason for e in scan.excluded]
    assert sum("not on disk" in reason for reason in reasons) == 35
    assert sum("twice" in reason for reason in reasons) == 5
    assert sum("does not name it" in reason for reason in reasons) == 13
