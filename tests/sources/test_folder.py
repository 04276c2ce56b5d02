"""The default layout: labels, series, patients.csv, odd names, links."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from pulmofuse.errors import SourceError, UnknownLabel
from pulmofuse.schema import Label
from pulmofuse.sources import Scan, scan_source
from pulmofuse.sources.folder import parse_label
from tests.sources.trees import touch


def reasons(scan: Scan) -> dict[str, str]:
    return {e.path: e.reason for e in scan.excluded}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("normal", Label.NORMAL),
        ("COVID-19", Label.COVID19),
        ("Covid", Label.COVID19),
        ("covid 19", Label.COVID19),
        ("Healthy", Label.NORMAL),
        ("No Findings", Label.NORMAL),
        ("TB", Label.TUBERCULOSIS),
        ("COPD", Label.CHRONIC_LUNG_DISEASE),
        ("asthma", Label.CHRONIC_LUNG_DISEASE),
        ("chronic-lung disease", Label.CHRONIC_LUNG_DISEASE),
        ("Bacterial_Pneumonia", Label.PNEUMONIA),
        ("Non-COVID", Label.NOT_COVID19),
        ("not_covid19", Label.NOT_COVID19),
    ],
)
def test_labels_are_understood(text: str, label: Label) -> None:
    assert parse_label(text) is label


@pytest.mark.parametrize(
    ("text", "nearest"), [("pnumonia", "pneumonia"), ("tubercul", "tuberculosis")]
)
def test_an_unknown_label_names_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(UnknownLabel) as caught:
        parse_label(text)
    assert nearest in caught.value.remedy


@pytest.mark.parametrize("text", ["positive", "negative", "train", ""])
def test_labels_are_never_guessed(text: str) -> None:
    with pytest.raises(UnknownLabel):
        parse_label(text)


def test_records_of_all_three_modalities(tmp_path: Path) -> None:
    touch(tmp_path, "ct/covid19/a.png", "cxr/Normal/b.dcm", "cough_audio/TB/c.flac")
    records = scan_source("folder", tmp_path).records.set_index("path")
    assert records["modality"].to_dict() == {
        "ct/covid19/a.png": "ct",
        "cxr/Normal/b.dcm": "cxr",
        "cough_audio/TB/c.flac": "cough",
    }
    assert records.loc["cough_audio/TB/c.flac", "label"] == "tuberculosis"
    assert not records["patient_known"].any()
    assert records["patient_id"].is_unique


def test_a_folder_below_the_label_is_one_series_of_one_patient(tmp_path: Path) -> None:
    touch(tmp_path, "ct/covid19/p7/1.png", "ct/covid19/p7/2.png", "ct/covid19/p8/b/1.dcm")
    touch(tmp_path, "ct/covid19/p8/a/1.dcm", "ct/normal/p7/1.dcm")
    records = scan_source("folder", tmp_path).records.set_index("path")
    series = records["series_id"]
    assert series["ct/covid19/p7/1.png"] == series["ct/covid19/p7/2.png"]
    assert series["ct/covid19/p8/a/1.dcm"] != series["ct/covid19/p8/b/1.dcm"]
    patient = records["patient_id"]
    assert patient["ct/covid19/p8/a/1.dcm"] == patient["ct/covid19/p8/b/1.dcm"]
    assert patient["ct/covid19/p7/1.png"] != patient["ct/normal/p7/1.dcm"]
    assert not records["patient_known"].any()


def test_a_folder_of_dicom_slices_is_one_record(tmp_path: Path) -> None:
    touch(tmp_path, *(f"ct/covid19/p7/{n}.dcm" for n in range(3)), "ct/covid19/p7/notes.txt")
    touch(tmp_path, *(f"ct/covid19/p8/a/1.2.{n}" for n in range(2)), "ct/covid19/1.dcm")
    touch(tmp_path, *(f"cxr/covid19/p7/{n}.dcm" for n in range(2)))
    scan = scan_source("folder", tmp_path)
    assert sorted(scan.records["path"]) == [
        "ct/covid19/1.dcm",
        "ct/covid19/p7",
        "ct/covid19/p8/a",
        "cxr/covid19/p7/0.dcm",
        "cxr/covid19/p7/1.dcm",
    ]
    records = scan.records.set_index("path")
    assert pd.isna(records.loc["ct/covid19/p8/a", "series_id"])
    assert records.loc["ct/covid19/p8/a", "patient_id"] == "folder:ct/covid19/p8"
    assert [e.path for e in scan.excluded] == ["ct/covid19/p7/notes.txt"]


def test_dicom_files_that_patients_csv_names_are_records_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "ct/covid19/batch/1.dcm", "ct/covid19/batch/2.dcm", "ct/normal/p9/1.dcm")
    touch(tmp_path, "ct/normal/p9/2.dcm")
    (tmp_path / "patients.csv").write_text(
        "path,patient_id,age\nct/covid19/batch/1.dcm,p1,\nct/covid19/batch/2.dcm,p2,\n"
        "ct/normal/p9,p3,40\n"
    )
    records = scan_source("folder", tmp_path).records.set_index("path")
    assert sorted(records.index) == [
        "ct/covid19/batch/1.dcm",
        "ct/covid19/batch/2.dcm",
        "ct/normal/p9",
    ]
    assert records["patient_id"].tolist() == ["folder:p1", "folder:p2", "folder:p3"]
    assert records.loc["ct/normal/p9", "age"] == 40


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("ct/normal/volume.nii.gz", True),
        ("ct/normal/IM.TIFF", True),
        ("ct/normal/IM0001", True),
        ("ct/normal/1.2.840.10008.5", True),
        ("cxr/normal/Thumbs.db", False),
        ("cxr/normal/notes.txt", False),
        ("cough_audio/normal/a.mp3", True),
        ("cough_audio/normal/a.png", False),
        ("cough_audio/normal/noname", False),
        ("ct/normal/a.wav", False),
        ("ct/loose.png", False),
        ("ct/who_knows/a.png", False),
    ],
)
def test_what_becomes_a_record(tmp_path: Path, path: str, taken: bool) -> None:
    touch(tmp_path, path, "ct/normal/anchor.png")
    scan = scan_source("folder", tmp_path)
    assert (path in set(scan.records["path"])) is taken
    assert (path in reasons(scan)) is not taken


def test_an_unknown_label_folder_is_excluded_with_the_nearest_label(tmp_path: Path) -> None:
    touch(tmp_path, "ct/normal/a.png", "ct/pnemonia/b.png")
    (left_out,) = scan_source("folder", tmp_path).excluded
    assert (left_out.path, left_out.modality, left_out.stage) == ("ct/pnemonia/b.png", "ct", "scan")
    assert "pneumonia" in left_out.remedy


@pytest.mark.parametrize(
    "name",
    ["with blank.png", "100%.png", "%41.png", "été.png", "影像.png", "a'b\"c.png", "x#y?.png"],
)
def test_odd_names_work(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"cxr/normal/{name}")
    (path,) = scan_source("folder", tmp_path).records["path"]
    assert (tmp_path / path).is_file()


def test_hidden_files_are_passed_over_silently(tmp_path: Path) -> None:
    touch(tmp_path, "ct/normal/a.png", "ct/normal/.DS_Store", "ct/.hidden/b.png", ".git/config")
    touch(tmp_path, "ct/__MACOSX/normal/a.png")
    scan = scan_source("folder", tmp_path)
    assert list(scan.records["path"]) == ["ct/normal/a.png"]
    assert not scan.excluded


def test_a_name_that_is_not_utf8_is_excluded(tmp_path: Path) -> None:
    touch(tmp_path, "ct/normal/a.png")
    try:
        Path(os.fsdecode(bytes(tmp_path / "ct/normal") + b"/\xff.png")).touch()
    except OSError:
        pytest.skip("this file system takes no such name")
    scan = scan_source("folder", tmp_path)
    assert len(scan.records) == 1
    assert ["UTF-8" in e.reason for e in scan.excluded] == [True]


def test_links(tmp_path: Path) -> None:
    outside = touch(tmp_path / "outside", "secret.png", "more/x.png")
    root = touch(tmp_path / "root", "ct/normal/a.png")
    folder = root / "ct" / "normal"
    (folder / "inside.png").symlink_to(folder / "a.png")
    (folder / "leaves.png").symlink_to(outside / "secret.png")
    (folder / "broken.png").symlink_to(folder / "nowhere.png")
    (folder / "tree").symlink_to(outside / "more", target_is_directory=True)
    (folder / "loop").symlink_to(root, target_is_directory=True)
    scan = scan_source("folder", root)
    assert set(scan.records["path"]) == {"ct/normal/a.png", "ct/normal/inside.png"}
    found = reasons(scan)
    assert "leads out" in found["ct/normal/leaves.png"]
    assert "broken" in found["ct/normal/broken.png"]
    assert "leads out" in found["ct/normal/tree"]
    assert "not followed" in found["ct/normal/loop"]


def test_what_stands_beside_the_folders_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "ct/normal/a.png", "cough/normal/b.wav", "readme.md")
    found = {e.path: e.remedy for e in scan_source("folder", tmp_path).excluded}
    assert set(found) == {"cough", "readme.md"}
    assert "cough_audio" in found["cough"]


def test_none_of_the_three_folders_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "images/normal/a.png")
    with pytest.raises(SourceError, match="none of the folders ct, cxr, cough_audio"):
        scan_source("folder", tmp_path)


class TestPatientsFile:
    def write(self, root: Path, text: str) -> Path:
        touch(root, "ct/covid19/a.png", "ct/covid19/s/1.dcm", "ct/covid19/s/2.dcm")
        touch(root, "cough_audio/covid19/a.wav", "cxr/normal/été 1.png")
        (root / "patients.csv").write_text(text, encoding="utf-8")
        return root

    def test_pairs_modalities_and_fills_the_columns(self, tmp_path: Path) -> None:
        self.write(
            tmp_path,
            "path,patient_id,age,sex,site,split,date,series_id,view,remark\n"
            "ct/covid19/a.png,007,61.5,female,ward 3,validation,2020-04,s1,axial,hello\n"
            "cough_audio/covid19/a.wav,007,,,,,,,,\n",
        )
        records = scan_source("folder", tmp_path).records.set_index("path")
        row = records.loc["ct/covid19/a.png"]
        wanted = {
            "patient_id": "folder:007",
            "patient_known": True,
            "age": 61.5,
            "sex": "F",
            "site": "ward 3",
            "split": "val",
            "date": "2020-04",
            "series_id": "folder:s1",
            "view": "axial",
        }
        assert row[list(wanted)].to_dict() == wanted
        assert records.loc["cough_audio/covid19/a.wav", "patient_id"] == "folder:007"
        assert not records.loc["cxr/normal/été 1.png", "patient_known"]

    def test_a_folder_may_be_named_and_the_nearest_row_wins(self, tmp_path: Path) -> None:
        self.write(
            tmp_path,
            "path,patient_id\nct/covid19/s/,p1\nct/covid19/s/2.dcm,p2\n",
        )
        patients = scan_source("folder", tmp_path).records.set_index("path")["patient_id"]
        assert patients["ct/covid19/s/1.dcm"] == "folder:p1"
        assert patients["ct/covid19/s/2.dcm"] == "folder:p2"

    @pytest.mark.parametrize(
        "written",
        [
            "cxr/normal/été 1.png",
            "./cxr/normal/été 1.png",
            "cxr\\normal\\été 1.png",
            unicodedata.normalize("NFD", "cxr/normal/été 1.png"),
        ],
    )
    def test_paths_of_other_machines_are_understood(self, tmp_path: Path, written: str) -> None:
        self.write(tmp_path, f"\ufeffpath,patient_id\n{written},p9\n")
        records = scan_source("folder", tmp_path).records
        assert (records["patient_id"] == "folder:p9").sum() == 1

    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_the_separators_of_other_countries_are_understood(
        self, tmp_path: Path, separator: str
    ) -> None:
        text = "path,patient_id,site\r\nct/covid19/a.png,p1,\r\n\r\n".replace(",", separator)
        self.write(tmp_path, text)
        patients = scan_source("folder", tmp_path).records.set_index("path")["patient_id"]
        assert patients["ct/covid19/a.png"] == "folder:p1"

    def test_a_row_without_a_file_is_excluded(self, tmp_path: Path) -> None:
        self.write(tmp_path, "path,patient_id\nct/covid19/gone.png,p1\nct/covid19/a.png,p2\n")
        (left_out,) = scan_source("folder", tmp_path).excluded
        assert left_out.path == "ct/covid19/gone.png"
        assert "line 2" in left_out.reason

    def test_an_empty_patient_id_means_unknown(self, tmp_path: Path) -> None:
        self.write(tmp_path, "path,patient_id,sex\nct/covid19/a.png,,M\n")
        row = scan_source("folder", tmp_path).records.set_index("path").loc["ct/covid19/a.png"]
        assert not row["patient_known"]
        assert row["sex"] == "M"

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("file,patient_id\nx,p\n", "column path is missing"),
            ("path\nx\n", "column patient_id is missing"),
            ("", "cannot be read"),
            ("path,patient_id,age\nx,p,old\n", "line 2: 'old' is not an age"),
            ("path,patient_id,age\nx,p,40\ny,p,131\n", "line 3: '131' is not an age"),
            ("path,patient_id,sex\nx,p,unsure\n", "line 2: 'unsure' is not a sex"),
            ("path,patient_id,split\nx,p,holdout\n", "line 2: 'holdout' is not a split"),
            ("path,patient_id,date\nx,p,3/4/2020\n", "line 2: '3/4/2020' is not a date"),
            ("path,patient_id\nx,p,7\n", "line 2: has 3 cells where the header has 2"),
            ('path,patient_id\n"x"y,p\n', "line 2: cannot be read as a CSV row"),
            ("path,patient_id,sex,sex\nx,p,F,M\n", "column sex stands twice"),
            ('path,patient_id,age\n\n"a\nb",p,\ny,p,old\n', "line 5: 'old' is not an age"),
            ("path,patient_id\nx,p\nx,q\n", "line 3: says something else of x than line 2"),
            ("path,patient_id\n,p\n", "line 2: the path is empty"),
            ("path,patient_id,splitt\nx,p,test\n", "unknown column 'splitt'.*'split'"),
            ("path,patient_id,spilt\nx,p,test\n", "unknown column 'spilt'.*'split'; rename"),
            ("path,patient_id,split,spilt\nx,p,,test\n", "'spilt'.*'split', which is there"),
            ("path,patient_id,dtae\nx,p,2020\n", "unknown column 'dtae'.*'date'"),
            ("path,patient_id,PatientID\nx,p,q\n", "unknown column 'patientid'.*'patient_id'"),
        ],
    )
    def test_a_fault_is_an_error_that_names_the_line(
        self, tmp_path: Path, text: str, why: str
    ) -> None:
        self.write(tmp_path, text)
        with pytest.raises(SourceError, match=why):
            scan_source("folder", tmp_path)

    def test_other_columns_are_passed_over(self, tmp_path: Path) -> None:
        # "image", "size" and "data" share letters with age, site and date, and are none of them.
        self.write(tmp_path, "path,patient_id,image,size,data,Name\nct/covid19/a.png,p,1,2,3,x\n")
        assert scan_source("folder", tmp_path).records["patient_known"].any()

    def test_another_encoding_is_told_to_be_saved_as_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "ct").mkdir(exist_ok=True)
        text = "path,patient_id,site\nct/covid19/a.png,p,Universit\xe4t\n"
        (tmp_path / "patients.csv").write_bytes(text.encode("latin-1"))
        with pytest.raises(SourceError, match=r"byte 0xe4 .*is not UTF-8") as caught:
            scan_source("folder", tmp_path)
        assert "save the file as UTF-8" in caught.value.remedy

    def test_a_repeated_equal_row_is_no_fault(self, tmp_path: Path) -> None:
        self.write(tmp_path, "path,patient_id\nct/covid19/a.png,p\nct/covid19/a.png,p\n")
        assert scan_source("folder", tmp_path).records["patient_known"].sum() == 1

    def test_ids_that_look_like_missing_values_stay_text(self, tmp_path: Path) -> None:
        self.write(tmp_path, "path,patient_id\nct/covid19/a.png,NA\nct/covid19/s,0012\n")
        patients = set(scan_source("folder", tmp_path).records["patient_id"])
        assert {"folder:NA", "folder:0012"} <= patients
