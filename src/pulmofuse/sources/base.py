"""What a data source is, and the file listing that every source shares.

A source names a published data set, says where to get it and under which licence, and turns its
folder into manifest rows. Scanning lists files and reads label tables; it opens no image and no
recording. What cannot become a record is not dropped silently: it becomes an `Exclusion`.
"""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from pulmofuse.errors import SourceError
from pulmofuse.schema import OLDEST_YEARS, Exclusion, Label, Modality

#: What DICOM files are called; many have no suffix.
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ""})

#: Suffixes (lower case) that each modality's readers accept.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom", ".nii", ".nii.gz"}
)
SOUND_SUFFIXES = frozenset(
    {".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".caf"}
    | {".webm", ".mka", ".m4a", ".mp4", ".aac", ".amr", ".3gp", ".wma"}
)

SUFFIXES: dict[Modality, frozenset[str]] = {
    Modality.CT: IMAGE_SUFFIXES,
    Modality.CXR: IMAGE_SUFFIXES,
    Modality.COUGH: SOUND_SUFFIXES,
}


@dataclass(frozen=True)
class Scan:
    """What a source found below its root.

    Attributes:
        records: one row per file, columns of `schema.manifest_frame`; paths are POSIX and relative
            to the scanned root.
        excluded: files left out, and table rows without a file.
    """

    records: pd.DataFrame
    excluded: tuple[Exclusion, ...]


@dataclass(frozen=True)
class Source:
    """A data set that Pulmofuse can read.

    Attributes:
        name: key in `sources.SOURCES`, and prefix of its record and patient ids.
        title: what a report calls it.
        modalities, labels: what it may hold.
        patients_known: whether it publishes who is who; None where this differs from file to file.
        licence: as its authors state it, in a few words; the data sheet has the whole of it.
        url, citation: as its authors state them.
        obtain: one sentence on how to get it.
        size: what is in it, in at most 40 characters (a cell of `data list`).
        scan: makes the records of a folder; raises SourceError where the layout is wrong.
        generic: true for layouts that many data sets share: their root then becomes part of the
            ids, so that two such folders can stand in one study.
    """

    name: str
    title: str
    modalities: tuple[Modality, ...]
    labels: tuple[Label, ...]
    patients_known: bool | None
    licence: str
    url: str
    citation: str
    obtain: str
    size: str
    scan: Callable[[Path], Scan]
    generic: bool = False


@dataclass(frozen=True)
class Listing:
    """Files below a root: POSIX paths relative to it, sorted; and what may not be used."""

    files: tuple[str, ...]
    excluded: tuple[Exclusion, ...]


def require_folder(root: Path, relative: str, obtain: str) -> Path:
    """The folder `root/relative`, or a SourceError that says which one is missing."""
    folder = root / relative
    if not folder.is_dir():
        missing = "it is missing" if root.is_dir() else f"it is missing (as is {root})"
        raise SourceError(folder, f"{missing}, or not a folder", obtain)
    return folder


def require_file(root: Path, relative: str, obtain: str) -> Path:
    """The file `root/relative`, or a SourceError that says which one is missing."""
    path = root / relative
    if not path.is_file():
        raise SourceError(path, "the file is missing", obtain)
    return path


def list_files(root: Path, source: str, folders: Iterable[str] = (".",)) -> Listing:
    """List the files in some folders of `root`, each to any depth.

    Hidden files and folders (a leading dot, or the `__MACOSX` of zip archives) are passed over.
    A link that leaves `root`, a broken link, a linked folder and a name that is not valid UTF-8
    are excluded: a manifest must mean the same files wherever the data root is copied to.

    Raises:
        SourceError: a folder cannot be listed.
    """
    inside = root.resolve()
    files: list[str] = []
    excluded: list[Exclusion] = []
    for folder in folders:
        for path in _walk(root / folder):
            relative = path.relative_to(root).as_posix()
            fault = path_fault(path, inside)
            if fault is None:
                files.append(relative)
            else:
                readable = relative.encode("utf-8", "replace").decode("utf-8")
                excluded.append(Exclusion(readable, "", source, "scan", *fault))
    return Listing(tuple(sorted(files)), tuple(sorted(excluded, key=lambda e: e.path)))


#: Ends the reason of every exclusion of a file that is missing.
MISSING = "but it is not on disk"


def missing_from_disk(table: str) -> str:
    """The reason of an exclusion: `table` names a file that nobody finds."""
    return f"{table} names it, {MISSING}"


def is_hidden(name: str) -> bool:
    """Whether a file or folder name is one that no scan looks at."""
    return name.startswith(".") or name == "__MACOSX"


def _walk(folder: Path) -> Iterator[Path]:
    """Every file and every linked folder below `folder`, hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise SourceError(
            error.filename or folder, f"cannot be listed ({error.strerror})", "allow reading it"
        )

    for place, below, names in os.walk(folder, onerror=refuse):
        linked = [name for name in below if (Path(place) / name).is_symlink()]
        below[:] = sorted(n for n in below if not is_hidden(n) and n not in linked)
        yield from (Path(place) / n for n in sorted(names + linked) if not is_hidden(n))


_SAVE_AS_UTF8 = "save the file as UTF-8 (in a spreadsheet: as CSV UTF-8)"

#: Fault and remedy of a file that is reached through a link out of the data set.
LEAVES = ("the link leads out of the data set's folder", "copy the file into the folder")


def path_fault(path: Path, inside: Path) -> tuple[str, str] | None:
    """Why a path may not be used, with the remedy; None where it may.

    Args:
        path: a file, link or folder that is there.
        inside: the resolved folder that a link must not leave.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return "the file name is not valid UTF-8", "rename the file"
    if path.is_symlink():
        if not path.exists():
            return "the link is broken", "mend or delete the link"
        if not path.resolve().is_relative_to(inside):
            return LEAVES
        if path.is_dir():
            return "a linked folder is not followed", "name the folder itself"
    return None if path.is_file() else ("not an ordinary file", "remove it from the folder")


def suffix_of(name: str) -> str:
    """Lower-case suffix of a file name: ".nii.gz" whole, "" for DICOM's bare or dotted numbers."""
    lower = name.lower()
    if lower.endswith(".nii.gz"):
        return ".nii.gz"
    suffix = Path(lower).suffix
    # DICOM files are often named by a UID such as 1.2.840.10008.1, without any suffix.
    return "" if re.fullmatch(r"\.\d+", suffix) else suffix


def suffix_fault(name: str, modality: Modality) -> tuple[str, str] | None:
    """Why a file of this name cannot be a recording of this modality; None where it can."""
    suffix = suffix_of(name)
    accepted = SUFFIXES[modality]
    if suffix in accepted or (suffix == "" and modality is not Modality.COUGH):
        return None
    remedy = f"give one of {', '.join(sorted(accepted))}, or remove the file"
    return f"{suffix or 'no suffix'} is not a {modality.value} file", remedy


def name_key(text: str) -> str:
    """A name as it is compared with names on disk: NFC, POSIX separators, no outer blanks.

    macOS stores decomposed accents and Windows writes backslashes; a table made on one machine
    must find its files on the other.
    """
    return unicodedata.normalize("NFC", text.strip().replace("\\", "/")).removeprefix("./")


def read_rows(path: Path, columns: Iterable[str], remedy: str) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file that people wrote: each row with the line it ends in, "" where empty.

    The separator is the comma, semicolon or tab that the header has most of (spreadsheets write
    the one that their country uses). Headers are lower case; empty lines are passed over.

    Raises:
        SourceError: not a UTF-8 CSV table, a column of the header stands twice or one of `columns`
            is missing, or a row has more cells than the header. The line is named.
    """
    text = read_utf8(path, "cannot be read as a CSV table", remedy)
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    header: list[str] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not header:
                header = [cell.lower() for cell in cells]
                _check_header(path, header, columns, remedy)
            elif any(cells[len(header) :]):
                why = f"has {len(cells)} cells where the header has {len(header)}"
                raise SourceError(f"{path}, line {reader.line_num}", why, "quote text with commas")
            else:
                padded = cells + [""] * (len(header) - len(cells))
                rows.append((reader.line_num, dict(zip(header, padded, strict=False))))
    except csv.Error as error:
        where = f"{path}, line {reader.line_num}"
        raise SourceError(where, f"cannot be read as a CSV row ({error})", remedy) from None
    if not header:
        raise SourceError(path, "cannot be read as a CSV table (it is empty)", remedy)
    return rows


def read_utf8(path: Path, why: str, remedy: str) -> str:
    """The whole of a text file, without the mark with which some programs open UTF-8.

    Raises:
        SourceError: `why`, with what was found. Spreadsheets save in the code page of their
            country: the remedy is then to save the file as UTF-8, and else `remedy`.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x} at {error.start}"
        raise SourceError(path, f"{why} ({byte} is not UTF-8)", _SAVE_AS_UTF8) from None
    except (OSError, ValueError) as error:
        raise SourceError(path, f"{why} ({error})", remedy) from None


def _check_header(path: Path, header: list[str], columns: Iterable[str], remedy: str) -> None:
    """Refuse a header without a needed column, or with a name that stands twice."""
    missing = [column for column in columns if column not in header]
    if missing:
        raise SourceError(path, f"column {', '.join(missing)} is missing", remedy)
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise SourceError(path, f"column {', '.join(twice)} stands twice", "keep one of them")


#: Ways in which data sets write a date, and how the manifest writes what they say. Where only
#: figures and strokes stand, the month comes first: the sets read here are written so.
_DATE_FORMS = (
    ("%Y-%m-%d", "%Y-%m-%d"),
    ("%m/%d/%Y", "%Y-%m-%d"),
    ("%m/%d/%y", "%Y-%m-%d"),
    ("%B %d, %Y", "%Y-%m-%d"),
    ("%b %d, %Y", "%Y-%m-%d"),
    ("%d %B %Y", "%Y-%m-%d"),
    ("%B %Y", "%Y-%m"),
    ("%b %Y", "%Y-%m"),
    ("%Y-%m", "%Y-%m"),
    ("%Y", "%Y"),
)


def parse_date(text: str) -> str | None:
    """A published date as the manifest writes it, as exact as it is; None where it says no year.

    >>> parse_date("March 10, 2020"), parse_date("03/16/20"), parse_date("2020"), parse_date("?")
    ('2020-03-10', '2020-03-16', '2020', None)
    """
    for form, written in _DATE_FORMS:
        try:
            return datetime.strptime(text.strip(), form).strftime(written)
        except ValueError:
            continue  # not this form; the next one may be
    return None


def text_rows(table: pd.DataFrame) -> Iterator[dict[str, str]]:
    """The rows of a table that `read_text_table` read, cells by column."""
    for row in table.to_dict("records"):
        yield {str(column): str(cell) for column, cell in row.items()}


def years(text: str) -> float | None:
    """An age in years; None where the text is no number, or one that nobody reaches.

    >>> years("61"), years("40+"), years("999")
    (61.0, None, None)
    """
    age = pd.to_numeric(text, errors="coerce")
    return float(age) if pd.notna(age) and 0 <= age <= OLDEST_YEARS else None


def read_text_table(path: Path, columns: Iterable[str], remedy: str) -> pd.DataFrame:
    """Read a CSV file with every cell as text, "" where empty; headers lower case.

    Raises:
        SourceError: not a UTF-8 CSV table, or one of `columns` is missing.
    """
    why = "cannot be read as a CSV table"
    text = io.StringIO(read_utf8(path, why, remedy))
    try:
        table = pd.read_csv(text, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise SourceError(path, f"{why} ({error})", remedy) from None
    table.columns = pd.Index([str(column).strip().lower() for column in table.columns])
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise SourceError(path, f"column {', '.join(missing)} is missing", remedy)
    # A row shorter than the header still comes out as NaN.
    for column in table.columns:
        table[column] = table[column].fillna("").str.strip()
    return table
