"""Virufy clinical coughs: 16 patients of a hospital, each with the result of a PCR test.

Origin: Virufy, a volunteer organisation; recorded in a hospital under supervision of physicians,
April 2020.
Licence: CC BY-NC-SA 4.0 with two addenda of the owner: no redistribution in any form without its
written approval, and any work must cite the article. Citation: Chaudhari G. et al., Virufy: Global
Applicability of Crowdsourced and Clinical Datasets for AI Detection of COVID-19 from Cough,
arXiv:2011.13320, 2020.

Layout:
    ROOT/clinical/labels.csv     date, corona_test, age, gender, ..., cough_filename: one row each
    ROOT/clinical/original/{pos,neg}/neg-0421-083-cough-m-53.mp3        the whole recording
    ROOT/clinical/segmented/{pos,neg}/neg-0421-083-cough-m-53-0.mp3     its coughs, one by one
A name holds the result, month and day, the patient's number, sex and age. The 121 segments are the
records, as in most work on this set; the whole recording of a patient is a record only where none
of his segments is there, because it holds the same sound. A file that the table does not name is
excluded, and so is a row without a file.

Labels, from `corona_test` (PCR): positive is covid19, negative is not_covid19: these are patients
of a hospital, with symptoms and histories of their own.

Patients: the number in the file name; one row each. `date` is the column of that name where it
can be read.

Known defects:
- Sixteen patients decide nothing. This is a set to test on from outside, with an interval by
  patient, and never by segment: the segments of one patient are neighbours in one recording.
- The segments were cut at silence and chosen by hand; those with noise were left out.
- The crowd-sourced part of the same organisation is another set, and not read here.

How to obtain: clone https://github.com/virufy/virufy-data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pulmofuse.errors import SourceError
from pulmofuse.schema import Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import (
    Scan,
    Source,
    list_files,
    missing_from_disk,
    name_key,
    parse_date,
    read_rows,
    require_file,
    require_folder,
    suffix_of,
    years,
)

_NAME = "virufy"
_FOLDER = "clinical"
_TABLE = "clinical/labels.csv"
_WHOLE, _PARTS = "clinical/original", "clinical/segmented"
_OBTAIN = "clone https://github.com/virufy/virufy-data"
_COLUMNS = ("date", "corona_test", "age", "gender", "cough_filename")
_LABELS = {"positive": Label.COVID19, "negative": Label.NOT_COVID19}
_RESULTS = {"pos": Label.COVID19, "neg": Label.NOT_COVID19}
_SEXES = {"male": "M", "m": "M", "female": "F", "f": "F"}

#: (whole name, result, patient) of a recording; a segment has a number behind the age.
_RECORDING = re.compile(r"((pos|neg)-(\d+-\d+)-cough-[a-z]+-\d+)(?:-\d+)?")


def scan(root: Path) -> Scan:
    """Scan the clinical coughs of Virufy; see the data sheet above.

    Raises:
        SourceError: clinical/ or its labels.csv is missing, a row has no result, or a row and the
            name of its file contradict each other.
    """
    require_folder(root, _FOLDER, _OBTAIN)
    listing = list_files(root, _NAME, (_FOLDER,))
    table = _table(root)
    wholes, parts, excluded = _recordings(listing.files, set(table))
    excluded += listing.excluded
    rows: list[dict[str, object]] = []
    for stem, about in table.items():
        whole, segments = wholes.get(stem), parts.get(stem, [])
        if segments and whole:
            reason = f"its {len(segments)} coughs are in {_PARTS}"
            excluded.append(_left_out(whole, reason, "nothing: the same sound counts once"))
        paths = segments or ([whole] if whole else [])
        rows += [_row(path, stem, about) for path in paths]
        if not paths:
            path = f"{_WHOLE}/{stem[:3]}/{stem}.mp3"
            reason = missing_from_disk(_TABLE)
            excluded.append(_left_out(path, reason, _OBTAIN))
    return Scan(manifest_frame(rows), tuple(excluded))


def _table(root: Path) -> dict[str, dict[str, str]]:
    """The rows of labels.csv by the stem of their recording."""
    path = require_file(root, _TABLE, _OBTAIN)
    found: dict[str, dict[str, str]] = {}
    for line, cells in read_rows(path, _COLUMNS, _OBTAIN):
        where = f"{path}, line {line}"
        stem = PurePosixPath(name_key(cells["cough_filename"])).stem
        name = _RECORDING.fullmatch(stem)
        label = _LABELS.get(cells["corona_test"].lower())
        if name is None or label is None:
            why = "needs a cough_filename such as neg-0421-083-cough-m-53.mp3 and a corona_test"
            raise SourceError(where, why, f"use the published table: {_OBTAIN}")
        if _RESULTS[name[2]] is not label:
            why = f"the test is {cells['corona_test']}, and the file is named {stem}"
            raise SourceError(where, why, f"use the published table: {_OBTAIN}")
        if found.setdefault(stem, cells) != cells:
            raise SourceError(where, f"contradicts an earlier row of {stem}", "keep one of them")
    return found


def _recordings(
    paths: Iterable[str], named: set[str]
) -> tuple[dict[str, str], dict[str, list[str]], list[Exclusion]]:
    """Whole recording and segments of each stem in the table, and what it does not name."""
    wholes: dict[str, str] = {}
    parts: dict[str, list[str]] = {}
    excluded: list[Exclusion] = []
    for path in paths:
        name = _RECORDING.fullmatch(PurePosixPath(name_key(path)).stem)
        if name is not None and name[1] in named and path.startswith(f"{_PARTS}/"):
            parts.setdefault(name[1], []).append(path)
        elif name is not None and name[1] in named and path.startswith(f"{_WHOLE}/"):
            wholes[name[1]] = path
        elif suffix_of(path) == ".mp3":
            reason = f"{_TABLE} does not name its recording"
            excluded.append(_left_out(path, reason, "nothing: it has no label"))
    return wholes, parts, excluded


def _row(path: str, stem: str, about: dict[str, str]) -> dict[str, object]:
    """One manifest row."""
    patient = stem.partition("-cough-")[0].partition("-")[2]
    return {
        "record_id": f"{_NAME}:{path.removeprefix(f'{_FOLDER}/')}",
        "patient_id": f"{_NAME}:{patient}",
        "patient_known": True,
        "modality": Modality.COUGH.value,
        "path": path,
        "label": _LABELS[about["corona_test"].lower()].value,
        "source": _NAME,
        "age": years(about["age"]),
        "sex": _SEXES.get(about["gender"].lower()),
        "date": parse_date(about["date"]),
    }


def _left_out(path: str, reason: str, remedy: str) -> Exclusion:
    return Exclusion(path, Modality.COUGH.value, _NAME, "scan", reason, remedy)


SOURCE = Source(
    name=_NAME,
    title="Virufy clinical coughs",
    modalities=(Modality.COUGH,),
    labels=(Label.COVID19, Label.NOT_COVID19),
    patients_known=True,
    licence="CC BY-NC-SA 4.0, no redistribution",
    url="https://github.com/virufy/virufy-data",
    citation=(
        "Chaudhari G. et al., Virufy: Global Applicability of Crowdsourced and Clinical Datasets"
        " for AI Detection of COVID-19 from Cough, arXiv:2011.13320, 2020"
    ),
    obtain=_OBTAIN,
    size="121 coughs of 16 patients",
    scan=scan,
)
