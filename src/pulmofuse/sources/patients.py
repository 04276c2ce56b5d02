"""patients.csv: who is who in a folder of the default layout.

The file is written by people, so every fault is an error with the line it stands in; a silently
ignored patient id would let one person stand on both sides of a split.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from pulmofuse.errors import SourceError
from pulmofuse.schema import Split
from pulmofuse.sources.base import name_key, read_text_table

PATIENTS_FILE = "patients.csv"

_COLUMNS = ("path", "patient_id", "age", "sex", "site", "split", "series_id", "view")

_REMEDY = (
    "patients.csv has the columns path, patient_id and optionally"
    " age, sex, site, split, series_id, view"
)
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M", "o": "O", "other": "O"}
_SPLITS = {split.value: split.value for split in Split} | {"valid": "val", "validation": "val"}
_OLDEST_YEARS = 130  # the manifest's own limit


@dataclass(frozen=True)
class About:
    """What patients.csv says of one path; None where it says nothing."""

    patient_id: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    split: str | None = None
    series_id: str | None = None
    view: str | None = None


@dataclass(frozen=True)
class Patients:
    """The rows of patients.csv by path, and the line each one stands in."""

    rows: dict[str, About]
    lines: dict[str, int]

    def find(self, path: str) -> About:
        """The row of this file, else of the nearest folder that holds it, else nothing."""
        if not self.rows:
            return About()
        place = PurePosixPath(name_key(path))
        for candidate in (place, *place.parents):
            row = self.rows.get(candidate.as_posix())
            if row is not None:
                return row
        return About()


def read_patients(root: Path) -> Patients:
    """Read `root/patients.csv`; no file means no rows.

    Raises:
        SourceError: not a table, a column is missing, a value is impossible, or two lines say
            different things of one path. The line is named.
    """
    path = root / PATIENTS_FILE
    if not path.exists():
        return Patients({}, {})
    table = read_text_table(path, ("path", "patient_id"), _REMEDY)
    for column in table.columns:
        # Further columns are welcome, but "splitt" would throw a published split away.
        near = difflib.get_close_matches(str(column), _COLUMNS, n=1, cutoff=0.75)
        if column not in _COLUMNS and near:
            raise SourceError(path, f"unknown column {column!r}", f"the nearest one is {near[0]!r}")
    rows: dict[str, About] = {}
    lines: dict[str, int] = {}
    for number, row in enumerate(table.to_dict("records"), start=2):  # line 1 is the header
        where = f"{path}, line {number}"
        cells = {str(key): str(value) for key, value in row.items()}
        key = name_key(cells["path"]).rstrip("/")
        if not key:
            raise SourceError(where, "the path is empty", _REMEDY)
        about = _about(cells, where)
        if rows.setdefault(key, about) != about:
            why = f"says something else of {key} than line {lines[key]}"
            raise SourceError(where, why, "keep one of the two lines")
        lines.setdefault(key, number)
    return Patients(rows, lines)


def _about(cells: dict[str, str], where: str) -> About:
    """One row with its values checked."""
    return About(
        patient_id=cells["patient_id"] or None,
        age=_age(cells.get("age", ""), where),
        sex=_choice(cells.get("sex", ""), _SEXES, "sex", where),
        site=cells.get("site") or None,
        split=_choice(cells.get("split", ""), _SPLITS, "split", where),
        series_id=cells.get("series_id") or None,
        view=cells.get("view") or None,
    )


def _age(text: str, where: str) -> float | None:
    """An age in years, or None for an empty cell."""
    if not text:
        return None
    age = pd.to_numeric(text, errors="coerce")
    if pd.isna(age) or not 0 <= age <= _OLDEST_YEARS:
        raise SourceError(where, f"{text!r} is not an age in years", "give a number, or nothing")
    return float(age)


def _choice(text: str, choices: dict[str, str], column: str, where: str) -> str | None:
    """One of a closed set of values, or None for an empty cell."""
    if not text:
        return None
    if text.lower() not in choices:
        known = ", ".join(dict.fromkeys(choices.values()))
        raise SourceError(where, f"{text!r} is not a {column}", f"give one of {known}, or nothing")
    return choices[text.lower()]
