"""The names that every part of Pulmofuse shares: labels, modalities, manifest, predictions.

The manifest is one table, one row per file. It is checked once by `check_manifest` and trusted
from there on. Paths in it are relative to a data root, so that a manifest can be shared.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmofuse.errors import ManifestError
from pulmofuse.files import atomic_path
from pulmofuse.findings import parse_findings


class Modality(StrEnum):
    """What was recorded."""

    CT = "ct"
    CXR = "cxr"
    COUGH = "cough"


class Label(StrEnum):
    """What the data set says of the patient at the time of the recording."""

    NORMAL = "normal"
    COVID19 = "covid19"
    PNEUMONIA = "pneumonia"
    TUBERCULOSIS = "tuberculosis"
    CHRONIC_LUNG_DISEASE = "chronic_lung_disease"
    OTHER_ABNORMAL = "other_abnormal"
    UNKNOWN = "unknown"
    NOT_COVID19 = "not_covid19"


class Split(StrEnum):
    """Which part of a study a record belongs to."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Oddity(StrEnum):
    """What may be odd about a file that can be read."""

    BLANK = "blank"  # next to no content: an almost empty image, a recording of silence
    NOT_RADIOLOGY = "not_radiology"  # a photo, a drawing, a screenshot, a chart
    WRONG_MODALITY = "wrong_modality"  # a CT among X-rays, an X-ray among CT
    LATERAL = "lateral"  # an X-ray from the side
    NO_COUGH = "no_cough"  # noise, a tone or music, but no cough
    SPEECH = "speech"  # somebody talks, and does not cough
    BURNT_IN_TEXT = "burnt_in_text"  # letters in the pixels
    CLIPPED = "clipped"  # much of the range is cut off
    INCOMPLETE = "incomplete"  # a volume with gaps, copies, or files that could not be its slices


#: Labels that stand for a set: the data set says only that it is one of these.
LABEL_SETS: dict[Label, frozenset[Label]] = {
    Label.NOT_COVID19: frozenset(
        {
            Label.NORMAL,
            Label.PNEUMONIA,
            Label.TUBERCULOSIS,
            Label.CHRONIC_LUNG_DISEASE,
            Label.OTHER_ABNORMAL,
        }
    )
}

#: Folder of each modality in the default layout `ROOT/{ct,cxr,cough_audio}`.
MODALITY_FOLDERS: dict[Modality, str] = {
    Modality.CT: "ct",
    Modality.CXR: "cxr",
    Modality.COUGH: "cough_audio",
}

#: Joins the patients (or records) that make up one simulated patient, in the order ct, cxr, cough.
JOIN = " & "

#: Stands for a modality that a simulated patient lacks, so that each part keeps its place.
ABSENT = "-"

#: Joins the modalities of a subset, in the order ct, cxr, cough: "ct+cough".
SUBSET_JOIN = "+"

#: Columns of the manifest in their order; see design.md, "Contracts".
MANIFEST_COLUMNS: tuple[str, ...] = (
    "record_id",
    "patient_id",
    "patient_known",
    "modality",
    "path",
    "label",
    "source",
    "site",
    "split",
    "age",
    "sex",
    "view",
    "date",
    "day",
    "series_id",
    "traits",
    "findings",
)

_OPTIONAL_TEXT = ("site", "split", "sex", "view", "date", "series_id", "traits", "findings")
#: Columns of numbers, and what is counted in them.
_OPTIONAL_NUMBERS = {"age": "years", "day": "days"}
_OPTIONAL_COLUMNS = (*_OPTIONAL_TEXT, *_OPTIONAL_NUMBERS)

#: ISO 8601 calendar date of reduced precision: YYYY, YYYY-MM or YYYY-MM-DD. Text of this form
#: sorts by time, which is all that a split by time needs.
_ISO_DATE = r"[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?"

OLDEST_YEARS = 130

#: What people and spreadsheets write for a truth value.
_FLAGS: dict[object, bool] = {
    "true": True, "yes": True, "1": True, "1.0": True,
    "false": False, "no": False, "0": False, "0.0": False,
}  # fmt: skip


@dataclass(frozen=True)
class Exclusion:
    """A file that was left out, and why.

    Attributes:
        path: relative to the data root.
        modality: "ct", "cxr", "cough", or "" where not known.
        source: name of the data set.
        stage: "scan", "label", "read", "clean" (odd), "split", "audit" or "gate".
        reason: in plain words.
        remedy: what the user can do.
    """

    path: str
    modality: str
    source: str
    stage: str
    reason: str
    remedy: str


def exclusions_frame(exclusions: Iterable[Exclusion]) -> pd.DataFrame:
    """A table of exclusions with one column per field, also when there are none."""
    columns = [field.name for field in fields(Exclusion)]
    return pd.DataFrame([asdict(e) for e in exclusions], columns=columns).astype(object)


def subset_name(modalities: Iterable[Modality | str]) -> str:
    """Canonical name of a subset of modalities, e.g. "ct+cough" for any order of the two."""
    wanted = {Modality(m) for m in modalities}
    return SUBSET_JOIN.join(m.value for m in Modality if m in wanted)


def is_iso_date(value: object) -> bool:
    """Whether this is text that the manifest takes for a date: YYYY, YYYY-MM or YYYY-MM-DD."""
    return isinstance(value, str) and re.fullmatch(_ISO_DATE, value) is not None


def manifest_frame(rows: Iterable[dict[str, object]]) -> pd.DataFrame:
    """A manifest table from row dictionaries; absent optional columns are null.

    An age or a day that is not a number becomes null (data sets write "unknown" or "45+"); a
    `patient_known` that is no truth value stays as it is, for `check_manifest` to refuse.
    """
    frame = pd.DataFrame(list(rows))
    for column in MANIFEST_COLUMNS:
        if column not in frame:
            frame[column] = None
    frame = frame[list(MANIFEST_COLUMNS)]
    if len(frame):
        # `bool("no")` is true, and so is `bool(nan)`: each value is looked up, never cast.
        flags = frame["patient_known"].map(lambda flag: _FLAGS.get(str(flag).lower(), flag))
        frame["patient_known"] = flags.infer_objects()
    for column in _OPTIONAL_NUMBERS:
        frame[column] = pd.to_numeric(frame[column], errors="coerce").astype("float64")
    for column in _OPTIONAL_TEXT:
        values = frame[column].astype(object)
        frame[column] = values.where(values.notna(), None)
    return frame


def check_manifest(frame: pd.DataFrame, name: str | Path = "manifest") -> pd.DataFrame:
    """Check a manifest against the contract and return it with columns in order.

    Args:
        frame: one row per file; columns that the manifest does not know are left out.
        name: what to call the table in the error.

    Raises:
        ManifestError: a column is missing or misspelt, a value is outside its set, a `record_id`
            stands twice, or a `patient_id` belongs to two sources. The first offending row is
            named, counted from 1.
    """
    # Pandera costs a second to import, and `--help` must not pay it.
    import pandera.errors

    _check_columns(frame, name)
    given_numbers = {column: frame[column] for column in _OPTIONAL_NUMBERS if column in frame}
    frame = manifest_frame(frame.to_dict("records"))  # type: ignore[arg-type]
    if frame.empty:
        return frame
    for column, values in given_numbers.items():
        for row, (given, number) in enumerate(zip(values, frame[column], strict=True)):
            if pd.notna(given) and pd.isna(number):
                why = f"{given!r} is not a number of {_OPTIONAL_NUMBERS[column]}"
                raise _row_error(name, column, row, why)
    for row, flag in enumerate(frame["patient_known"]):
        if not isinstance(flag, bool | np.bool_):
            raise _row_error(name, "patient_known", row, f"{flag!r} is neither true nor false")
    try:
        checked: pd.DataFrame = _manifest_schema().validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases
        first = cases.sort_values("index", kind="stable").iloc[0]
        value, check = first["failure_case"], str(first["check"])
        given = "null" if pd.isna(value) else repr(value) if isinstance(value, str) else str(value)
        words = _findings_fault(value) if check == _FINDINGS_CHECK else _EXPLANATIONS.get(check)
        why = f"{given} {words or check}"
        if len(cases) > 1:
            why += f" ({len(cases)} faults in all)"
        raise _row_error(name, first["column"], int(first["index"]), why) from None
    sources = checked.groupby("patient_id")["source"].transform("nunique")
    if (sources > 1).any():
        row = int((sources > 1).to_numpy().argmax())
        patient = checked["patient_id"].iloc[row]
        why = f"{patient!r} belongs to two sources; prefix it with the source"
        raise _row_error(name, "patient_id", row, why)
    return checked


#: Name of the check of `findings`, whose words depend on the value.
_FINDINGS_CHECK = "findings"

#: Pandera's names of checks, in words that follow the value.
_EXPLANATIONS = {
    "field_uniqueness": "stands twice",
    "not_nullable": "is not allowed",
    "dtype('str')": "is not text",
    "dtype('string[pyarrow]')": "is not text",
}


def _check_columns(frame: pd.DataFrame, name: str | Path) -> None:
    """Refuse a table without a needed column, or with a misspelt one."""
    absent = [column for column in MANIFEST_COLUMNS if column not in frame]
    for column in frame.columns:
        # Left out silently, a column "splits" would let the official split be drawn anew.
        nearest = difflib.get_close_matches(str(column).strip().lower(), absent, n=1, cutoff=0.8)
        if column not in MANIFEST_COLUMNS and nearest:
            why, remedy = f"unknown column {column!r}", f"the nearest column is {nearest[0]!r}"
            raise ManifestError(name, why, remedy)
    missing = [column for column in absent if column not in _OPTIONAL_COLUMNS]
    if missing:
        raise ManifestError(
            name,
            f"column {', '.join(missing)} is missing",
            f"a manifest has the columns {', '.join(MANIFEST_COLUMNS)}",
        )


def _row_error(name: str | Path, column: str, row: int, why: str) -> ManifestError:
    """The error of one cell; `row` counts from 0, the person from 1."""
    remedy = "mend the table, or make it again with `pulmofuse data scan`"
    return ManifestError(name, f"{column} in row {row + 1}: {why}", remedy)


def _findings_fault(value: object) -> str | None:
    """What is wrong with a cell of the column `findings`; None where nothing is."""
    if not isinstance(value, str):
        return "is not text"
    try:
        parse_findings(value)
    except ValueError as error:
        return str(error)
    return None


def _manifest_schema() -> Any:
    """The manifest's contract as a pandera schema."""
    import pandera.pandas as pa

    def one_of(names: Iterable[str]) -> pa.Check:
        listed = list(names)
        return pa.Check.isin(listed, error=f"is not one of {', '.join(listed)}")

    text = pa.Check.str_length(min_value=1, error="is empty")
    # An absolute path would tie the manifest to one machine, and ".." would leave the data root.
    inside_root = pa.Check(
        lambda paths: ~paths.str.match(r"(?s)([A-Za-z]:)?[/\\]|(.*[/\\])?\.\.([/\\]|$)"),
        error="leaves the data root; a path is relative to it and has no '..'",
    )
    is_text = pa.Check(lambda value: isinstance(value, str), element_wise=True, error="is not text")
    # A date that a library read as a timestamp is no text: it is told so, not turned into text.
    iso_date = pa.Check(
        is_iso_date, element_wise=True, error="is not a date as YYYY, YYYY-MM or YYYY-MM-DD"
    )
    findings = pa.Check(
        lambda value: _findings_fault(value) is None, element_wise=True, error=_FINDINGS_CHECK
    )
    years = pa.Check.in_range(0, OLDEST_YEARS, error=f"is not in 0 to {OLDEST_YEARS} years")
    finite = pa.Check(np.isfinite, element_wise=True, error="is not a number of days")
    return pa.DataFrameSchema(
        {
            "record_id": pa.Column(str, text, unique=True),
            "patient_id": pa.Column(str, text),
            "patient_known": pa.Column(bool),
            "modality": pa.Column(str, one_of(Modality)),
            "path": pa.Column(str, [text, inside_root]),
            "label": pa.Column(str, one_of(Label)),
            "source": pa.Column(str, text),
            "site": pa.Column(object, is_text, nullable=True),
            "split": pa.Column(object, one_of(Split), nullable=True),
            "age": pa.Column(float, years, nullable=True),
            "sex": pa.Column(object, one_of(("F", "M", "O")), nullable=True),
            "view": pa.Column(object, is_text, nullable=True),
            "date": pa.Column(object, iso_date, nullable=True),
            "day": pa.Column(float, finite, nullable=True),
            "series_id": pa.Column(object, is_text, nullable=True),
            "traits": pa.Column(object, is_text, nullable=True),
            "findings": pa.Column(object, findings, nullable=True),
        }
    )


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest from Parquet or CSV and check it.

    Raises:
        ManifestError: the file cannot be read or breaks the contract.
    """
    return check_manifest(read_table(path), path)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table from Parquet or CSV, of which all cells are text.

    Raises:
        ManifestError: the file cannot be read.
    """
    try:
        return _read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        why = "no such file" if not path.exists() else f"not a Parquet or CSV table ({error})"
        raise ManifestError(path, why, "make one with `pulmofuse data scan`") from None


def _read_csv(path: Path) -> pd.DataFrame:
    """A CSV table as text, so that a patient 0012 does not become the number 12."""
    # utf-8-sig: Excel writes a byte order mark, which would become part of the first column.
    return pd.read_csv(path, dtype=str, encoding="utf-8-sig")


def check_manifest_path(path: Path) -> str:
    """The suffix of a path that a manifest can be written to.

    Raises:
        ManifestError: it is a folder, or neither .parquet nor .csv.
    """
    suffix = path.suffix.lower()
    if suffix not in {".parquet", ".csv"} or path.is_dir():
        raise ManifestError(path, "is neither a .parquet nor a .csv file", "name one of these")
    return suffix


def write_manifest(path: Path, frame: pd.DataFrame) -> None:
    """Check a manifest and write it atomically, as Parquet or CSV by the path's suffix.

    Raises:
        ManifestError: the table breaks the contract, or the suffix is another one.
    """
    checked = check_manifest(frame, path)
    suffix = check_manifest_path(path)
    with atomic_path(path) as temporary:
        if suffix == ".csv":
            checked.to_csv(temporary, index=False)
        else:
            checked.to_parquet(temporary, index=False)


def iterate(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of a table as dictionaries, one after the other."""
    for row in frame.to_dict("records"):
        yield {str(name): value for name, value in row.items()}


def class_columns(classes: Iterable[str], *, raw: bool = False) -> list[str]:
    """Names of the probability columns of a predictions table, in class order."""
    prefix = "p_raw_" if raw else "p_"
    return [f"{prefix}{name}" for name in classes]
