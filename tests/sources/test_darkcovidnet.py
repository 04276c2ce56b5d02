"""DarkCovidNet: classes, sites, and who is who."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.findings import NIH_FINDINGS
from pulmofuse.sources import scan_source
from pulmofuse.sources.darkcovidnet import article_of
from tests.sources.trees import cohen_tree, touch

FOLDER = "X-Ray Image DataSet"


def tree(root: Path, *covid: str) -> Path:
    touch(root, *(f"{FOLDER}/Covid-19/{name}" for name in covid))
    touch(root, f"{FOLDER}/No_findings/00000061_012.jpg", f"{FOLDER}/No_findings/odd name.jpg")
    return touch(root, f"{FOLDER}/Pneumonia/00000061_015.jpg", f"{FOLDER}/Pneumonia/Thumbs.db")


@pytest.mark.parametrize(
    "names",
    [
        ("nejmoa2001191_f1-PA", "nejmoa2001191_f3-PA", "nejmoa2001191_f4"),
        ("covid-19-pneumonia-24-day12", "covid-19-pneumonia-24-day6"),
        ("lancet-case2a", "lancet-case2b"),
        ("auntminnie-a-2020_01_28_x", "auntminnie-d-2020_01_28_x"),
        ("1-s2.0-S0929664620300449-gr2_lrg-a", "1-s2.0-S0929664620300449-gr2_lrg-d"),
        ("ciaa199.pdf-001-a", "ciaa199.pdf-001-c"),
        ("x-1.pdf-002-a1", "x-1.pdf-003-b2"),
        ("ryct.2020200034.fig2", "ryct.2020200034.fig5-day0"),
        ("a-rapidly-progressive-12-hours", "a-rapidly-progressive-admission"),
        ("all14238-fig-0001-m-b", "all14238-fig-0002-m-f"),
    ],
)
def test_names_of_one_article_or_case_are_joined(names: tuple[str, ...]) -> None:
    assert len({article_of(name) for name in names}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("covid-19-pneumonia-2", "covid-19-pneumonia-28"),
        ("covid-19-pneumonia-7-PA", "covid-19-pneumonia-15-PA"),
        ("01E392EE-69F9-4E33-BFCE-E5C968654078", "01E392EE-69F9-4E33-BFCE-E5C968654079"),
        ("figure1-5e71be566aa8714a04de3386-98-left", "figure1-5e75d0940b71e1b702629659-98-right"),
        ("kjr-21-e24-g001-l-a", "kjr-21-e25-g001-l-a"),
    ],
)
def test_other_cases_are_kept_apart(one: str, other: str) -> None:
    assert article_of(one) != article_of(other)


def test_nih_patients_are_known_across_classes(tmp_path: Path) -> None:
    rows = scan_source("darkcovidnet", tree(tmp_path, "a.jpg")).records.set_index("record_id")
    sick = rows.loc["darkcovidnet:Pneumonia/00000061_015.jpg"]
    clear = rows.loc["darkcovidnet:No_findings/00000061_012.jpg"]
    assert sick["patient_id"] == clear["patient_id"] == "darkcovidnet:nih_00000061"
    assert (sick["label"], clear["label"]) == ("pneumonia", "normal")
    assert sick["site"] == "nih"
    assert not rows.loc["darkcovidnet:No_findings/odd name.jpg", "patient_known"]
    assert rows.loc["darkcovidnet:Covid-19/a.jpg", ["label", "site"]].tolist() == [
        "covid19",
        "cohen",
    ]


def test_the_table_beside_tells_the_patients(tmp_path: Path) -> None:
    root = tree(tmp_path / "darkcovidnet", "x-f1.jpg", "x-f2.jpg", "y.jpg")
    before = scan_source("darkcovidnet", root).records.set_index("record_id")
    a, b = "darkcovidnet:Covid-19/x-f1.jpg", "darkcovidnet:Covid-19/x-f2.jpg"
    assert before.loc[a, "patient_id"] == before.loc[b, "patient_id"]
    assert not before.loc[a, "patient_known"]
    common = ("M", "60", "COVID-19", "PA", "X-ray", "Italy", "images")
    cohen_tree(
        tmp_path / "covid-chestxray-dataset",
        [("8", *common, "x-f1.jpeg"), ("9", *common, "x-f2.png")],
    )
    after = scan_source("darkcovidnet", root).records.set_index("record_id")
    assert after.loc[a, "patient_id"] == "darkcovidnet:cohen_8"
    assert after.loc[b, "patient_id"] == "darkcovidnet:cohen_9"
    assert after.loc[a, "patient_known"]
    assert not after.loc["darkcovidnet:Covid-19/y.jpg", "patient_known"]


def test_files_of_other_kinds_are_excluded(tmp_path: Path) -> None:
    (left_out,) = scan_source("darkcovidnet", tree(tmp_path, "a.jpg")).excluded
    assert left_out.path.endswith("Thumbs.db")


def test_a_missing_class_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.jpg")
    (root / FOLDER / "Pneumonia").rename(root / "moved")
    with pytest.raises(SourceError, match="Pneumonia"):
        scan_source("darkcovidnet", root)


@pytest.mark.data
def test_the_published_data(data_root: Path) -> None:
    scan = scan_source("darkcovidnet", data_root, "darkcovidnet")
    rows = scan.records
    assert not scan.excluded
    assert rows["label"].value_counts().to_dict() == {
        "normal": 500,
        "pneumonia": 500,
        "covid19": 124,
    }
    assert rows["patient_known"].all()
    assert rows.groupby("label")["patient_id"].nunique().to_dict() == {
        "covid19": 82,
        "normal": 332,
        "pneumonia": 371,
    }
    assert (rows.groupby("patient_id")["label"].nunique() == 2).sum() == 21


@pytest.mark.data
def test_names_split_only_patients_with_random_names(data_root: Path) -> None:
    rows = scan_source("darkcovidnet", data_root, "darkcovidnet").records
    covid = rows[rows["label"] == "covid19"]
    articles = covid["path"].map(lambda path: article_of(Path(path).stem))
    pieces = articles.groupby(covid["patient_id"]).nunique()
    assert (pieces > 1).sum() == 7


def test_findings_are_what_the_folder_says(tmp_path: Path) -> None:
    rows = scan_source("darkcovidnet", tree(tmp_path, "a.jpg")).records.set_index("record_id")
    stated = {key.split(":")[1].split("/")[0]: json.loads(t) for key, t in rows["findings"].items()}
    assert stated == {
        "Covid-19": {"covid19": 1},
        "No_findings": {**dict.fromkeys(NIH_FINDINGS, 0), "covid19": 0},
        "Pneumonia": {"pneumonia": 1, "covid19": 0},
    }
