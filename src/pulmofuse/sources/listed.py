"""What sources with long label lists share: lists of names, and how they meet the files on disk."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pulmofuse.errors import SourceError
from pulmofuse.schema import OLDEST_YEARS, Exclusion, Modality, Split
from pulmofuse.sources.base import Listing, missing_from_disk, name_key, read_utf8, suffix_fault

_MONTHS_PER_YEAR = 12
_DAYS_PER_YEAR = 365.25
_WEEKS_PER_YEAR = _DAYS_PER_YEAR / 7

#: A number with the first letter of its unit: DICOM's "058Y", and people's "45yrs" or "16 month".
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([ymwd]?)", re.IGNORECASE)
_PER_YEAR = {"": 1.0, "y": 1.0, "m": _MONTHS_PER_YEAR, "w": _WEEKS_PER_YEAR, "d": _DAYS_PER_YEAR}


def read_lines(path: Path, remedy: str) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, stripped, each with its number from 1.

    Raises:
        SourceError: the file cannot be read, or is not UTF-8.
    """
    text = read_utf8(path, "cannot be read", remedy)
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def find_lists(root: Path, pattern: re.Pattern[str], obtain: str) -> tuple[str, dict[Split, Path]]:
    """The lists of one version in `root`: the version and the list of each split.

    Args:
        root: the folder that holds the lists.
        pattern: of the whole file name; group 1 is the split, group 2 the version (may be absent).
        obtain: how to get the lists.

    Raises:
        SourceError: there is no list, or there are lists of two versions.
    """
    found: dict[str, dict[Split, Path]] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        name = pattern.fullmatch(path.name)
        if name is not None and path.is_file():
            found.setdefault(name[2] or "", {})[Split(name[1])] = path
    if not found:
        raise SourceError(root, "holds no label list", obtain)
    if len(found) > 1:
        names = ", ".join(path.name for lists in found.values() for path in lists.values())
        why = f"holds the lists of {len(found)} versions ({names})"
        raise SourceError(root, why, "keep the lists of one version there")
    return next(iter(found.items()))


def by_name(
    listing: Listing, modality: Modality, source: str
) -> tuple[dict[str, str], list[Exclusion]]:
    """Path of each file by its name without folders; other kinds and second copies are excluded.

    For data sets whose archives may be unpacked in several folders, and whose names are unique.
    """
    paths: dict[str, str] = {}
    excluded = list(listing.excluded)
    for path in listing.files:
        name = name_key(path).rpartition("/")[2]
        fault = suffix_fault(path, modality)
        if fault is None and name in paths:
            fault = (f"a file of the same name stands at {paths[name]}", "keep one of the two")
        if fault is None:
            paths[name] = path
        else:
            excluded.append(Exclusion(path, modality.value, source, "scan", *fault))
    return paths, excluded


def not_on_disk(path: str, modality: Modality, source: str, table: str, remedy: str) -> Exclusion:
    """The exclusion of an image that a table names and nobody finds."""
    return Exclusion(path, modality.value, source, "scan", missing_from_disk(table), remedy)


def not_named(path: str, modality: Modality, source: str, table: str | None = None) -> Exclusion:
    """The exclusion of a file without a label: `table`, or none of several lists, names it."""
    reason = f"{table} does not name it" if table else "no list names it"
    return Exclusion(path, modality.value, source, "scan", reason, "nothing: it has no label")


def absent_lists(
    lists: dict[Split, Path], wanted: Iterable[Split], modality: Modality, source: str, obtain: str
) -> list[Exclusion]:
    """One exclusion for each split whose list is not there, named after the lists that are."""
    split, path = next(iter(lists.items()))
    reason = "this list is missing, so the images that it names have no label"
    return [
        Exclusion(
            path.name.replace(split.value, other.value, 1),
            modality.value,
            source,
            "scan",
            reason,
            obtain,
        )
        for other in wanted
        if other not in lists
    ]


def age_in_years(text: str) -> float | None:
    """The first age in a text, years; None where there is none, or one nobody reaches.

    A number without a unit counts as years.

    >>> age_in_years("058Y"), age_in_years("male 18 month"), age_in_years("411")
    (58.0, 1.5, None)
    """
    found = _AGE.search(text)
    if found is None:
        return None
    age = float(found[1]) / _PER_YEAR[found[2].lower()]
    return age if age <= OLDEST_YEARS else None
