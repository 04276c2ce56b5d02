"""patients.csv: who is who in a folder of the default layout.

The file is written by people, so every fault is an error with the line it stands in; a silently
ignored patient id would let one person stand on both sides of a split.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pulmofuse.errors import SourceError
from pulmofuse.schema import Split, is_iso_date
from pulmofuse.sources.base import name_key, read_rows, years

PATIENTS_FILE = "patients.csv"

#: What may be said of a file beside its path; `parse_about` reads these.
ABOUT_COLUMNS = ("patient_id", "age", "sex", "site", "split", "date", "series_id", "view")

_REMEDY = (
    "patients.csv has the columns path, patient_id and optionally"
    " age, sex, site, split, date, series_id, view"
)
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M", "o": "O", "other": "O"}
_SPLITS = {split.value: split.value for split in Split} | {"valid": "val", "validation": "val"}
#: difflib's ratio from which a name counts as a misspelling: "spilt" has .80 of "split"; "image"
#: has .75 of "age", "size" of "site" and "data" of "date", which are names of their own.
_NEARLY = 0.8


@dataclass(frozen=True)
class About:
    """What a table says of one path; None where it says nothing."""

    patient_id: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    split: str | None = None
    date: str | None = None
    series_id: str | None = None
    view: str | None = None

    def cells(self, source: str) -> dict[str, object]:
        """Cells of a manifest row that are the same for a file and for its patient.

        Args:
            source: prefix of the series.
        """
        return {
            "site": self.site,
            "split": self.split,
            "age": self.age,
            "sex": self.sex,
            "view": self.view,
            "date": self.date,
            "series_id": f"{source}:{self.series_id}" if self.series_id else None,
        }


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
        SourceError: not a table, a column is missing or misspelt, a value is impossible, or two
            lines say different things of one path. The line is named.
    """
    path = root / PATIENTS_FILE
    if not path.exists():
        return Patients({}, {})
    rows: dict[str, About] = {}
    lines: dict[str, int] = {}
    known = ("path", *ABOUT_COLUMNS)
    for line, cells in read_rows(path, ("path", "patient_id"), _REMEDY):
        if not lines:
            check_names(path, cells, known)
        where = f"{path}, line {line}"
        key = name_key(cells["path"]).rstrip("/")
        if not key:
            raise SourceError(where, "the path is empty", _REMEDY)
        about = parse_about(cells, where)
        if rows.setdefault(key, about) != about:
            why = f"says something else of {key} than line {lines[key]}"
            raise SourceError(where, why, "keep one of the two lines")
        lines.setdefault(key, line)
    return Patients(rows, lines)


def check_names(path: Path, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a column that is nearly a known one: "splitt" would lose a published split.

    One that stands beside the column which it resembles is refused too: nobody can tell which of
    the two was meant.

    Raises:
        SourceError: names the column and the nearest known one.
    """
    columns = sorted(set(known))
    given = set(names)
    for name in sorted(given.difference(columns)):
        near = _nearest(name, columns)
        if near is not None:
            beside = ", which is there as well" if near in given else ""
            remedy = f"the nearest one is {near!r}{beside}; rename or remove this one"
            raise SourceError(path, f"unknown column {name!r}", remedy)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that this one misspells, if any."""
    plain = {_letters(column): column for column in known}
    # Two letters swapped in a short word ("dtae") cost difflib half of the word.
    for letters, column in plain.items():
        if sorted(letters) == sorted(_letters(name)):
            return column
    near = difflib.get_close_matches(_letters(name), plain, n=1, cutoff=_NEARLY)
    return plain[near[0]] if near else None


def _letters(name: str) -> str:
    """A name without what people put between words: "patientid" for "Patient ID"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def parse_about(cells: Mapping[str, str], where: str) -> About:
    """The values of `ABOUT_COLUMNS` in one row of text cells, checked.

    Raises:
        SourceError: a value is impossible; `where` says in which line.
    """
    return About(
        patient_id=cells.get("patient_id") or None,
        age=_age(cells.get("age", ""), where),
        sex=parse_choice(cells.get("sex", ""), _SEXES, "sex", where),
        site=cells.get("site") or None,
        split=parse_choice(cells.get("split", ""), _SPLITS, "split", where),
        date=_date(cells.get("date", ""), where),
        series_id=cells.get("series_id") or None,
        view=cells.get("view") or None,
    )


def _age(text: str, where: str) -> float | None:
    """An age in years, or None for an empty cell."""
    if not text:
        return None
    age = years(text)
    if age is None:
        raise SourceError(where, f"{text!r} is not an age in years", "give a number, or nothing")
    return age


def _date(text: str, where: str) -> str | None:
    """A date as the manifest writes it, or None for an empty cell."""
    if text and not is_iso_date(text):
        remedy = "write it as YYYY, YYYY-MM or YYYY-MM-DD, or leave it empty"
        raise SourceError(where, f"{text!r} is not a date", remedy)
    return text or None


def parse_choice(text: str, choices: dict[str, str], column: str, where: str) -> str | None:
    """One of a closed set of values, or None for an empty cell.

    Raises:
        SourceError: another value; the remedy lists the set.
    """
    if not text:
        return None
    if text.lower() not in choices:
        known = ", ".join(dict.fromkeys(choices.values()))
        raise SourceError(where, f"{text!r} is not a {column}", f"give one of {known}, or nothing")
    return choices[text.lower()]
