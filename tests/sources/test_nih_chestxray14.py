"""NIH ChestX-ray14: both kinds of tables, precedence of findings, splits, archives, speed."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from pulmofuse.errors import SourceError
from pulmofuse.findings import NIH_FINDINGS, findings_matrix
from pulmofuse.sources import scan_source
from pulmofuse.sources.nih_chestxray14 import archive_of, label_of
from tests.sources.trees import touch

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
ROWS = (
    "00000001_000.png,No Finding,0,1,058Y,M,PA,2682,2749,0.143,0.143,",
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143,",
    "00001336_000.png,Emphysema|Pneumonia,0,1336,411,F,AP,2500,2048,0.168,0.168,",
    "00030805_000.png,Hernia,0,30805,27,F,PA,2048,2500,0.171,0.171,",
)


def marks(*ones: int) -> str:
    """Fourteen marks, those at `ones` set."""
    return " ".join("1" if place in ones else "0" for place in range(14))


def official(root: Path, *files: str) -> Path:
    (root / "Data_Entry_2017.csv").write_text("\n".join([HEADER, *ROWS]) + "\n")
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (root / "test_list.txt").write_text("00001336_000.png\n00030805_000.png")
    return touch(root, *files)


@pytest.mark.parametrize(
    ("findings", "label"),
    [
        (["No Finding"], "normal"),
        (["Pneumonia"], "pneumonia"),
        (["Emphysema", "Infiltration", "Pneumonia"], "pneumonia"),
        (["Fibrosis"], "chronic_lung_disease"),
        (["Pneumothorax", "Emphysema"], "chronic_lung_disease"),
        (["Infiltration"], "other_abnormal"),
        (["Pleural_Thickening", "Effusion"], "other_abnormal"),
        (["Broken Rib"], None),
        (["Pneumonia", "Broken Rib"], None),
        ([""], None),
        ([], None),
    ],
)
def test_precedence_of_findings(findings: list[str], label: str | None) -> None:
    assert label_of(findings) == label


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("00000001_000.png", "images_001.tar.gz"),
        ("00001335_006.png", "images_001.tar.gz"),
        ("00001336_000.png", "images_002.tar.gz"),
        ("00003923_013.png", "images_002.tar.gz"),
        ("00003923_014.png", "images_003.tar.gz"),
        ("00030805_000.png", "images_012.tar.gz"),
    ],
)
def test_archive_of_an_image(name: str, archive: str) -> None:
    assert archive_of(name) == archive


def test_the_official_table_and_split(tmp_path: Path) -> None:
    names = [row.split(",")[0] for row in ROWS]
    root = official(tmp_path, *(f"images_{i:03d}/images/{n}" for i, n in enumerate(names, 1)))
    scan = scan_source("nih_chestxray14", root)
    rows = scan.records.set_index("record_id").loc[[f"nih_chestxray14:{n}" for n in names]]
    assert not scan.excluded
    assert rows["label"].tolist() == [
        "normal",
        "chronic_lung_disease",
        "pneumonia",
        "other_abnormal",
    ]
    assert rows["split"].tolist() == ["train", "train", "test", "test"]
    assert rows["patient_id"].tolist() == [
        "nih_chestxray14:00000001",
        "nih_chestxray14:00000001",
        "nih_chestxray14:00001336",
        "nih_chestxray14:00030805",
    ]
    assert rows["patient_known"].all()
    assert rows["age"].fillna(-1).tolist() == [58, 58, -1, 27]
    assert rows["view"].tolist() == ["PA", "PA", "AP", "PA"]
    assert rows["sex"].tolist() == ["M", "M", "F", "F"]
    assert rows["path"].iloc[0] == "images_001/images/00000001_000.png"
    stated = [json.loads(text) for text in rows["findings"]]
    assert all(tuple(row) == NIH_FINDINGS for row in stated)
    assert [[name for name, value in row.items() if value] for row in stated] == [
        [],
        ["cardiomegaly", "emphysema"],
        ["pneumonia", "emphysema"],
        ["hernia"],
    ]


def test_the_later_table_comes_first_and_may_say_sex(tmp_path: Path) -> None:
    root = official(tmp_path, "images/00000001_000.png")
    later = HEADER.replace("Gender", "Sex") + "\n" + ROWS[0].replace("No Finding", "Mass")
    (root / "Data_Entry_2017_v2020.csv").write_text(later)
    (root / "test_list.txt").unlink()
    (row,) = scan_source("nih_chestxray14", root).records.to_dict("records")
    assert (row["label"], row["sex"]) == ("other_abnormal", "M")


def test_missing_images_name_their_archive_and_strays_are_left_out(tmp_path: Path) -> None:
    root = official(
        tmp_path,
        "images/00000001_000.png",
        "images/00000009_000.png",
        "images/notes.txt",
        "images_002/images/00000001_000.png",
    )
    scan = scan_source("nih_chestxray14", root)
    assert scan.records["path"].tolist() == ["images/00000001_000.png"]
    told = {e.path: (e.reason, e.remedy) for e in scan.excluded}
    assert set(told) == {
        "images/00000001_001.png",
        "images/00001336_000.png",
        "images/00030805_000.png",
        "images/00000009_000.png",
        "images/notes.txt",
        "images_002/images/00000001_000.png",
    }
    assert "images_012.tar.gz" in told["images/00030805_000.png"][1]
    assert "not on disk" in told["images/00030805_000.png"][0]
    assert told["images/00000009_000.png"][0] == "Data_Entry_2017.csv does not name it"
    assert "same name" in told["images_002/images/00000001_000.png"][0]


def test_lists_with_labels_give_label_and_split(tmp_path: Path) -> None:
    (tmp_path / "train_list.txt").write_text(f"00000001_000.png {marks()}\n")
    (tmp_path / "val_list.txt").write_text(f"00000002_000.png {marks(6, 11)}")
    (tmp_path / "test_list.txt").write_text(f"00000003_000.png {marks(3, 10)}\n")
    touch(tmp_path, *(f"images/0000000{i}_000.png" for i in (1, 2, 3)))
    rows = scan_source("nih_chestxray14", tmp_path).records
    assert rows[["label", "split"]].values.tolist() == [
        ["normal", "train"],
        ["pneumonia", "val"],
        ["chronic_lung_disease", "test"],
    ]
    assert rows["age"].isna().all()
    assert rows["view"].isna().all()


def test_a_finding_nobody_knows_is_excluded(tmp_path: Path) -> None:
    root = official(tmp_path, "images/00000001_000.png")
    table = root / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("No Finding", "Dextrocardia"))
    scan = scan_source("nih_chestxray14", root)
    assert scan.records.empty
    (left_out,) = [e for e in scan.excluded if e.path == "images/00000001_000.png"]
    assert "Dextrocardia" in left_out.reason


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("val_list.txt", "00000001_000.png 0 1", "line 1: needs an image name and 14 times"),
        ("val_list.txt", f"00000001_000.png {marks().replace('0', '2')}", "0 or 1"),
        ("val_list.txt", f"\nscan.png {marks()}", "line 2: 'scan.png' is not an image name"),
        ("val_list.txt", "00000001_000.png", "is in the train split as well"),
        ("Data_Entry_2017.csv", "Image Index\n", "finding labels is missing"),
        ("Data_Entry_2017.csv", f"{HEADER}\n{ROWS[0]}\n{ROWS[0].replace('No', 'A')}", "line 3"),
        ("Data_Entry_2017.csv", f"{HEADER}\n58,No Finding", "not an image name"),
        ("Data_Entry_2017.csv", "\0", "Data_Entry"),
    ],
)
def test_a_faulty_table_is_an_error(tmp_path: Path, file: str, text: str, why: str) -> None:
    root = official(tmp_path, "images/00000001_000.png")
    (root / file).write_text(text)
    with pytest.raises(SourceError, match=why):
        scan_source("nih_chestxray14", root)


def test_names_without_labels_are_not_enough(tmp_path: Path) -> None:
    root = official(tmp_path, "images/00000001_000.png")
    (root / "Data_Entry_2017.csv").unlink()
    with pytest.raises(SourceError, match="nor a list with labels"):
        scan_source("nih_chestxray14", root)


def test_a_full_table_is_read_within_five_seconds(tmp_path: Path) -> None:
    table = [HEADER]
    table += [ROWS[1].replace("00000001_001", f"{i // 4:08d}_{i % 4:03d}") for i in range(112_120)]
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join(table))
    touch(tmp_path, "images/00000001_000.png")
    start = time.process_time()
    scan = scan_source("nih_chestxray14", tmp_path)
    assert time.process_time() - start < 5
    assert len(scan.excluded) == 112_119


@pytest.mark.data
def test_the_published_lists(data_root: Path, tmp_path: Path) -> None:
    for split in ("val", "test"):
        shutil.copy(data_root / f"metadata/nih-chestxray14/{split}_list.txt", tmp_path)
    # A normal image, two with other findings, and one with pneumonia, as grep shows them.
    touch(tmp_path, *(f"images/{name}.png" for name in ("00011997_000", "00030605_000")))
    scan = scan_source("nih_chestxray14", tmp_path)
    assert scan.records.set_index("record_id")[["label", "split"]].values.tolist() == [
        ["normal", "test"],
        ["other_abnormal", "val"],
    ]
    assert len(scan.excluded) == 11_219 + 22_433 - 2
    assert all("images_0" in e.remedy for e in scan.excluded)


@pytest.mark.data
def test_no_patient_of_the_published_lists_stands_in_two_splits(
    data_root: Path, tmp_path: Path
) -> None:
    for split in ("val", "test"):
        path = data_root / f"metadata/nih-chestxray14/{split}_list.txt"
        shutil.copy(path, tmp_path)
        # Every fifth image keeps the test quick; both splits still have thousands of patients.
        lines = path.read_text().splitlines()[::5]
        touch(tmp_path, *(f"images/{line.split()[0]}" for line in lines))
    rows = scan_source("nih_chestxray14", tmp_path).records
    assert len(rows) == 2_244 + 4_487
    assert (rows.groupby("patient_id")["split"].nunique() == 1).all()


@pytest.mark.data
def test_findings_are_those_of_the_published_list(data_root: Path, tmp_path: Path) -> None:
    published = data_root / "metadata/nih-chestxray14/val_list.txt"
    shutil.copy(published, tmp_path)
    names, *marks = zip(*(line.split() for line in published.read_text().splitlines()), strict=True)
    touch(tmp_path, *(f"images/{name}" for name in names))
    texts = scan_source("nih_chestxray14", tmp_path).records["findings"]
    stated = findings_matrix(texts, NIH_FINDINGS)
    # All said, nothing else: the sums of the list's columns, read here by numpy alone.
    assert stated.shape == (11_219, 14)
    assert stated.sum(axis=0).tolist() == np.array(marks, dtype=int).sum(axis=1).tolist()
    assert int((stated.sum(axis=1) == 0).sum()) == sum(
        "1" not in row for row in zip(*marks, strict=True)
    )
