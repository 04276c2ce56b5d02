"""COVIDx CT: who is who in eleven kinds of names, lists, metadata.csv."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from pulmofuse.sources.covidx_ct import identify
from tests.sources.trees import touch

BOX = "0 130 512 429"
LISTS = {
    "train": [("CP_10_3000_0001.png", 1), ("NCP_7_1_0001.png", 2), ("NCP_7_2_0001.png", 2)],
    "val": [("normal1_patient190_SR_2_IM00013.png", 0), ("mystery_0001.png", 2)],
    "test": [("volume-covid19-A-0383_1_ct-0010.png", 2), ("Normal_1739_1042_0000.png", 0)],
}


def tree(root: Path, version: str = "2A") -> Path:
    for split, rows in LISTS.items():
        text = "".join(f"{name} {number} {BOX}\n" for name, number in rows)
        (root / f"{split}_COVIDx_CT-{version}.txt").write_text(text)
        touch(root, *(f"{version}_images/{name}" for name, _ in rows))
    return root


@pytest.mark.parametrize(
    ("name", "site", "patient", "series"),
    [
        ("NCP_341_1834_0022.png", "CNCB", "NCP_341", "NCP_341_1834"),
        ("Normal_1739_1042_0000.png", "CNCB", "Normal_1739", "Normal_1739_1042"),
        ("137covid_patient95_SR_4_IM00026.png", "COVID-CTSet", "patient95",
         "137covid_patient95_SR_4"),
        ("volume-covid19-A-0573_ct-0010.png", "TCIA", "volume-covid19-A-0573",
         "volume-covid19-A-0573_ct"),
        ("volume-covid19-A-0028_1-0123.png", "TCIA", "volume-covid19-A-0028",
         "volume-covid19-A-0028_1"),
        ("LIDC-IDRI-0273-1.3.6.1.4-0032.png", "LIDC-IDRI", "LIDC-IDRI-0273",
         "LIDC-IDRI-0273-1.3.6.1.4"),
        ("coronacases_010-0075.png", "coronacases.org", "coronacases_010", "coronacases_010"),
        ("radiopaedia_29_86491_1-0022.png", "radiopaedia.org", "radiopaedia_29",
         "radiopaedia_29_86491_1"),
        ("radiopaedia-75662-86490-2-0007.png", "radiopaedia.org", "radiopaedia-75662",
         "radiopaedia-75662-86490-2"),
        ("HUST-Patient457-0031.png", "iCTCF", "HUST-Patient457", "HUST-Patient457"),
        ("STOIC-3021-0110.png", "STOIC", "STOIC-3021", "STOIC-3021"),
        ("COVIDCTMD-P001-IM0042.png", "COVID-CT-MD", "COVIDCTMD-P001", "COVIDCTMD-P001"),
        ("A030428-CT-CHEST-4-0012.png", "Stony Brook", "A030428", "A030428-CT-CHEST-4"),
        ("study_0609-0012.png", "MosMedData", "study_0609", "study_0609"),
    ],
)  # fmt: skip
def test_names_tell_the_patient(name: str, site: str, patient: str, series: str) -> None:
    identity = identify(name)
    assert identity is not None
    assert (identity.site, identity.patient, identity.series) == (site, patient, series)


@pytest.mark.parametrize("name", ["mystery_0001.png", "scan.png", "CP_10.png", "XCP_1_2_0003.png"])
def test_other_names_tell_nothing(name: str) -> None:
    assert identify(name) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("NCP_7_1_0001.png", "NCP_7_2_0001.png", True),
        ("NCP_7_1_0001.png", "CP_7_1_0001.png", False),
        ("NCP_7_1_0001.png", "NCP_71_1_0001.png", False),
        ("normal1_patient190_SR_2_IM00001.png", "normal5_patient190_SR_3_IM00001.png", True),
        ("volume-covid19-A-0383_0-0001.png", "volume-covid19-A-0383_1_ct-0001.png", True),
        ("radiopaedia_29_86490_1-0001.png", "radiopaedia_29_86491_1-0001.png", True),
    ],
)
def test_who_is_one_person(one: str, other: str, same: bool) -> None:
    first, second = identify(one), identify(other)
    assert first is not None
    assert second is not None
    assert (first.patient == second.patient) is same


@pytest.mark.parametrize("version", ["2A", "3A"])
def test_labels_splits_patients_and_series(tmp_path: Path, version: str) -> None:
    scan = scan_source("covidx_ct", tree(tmp_path, version))
    assert not scan.excluded
    rows = scan.records.set_index("record_id")
    assert rows.groupby(["split", "label"]).size().to_dict() == {
        ("train", "pneumonia"): 1,
        ("train", "covid19"): 2,
        ("val", "normal"): 1,
        ("val", "covid19"): 1,
        ("test", "covid19"): 1,
        ("test", "normal"): 1,
    }
    mystery = rows.loc["covidx_ct:mystery_0001.png"]
    assert not mystery["patient_known"]
    assert mystery["patient_id"] == "covidx_ct:mystery_0001.png"
    assert mystery[["site", "series_id"]].isna().all()
    assert rows["patient_known"].sum() == 6
    two = rows.loc[["covidx_ct:NCP_7_1_0001.png", "covidx_ct:NCP_7_2_0001.png"]]
    assert two["patient_id"].nunique() == 1
    assert two["series_id"].nunique() == 2
    assert rows["path"].str.startswith(f"{version}_images/").all()


def test_metadata_gives_source_sex_and_age(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "metadata.csv").write_text(
        "patient id,source,country,sex,age,finding\n"
        "CP_1,CNCB,China,M,20,Pneumonia\n"
        "CP_10,CNCB,China,F,77,Pneumonia\n"
        "patient190,COVID-CTSet,Iran,M,31,Normal\n"
        "volume-covid19-A-0383_1,COVID-19-20,,,999,COVID-19\n"
        "mystery,Elsewhere,,F,,COVID-19\n"
    )
    rows = scan_source("covidx_ct", root).records.set_index("record_id")
    told = rows[["site", "sex", "age", "patient_known"]].fillna("-")
    assert told.loc["covidx_ct:CP_10_3000_0001.png"].tolist() == ["CNCB", "F", 77, True]
    assert told.loc["covidx_ct:normal1_patient190_SR_2_IM00013.png"].tolist() == [
        "COVID-CTSet",
        "M",
        31,
        True,
    ]
    assert told.loc["covidx_ct:volume-covid19-A-0383_1_ct-0010.png"].tolist() == [
        "COVID-19-20",
        "-",
        "-",
        True,
    ]
    assert told.loc["covidx_ct:mystery_0001.png"].tolist() == ["Elsewhere", "F", "-", True]
    assert told.loc["covidx_ct:NCP_7_1_0001.png"].tolist() == ["CNCB", "-", "-", True]


def test_lists_and_disk_must_agree(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "2A_images" / "CP_10_3000_0001.png").unlink()
    (root / "val_COVIDx_CT-2A.txt").unlink()
    scan = scan_source("covidx_ct", root)
    assert {e.path: e.reason for e in scan.excluded} == {
        "2A_images/CP_10_3000_0001.png": "train_COVIDx_CT-2A.txt names it, but it is not on disk",
        "val_COVIDx_CT-2A.txt": "this list is missing, so the images that it names have no label",
        "2A_images/mystery_0001.png": "no list names it",
        "2A_images/normal1_patient190_SR_2_IM00013.png": "no list names it",
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a.png 3 0 0 1 1", "with class 0, 1 or 2"),
        ("a.png 1", "is not `image class"),
        ("a.csv 1 0 0 1 1", "is not `image class"),
        (f"CP_10_3000_0001.png 1 {BOX}", "is pneumonia in the train split as well"),
        (f"mystery_0001.png 2 {BOX}\nmystery_0001.png 0 {BOX}", "line 2"),
    ],
)
def test_a_faulty_list_is_an_error(tmp_path: Path, line: str, why: str) -> None:
    root = tree(tmp_path)
    (root / "val_COVIDx_CT-2A.txt").write_text(line)
    with pytest.raises(SourceError, match=why):
        scan_source("covidx_ct", root)


def test_without_the_folder_every_image_is_named_as_missing(tmp_path: Path) -> None:
    root = tree(tmp_path)
    there = scan_source("covidx_ct", root).records["path"].tolist()
    (root / "2A_images").rename(root / "images")
    found = scan_source("covidx_ct", root)
    assert found.records.empty
    missing = {e.path for e in found.excluded if "not on disk" in e.reason}
    assert missing >= set(there)


def test_two_versions_are_an_error(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with pytest.raises(SourceError, match="2 versions"):
        scan_source("covidx_ct", tree(root, "3A"))


@pytest.mark.data
def test_the_published_lists_name_known_patients_who_stand_in_one_split(data_root: Path) -> None:
    patients: dict[str, set[str]] = {}
    for split, slices in (("val", 25_486), ("test", 25_658)):
        path = data_root / f"metadata/covidx-ct/{split}_COVIDx_CT-2A.txt"
        names = [line.split()[0] for line in path.read_text().splitlines()]
        assert len(names) == slices
        for identity in map(identify, names):
            assert identity is not None
            patients.setdefault(identity.patient, set()).add(split)
    assert [patient for patient, splits in patients.items() if len(splits) > 1] == []
    # CNCB 623, COVID-CTSet 169, TCIA 90, LIDC-IDRI 17, coronacases 4, Radiopaedia 5.
    assert len(patients) == 908


@pytest.mark.data
def test_the_published_lists_are_scanned(data_root: Path, tmp_path: Path) -> None:
    for split in ("val", "test"):
        shutil.copy(data_root / f"metadata/covidx-ct/{split}_COVIDx_CT-2A.txt", tmp_path)
    touch(
        tmp_path,
        "2A_images/NCP_341_1834_0022.png",
        "2A_images/NCP_1013_2577_0000.png",
        "2A_images/radiopaedia_29_86491_1-0022.png",
    )
    scan = scan_source("covidx_ct", tmp_path)
    assert scan.records["split"].tolist() == ["val", "test", "test"]
    assert set(scan.records["label"]) == {"covid19"}
    assert len(scan.excluded) == 25_486 + 25_658 - 3 + 1
    assert "train_COVIDx_CT-2A.txt" in {e.path for e in scan.excluded}
