"""Any table that lists files: your own data, wherever the files lie below one folder.

Origin: yours. Nothing is downloaded. Licence: whatever you hold the data under.

Layout:
    ROOT/table.csv  or  table.parquet  or  manifest.csv  or  manifest.parquet     exactly one
    the files, at the paths in the table, relative to ROOT
A CSV table is UTF-8 with a header line; commas, semicolons and tabs separate alike.

Columns: `path`, `label` and `modality` (ct, cxr or cough) are needed. `patient_id`,
`patient_known` (true or false), `source`, `site`, `split` (train, val or test), `age` (years),
`sex` (F, M or O), `view`, `date` (YYYY, YYYY-MM or YYYY-MM-DD), `day` (a number), `series_id`,
`traits` (JSON) and `findings` (JSON, such as {"mass": 1, "hernia": 0}; a finding that is not named
is not said) are optional and mean what they mean in a manifest. Other columns are ignored; a
misspelt one of these is an error. A file stands in one row only. The path of a CT may be a folder
of DICOM slices, which is read as one volume.

Labels: as in a manifest, and the other names that the source `folder` understands. Any other label
is an error that names the line and the nearest label: nothing is guessed.

Patients: the same `patient_id` in two rows is the same person, in whatever modality: this is how
CT, X-ray and cough are paired. A row without one is a patient of its own with `patient_known`
false. `source` tells apart the data sets that a table joins; one person belongs to one of them.

Known defects: what the table says is taken as it is; nobody but its author can tell whether two
ids are two persons. Files that no row names are not looked for.

How to obtain: write the table yourself.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from pulmofuse.errors import SourceError, UnknownLabel
from pulmofuse.findings import parse_findings
from pulmofuse.schema import MODALITY_FOLDERS, Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import (
    LEAVES,
    Scan,
    Source,
    missing_from_disk,
    name_key,
    path_fault,
    read_rows,
    suffix_fault,
)
from pulmofuse.sources.folder import parse_label
from pulmofuse.sources.patients import ABOUT_COLUMNS, check_names, parse_about, parse_choice

_NAME = "table"
_TABLES = ("table.csv", "table.parquet", "manifest.csv", "manifest.parquet")
_NEEDED = ("path", "label", "modality")
_KNOWN = (*_NEEDED, *ABOUT_COLUMNS, "patient_known", "source", "day", "traits", "findings")
_OBTAIN = "write ROOT/table.csv with the columns path, label, modality and, best, patient_id"
_FLAGS = {"true": "true", "yes": "true", "1": "true", "false": "false", "no": "false", "0": "false"}
_MODALITIES = {m.value: m.value for m in Modality} | {
    folder: modality.value for modality, folder in MODALITY_FOLDERS.items()
}


def scan(root: Path) -> Scan:
    """Scan a table of files; see the data sheet above.

    Raises:
        SourceError: there is no table or more than one, a column is missing or misspelt, or a cell
            is impossible. The line is named.
    """
    path = _find_table(root)
    inside = root.resolve()
    rows: list[dict[str, object]] = []
    excluded: list[Exclusion] = []
    places: dict[str, str] = {}
    owners: dict[str, tuple[object, str]] = {}
    for where, cells in _rows(path):
        row = _row(cells, where)
        short = where.removeprefix(f"{path}, ")
        first = places.setdefault(name_key(str(row["path"])), short)
        if first != short:
            raise SourceError(where, f"names {row['path']} again, as {first} does", "keep one row")
        owner = owners.setdefault(str(row["patient_id"]), (row["source"], short))
        if owner[0] != row["source"]:
            why = f"patient {cells['patient_id']} belongs to another source in {owner[1]}"
            raise SourceError(where, why, "give the persons of two sources ids of their own")
        fault = _find_file(root, inside, row, short)
        if fault is None:
            rows.append(row)
        else:
            text, kind = str(row["path"]), str(row["modality"])
            excluded.append(Exclusion(text, kind, str(row["source"]), "scan", *fault))
    return Scan(manifest_frame(rows), tuple(excluded))


def _find_table(root: Path) -> Path:
    """The one table of a folder."""
    found = [name for name in _TABLES if (root / name).is_file()]
    if not found:
        raise SourceError(root, f"holds none of {', '.join(_TABLES)}", _OBTAIN)
    if len(found) > 1:
        raise SourceError(root, f"holds {' and '.join(found)}", "keep one of them")
    return root / found[0]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row of text cells, with the place to name in an error."""
    if path.suffix == ".csv":
        unit, rows = "line", read_rows(path, _NEEDED, _OBTAIN)
    else:
        unit, rows = "row", _read_parquet(path)
    if rows:
        check_names(path, rows[0][1], _KNOWN)
    for number, cells in rows:
        yield f"{path}, {unit} {number}", cells


def _read_parquet(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows of a Parquet table as text, numbered from 1."""
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise SourceError(path, f"cannot be read as a Parquet table ({error})", _OBTAIN) from None
    frame.columns = pd.Index([str(column).strip().lower() for column in frame.columns])
    missing = [column for column in _NEEDED if column not in frame]
    if missing:
        raise SourceError(path, f"column {', '.join(missing)} is missing", _OBTAIN)
    if not frame.columns.is_unique:
        raise SourceError(path, "a column stands twice", "keep one of them")
    return [
        (number, {str(name): _text(value) for name, value in row.items()})
        for number, row in enumerate(frame.to_dict("records"), start=1)
    ]


def _text(value: Any) -> str:
    """One cell as a person would write it; "" where it is null."""
    if isinstance(value, datetime.date):  # a pandas timestamp is one too
        return "" if pd.isna(value) else value.isoformat()[:10]
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return ""
    # A column of whole numbers with a null in it comes back as floats: 12.0 is the patient 12.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _row(cells: dict[str, str], where: str) -> dict[str, object]:
    """One manifest row, its path as it is written."""
    place = PurePosixPath(cells["path"].replace("\\", "/"))
    path = place.as_posix()
    if not cells["path"]:
        raise SourceError(where, "the path is empty", "name a file, or delete the line")
    if place.is_absolute() or path[1:2] == ":" or ".." in place.parts:
        remedy = "write the path relative to the folder of the table, without '..'"
        raise SourceError(where, f"{path} leaves the folder of the table", remedy)
    modality = parse_choice(cells["modality"], _MODALITIES, "modality", where)
    if modality is None:
        raise SourceError(where, "the modality is empty", "give one of ct, cxr, cough")
    about = parse_about(cells, where)
    known = parse_choice(cells.get("patient_known", ""), _FLAGS, "truth value", where)
    return {
        "record_id": f"{_NAME}:{path}",
        "patient_id": f"{_NAME}:{about.patient_id or path}",
        "patient_known": about.patient_id is not None and known != "false",
        "modality": modality,
        "path": path,
        "label": _label(cells["label"], where),
        "source": cells.get("source") or _NAME,
        **about.cells(_NAME),
        "day": _day(cells.get("day", ""), where),
        "traits": _traits(cells.get("traits", ""), where),
        "findings": _findings(cells.get("findings", ""), where),
    }


def _label(text: str, where: str) -> str:
    """The label of one row."""
    if not text:
        raise SourceError(where, "the label is empty", f"give one, or {Label.UNKNOWN.value}")
    try:
        return parse_label(text, "change it").value
    except UnknownLabel as error:
        raise SourceError(where, f"{text!r} is not a label", error.remedy) from None


def _day(text: str, where: str) -> float | None:
    """The day of one row; None for an empty cell."""
    if not text:
        return None
    day = pd.to_numeric(text, errors="coerce")
    if not math.isfinite(day):
        raise SourceError(where, f"{text!r} is not a number of days", "mend it, or leave it empty")
    return float(day)


def _traits(text: str, where: str) -> str | None:
    """The traits of one row, which are a JSON object where there are any."""
    if not text:
        return None
    try:
        fine = isinstance(json.loads(text), dict)
    except ValueError:
        fine = False
    if not fine:
        raise SourceError(where, "traits is not a JSON object", "mend it, or leave it empty")
    return text


def _findings(text: str, where: str) -> str | None:
    """The findings of one row as they are written; None where there are none."""
    if not text:
        return None
    try:
        parse_findings(text)
    except ValueError as error:
        why = f"findings {text!r} {error}"
        raise SourceError(where, why, "mend it, or leave it empty") from None
    return text


def _find_file(
    root: Path, inside: Path, row: dict[str, object], line: str
) -> tuple[str, str] | None:
    """Why the file of a row may not be used, with the remedy; None where it may.

    The row's path becomes the name on disk, which may be another way to write the same accents.
    """
    written, modality = str(row["path"]), Modality(str(row["modality"]))
    forms = dict.fromkeys([written, *(unicodedata.normalize(f, written) for f in ("NFC", "NFD"))])
    for form in forms:
        place = root / form
        if os.path.lexists(place):
            row["path"] = form
            # A folder on the way may be a link too, which a listing would not have followed.
            if not place.resolve().is_relative_to(inside):
                return LEAVES
            if modality is Modality.CT and place.is_dir():
                return None
            return suffix_fault(written, modality) or path_fault(place, inside)
    return missing_from_disk(f"{line} of the table"), "mend the path, or the folder"


SOURCE = Source(
    name=_NAME,
    title="A table of files",
    modalities=tuple(Modality),
    labels=tuple(Label),
    patients_known=None,
    licence="as you hold it",
    url="",
    citation="",
    obtain=_OBTAIN,
    size="any",
    scan=scan,
    generic=True,
)
