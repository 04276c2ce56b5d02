"""The names that every part of Pulmofuse shares: labels, modalities, manifest, predictions.

The manifest is one table, one row per file. It is checked once by `check_manifest` and trusted
from there on. Paths in it are relative to a data root, so that a manifest can be shared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path

import pandas as pd

from pulmofuse.errors import ManifestError
from pulmofuse.files import atomic_path


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
    "series_id",
    "traits",
)

_OPTIONAL_COLUMNS = ("site", "split", "age", "sex", "view", "series_id", "traits")


@dataclass(frozen=True)
class Exclusion:
    """A file that was left out, and why.

    Attributes:
        path: relative to the data root.
        modality: "ct", "cxr", "cough", or "" where not known.
        source: name of the data set.
        stage: "scan", "read", "label", "split" or "audit".
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


def manifest_frame(rows: Iterable[dict[str, object]]) -> pd.DataFrame:
    """A manifest table from row dictionaries; absent optional columns are null."""
    frame = pd.DataFrame(list(rows))
    for column in MANIFEST_COLUMNS:
        if column not in frame:
            frame[column] = None
    frame = frame[list(MANIFEST_COLUMNS)]
    if len(frame):
        frame["patient_known"] = frame["patient_known"].astype(bool)
    frame["age"] = pd.to_numeric(frame["age"], errors="coerce").astype("float64")
    for column in ("site", "split", "sex", "view", "series_id", "traits"):
        values = frame[column].astype(object)
        frame[column] = values.where(values.notna(), None)
    return frame


def check_manifest(frame: pd.DataFrame, name: str | Path = "manifest") -> pd.DataFrame:
    """Check a manifest against the contract and return it with columns in order.

    Args:
        frame: one row per file.
        name: what to call the table in the error.

    Raises:
        ManifestError: a column is missing, a value is outside its set, a `record_id` stands
            twice, or a `patient_id` belongs to two sources. The first offending rows are named.
    """
    # Pandera costs a second to import, and `--help` must not pay it.
    import pandera.pandas as pa

    missing = [c for c in MANIFEST_COLUMNS if c not in frame and c not in _OPTIONAL_COLUMNS]
    if missing:
        raise ManifestError(
            name,
            f"column {', '.join(missing)} is missing",
            f"a manifest has the columns {', '.join(MANIFEST_COLUMNS)}",
        )
    frame = manifest_frame(frame.to_dict("records"))  # type: ignore[arg-type]
    text = pa.Check.str_length(min_value=1)
    one_source = pa.Check(
        lambda table: table.groupby("patient_id")["source"].transform("nunique") == 1,
        error="a patient_id must belong to one source (prefix it with the source)",
    )
    # An absolute path would tie the manifest to one machine, and ".." would leave the data root.
    inside_root = pa.Check(
        lambda paths: ~paths.str.match(r"^([A-Za-z]:)?[/\\]|(.*[/\\])?\.\.([/\\]|$)"),
        error="a path must be relative and must not contain '..'",
    )
    schema = pa.DataFrameSchema(
        {
            "record_id": pa.Column(str, text, unique=True),
            "patient_id": pa.Column(str, text),
            "patient_known": pa.Column(bool),
            "modality": pa.Column(str, pa.Check.isin([m.value for m in Modality])),
            "path": pa.Column(str, [text, inside_root]),
            "label": pa.Column(str, pa.Check.isin([label.value for label in Label])),
            "source": pa.Column(str, text),
            "site": pa.Column(object, nullable=True),
            "split": pa.Column(object, pa.Check.isin([s.value for s in Split]), nullable=True),
            "age": pa.Column(float, pa.Check.in_range(0, 130), nullable=True),
            "sex": pa.Column(object, pa.Check.isin(["F", "M", "O"]), nullable=True),
            "view": pa.Column(object, nullable=True),
            "series_id": pa.Column(object, nullable=True),
            "traits": pa.Column(object, nullable=True),
        },
        checks=one_source,
    )
    if frame.empty:
        return frame
    try:
        return schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        first = error.failure_cases.iloc[0]
        row = "" if pd.isna(first["index"]) else f" in row {first['index']}"
        raise ManifestError(
            name,
            f"{first['column'] or 'table'}{row}: {first['failure_case']!r} fails {first['check']}"
            f" ({len(error.failure_cases)} faults in all)",
            "mend these rows, or make the manifest again with `pulmofuse data scan`",
        ) from None


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest from Parquet or CSV and check it.

    Raises:
        ManifestError: the file cannot be read or breaks the contract.
    """
    try:
        frame = pd.read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        why = "no such file" if not path.exists() else f"not a Parquet or CSV table ({error})"
        raise ManifestError(path, why, "make one with `pulmofuse data scan`") from None
    return check_manifest(frame, path)


def write_manifest(path: Path, frame: pd.DataFrame) -> None:
    """Check a manifest and write it as Parquet, atomically."""
    checked = check_manifest(frame, path)
    with atomic_path(path) as temporary:
        checked.to_parquet(temporary, index=False)


def class_columns(classes: Iterable[str], *, raw: bool = False) -> list[str]:
    """Names of the probability columns of a predictions table, in class order."""
    prefix = "p_raw_" if raw else "p_"
    return [f"{prefix}{name}" for name in classes]
