"""COVID-CT: official split, patient tables, mismatches."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from tests.sources.trees import covid_ct_tree, touch


def test_rows_carry_label_split_and_patient(tmp_path: Path) -> None:
    scan = scan_source("covid_ct", covid_ct_tree(tmp_path))
    rows = scan.records.set_index("record_id")
    assert rows["split"].to_dict() == {
        "covid_ct:CT_COVID/a%0.png": "train",
        "covid_ct:CT_COVID/a%1.png": "train",
        "covid_ct:CT_COVID/b.10.1-p2.png": "val",
        "covid_ct:CT_COVID/c.png": "test",
        "covid_ct:CT_NonCOVID/0.jpg": "train",
        "covid_ct:CT_NonCOVID/1%0.jpg": "val",
        "covid_ct:CT_NonCOVID/12.png": "test",
    }
    assert set(rows[rows["label"] == "covid19"].index.str.contains("CT_COVID")) == {True}
    patient = rows["patient_id"]
    assert patient["covid_ct:CT_COVID/a%0.png"] == patient["covid_ct:CT_COVID/a%1.png"]
    assert patient["covid_ct:CT_COVID/b.10.1-p2.png"] == "covid_ct:Patient 2"
    assert not rows.loc["covid_ct:CT_COVID/c.png", "patient_known"]
    assert rows.loc["covid_ct:CT_NonCOVID/12.png", "site"] == "medpix"
    assert rows.loc["covid_ct:CT_COVID/a%0.png", "age"] == 41
    assert rows.loc["covid_ct:CT_COVID/a%1.png", "sex"] == "F"
    assert rows.loc[["covid_ct:CT_COVID/a%1.png"], "age"].isna().all()
    assert not scan.excluded


def test_mismatches_between_split_and_disk_are_excluded(tmp_path: Path) -> None:
    root = covid_ct_tree(tmp_path)
    (root / "Images-processed/CT_COVID/c.png").unlink()
    touch(root, "Images-processed/CT_NonCOVID/extra.png")
    scan = scan_source("covid_ct", root)
    found = {e.path.removeprefix("Images-processed/"): e.reason for e in scan.excluded}
    assert found == {
        "CT_COVID/c.png": "the official test split names it, but it is not on disk",
        "CT_NonCOVID/extra.png": "no file of the official split names it",
    }
    assert "unpack Images-processed/CT_COVID.zip again" in {e.remedy for e in scan.excluded}
    assert len(scan.records) == 6


def test_without_tables_every_image_is_a_patient_of_its_own(tmp_path: Path) -> None:
    root = covid_ct_tree(tmp_path)
    (root / "COVID-CT-MetaInfo.xlsx").unlink()
    (root / "NonCOVID-CT-MetaInfo.csv").unlink()
    rows = scan_source("covid_ct", root).records
    assert rows["patient_id"].is_unique
    assert not rows["patient_known"].any()


@pytest.mark.parametrize(
    "gone",
    ["Images-processed/CT_COVID", "Data-split/NonCOVID/valCT_NonCOVID.txt"],
)
def test_a_missing_part_is_named(tmp_path: Path, gone: str) -> None:
    root = covid_ct_tree(tmp_path)
    (root / gone).rename(root / "moved")
    with pytest.raises(SourceError) as caught:
        scan_source("covid_ct", root)
    assert gone in caught.value.what
    assert "github.com/UCSD-AI4H/COVID-CT" in caught.value.remedy


def test_an_image_in_two_splits_is_an_error(tmp_path: Path) -> None:
    root = covid_ct_tree(tmp_path)
    (root / "Data-split/COVID/testCT_COVID.txt").write_text("c.png\na%0.png\n")
    with pytest.raises(SourceError, match=r"a%0\.png, which is in the train split as well"):
        scan_source("covid_ct", root)


def test_a_damaged_workbook_is_an_error(tmp_path: Path) -> None:
    root = covid_ct_tree(tmp_path)
    (root / "COVID-CT-MetaInfo.xlsx").write_bytes(b"not a workbook")
    with pytest.raises(SourceError, match="cannot be read as a workbook"):
        scan_source("covid_ct", root)


def test_a_workbook_without_patients_is_an_error(tmp_path: Path) -> None:
    root = covid_ct_tree(tmp_path)
    pd.DataFrame({"File name": ["a"]}).to_excel(root / "COVID-CT-MetaInfo.xlsx", index=False)
    with pytest.raises(SourceError, match="Patient ID"):
        scan_source("covid_ct", root)


@pytest.mark.data
def test_the_published_data(data_root: Path) -> None:
    scan = scan_source("covid_ct", data_root, "covid-ct")
    rows = scan.records
    assert not scan.excluded
    assert rows.groupby(["label", "split"]).size().to_dict() == {
        ("covid19", "train"): 191,
        ("covid19", "val"): 60,
        ("covid19", "test"): 98,
        ("not_covid19", "train"): 234,
        ("not_covid19", "val"): 58,
        ("not_covid19", "test"): 105,
    }
    assert rows["patient_known"].all()
    assert rows.groupby("label")["patient_id"].nunique().to_dict() == {
        "covid19": 213,
        "not_covid19": 171,
    }
    assert rows.groupby("patient_id")["split"].nunique().max() == 1
