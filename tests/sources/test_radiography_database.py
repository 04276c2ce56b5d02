"""COVID-19 Radiography Database: both layouts, workbooks, sites."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from pulmofuse.sources.radiography_database import site_of
from tests.sources.trees import touch


def workbook(path: Path, *rows: tuple[str, str]) -> None:
    table = pd.DataFrame(
        [(name, "PNG", "256*256", url) for name, url in rows],
        columns=["FILE NAME", "FORMAT", "SIZE", "URL"],
    )
    table.to_excel(path, index=False)


def newer(root: Path) -> Path:
    for folder, name in (
        ("COVID", "COVID-1.png"),
        ("Normal", "Normal-1.png"),
        ("Lung_Opacity", "Lung_Opacity-1.png"),
        ("Viral Pneumonia", "Viral Pneumonia-1.png"),
    ):
        touch(root, f"{folder}/images/{name}", f"{folder}/masks/{name}")
    return root


def test_the_newer_layout_without_its_masks(tmp_path: Path) -> None:
    scan = scan_source("radiography_database", newer(tmp_path))
    assert not scan.excluded
    assert scan.records.set_index("path")["label"].to_dict() == {
        "COVID/images/COVID-1.png": "covid19",
        "Normal/images/Normal-1.png": "normal",
        "Lung_Opacity/images/Lung_Opacity-1.png": "pneumonia",
        "Viral Pneumonia/images/Viral Pneumonia-1.png": "pneumonia",
    }
    assert dict(zip(scan.records["label"], scan.records["findings"], strict=True)) == {
        "covid19": '{"covid19": 1}',
        "normal": '{"pneumonia": 0, "covid19": 0}',
        "pneumonia": '{"pneumonia": 1, "covid19": 0}',
    }
    assert not scan.records["patient_known"].any()
    assert scan.records["patient_id"].is_unique


def test_the_older_layout(tmp_path: Path) -> None:
    touch(tmp_path, "COVID-19/COVID-19 (1).png", "NORMAL/NORMAL (1).png", "NORMAL/Thumbs.db")
    scan = scan_source("radiography_database", tmp_path)
    assert scan.records["label"].tolist() == ["covid19", "normal"]
    assert [e.path for e in scan.excluded] == ["NORMAL/Thumbs.db"]


@pytest.mark.parametrize("folder", ["Lung_Opacity", "Lung Opacity"])
def test_a_workbook_is_found_however_its_class_is_spelt(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, f"{folder}/images/Lung_Opacity-1.png")
    workbook(tmp_path / "Lung_Opacity.metadata.xlsx", ("Lung_Opacity-1", "https://sirm.org/x"))
    assert scan_source("radiography_database", tmp_path).records["site"].tolist() == ["sirm.org"]


def test_workbooks_give_sites_and_missing_images(tmp_path: Path) -> None:
    root = newer(tmp_path)
    touch(root, "Normal/images/Normal-3.png")
    workbook(root / "COVID.metadata.xlsx", ("COVID-1", "https://sirm.org/category/covid-19/"))
    workbook(
        root / "Normal.metadata.xlsx",
        ("NORMAL-1", "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data"),
        ("NORMAL-2", "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data"),
        ("", ""),
    )
    scan = scan_source("radiography_database", root)
    sites = scan.records.set_index("path")["site"].fillna("-").to_dict()
    assert sites["COVID/images/COVID-1.png"] == "sirm.org"
    assert sites["Normal/images/Normal-1.png"] == "kaggle.com/c/rsna-pneumonia-detection-challenge"
    assert sites["Normal/images/Normal-3.png"] == "-"
    (missing,) = scan.excluded
    assert missing.path == "Normal/images/NORMAL-2"
    assert missing.reason == "Normal.metadata.xlsx names it, but it is not on disk"


@pytest.mark.parametrize(
    ("url", "site"),
    [
        ("https://github.com/a/b/tree/c", "github.com/a/b"),
        ("https://www.eurorad.org/case/16660", "eurorad.org"),
        ("sirm.org/category", "sirm.org"),
        ("unknown", None),
        ("", None),
    ],
)
def test_site_of_a_url(url: str, site: str | None) -> None:
    assert site_of(url) == site


def test_a_faulty_workbook_is_an_error(tmp_path: Path) -> None:
    root = newer(tmp_path)
    (root / "COVID.metadata.xlsx").write_text("no workbook")
    with pytest.raises(SourceError, match="cannot be read as a workbook"):
        scan_source("radiography_database", root)
    pd.DataFrame({"FILE NAME": ["COVID-1"]}).to_excel(root / "COVID.metadata.xlsx", index=False)
    with pytest.raises(SourceError, match="column URL is missing"):
        scan_source("radiography_database", root)


def test_a_folder_without_classes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="none of the class folders"):
        scan_source("radiography_database", touch(tmp_path, "images/a.png"))
