"""DarkCovidNet: the 1,125 chest X-rays of Ozturk et al. 2020 in three classes.

Origin: Tulin Ozturk, Muhammed Talo and others, 2020. COVID-19 images were taken from
covid-chestxray-dataset (Cohen); "No findings" and "Pneumonia" from NIH ChestX-ray8 (Wang 2017).
Licence: none stated; NIH allows any use with acknowledgement, the COVID-19 images have the
licence of their article.
Citation: Ozturk T. et al., Automated detection of COVID-19 cases using deep neural networks with
X-ray images, Computers in Biology and Medicine 121, 103792, 2020. Wang X. et al., ChestX-ray8,
CVPR 2017.

Layout:
    ROOT/X-Ray Image DataSet/{Covid-19,No_findings,Pneumonia}/*
    ROOT/../covid-chestxray-dataset/metadata.csv         (optional: patients of the Covid-19 class)

Labels: Covid-19 is covid19, No_findings is normal, Pneumonia is pneumonia (NIH labels were read
from radiology reports by a program).
Findings: Covid-19 says covid19 and nothing else. No_findings says that none of NIH's 14 findings is
present (164 of its 500 images stand in the published val and test lists of NIH ChestX-ray14, each
with 14 times 0) and not covid19; Pneumonia says pneumonia and not covid19 (the paper's classes
exclude each other, and NIH's images are of 2015 and before), and nothing of the other findings.

Patients: an NIH name is PATIENT_NNN, so the patient is known. For Covid-19, the patient id of
covid-chestxray-dataset is used where its table lies beside and names a file of the same stem
(suffixes differ: these copies are all .jpg). Without it, files of one article or one case are one
patient with `patient_known` false: the name is cut at its figure, panel, day and view part (see
`article_of`). That rule rather joins two persons of one article than splits one; names that are
random identifiers (SIRM cases) cannot be joined, and 7 of 82 patients stay split by it.

Known defects:
- The class is the source: every covid19 image is `site` "cohen", every other one "nih". A
  classifier may learn the source instead of the disease.
- Of the 132 Pneumonia images in those lists, 12 have no mark for pneumonia there.
- 21 NIH patients stand in both No_findings and Pneumonia (different images): a split by image, as
  in the paper, has the same person on both sides.
- This copy has 124 Covid-19 images where the paper counts 125 or 127, and 500 of each other class.
- The Covid-19 images are images of covid_chestxray as well.

How to obtain: https://github.com/muhammedtalo/COVID-19, folder "X-Ray Image DataSet".
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from pulmofuse.findings import NIH_FINDINGS, Finding, findings_text
from pulmofuse.schema import Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import (
    Scan,
    Source,
    list_files,
    name_key,
    require_folder,
    suffix_fault,
)
from pulmofuse.sources.covid_chestxray import read_patient_ids

_NAME = "darkcovidnet"
_FOLDER = "X-Ray Image DataSet"
_CLASSES = {
    "Covid-19": Label.COVID19,
    "No_findings": Label.NORMAL,
    "Pneumonia": Label.PNEUMONIA,
}
_FINDINGS: dict[Label, dict[Finding, int]] = {
    Label.COVID19: {Finding.COVID19: 1},
    Label.NORMAL: {**dict.fromkeys(NIH_FINDINGS, 0), Finding.COVID19: 0},
    Label.PNEUMONIA: {Finding.PNEUMONIA: 1, Finding.COVID19: 0},
}
_OBTAIN = (
    "get https://github.com/muhammedtalo/COVID-19 and keep its folder 'X-Ray Image DataSet' as"
    " it is"
)
_NIH_NAME = re.compile(r"(\d{8})_\d{3}")
_COHEN_TABLE = "covid-chestxray-dataset/metadata.csv"

#: Parts of a Covid-19 file name that tell images of one article or case apart, cut in this order.
_CUTS = (
    re.compile(r"(?<=^auntminnie)-[a-z](?=-)"),
    re.compile(r"-(pa|ap|l|left|right)$"),
    re.compile(r"-(day-?\d+|admission|\d+-(hours|days))$"),
    re.compile(r"-[a-f]\d?$"),
    re.compile(r"\.pdf-\d{3}.*$"),
    re.compile(r"[-_.](fig|gr|fx|f|g)-?\d+[a-z]?([-_].*)?$"),
    re.compile(r"(?<=\d)[a-z]$"),
)


def article_of(stem: str) -> str:
    """The article or case that a Covid-19 image comes from, as far as its name tells.

    >>> article_of("nejmoa2001191_f3-PA"), article_of("covid-19-pneumonia-24-day7")
    ('nejmoa2001191', 'covid-19-pneumonia-24')
    """
    name = stem.lower()
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name):
        return name
    for cut in _CUTS:
        name = cut.sub("", name)
    return name


def scan(root: Path) -> Scan:
    """Scan DarkCovidNet; see the data sheet above.

    Raises:
        SourceError: a class folder is missing, or the optional table is not what it should be.
    """
    folders = [f"{_FOLDER}/{name}" for name in _CLASSES]
    for folder in folders:
        require_folder(root, folder, _OBTAIN)
    listing = list_files(root, _NAME, folders)
    cohen = _cohen_patients(root)
    rows: list[dict[str, object]] = []
    excluded = list(listing.excluded)
    for path in listing.files:
        fault = suffix_fault(path, Modality.CXR)
        if fault is not None:
            excluded.append(Exclusion(path, Modality.CXR.value, _NAME, "scan", *fault))
        else:
            rows.append(_row(path, cohen))
    return Scan(manifest_frame(rows), tuple(excluded))


def _row(path: str, cohen: dict[str, str]) -> dict[str, object]:
    """One manifest row."""
    short = path.removeprefix(f"{_FOLDER}/")
    label = _CLASSES[short.split("/", 1)[0]]
    patient, known, site = _patient(PurePosixPath(path), label, cohen)
    return {
        "record_id": f"{_NAME}:{short}",
        "patient_id": f"{_NAME}:{patient or short}",
        "patient_known": known,
        "modality": Modality.CXR.value,
        "path": path,
        "label": label.value,
        "source": _NAME,
        "site": site,
        "findings": findings_text(_FINDINGS[label]),
    }


def _patient(path: PurePosixPath, label: Label, cohen: dict[str, str]) -> tuple[str, bool, str]:
    """Patient ("" where nothing tells), whether known, and the site of one image."""
    if label is Label.COVID19:
        known = cohen.get(name_key(path.stem))
        return (
            (f"cohen_{known}", True, "cohen") if known else (article_of(path.stem), False, "cohen")
        )
    nih = _NIH_NAME.fullmatch(path.stem)
    return (f"nih_{nih[1]}", True, "nih") if nih else ("", False, "nih")


def _cohen_patients(root: Path) -> dict[str, str]:
    """Patient of each file stem in the table beside; a stem of two patients is left out."""
    table = root.parent / _COHEN_TABLE
    if not table.is_file():
        return {}
    found: dict[str, set[str]] = {}
    for name, patient in read_patient_ids(table).items():
        found.setdefault(PurePosixPath(name).stem, set()).add(patient)
    return {stem: next(iter(ids)) for stem, ids in found.items() if len(ids) == 1}


SOURCE = Source(
    name=_NAME,
    title="DarkCovidNet chest X-rays",
    modalities=(Modality.CXR,),
    labels=tuple(_CLASSES.values()),
    patients_known=None,
    licence="none stated",
    url="https://github.com/muhammedtalo/COVID-19",
    citation=(
        "Ozturk T. et al., Automated detection of COVID-19 cases using deep neural networks with"
        " X-ray images, Computers in Biology and Medicine 121, 103792, 2020"
    ),
    obtain=_OBTAIN,
    size="1,124 X-rays, 124 COVID-19",
    scan=scan,
)
