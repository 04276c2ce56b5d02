"""A table of files: what is read from it, and errors that name the line."""

from __future__ import annotations

import datetime
import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from tests.sources.trees import touch

FILES = ("scans/a.png", "scans/b.dcm", "sounds/a.webm", "scans/été.png")


def tree(root: Path, text: str, name: str = "table.csv") -> Path:
    """A folder with the files above and the table given."""
    touch(root, *FILES)
    (root / name).write_text(text, encoding="utf-8")
    return root


class TestRows:
    def test_need_three_columns_only(self, tmp_path: Path) -> None:
        text = "path,label,modality\nscans/a.png,COVID-19,CT\nsounds/a.webm,healthy,cough_audio\n"
        scan = scan_source("table", tree(tmp_path, text))
        rows = scan.records.set_index("path")
        assert rows["label"].to_dict() == {"scans/a.png": "covid19", "sounds/a.webm": "normal"}
        assert rows["modality"].tolist() == ["ct", "cough"]
        assert rows["patient_id"].tolist() == ["table:scans/a.png", "table:sounds/a.webm"]
        assert not rows["patient_known"].any()
        assert set(rows["source"]) == {"table"}
        assert not scan.excluded

    def test_fill_every_column_of_the_manifest(self, tmp_path: Path) -> None:
        text = (
            "Path;Label;Modality;patient_id;patient_known;source;site;split;age;sex;view;date;day;"
            "series_id;traits;findings;remark\n"
            "scans\\b.dcm;normal;ct;007;yes;north;ward 3;valid;61,;female;axial;2020-04;-3;s1;;"
            '"{""mass"": 1}";x\n'
        ).replace("61,", "61")
        (row,) = scan_source("table", tree(tmp_path, text)).records.to_dict("records")
        assert row == {
            "record_id": "table:scans/b.dcm",
            "patient_id": "table:007",
            "patient_known": True,
            "modality": "ct",
            "path": "scans/b.dcm",
            "label": "normal",
            "source": "north",
            "site": "ward 3",
            "split": "val",
            "age": 61.0,
            "sex": "F",
            "view": "axial",
            "date": "2020-04",
            "day": -3.0,
            "series_id": "table:s1",
            "traits": None,
            "findings": '{"mass": 1}',
        }

    def test_pair_the_modalities_of_one_person(self, tmp_path: Path) -> None:
        text = (
            "path,label,modality,patient_id,patient_known\n"
            "scans/a.png,covid19,cxr,p1,\nsounds/a.webm,covid19,cough,p1,\n"
            "scans/b.dcm,covid19,ct,article 3,false\n"
        )
        rows = scan_source("table", tree(tmp_path, text)).records.set_index("path")
        assert rows.loc["scans/a.png", "patient_id"] == rows.loc["sounds/a.webm", "patient_id"]
        assert rows["patient_known"].to_dict() == {
            "scans/a.png": True,
            "scans/b.dcm": False,
            "sounds/a.webm": True,
        }

    def test_may_name_a_folder_of_slices(self, tmp_path: Path) -> None:
        text = "path,label,modality\ncase.17/,normal,ct\n"
        scan = scan_source("table", touch(tree(tmp_path, text), "case.17/1.dcm", "case.17/2.dcm"))
        assert scan.records["path"].tolist() == ["case.17"]
        assert not scan.excluded

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_find_accents_however_they_are_written(self, tmp_path: Path, form: str) -> None:
        written = unicodedata.normalize(form, "./scans//été.png")  # type: ignore[arg-type]
        scan = scan_source("table", tree(tmp_path, f"path,label,modality\n{written},normal,cxr\n"))
        (path,) = scan.records["path"]
        assert (tmp_path / path).is_file()

    def test_may_come_from_parquet(self, tmp_path: Path) -> None:
        touch(tmp_path, *FILES)
        pd.DataFrame(
            {
                "path": ["scans/a.png", "scans/b.dcm"],
                "label": ["tuberculosis", "normal"],
                "modality": ["cxr", "ct"],
                "patient_id": [12.0, None],
                "patient_known": [True, None],
                "date": [datetime.date(2020, 4, 13), None],
                "traits": ['{"width": 512}', None],
            }
        ).to_parquet(tmp_path / "manifest.parquet")
        rows = scan_source("table", tmp_path).records.set_index("path")
        assert rows.loc["scans/a.png", ["patient_id", "date", "traits"]].tolist() == [
            "table:12",
            "2020-04-13",
            '{"width": 512}',
        ]
        assert rows["patient_known"].tolist() == [True, False]

    def test_of_two_folders_can_stand_in_one_study(self, tmp_path: Path) -> None:
        for hospital in ("north", "south"):
            (tmp_path / hospital).mkdir()
            tree(tmp_path / hospital, "path,label,modality,patient_id\nscans/a.png,normal,ct,1\n")
        north, south = (scan_source("table", tmp_path, h).records for h in ("north", "south"))
        assert north["patient_id"].tolist() == ["table:north/1"]
        assert north["site"].tolist() == ["north"]
        assert not set(north["record_id"]) & set(south["record_id"])


class TestFaults:
    @pytest.mark.parametrize(
        ("rows", "why"),
        [
            ("scans/a.png,flu,ct,\n", "line 2: 'flu' is not a label"),
            ("scans/a.png,normall,ct,\n", "line 2: .* nearest label is normal"),
            ("scans/a.png,,ct,\n", "line 2: the label is empty"),
            ("scans/a.png,normal,mri,\n", "line 2: 'mri' is not a modality"),
            ("scans/a.png,normal,,\n", "line 2: the modality is empty"),
            (",normal,ct,\n", "line 2: the path is empty"),
            ("../a.png,normal,ct,\n", "line 2: .* leaves the folder"),
            ("/etc/a.png,normal,ct,\n", "line 2: .* leaves the folder"),
            ("C:\\a.png,normal,ct,\n", "line 2: .* leaves the folder"),
            ("\nscans/a.png,normal,ct,\n./scans/a.png,normal,ct,\n", "line 4: .*as line 3 does"),
            ("scans/a.png,normal,ct,61,7\n", "line 2: has 5 cells where the header has 4"),
            ('"scans/\na.png",normal,ct,\nx.png,normal,ct,old\n', "line 4: 'old' is not an age"),
        ],
    )
    def test_name_the_line(self, tmp_path: Path, rows: str, why: str) -> None:
        with pytest.raises(SourceError, match=why) as caught:
            scan_source("table", tree(tmp_path, f"path,label,modality,age\n{rows}"))
        assert caught.value.what.startswith(str(tmp_path / "table.csv"))

    @pytest.mark.parametrize(
        ("header", "cell", "why"),
        [
            ("date", "4/3/2020", "'4/3/2020' is not a date"),
            ("sex", "x", "'x' is not a sex"),
            ("split", "holdout", "'holdout' is not a split"),
            ("patient_known", "perhaps", "'perhaps' is not a truth value"),
            ("day", "soon", "'soon' is not a number of days"),
            ("traits", "[1]", "traits is not a JSON object"),
            ("traits", "{", "traits is not a JSON object"),
            ("findings", "mass", "findings 'mass' is not a JSON object"),
            ("findings", '"{""mas"": 1}"', "'mas', which is no finding; the nearest is mass"),
            ("finding", "mass", "unknown column 'finding'.*'findings'"),
            ("patientid", "3", "unknown column 'patientid'.*'patient_id'"),
            ("label", "normal", "column label stands twice"),
        ],
    )
    def test_in_an_optional_column(self, tmp_path: Path, header: str, cell: str, why: str) -> None:
        text = f"path,label,modality,{header}\nscans/a.png,normal,ct,{cell}\n"
        with pytest.raises(SourceError, match=why):
            scan_source("table", tree(tmp_path, text))

    def test_one_person_of_two_sources(self, tmp_path: Path) -> None:
        text = (
            "path,label,modality,patient_id,source\n"
            "scans/a.png,normal,ct,1,north\nscans/b.dcm,normal,ct,1,south\n"
        )
        with pytest.raises(SourceError, match=r"line 3: patient 1 belongs to another .* line 2"):
            scan_source("table", tree(tmp_path, text))

    def test_no_table_or_two(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"holds none of table\.csv"):
            scan_source("table", touch(tmp_path, "scans/a.png"))
        tree(tmp_path, "path,label,modality\n", "table.csv")
        tree(tmp_path, "path,label,modality\n", "manifest.csv")
        with pytest.raises(SourceError, match=r"table\.csv and manifest\.csv"):
            scan_source("table", tmp_path)

    @pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
    def test_no_table_at_all(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(SourceError, match="cannot be read"):
            scan_source("table", tree(tmp_path, "", name))

    def test_a_parquet_table_without_labels(self, tmp_path: Path) -> None:
        pd.DataFrame({"path": ["a.png"]}).to_parquet(tmp_path / "table.parquet")
        with pytest.raises(SourceError, match="column label, modality is missing"):
            scan_source("table", tmp_path)


def test_a_row_without_a_file_that_can_be_used_is_excluded(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    touch(tmp_path / "elsewhere", "secret.png")
    long = "x" * 300
    text = (
        "path,label,modality\nscans/a.png,normal,ct\ngone.png,normal,ct\nsounds/a.webm,normal,ct\n"
        f"link/secret.png,normal,ct\nscans,normal,cxr\n{long}.png,normal,ct\n"
    )
    (tmp_path / "root").mkdir()
    root = tree(tmp_path / "root", text)
    (root / "link").symlink_to(tmp_path / "elsewhere")
    scan = scan_source("table", root)
    assert scan.records["path"].tolist() == ["scans/a.png"]
    assert {e.path: e.reason for e in scan.excluded} == {
        "gone.png": "line 3 of the table names it, but it is not on disk",
        "sounds/a.webm": ".webm is not a ct file",
        "link/secret.png": "the link leads out of the data set's folder",
        "scans": "not an ordinary file",
        f"{long}.png": "line 7 of the table names it, but it is not on disk",
    }
