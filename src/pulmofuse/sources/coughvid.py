"""COUGHVID: coughs recorded in a web page by anybody who wished, with what they said of themselves.

Origin: Embedded Systems Laboratory, EPFL, Lausanne, since April 2020; crowd-sourced worldwide.
Licence: CC BY 4.0. Citation: Orlandic L., Teijeiro T., Atienza D., The COUGHVID crowdsourcing
dataset, a corpus for the study of large-scale cough analysis algorithms, Scientific Data 8, 156,
2021, doi:10.1038/s41597-021-00937-4.

Layout (version 3, folder coughvid_20211012; earlier versions call it public_dataset):
    ROOT/metadata_compiled.csv                 one row per recording
    ROOT/[folder/]<uuid>.{webm,ogg,wav}        29,348 + 1,777 + 3,309 = 34,434 recordings
    ROOT/[folder/]<uuid>.json                  the same answers once more; not used
The table rules: a recording that it does not name is excluded, and so is a row without a file. Of
two files of one recording (somebody converted WebM to WAV beside it) the first of webm, ogg, wav
counts.

Exclusions: `cough_detected`, the probability by the authors' own detector that there is a cough,
below 0.8, which is the threshold that they recommend; and recordings in which one of the four
experts (`quality_1` to `quality_4`) heard no cough.

Labels, from `status`, which people chose themselves:
- COVID-19 (they say that they were diagnosed): covid19.
- healthy: normal; unknown where they also tick `respiratory_condition`, because the question was
  for any history of a respiratory disease and does not say which.
- symptomatic: unknown. They have symptoms and no diagnosis; in 2020 that may well be COVID-19.
- nothing chosen: unknown.
`status_SSL` (a model's guess) and `diagnosis_1` to `diagnosis_4` (what experts thought they heard)
are not used: neither is a finding in the person.

Patients: nobody's identity is published and one person may have recorded many times. Each
recording is a patient of its own with `patient_known` false. `date` is the day of `datetime`.
`site` is null: only a position rounded to 0.1 degrees is published, no device and no country.

Known defects:
- No label is verified by a test: a high figure calls for suspicion.
- The file format follows the browser: a trait that may tell groups of people apart.
- Versions differ in size and columns; a study should name the version that it used.

How to obtain: download the newest version from https://doi.org/10.5281/zenodo.4048311 and unpack
the archive.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from pulmofuse.schema import Exclusion, Label, Modality, is_iso_date, manifest_frame
from pulmofuse.sources.base import (
    Scan,
    Source,
    list_files,
    missing_from_disk,
    name_key,
    read_text_table,
    require_file,
    text_rows,
    years,
)

_NAME = "coughvid"
_TABLE = "metadata_compiled.csv"
_OBTAIN = (
    "download https://doi.org/10.5281/zenodo.4048311, unpack the archive and name the folder that"
    " holds metadata_compiled.csv"
)
_COLUMNS = (
    "uuid",
    "datetime",
    "cough_detected",
    "age",
    "gender",
    "respiratory_condition",
    "status",
)
_QUALITIES = ("quality_1", "quality_2", "quality_3", "quality_4")  # absent in the first versions
_NO_COUGH = "no_cough"
_LEAST_PROBABILITY = 0.8  # of a cough; recommended by Orlandic et al. 2021
_FORMATS = (".webm", ".ogg", ".wav")  # the published ones; the first that is there counts
_SEXES = {"male": "M", "female": "F", "other": "O"}
_DATE_CHARACTERS = 10  # of an ISO 8601 date and time

_LABELS = {
    "covid-19": Label.COVID19,
    "healthy": Label.NORMAL,
    "symptomatic": Label.UNKNOWN,
    "": Label.UNKNOWN,
}


def scan(root: Path) -> Scan:
    """Scan COUGHVID; see the data sheet above.

    Raises:
        SourceError: metadata_compiled.csv is missing or lacks a column.
    """
    table = read_text_table(require_file(root, _TABLE, _OBTAIN), _COLUMNS, _OBTAIN)
    listing = list_files(root, _NAME)
    files, excluded = _recordings(listing.files)
    excluded += listing.excluded
    rows: list[dict[str, object]] = []
    named: set[str] = set()
    for about in text_rows(table):
        uuid = about["uuid"]
        path = files.get(uuid)
        fault = _fault(about, path, uuid in named)
        named.add(uuid)
        if path is not None and fault is None:
            rows.append(_row(about, path))
        elif fault is not None:
            excluded.append(_left_out(path or uuid, *fault))
    excluded += [
        _left_out(path, f"{_TABLE} does not name it", "nothing: it has no label")
        for uuid, path in files.items()
        if uuid not in named
    ]
    return Scan(manifest_frame(rows), tuple(excluded))


def _recordings(paths: Iterable[str]) -> tuple[dict[str, str], list[Exclusion]]:
    """Path of each uuid, and the second files of one recording as exclusions."""
    files: dict[str, str] = {}
    excluded: list[Exclusion] = []
    sounds = [p for p in paths if PurePosixPath(p.lower()).suffix in _FORMATS]
    sounds.sort(key=lambda p: _FORMATS.index(PurePosixPath(p.lower()).suffix))
    for path in sounds:
        first = files.setdefault(PurePosixPath(name_key(path)).stem, path)
        if first != path:
            reason = f"the same recording as {first}"
            excluded.append(_left_out(path, reason, "nothing: one of them counts"))
    return files, excluded


def _fault(about: dict[str, str], path: str | None, again: bool) -> tuple[str, str] | None:
    """Why a table row makes no record, with the remedy; None where it does."""
    if again:
        return f"{_TABLE} names it twice", "nothing: the first row counts"
    if path is None:
        return missing_from_disk(_TABLE), "download and unpack the archive again"
    if about["status"].lower() not in _LABELS:
        return f"status {about['status']!r} has no label", "report it, so that it can be mapped"
    return _silence(about)


def _silence(about: dict[str, str]) -> tuple[str, str] | None:
    """Why there may be no cough in a recording, with the remedy; None where there is one."""
    written = about["cough_detected"]
    probability = pd.to_numeric(written, errors="coerce")
    if pd.isna(probability):
        return "the table does not say whether there is a cough", "nothing: it is not used"
    if probability < _LEAST_PROBABILITY:
        reason = f"a cough is in it with probability {written} < {_LEAST_PROBABILITY}"
        return reason, "nothing: the authors recommend this threshold"
    if any(about.get(column) == _NO_COUGH for column in _QUALITIES):
        return "an expert heard no cough in it", "nothing: it is not used"
    return None


def _row(about: dict[str, str], path: str) -> dict[str, object]:
    """One manifest row."""
    label = _LABELS[about["status"].lower()]
    if label is Label.NORMAL and about["respiratory_condition"].lower() == "true":
        label = Label.UNKNOWN
    date = about["datetime"][:_DATE_CHARACTERS]
    return {
        "record_id": f"{_NAME}:{about['uuid']}",
        "patient_id": f"{_NAME}:{about['uuid']}",
        "patient_known": False,
        "modality": Modality.COUGH.value,
        "path": path,
        "label": label.value,
        "source": _NAME,
        "age": years(about["age"]),
        "sex": _SEXES.get(about["gender"].lower()),
        "date": date if is_iso_date(date) else None,
    }


def _left_out(path: str, reason: str, remedy: str) -> Exclusion:
    return Exclusion(path, Modality.COUGH.value, _NAME, "scan", reason, remedy)


SOURCE = Source(
    name=_NAME,
    title="COUGHVID",
    modalities=(Modality.COUGH,),
    labels=(Label.NORMAL, Label.COVID19, Label.UNKNOWN),
    patients_known=False,
    licence="CC BY 4.0",
    url="https://doi.org/10.5281/zenodo.4048311",
    citation=(
        "Orlandic L., Teijeiro T., Atienza D., The COUGHVID crowdsourcing dataset, a corpus for the"
        " study of large-scale cough analysis algorithms, Scientific Data 8, 156, 2021"
    ),
    obtain=_OBTAIN,
    size="34,434 recordings (version 3)",
    scan=scan,
)
