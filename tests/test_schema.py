"""The manifest's contract: what is accepted, and what a person reads when it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.errors import ManifestError
from pulmofuse.schema import (
    LABEL_SETS,
    MANIFEST_COLUMNS,
    Exclusion,
    Label,
    Modality,
    check_manifest,
    class_columns,
    exclusions_frame,
    iterate,
    manifest_frame,
    read_manifest,
    subset_name,
    write_manifest,
)

ROW: dict[str, Any] = {
    "record_id": "mine:1",
    "patient_id": "mine:p1",
    "patient_known": True,
    "modality": "ct",
    "path": "ct/covid19/1.png",
    "label": "covid19",
    "source": "mine",
    "site": "ward 3",
    "split": "train",
    "age": 61.0,
    "sex": "F",
    "view": None,
    "date": "2020-04-13",
    "day": 5.0,
    "series_id": None,
    "traits": '{"width": 512}',
    "findings": None,
}


def table(*changes: dict[str, Any]) -> pd.DataFrame:
    """One row per change, each with a record id of its own."""
    return pd.DataFrame(
        [{**ROW, "record_id": f"mine:{n}", **change} for n, change in enumerate(changes, start=1)]
    )


GOOD: list[tuple[str, dict[str, Any]]] = [
    ("as it is", {}),
    ("no site", {"site": None}),
    ("no split", {"split": None}),
    ("no age", {"age": None}),
    ("age as text", {"age": "61"}),
    ("new-born", {"age": 0}),
    ("other sex", {"sex": "O"}),
    ("patient not known", {"patient_known": False}),
    ("a flag in words", {"patient_known": "No"}),
    ("a flag as a number", {"patient_known": 0}),
    ("a path with dots in a name", {"path": "ct/a..b/c.png"}),
    ("a path with blanks", {"path": "X-Ray Image DataSet/a b.jpg"}),
    ("a month", {"date": "2020-04"}),
    ("a year", {"date": "2020"}),
    ("no date", {"date": None}),
    ("no day", {"day": None}),
    ("a day before the start, as text", {"day": "-3"}),
    ("findings", {"findings": '{"mass": 1, "hernia": 0}'}),
    ("a label set", {"label": "not_covid19"}),
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"label": "flu"}, "label in row 2: 'flu' is not one of normal, covid19, "),
    ({"label": None}, "label in row 2: null is not allowed"),
    ({"modality": "mri"}, "modality in row 2: 'mri' is not one of ct, cxr, cough"),
    ({"split": "dev"}, "split in row 2: 'dev' is not one of train, val, test"),
    ({"sex": "male"}, "sex in row 2: 'male' is not one of F, M, O"),
    ({"age": 131}, "age in row 2: 131.0 is not in 0 to 130 years"),
    ({"age": -1}, "age in row 2: -1.0 is not in 0 to 130 years"),
    ({"age": float("inf")}, "age in row 2: inf is not in 0 to 130 years"),
    ({"age": "045Y"}, "age in row 2: '045Y' is not a number of years"),
    ({"patient_known": None}, "patient_known in row 2: None is neither true nor false"),
    ({"patient_known": "perhaps"}, "patient_known in row 2: 'perhaps' is neither"),
    ({"record_id": "mine:1"}, "record_id in row 1: 'mine:1' stands twice"),
    ({"record_id": ""}, "record_id in row 2: '' is empty"),
    ({"patient_id": 12}, "patient_id in row 2: 12 is not text"),
    ({"source": "yours"}, "patient_id in row 1: 'mine:p1' belongs to two sources"),
    ({"path": "/data/a.png"}, "path in row 2: '/data/a.png' leaves the data root"),
    ({"path": "C:\\data\\a.png"}, "leaves the data root"),
    ({"path": "../a.png"}, "path in row 2: '../a.png' leaves the data root"),
    ({"path": "ct/../../a.png"}, "leaves the data root"),
    ({"path": ".."}, "leaves the data root"),
    ({"path": "a\n/../b"}, "leaves the data root"),
    ({"path": None}, "path in row 2: null is not allowed"),
    ({"date": "13.04.2020"}, "date in row 2: '13.04.2020' is not a date as YYYY, YYYY-MM or"),
    ({"date": "2020-13"}, "date in row 2: '2020-13' is not a date"),
    ({"date": "2020-04-32"}, "date in row 2: '2020-04-32' is not a date"),
    ({"date": "2020-04-13T21:30"}, "date in row 2: '2020-04-13T21:30' is not a date"),
    ({"date": ""}, "date in row 2: '' is not a date"),
    ({"date": 2020}, "date in row 2: 2020 is not a date"),
    ({"date": pd.Timestamp("2020-04-13")}, "is not a date"),
    ({"day": "soon"}, "day in row 2: 'soon' is not a number of days"),
    ({"day": float("inf")}, "day in row 2: inf is not a number of days"),
    ({"site": 3}, "site in row 2: 3 is not text"),
    ({"traits": {"width": 512}}, "traits in row 2: {'width': 512} is not text"),
    ({"findings": {"mass": 1}}, "findings in row 2: {'mass': 1} is not text"),
    ({"findings": "mass"}, "findings in row 2: 'mass' is not a JSON object such as "),
    ({"findings": '{"masss": 1}'}, "names 'masss', which is no finding; the nearest is mass"),
    ({"findings": '{"mass": 2}'}, "says mass is 2; 1 is present, 0 absent, nothing not said"),
]


class TestCheckManifest:
    @pytest.mark.parametrize(("_name", "change"), GOOD, ids=[name for name, _ in GOOD])
    def test_accepts(self, _name: str, change: dict[str, Any]) -> None:
        checked = check_manifest(table({}, change))

        assert tuple(checked.columns) == MANIFEST_COLUMNS
        assert len(checked) == 2
        assert checked["patient_known"].dtype == bool
        assert checked["age"].dtype == float

    @pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
    def test_refuses_and_names_the_row(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ManifestError) as caught:
            check_manifest(table({}, change), "my.csv")

        assert str(caught.value).startswith("my.csv: ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_counts_the_faults_and_names_the_first_row(self) -> None:
        with pytest.raises(ManifestError, match=r"sex in row 2: 'x' .* \(3 faults in all\)"):
            check_manifest(table({}, {"sex": "x"}, {"label": "flu"}, {"split": "dev"}))

    @pytest.mark.parametrize("column", ["record_id", "patient_id", "patient_known", "path"])
    def test_names_a_missing_column(self, column: str) -> None:
        with pytest.raises(ManifestError, match=f"column {column} is missing"):
            check_manifest(table({}).drop(columns=column))

    def test_names_the_right_column_for_a_misspelt_one(self) -> None:
        frame = table({}).rename(columns={"split": "Splits"})

        with pytest.raises(ManifestError, match=r"'Splits'\. The nearest column is 'split'"):
            check_manifest(frame)

    def test_leaves_out_columns_of_ones_own(self) -> None:
        frame = table({}).assign(remark="see letter", path2="elsewhere")

        assert tuple(check_manifest(frame).columns) == MANIFEST_COLUMNS

    def test_optional_columns_may_be_absent(self) -> None:
        optional = ["site", "split", "age", "sex", "view", "date", "series_id", "traits"]
        optional.append("findings")
        checked = check_manifest(table({}, {}).drop(columns=optional))

        assert checked[optional].isna().all().all()

    def test_an_empty_table_has_all_columns(self) -> None:
        assert tuple(check_manifest(manifest_frame([])).columns) == MANIFEST_COLUMNS

    def test_leaves_the_table_given_as_it_was(self) -> None:
        frame = table({"patient_known": "yes"})
        before = frame.copy(deep=True)
        check_manifest(frame)

        pd.testing.assert_frame_equal(frame, before)

    @settings(max_examples=60, deadline=None)
    @given(flag=st.text(max_size=6) | st.none() | st.floats() | st.integers())
    def test_an_identity_is_never_taken_for_known_by_accident(self, flag: object) -> None:
        try:
            known = check_manifest(table({"patient_known": flag}))["patient_known"].iloc[0]
        except ManifestError:
            return
        assert bool(known) == (str(flag).lower() in {"true", "yes", "1", "1.0"})


class TestManifestFrame:
    def test_an_age_that_is_no_number_is_null(self) -> None:
        rows = [{**ROW, "age": age} for age in ("45", "45+", "Young Child", None)]

        assert manifest_frame(rows)["age"].fillna(-1).tolist() == [45.0, -1, -1, -1]


class TestFiles:
    def test_parquet_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        frame = check_manifest(table({}, {"site": None, "age": None, "patient_known": False}))
        write_manifest(tmp_path / "manifest.parquet", frame)

        pd.testing.assert_frame_equal(read_manifest(tmp_path / "manifest.parquet"), frame)

    @pytest.mark.parametrize("column", ["date", "findings"])
    def test_a_manifest_of_before_there_was_a_column_is_still_read(
        self, tmp_path: Path, column: str
    ) -> None:
        table({}, {}).drop(columns=column).to_parquet(tmp_path / "old.parquet", index=False)
        checked = read_manifest(tmp_path / "old.parquet")

        assert tuple(checked.columns) == MANIFEST_COLUMNS
        assert checked[column].tolist() == [None, None]

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_findings_come_back_as_they_were_written(self, tmp_path: Path, suffix: str) -> None:
        cells = ['{"mass": 1, "hernia": 0}', None]
        frame = check_manifest(table(*({"findings": cell} for cell in cells)))
        write_manifest(tmp_path / f"manifest{suffix}", frame)

        assert read_manifest(tmp_path / f"manifest{suffix}")["findings"].tolist() == cells

    def test_csv_says_the_same_as_parquet(self, tmp_path: Path) -> None:
        frame = check_manifest(table({}, {"site": None, "age": None, "patient_known": False}))
        frame.to_csv(tmp_path / "manifest.csv", index=False)

        pd.testing.assert_frame_equal(read_manifest(tmp_path / "manifest.csv"), frame)

    def test_csv_of_a_spreadsheet_keeps_leading_zeros(self, tmp_path: Path) -> None:
        text = (
            "record_id,patient_id,patient_known,modality,path,label,source,site,sex\r\n"
            "1,0012,TRUE,cough,a.wav,covid19,mine,007,\r\n"
            "2,0013,FALSE,cough,b.wav,normal,mine,,M\r\n"
        )
        (tmp_path / "mine.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
        checked = read_manifest(tmp_path / "mine.csv")

        assert checked["patient_id"].tolist() == ["0012", "0013"]
        assert checked["patient_known"].tolist() == [True, False]
        assert checked["site"].tolist() == ["007", None]
        assert checked["sex"].tolist() == [None, "M"]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("absent.parquet", None, "no such file"),
            ("absent.csv", None, "no such file"),
            ("empty.csv", b"", "not a Parquet or CSV table"),
            ("empty.parquet", b"", "not a Parquet or CSV table"),
            ("cut.parquet", b"PAR1\x15\x04", "not a Parquet or CSV table"),
            ("binary.csv", b"\xff\xfe\x00\x01", "not a Parquet or CSV table"),
            ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n", "not a Parquet or CSV table"),
            ("other.csv", b"image,class\na.png,covid19\n", "record_id, patient_id, .* is missing"),
        ],
    )
    def test_a_file_that_is_no_manifest(
        self, tmp_path: Path, name: str, content: bytes | None, message: str
    ) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)

        with pytest.raises(ManifestError, match=message) as caught:
            read_manifest(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_it_is_written_as_csv_too_and_as_nothing_else(self, tmp_path: Path) -> None:
        frame = check_manifest(table({}, {"site": None}))
        write_manifest(tmp_path / "manifest.csv", frame)
        pd.testing.assert_frame_equal(read_manifest(tmp_path / "manifest.csv"), frame)
        with pytest.raises(ManifestError, match="neither"):
            write_manifest(tmp_path / "manifest.xlsx", frame)

    def test_a_faulty_table_is_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError):
            write_manifest(tmp_path / "manifest.parquet", table({"label": "flu"}))

        assert not (tmp_path / "manifest.parquet").exists()


class TestNames:
    @pytest.mark.parametrize(
        ("modalities", "name"),
        [
            (["ct"], "ct"),
            (["cough", "ct"], "ct+cough"),
            ([Modality.COUGH, Modality.CXR, Modality.CT], "ct+cxr+cough"),
            (["cxr", "cxr"], "cxr"),
            ([], ""),
        ],
    )
    def test_subset_is_in_the_fixed_order(self, modalities: list[str], name: str) -> None:
        assert subset_name(modalities) == name

    def test_subset_of_something_else_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'mri' is not a valid Modality"):
            subset_name(["mri"])

    def test_columns_follow_the_order_of_the_classes(self) -> None:
        assert class_columns(["b", "a"]) == ["p_b", "p_a"]
        assert class_columns(["b", "a"], raw=True) == ["p_raw_b", "p_raw_a"]

    def test_not_covid19_is_every_known_label_but_covid19(self) -> None:
        assert LABEL_SETS[Label.NOT_COVID19] == set(Label) - {
            Label.COVID19,
            Label.UNKNOWN,
            Label.NOT_COVID19,
        }


class TestTables:
    def test_no_exclusions_still_have_columns(self) -> None:
        frame = exclusions_frame([])

        assert list(frame) == ["path", "modality", "source", "stage", "reason", "remedy"]
        assert frame.empty

    def test_an_exclusion_is_a_row(self) -> None:
        left_out = Exclusion("a.mp3", "cough", "mine", "read", "it is empty", "copy it again")

        assert list(iterate(exclusions_frame([left_out]))) == [
            {
                "path": "a.mp3",
                "modality": "cough",
                "source": "mine",
                "stage": "read",
                "reason": "it is empty",
                "remedy": "copy it again",
            }
        ]
