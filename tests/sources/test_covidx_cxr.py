"""COVIDx CXR: lines, versions, who is a person, and what the source gives away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from pulmofuse.sources.covidx_cxr import Entry, parse_line
from tests.sources.trees import touch

TRAIN = """\
3 SARS-10.1148rg-Fig8a-day0.jpeg pneumonia cohen
COVID_525 COVID(525).png COVID-19 sirm
COVID-00015a COVID-00015a.png COVID-19 fig1
COVID-00015b COVID-00015b.png COVID-19 fig1
A030428 A030428-01-02-1901 CHEST AP.jpg COVID-19 stonybrook
c56b4527-615d c56b4527-615d.png normal rnsa
"""
TEST = """\
419639-003251 MIDRC-RICORD-1C-419639-003251-46647-0.png COVID-19 ricord
27b32500-40ef 27b32500-40ef.png pneumonia rsna
"""


def tree(root: Path, train: str = TRAIN, test: str = TEST, version: str = "_COVIDx9A") -> Path:
    for split, text in (("train", train), ("test", test)):
        (root / f"{split}{version}.txt").write_text(text)
        parsed = [parse_line(line) for line in text.splitlines()]
        touch(root, f"{split}/.keep", *(f"{split}/{p[0]}" for p in parsed if p is not None))
    return root


@pytest.mark.parametrize(
    ("line", "name", "patient", "known", "site"),
    [
        ("3 a-day0.jpeg pneumonia cohen", "a-day0.jpeg", "cohen_3", True, "cohen"),
        ("COVID_525 COVID(525).png COVID-19 sirm", "COVID(525).png", "sirm_COVID_525",
         False, "sirm"),
        ("COVID-00015b COVID-00015b.png COVID-19 fig1", "COVID-00015b.png", "fig1_COVID-00015",
         False, "fig1"),
        ("ab-1 ab-1.png normal rnsa", "ab-1.png", "rsna_ab-1", False, "rsna"),
        ("S1 two blanks (1).png positive bimcv", "two blanks (1).png", "bimcv_S1", True, "bimcv"),
        ("7 old.png negative", "old.png", "7", True, None),
    ],
)  # fmt: skip
def test_a_line(line: str, name: str, patient: str, known: bool, site: str | None) -> None:
    parsed = parse_line(line)
    assert parsed is not None
    assert parsed[0] == name
    assert parsed[1] == Entry(patient, known, parsed[1].label, site)


@pytest.mark.parametrize("line", ["", "a.png normal", "3 a.png sick cohen", "3 a.png normal x y"])
def test_what_is_no_line(line: str) -> None:
    assert parse_line(line) is None


def test_labels_splits_patients_and_sites(tmp_path: Path) -> None:
    scan = scan_source("covidx_cxr", tree(tmp_path))
    assert not scan.excluded
    rows = scan.records.set_index("record_id")
    assert rows.groupby(["split", "label"]).size().to_dict() == {
        ("train", "covid19"): 4,
        ("train", "normal"): 1,
        ("train", "pneumonia"): 1,
        ("test", "covid19"): 1,
        ("test", "pneumonia"): 1,
    }
    assert rows.loc["covidx_cxr:train/c56b4527-615d.png", "site"] == "rsna"
    assert rows["patient_known"].sum() == 3
    assert rows["patient_id"].nunique() == 7
    assert rows["path"].str.contains("CHEST AP").sum() == 1


@pytest.mark.parametrize("version", ["", "_COVIDx8B", "_COVIDx_CXR-3B"])
def test_binary_versions(tmp_path: Path, version: str) -> None:
    root = tree(tmp_path, "p1 a.png positive bimcv\n", "p2 b.png negative bimcv\n", version)
    (root / f"val{version}.txt").write_text("p3 c.png negative bimcv\n")
    touch(root, "val/c.png")
    rows = scan_source("covidx_cxr", root).records.set_index("split")
    assert rows["label"].to_dict() == {
        "train": "covid19",
        "val": "not_covid19",
        "test": "not_covid19",
    }


def test_lists_and_disk_must_agree(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "train" / "COVID(525).png").unlink()
    touch(root, "test/stray.png", "train/27b32500-40ef.png")
    scan = scan_source("covidx_cxr", root)
    assert len(scan.records) == 7
    assert {e.path: e.reason for e in scan.excluded} == {
        "train/COVID(525).png": "train_COVIDx9A.txt names it, but it is not on disk",
        "test/stray.png": "no list names it",
        "train/27b32500-40ef.png": "no list names it",
    }


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "train_COVIDx9A.txt").unlink()
    scan = scan_source("covidx_cxr", root)
    assert set(scan.records["split"]) == {"test"}
    assert "train_COVIDx9A.txt" in [e.path for e in scan.excluded]


@pytest.mark.parametrize(
    ("train", "why"),
    [
        ("a b c d e\n", "line 1: 'a b c d e' is not"),
        ("\n3 a.png sick cohen\n", "line 2"),
        ("3 a.txt normal cohen\n", r"\.txt is not a cxr file"),
        ("3 a.png normal cohen\n3 a.png COVID-19 cohen\n", "line 2: contradicts"),
    ],
)
def test_a_faulty_list_is_an_error(tmp_path: Path, train: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        scan_source("covidx_cxr", tree(tmp_path, train))


def test_two_versions_are_refused_by_name(tmp_path: Path) -> None:
    root = tree(tree(tmp_path), version="_COVIDx8A")
    with pytest.raises(SourceError, match=r"2 versions .*test_COVIDx8A.txt"):
        scan_source("covidx_cxr", root)


@pytest.fixture(scope="module")
def published(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("covidx")
    for split in ("train", "test"):
        shutil.copy(data_root / f"metadata/covidx-cxr/{split}_COVIDx9A.txt", root)
    return root


@pytest.mark.data
def test_every_published_line_is_read(published: Path) -> None:
    test = (published / "test_COVIDx9A.txt").read_text().splitlines()
    touch(published, "train/x.png", *(f"test/{line.split()[1]}" for line in test))
    scan = scan_source("covidx_cxr", published)
    rows = scan.records
    # awk '{print $3, $4}' test_COVIDx9A.txt | sort | uniq -c
    assert rows.groupby(["label", "site"]).size().to_dict() == {
        ("covid19", "ricord"): 200,
        ("normal", "rsna"): 100,
        ("pneumonia", "rsna"): 100,
    }
    assert len(scan.excluded) == 30_130 + 1


@pytest.mark.data
def test_what_the_published_lists_say_of_patients(published: Path) -> None:
    entries = [
        (split, parsed[1])
        for split in ("train", "test")
        for line in (published / f"{split}_COVIDx9A.txt").read_text().splitlines()
        if (parsed := parse_line(line)) is not None
    ]
    assert len(entries) == 30_530
    splits: dict[str, set[str]] = {}
    for split, entry in entries:
        splits.setdefault(entry.patient, set()).add(split)
    assert [patient for patient, found in splits.items() if len(found) > 1] == []
    unknown = [entry.site for _, entry in entries if not entry.patient_known]
    # grep -cE ' (rsna|rnsa)$', ' sirm$', ' fig1$'
    assert {site: unknown.count(site) for site in set(unknown)} == {
        "rsna": 13_788,
        "sirm": 943,
        "fig1": 24,
    }
    classes = {(entry.site, entry.label == "covid19") for _, entry in entries}
    both = {site for site, _ in classes if {(site, True), (site, False)} <= classes}
    assert both == {"cohen"}


def test_findings_are_what_the_class_says(tmp_path: Path) -> None:
    rows = scan_source("covidx_cxr", tree(tmp_path)).records
    assert dict(zip(rows["label"], rows["findings"], strict=True)) == {
        "covid19": '{"covid19": 1}',
        "normal": '{"pneumonia": 0, "covid19": 0}',
        "pneumonia": '{"pneumonia": 1, "covid19": 0}',
    }


def test_a_negative_says_only_that_it_is_not_covid19(tmp_path: Path) -> None:
    root = tree(tmp_path, "7 old.png negative\n", "8 new.png positive\n", "_COVIDx8B")
    assert scan_source("covidx_cxr", root).records["findings"].tolist() == [
        '{"covid19": 1}',
        '{"covid19": 0}',
    ]
