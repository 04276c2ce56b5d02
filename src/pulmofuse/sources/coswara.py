"""Coswara: coughs (and breathing, counting, vowels) recorded in a web page, with COVID-19 status.

Origin: LEAP Lab, Indian Institute of Science, Bengaluru, April 2020 to February 2022. People
recorded themselves with their own phone or computer and answered a questionnaire; some did so in
hospitals.
Licence: CC BY 4.0. Citation: Bhattacharya D., Sharma N.K. et al., Coswara: A respiratory sounds
and symptoms dataset for remote screening of SARS-CoV-2 infection, arXiv:2305.12741, 2023. Sharma
N. et al., Coswara: A Database of Breathing, Cough, and Voice Sounds for COVID-19 Diagnosis,
Interspeech 2020, arXiv:2005.10548.

Layout (the repository; the authors' extract_data.py unpacks into Extracted_data/):
    ROOT/combined_data.csv                                  one row per person
    ROOT/[Extracted_data/]YYYYMMDD/<id>/{cough-heavy,cough-shallow}.wav
    ROOT/[Extracted_data/]YYYYMMDD/<id>/{breathing-*,counting-*,vowel-*}.wav   not used here
    ROOT/YYYYMMDD/YYYYMMDD.csv        optional: tells in which day's archive a person's files are
The folder's date is the day of publication, not of the recording. The two coughs are records;
the other recordings are counted in one exclusion. A person in the table without a cough file is
excluded, and so is a cough file of somebody whom the table does not name.

Labels, from `covid_status`:
- positive_mild, positive_moderate, positive_asymp: covid19.
- recovered_full, under_validation: unknown. The one had it, the other waits for a result.
- healthy, no_resp_illness_exposed (met an infected person, has no illness): normal.
- resp_illness_not_identified: other_abnormal. The authors count it among the negatives.
- These last three become chronic_lung_disease where `asthma` or `cld` (chronic lung disease) is
  ticked: 120 people, 94 of them resp_illness_not_identified. The ticks `pneumonia` and
  `others_resp` do not say when that was, and are not used.
A status outside these is excluded, never guessed.

Patients: `id` is a person; two coughs of one person belong together. `record_date` is `date`.
`site` is the state for people in India and the country elsewhere (231 people); the device and the
hospital are not published.

Known defects:
- The date predicts the label: three of the 1,051 people of April and May 2020 are positive, 173
  of the 249 of January 2022. So does the place: 50 % positive in Tamil Nadu, 29 % in Karnataka,
  6 % outside India. Split by time and look within sites before believing a figure.
- Status and ticks are what people say of themselves. 95 of the 681 positives name no positive
  test, and only 227 of the 1,838 negatives (50 of the 157 with an illness not identified) name a
  negative one. A returning user (`rU`, 63 people) may have a second id.
- The table has 2,746 people; the article of 2023 counts 2,635.
- The authors marked the sound quality of each recording by hand (annotations/ in the repository);
  the marks are not used here.
- 153 people also had a chest CT (`ctScan`, `ctDate`, `ctScore`), of which only the score is
  published: no image, so no CT and cough pair.

How to obtain: clone https://github.com/iiscleap/Coswara-Data; the recordings of a day are one
archive in parts, to be joined before unpacking: cat YYYYMMDD/*.tar.gz.* | tar -xz
(extract_data.py does it for every day).
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

_NAME = "coswara"
_TABLE = "combined_data.csv"
_OBTAIN = (
    "clone https://github.com/iiscleap/Coswara-Data and run its extract_data.py, which joins and"
    " unpacks the archives of each day"
)
_COLUMNS = ("id", "a", "covid_status", "record_date", "g", "l_c", "l_s", "asthma", "cld")
_COUGHS = ("cough-heavy", "cough-shallow")
_HOME = "India"  # where nearly everybody lives, so that the state says more than the country
_TICKED = "true"
_HAD_CT = "y"
_SEXES = {"male": "M", "female": "F", "other": "O"}

_LABELS = {
    "positive_mild": Label.COVID19,
    "positive_moderate": Label.COVID19,
    "positive_asymp": Label.COVID19,
    "recovered_full": Label.UNKNOWN,
    "under_validation": Label.UNKNOWN,
    "healthy": Label.NORMAL,
    "no_resp_illness_exposed": Label.NORMAL,
    "resp_illness_not_identified": Label.OTHER_ABNORMAL,
}


def scan(root: Path) -> Scan:
    """Scan Coswara; see the data sheet above.

    Raises:
        SourceError: combined_data.csv is missing or lacks a column.
    """
    table = read_text_table(require_file(root, _TABLE, _OBTAIN), _COLUMNS, _OBTAIN)
    listing = list_files(root, _NAME)
    coughs, excluded = _cough_files(listing.files)
    excluded += listing.excluded
    days = _days(root, listing.files)
    rows: list[dict[str, object]] = []
    named: set[str] = set()
    for person in text_rows(table):
        who = person["id"]
        if who in named:
            reason = f"{_TABLE} names it twice"
            excluded.append(_left_out(who, reason, "nothing: the first row counts"))
            continue
        named.add(who)
        label = _label(person)
        if label is None:
            reason = f"covid_status {person['covid_status']!r} has no label"
            excluded.append(_left_out(who, reason, "report it, so that it can be mapped"))
            continue
        for cough in _COUGHS:
            path = coughs.get((who, cough))
            if path is None:
                excluded.append(_missing(who, cough, days.get(who)))
            else:
                rows.append(_row(person, cough, path, label))
    excluded += [
        _left_out(path, f"{_TABLE} does not name this person", "nothing: it has no label")
        for (who, _), path in coughs.items()
        if who not in named
    ]
    return Scan(manifest_frame(rows), tuple(excluded))


def is_table(path: Path) -> bool:
    """Whether a file carries the name of this data set's table of people."""
    return path.name == _TABLE


def read_people(path: Path) -> pd.DataFrame:
    """Everybody in a combined_data.csv, which is enough to count whom one could recruit.

    Args:
        path: the table; the recordings may lie below its folder or not.

    Returns:
        One row per person: patient_id, label (null where the status has none), recorded (a cough
        of theirs is on disk) and reported_ct.

    Raises:
        SourceError: not the table of this data set.
    """
    table = read_text_table(path, (*_COLUMNS, "ctscan"), _OBTAIN).drop_duplicates("id")
    coughs, _ = _cough_files(list_files(path.parent, _NAME).files)
    heard = {who for who, _ in coughs}
    return pd.DataFrame(
        {
            "patient_id": [f"{_NAME}:{who}" for who in table["id"]],
            "label": [_label(person) for person in text_rows(table)],
            "recorded": [who in heard for who in table["id"]],
            "reported_ct": (table["ctscan"].str.lower() == _HAD_CT).to_numpy(),
        }
    )


def _cough_files(
    files: Iterable[str],
) -> tuple[dict[tuple[str, str], str], list[Exclusion]]:
    """Path of each (id, cough); and what else was recorded, or stands twice, as exclusions."""
    coughs: dict[tuple[str, str], str] = {}
    excluded: list[Exclusion] = []
    others = 0
    for path in files:
        place = PurePosixPath(name_key(path))
        if place.suffix.lower() != ".wav":
            continue
        key = (place.parent.name, place.stem)
        if place.stem not in _COUGHS:
            others += 1
        elif key in coughs:
            reason = f"the same recording of the same person as {coughs[key]}"
            excluded.append(_left_out(path, reason, "keep one of the two folders"))
        else:
            coughs[key] = path
    if others:
        reason = f"{others} recordings of breathing, counting and vowels are no coughs"
        excluded.append(_left_out(".", reason, "nothing: they are not used"))
    return coughs, excluded


def _days(root: Path, files: Iterable[str]) -> dict[str, str]:
    """Day folder of each id, from the day tables YYYYMMDD/YYYYMMDD.csv that are there."""
    found: dict[str, str] = {}
    for path in files:
        place = PurePosixPath(path)
        if place.name == f"{place.parent.name}.csv" and place.stem.isdigit():
            table = read_text_table(root / path, ("id",), _OBTAIN)
            found.update(dict.fromkeys(table["id"], place.stem))
    return found


def _label(person: dict[str, str]) -> Label | None:
    """The label of one row of the table, or None where the data sheet does not say."""
    label = _LABELS.get(person["covid_status"])
    lasting = _TICKED in {person["asthma"].lower(), person["cld"].lower()}
    if lasting and label in {Label.NORMAL, Label.OTHER_ABNORMAL}:
        return Label.CHRONIC_LUNG_DISEASE
    return label


def _row(person: dict[str, str], cough: str, path: str, label: Label) -> dict[str, object]:
    """One manifest row."""
    country, state = person["l_c"], person["l_s"]
    date = person["record_date"]
    return {
        "record_id": f"{_NAME}:{person['id']}/{cough}",
        "patient_id": f"{_NAME}:{person['id']}",
        "patient_known": True,
        "modality": Modality.COUGH.value,
        "path": path,
        "label": label.value,
        "source": _NAME,
        "site": (state if country == _HOME and state else country) or None,
        "age": years(person["a"]),
        "sex": _SEXES.get(person["g"].lower()),
        "date": date if is_iso_date(date) else None,
    }


def _missing(who: str, cough: str, day: str | None) -> Exclusion:
    """A cough that the table promises and the disk does not hold."""
    path = f"{day}/{who}/{cough}.wav" if day else f"{who}/{cough}.wav"
    archive = f"{day or 'YYYYMMDD'}/*.tar.gz.*"
    remedy = f"join and unpack the day's archive: cat {archive} | tar -xz"
    return _left_out(path, missing_from_disk(_TABLE), remedy)


def _left_out(path: str, reason: str, remedy: str) -> Exclusion:
    return Exclusion(path, Modality.COUGH.value, _NAME, "scan", reason, remedy)


SOURCE = Source(
    name=_NAME,
    title="Coswara",
    modalities=(Modality.COUGH,),
    labels=(
        Label.NORMAL,
        Label.COVID19,
        Label.CHRONIC_LUNG_DISEASE,
        Label.OTHER_ABNORMAL,
        Label.UNKNOWN,
    ),
    patients_known=True,
    licence="CC BY 4.0",
    url="https://github.com/iiscleap/Coswara-Data",
    citation=(
        "Bhattacharya D. et al., Coswara: A respiratory sounds and symptoms dataset for remote"
        " screening of SARS-CoV-2 infection, arXiv:2305.12741, 2023"
    ),
    obtain=_OBTAIN,
    size="2 coughs each of 2,746 people",
    scan=scan,
)
