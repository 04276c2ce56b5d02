"""COVID-CT: axial CT slices cut out of articles and teaching files, with an official split.

Origin: Xuehai He, Xingyi Yang, Shanghang Zhang, Jinyu Zhao, Yichen Zhang, Eric Xing, Pengtao Xie
(UC San Diego and others), 2020. 349 slices labelled COVID-19 come from figures of medRxiv, bioRxiv
and journal articles; 397 others from MedPix (195) and from the web (202, "crawled": LUNA,
Radiopaedia, PubMed Central).
Licence: none stated for the images; each belongs to the article or site that it was taken from.
Citation: He X. et al., Sample-Efficient Deep Learning for COVID-19 Diagnosis Based on CT Scans,
medRxiv 2020.04.13.20063941. Yang X. et al., COVID-CT-Dataset, arXiv:2003.13865.

Layout:
    ROOT/Images-processed/{CT_COVID,CT_NonCOVID}/*.png, *.jpg
    ROOT/Data-split/{COVID,NonCOVID}/{train,val,test}CT_{COVID,NonCOVID}.txt
    ROOT/COVID-CT-MetaInfo.xlsx, ROOT/NonCOVID-CT-MetaInfo.csv     (optional: patients)
The split files rule: a file on disk that none of them names is excluded, and so is a name without
a file. Split sizes as published: 425 train, 118 val, 203 test.

Labels: CT_COVID is covid19; CT_NonCOVID is not_covid19, which mixes healthy lungs with other
diseases and does not say which is which.

Patients: the tables give all 746 images one of 384 patient ids (213 COVID, 171 other). They are
what the authors read from figure captions, not hospital records: two articles may show one
person, and articles that say nothing count each panel as a person or all as one. By these ids no
patient stands in two parts of the official split. Two articles do: 2020.03.13.20035212 (train and
val) and 2020.03.22.20040782 (val and test), with different patient ids. Without the tables each
image is a patient of its own with `patient_known` false.
`site` is where the image came from (article, medpix, crawled). It follows the label completely.

Known defects:
- The table of COVID images writes 83 of its 349 names without ".png", has sexes with trailing
  blanks, an empty last row with a stray footnote, and ages such as "Young Child" or "40+", which
  become null here. Names on both sides hold "%" and are used as they are.
- At least 11 images in CT_COVID are not COVID-19 by their own captions: five panels of a
  control group (2020.02.25.20021568-p24-111%5 to %9), two of heart failure
  (2020.03.04.20031047-p12-81%0 and %1) and four of a 2017 mycobacterial infection
  (Talaromyces-marneffei-...-p1-12%0 to %3). They are kept as labelled, so that figures compare
  with published ones.
- 8-bit images of unknown window, some with arrows, letters or a frame; sizes differ by origin.

How to obtain: clone https://github.com/UCSD-AI4H/COVID-CT and unpack the two archives in
Images-processed/ where they lie.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pulmofuse.errors import SourceError
from pulmofuse.schema import Exclusion, Label, Modality, Split, manifest_frame
from pulmofuse.sources.base import (
    Scan,
    Source,
    list_files,
    missing_from_disk,
    name_key,
    read_text_table,
    require_file,
    require_folder,
)

_NAME = "covid_ct"
_OBTAIN = (
    "clone https://github.com/UCSD-AI4H/COVID-CT and unpack CT_COVID.zip and CT_NonCOVID.zip in"
    " its Images-processed folder"
)
_COVID_TABLE = "COVID-CT-MetaInfo.xlsx"
_OTHER_TABLE = "NonCOVID-CT-MetaInfo.csv"
_IMAGES = "Images-processed"
_GROUPS = {"COVID": Label.COVID19, "NonCOVID": Label.NOT_COVID19}


@dataclass(frozen=True)
class _About:
    """What the two tables say of one image."""

    patient: str
    site: str
    age: float | None = None
    sex: str | None = None


def scan(root: Path) -> Scan:
    """Scan COVID-CT; see the data sheet above.

    Raises:
        SourceError: an image folder or a split file is missing, a split file names an image that
            another one names too, or a patient table cannot be read.
    """
    rows: list[dict[str, object]] = []
    excluded: list[Exclusion] = []
    tables = {"COVID": _covid_patients(root), "NonCOVID": _other_patients(root)}
    for group, label in _GROUPS.items():
        folder = f"{_IMAGES}/CT_{group}"
        require_folder(root, folder, _OBTAIN)
        listing = list_files(root, _NAME, (folder,))
        on_disk = {name_key(path): path for path in listing.files}
        splits = _official_split(root, group)
        excluded += listing.excluded
        for name, split in splits.items():
            path = on_disk.pop(f"{folder}/{name}", None)
            if path is None:
                excluded.append(_missing(f"{folder}/{name}", split))
            else:
                rows.append(_row(path, group, label, split, tables[group].get(name)))
        excluded += [_unnamed(path) for path in on_disk.values()]
    return Scan(manifest_frame(rows), tuple(excluded))


def _row(
    path: str, group: str, label: Label, split: Split, about: _About | None
) -> dict[str, object]:
    """One manifest row."""
    short = path.removeprefix(f"{_IMAGES}/")
    return {
        "record_id": f"{_NAME}:{short}",
        "patient_id": f"{_NAME}:{about.patient if about else short}",
        "patient_known": about is not None,
        "modality": Modality.CT.value,
        "path": path,
        "label": label.value,
        "source": _NAME,
        "site": about.site if about else ("article" if group == "COVID" else None),
        "split": split.value,
        "age": about.age if about else None,
        "sex": about.sex if about else None,
        "view": "axial",
    }


def _missing(path: str, split: Split) -> Exclusion:
    reason = missing_from_disk(f"the official {split.value} split")
    archive = path.rpartition("/")[0]
    return Exclusion(path, "ct", _NAME, "scan", reason, f"unpack {archive}.zip again")


def _unnamed(path: str) -> Exclusion:
    reason = "no file of the official split names it"
    return Exclusion(path, "ct", _NAME, "scan", reason, "remove it, or add it to a split file")


def _official_split(root: Path, group: str) -> dict[str, Split]:
    """Split of each image name of one group, in the order of the files."""
    splits: dict[str, Split] = {}
    for split in Split:
        path = require_file(root, f"Data-split/{group}/{split.value}CT_{group}.txt", _OBTAIN)
        try:
            names = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(path, f"cannot be read ({error})", _OBTAIN) from None
        for name in filter(None, map(name_key, names)):
            if splits.setdefault(name, split) is not split:
                why = f"names {name}, which is in the {splits[name].value} split as well"
                raise SourceError(path, why, "use the official split files")
    return splits


def _covid_patients(root: Path) -> dict[str, _About]:
    """Patients of the COVID images, from the workbook; empty where it is absent."""
    path = root / _COVID_TABLE
    if not path.exists():
        return {}
    try:
        table = pd.read_excel(path, dtype=str).rename(columns=str.strip).fillna("")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(path, f"cannot be read as a workbook ({error})", _OBTAIN) from None
    columns = ["File name", "Patient ID", "Age", "Gender"]
    missing = [column for column in columns if column not in table]
    if missing:
        raise SourceError(path, f"column {', '.join(missing)} is missing", _OBTAIN)
    found: dict[str, _About] = {}
    for name, patient, age, sex in table[columns].itertuples(index=False):
        if not name.strip() or not patient.strip():
            continue
        years = pd.to_numeric(age.strip(), errors="coerce")
        key = name_key(name)
        found[key if key.lower().endswith(".png") else f"{key}.png"] = _About(
            patient=patient.strip(),
            site="article",
            age=None if pd.isna(years) else float(years),
            sex=sex.strip() if sex.strip() in {"F", "M"} else None,
        )
    return found


def _other_patients(root: Path) -> dict[str, _About]:
    """Patients of the other images, from the CSV table; empty where it is absent."""
    path = root / _OTHER_TABLE
    if not path.exists():
        return {}
    table = read_text_table(path, ("image name", "patient id"), _OBTAIN)
    return {
        name_key(name): _About(patient=patient, site=patient.partition("_")[0])
        for name, patient in table[["image name", "patient id"]].itertuples(index=False)
        if name and patient
    }


SOURCE = Source(
    name=_NAME,
    title="COVID-CT",
    modalities=(Modality.CT,),
    labels=(Label.COVID19, Label.NOT_COVID19),
    patients_known=True,
    licence="none stated",
    url="https://github.com/UCSD-AI4H/COVID-CT",
    citation=(
        "He X. et al., Sample-Efficient Deep Learning for COVID-19 Diagnosis Based on CT Scans,"
        " medRxiv 2020.04.13.20063941, 2020"
    ),
    obtain=_OBTAIN,
    size="746 slices of 384 patients",
    scan=scan,
)
