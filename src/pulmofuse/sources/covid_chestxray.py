"""covid-chestxray-dataset: X-ray and CT images from public case reports, with patient identity.

Origin: Joseph Paul Cohen, Paul Morrison, Lan Dao, Karsten Roth, Tim Duong, Marzyeh Ghassemi
(Mila, University of Montreal), since February 2020; figures of articles, Radiopaedia, SIRM,
Figure 1 and hospitals.
Licence: per image, column `license` of the table (mostly CC BY-NC-SA or not stated).
Citation: Cohen J.P. et al., COVID-19 Image Data Collection: Prospective Predictions Are the
Future, arXiv:2006.11988, 2020.

Layout (about 700 images of about 370 patients; it grew over time):
    ROOT/metadata.csv            one row per image; `folder` and `filename` say where it lies
    ROOT/images/*, ROOT/volumes/*.nii.gz
The table rules: an image that it does not name is excluded, and so is a row without a file (the
CT volumes are a separate download, for instance).

Labels, from `finding` (both the plain names of 2020 and the later "Pneumonia/Viral/..." paths):
- COVID-19, with or without ARDS: covid19. No Finding: normal.
- Pneumonia and every named cause of it (bacterial, viral such as SARS, fungal, lipoid,
  aspiration): pneumonia. Tuberculosis: tuberculosis.
- ARDS alone and other non-pneumonia findings: other_abnormal. todo, Unknown: unknown.
- No Finding in a patient whose other images say COVID-19 (an early or late image of an infected
  person): unknown, because the image and the person say different things.
A finding outside these is excluded, never guessed.
Findings (X-rays only): what `finding` names is present: covid19, tuberculosis, ards, and pneumonia
for pneumonia and its named causes, or where the path goes through it ("Pneumonia/Viral/COVID-19").
No Finding says that the picture shows no pneumonia and no ards; whether the person was infected it
does not say. Nothing else is said, so a bacterial pneumonia is no negative of covid19.

Patients: `patientid` is the authors' reading of the reports and is known for every row. The same
person can have X-ray and CT (22 patients in the table): the only true pairs among our sources.
Where one file stands in two rows with different patient ids (as published, patients 285 and 339,
287 and 340), the first row counts, the second is excluded, and the two ids become one patient.
`view` is as published: PA, AP, AP Supine, L (lateral), Axial, Coronal. `site` is the country, the
last part of `location`, or null. `date` is as exact as published, mostly the year; dates such as
03/06/20 have the month first (03/16/20 stands among them); a day without a year is null. It is
often the date of the article or of the case report. `day` is `offset`: days since the first
symptoms or the admission, whichever the report counts from, so it tells how far apart two images of
one person are. The survival and laboratory columns are not used.

Known defects: patient 380 has both sexes; some rows say view "?"; lateral views are kept and
should be filtered by `view`; the DarkCovidNet source contains 124 of these images (its copies
share no id with these: the audit finds them as near duplicates); images come from many scanners
and countries.

How to obtain: clone https://github.com/ieee8023/covid-chestxray-dataset.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pulmofuse.findings import Finding, findings_text
from pulmofuse.schema import Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import (
    Scan,
    Source,
    list_files,
    missing_from_disk,
    name_key,
    parse_date,
    read_text_table,
    require_file,
    require_folder,
    text_rows,
    years,
)

_NAME = "covid_chestxray"
_TABLE = "metadata.csv"
_URL = "https://github.com/ieee8023/covid-chestxray-dataset"
_OBTAIN = f"clone {_URL}"
_FOLDERS = ("images", "volumes")
_COLUMNS = (
    "patientid",
    "sex",
    "age",
    "finding",
    "view",
    "modality",
    "location",
    "folder",
    "filename",
)
_MODALITIES = {"x-ray": Modality.CXR, "ct": Modality.CT}

#: First part of a finding path, or a whole plain finding, in lower case.
_PNEUMONIAS = frozenset(
    {
        "pneumonia",
        "sars",
        "mers",
        "mers-cov",
        "streptococcus",
        "klebsiella",
        "mycoplasma bacterial pneumonia",
        "mycoplasma",
        "legionella",
        "lipoid",
        "varicella",
        "e.coli",
        "bacterial",
        "viral",
        "fungal",
        "chlamydophila",
        "influenza",
        "pneumocystis",
        "aspiration",
        "nocardia",
        "staphylococcus",
        "herpes",
        "aspergillosis",
        "h1n1",
    }
)


def parse_finding(finding: str) -> Label | None:
    """The label that a finding means, or None where the data sheet does not say."""
    parts = _parts(finding)
    if "covid-19" in parts:
        return Label.COVID19
    if "tuberculosis" in parts:
        return Label.TUBERCULOSIS
    if parts[0] in _PNEUMONIAS:
        return Label.PNEUMONIA
    plain = {
        "no finding": Label.NORMAL,
        "ards": Label.OTHER_ABNORMAL,
        "todo": Label.UNKNOWN,
        "unknown": Label.UNKNOWN,
    }
    return plain.get(parts[0])


def stated_findings(finding: str) -> dict[Finding, int]:
    """What an X-ray's finding says; empty where it says nothing, as "todo".

    >>> stated_findings("COVID-19, ARDS") == {Finding.COVID19: 1, Finding.ARDS: 1}
    True
    """
    parts = _parts(finding)
    if parts[0] == "no finding":
        return {Finding.PNEUMONIA: 0, Finding.ARDS: 0}
    named = {
        Finding.COVID19: "covid-19" in parts,
        Finding.TUBERCULOSIS: "tuberculosis" in parts,
        Finding.ARDS: "ards" in parts,
        Finding.PNEUMONIA: parts[0] in _PNEUMONIAS,
    }
    return {name: 1 for name, present in named.items() if present}


def _parts(finding: str) -> list[str]:
    """The parts of a finding path, or of a plain list, in lower case."""
    return [part.strip() for part in finding.lower().replace(",", "/").split("/")]


def read_patient_ids(table_path: Path) -> dict[str, str]:
    """Patient of each image name in a metadata.csv, ids that share a file merged into one.

    Raises:
        SourceError: not the table of this data set.
    """
    return _patients(read_text_table(table_path, _COLUMNS, _OBTAIN))


def scan(root: Path) -> Scan:
    """Scan covid-chestxray-dataset; see the data sheet above.

    Raises:
        SourceError: images/ or metadata.csv is missing, or the table lacks a column.
    """
    require_folder(root, "images", _OBTAIN)
    table = read_text_table(require_file(root, _TABLE, _OBTAIN), _COLUMNS, _OBTAIN)
    present = [folder for folder in _FOLDERS if (root / folder).is_dir()]
    listing = list_files(root, _NAME, present)
    on_disk = {name_key(path): path for path in listing.files}
    lines = list(text_rows(table))
    patients = _patients(table)
    infected = {
        patients[name_key(row["filename"])]
        for row in lines
        if parse_finding(row["finding"]) is Label.COVID19
    }
    rows: list[dict[str, object]] = []
    excluded = list(listing.excluded)
    used: set[str] = set()
    for row in lines:
        key = f"{row['folder']}/{name_key(row['filename'])}"
        fault = _row_fault(row, key, on_disk, used)
        if fault is not None:
            modality = _MODALITIES.get(row["modality"].lower())
            kind = modality.value if modality else ""
            excluded.append(Exclusion(key, kind, _NAME, "scan", *fault))
            continue
        used.add(key)
        rows.append(_row(row, on_disk[key], patients[name_key(row["filename"])], infected))
    named = {f"{row['folder']}/{name_key(row['filename'])}" for row in lines}
    excluded += [
        Exclusion(path, "", _NAME, "scan", f"{_TABLE} does not name it", "nothing: it has no label")
        for key, path in on_disk.items()
        if key not in named
    ]
    return Scan(manifest_frame(rows), tuple(excluded))


def _row_fault(
    row: dict[str, str], key: str, on_disk: dict[str, str], used: set[str]
) -> tuple[str, str] | None:
    """Why a table row makes no record, with the remedy; None where it does."""
    if row["modality"].lower() not in _MODALITIES:
        return f"modality {row['modality']!r} is neither X-ray nor CT", "nothing: not used here"
    if parse_finding(row["finding"]) is None:
        return f"finding {row['finding']!r} has no label", "report it, so that it can be mapped"
    if key not in on_disk:
        origin = f" or {row['url']}" if row.get("url") else ""
        return missing_from_disk(_TABLE), f"get this file from {_URL}{origin}"
    if key in used:
        return f"{_TABLE} names it twice", "nothing: the first row counts"
    return None


def _row(
    row: dict[str, str], path: str, patient: str, infected: Iterable[str]
) -> dict[str, object]:
    """One manifest row."""
    label = parse_finding(row["finding"])
    if label is Label.NORMAL and patient in infected:
        label = Label.UNKNOWN
    country = row["location"].rpartition(",")[2].strip(" ?")
    modality = _MODALITIES[row["modality"].lower()]
    stated = stated_findings(row["finding"]) if modality is Modality.CXR else {}
    return {
        "record_id": f"{_NAME}:{path}",
        "patient_id": f"{_NAME}:{patient}",
        "patient_known": True,
        "modality": modality.value,
        "path": path,
        "label": str(label),
        "source": _NAME,
        "site": country or None,
        "age": years(row["age"]),
        "sex": row["sex"] if row["sex"] in {"F", "M"} else None,
        "view": row["view"] if row["view"] not in {"", "?"} else None,
        "date": parse_date(row.get("date", "")),
        "day": row.get("offset") or None,
        "findings": findings_text(stated),
    }


def _patients(table: pd.DataFrame) -> dict[str, str]:
    """Patient of each file name; ids that share a file are one person under the first id."""
    same: dict[str, str] = {}

    def first(patient: str) -> str:
        while same.get(patient, patient) != patient:
            patient = same[patient]
        return patient

    owner: dict[str, str] = {}
    for name, patient in zip(table["filename"], table["patientid"], strict=True):
        before = first(owner.setdefault(name_key(name), patient))
        now = first(patient)
        if now != before:
            same[now] = before
    return {name: first(patient) for name, patient in owner.items()}


SOURCE = Source(
    name=_NAME,
    title="covid-chestxray-dataset",
    modalities=(Modality.CXR, Modality.CT),
    labels=(
        Label.COVID19,
        Label.NORMAL,
        Label.PNEUMONIA,
        Label.TUBERCULOSIS,
        Label.OTHER_ABNORMAL,
        Label.UNKNOWN,
    ),
    patients_known=True,
    licence="per image: CC BY-NC-SA, none, others",
    url=_URL,
    citation=(
        "Cohen J.P. et al., COVID-19 Image Data Collection: Prospective Predictions Are the"
        " Future, arXiv:2006.11988, 2020"
    ),
    obtain=_OBTAIN,
    size="about 700 images of 370 patients",
    scan=scan,
)
