"""Shenzhen Hospital X-ray set: 662 chest X-rays, normal or with signs of tuberculosis.

Origin: Shenzhen No. 3 People's Hospital, China, as part of routine care, September 2012; published
by the U.S. National Library of Medicine (Stefan Jaeger, Sema Candemir, Sameer Antani, Yi-Xiang J.
Wang, Pu-Xuan Lu, George Thoma).
Licence: released by the National Library of Medicine, which asks for the citations below.
Citation: Jaeger S. et al., Two public chest X-ray datasets for computer-aided screening of
pulmonary diseases, Quantitative Imaging in Medicine and Surgery 4(6), 475-477, 2014. Jaeger S. et
al., Automatic tuberculosis screening using chest radiographs, IEEE Transactions on Medical Imaging
33(2), 233-245, 2014.

Layout (ChinaSet_AllFiles.zip):
    ROOT/CXR_png/CHNCXR_NNNN_L.png               L is 0 or 1
    ROOT/ClinicalReadings/CHNCXR_NNNN_L.txt      sex, age and reading; optional
ROOT may also be the folder that holds ChinaSet_AllFiles. A reading without an image is excluded; an
image without a reading has no sex and no age.

Labels: the last part of the name: 0 is normal (326), 1 is tuberculosis (336). The label is the
radiologist's, not a culture's.

Patients: numbered images; no table says who is who. A later publication of the same authors speaks
of 336 tuberculosis patients, so at least those are one image each. Every image is a patient of its
own with `patient_known` false. All images are of one hospital and show the front (PA, a few AP).

Known defects:
- The readings are free text ("male 45yrs", "Female , 24yr", "femal 32yrs", "male 16month"); a
  number without a unit is taken as years here.
- Some readings of label 1 say that the disease is old, healed or pleural.
- A model that is trained here together with another data set of normal X-rays may learn the
  hospital: `montgomery` has both classes as well.

How to obtain: https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets
"""

from __future__ import annotations

import re
from pathlib import Path

from pulmofuse.schema import Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import Scan, Source, list_files, require_folder
from pulmofuse.sources.listed import age_in_years, by_name, not_on_disk, read_lines

_NAME = "shenzhen"
_URL = "https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets"
_OBTAIN = f"get ChinaSet_AllFiles.zip from {_URL} and unpack it"
_TOP = "ChinaSet_AllFiles"
_IMAGES = "CXR_png"
_READINGS = "ClinicalReadings"
_IMAGE_NAME = re.compile(r"(CHNCXR_\d{4}_([01]))\.png")
_LABELS = {"0": Label.NORMAL, "1": Label.TUBERCULOSIS}
_FEMALE = re.compile(r"\bfemal", re.IGNORECASE)
_MALE = re.compile(r"\bmale", re.IGNORECASE)


def read_person(text: str) -> tuple[str | None, float | None]:
    """Sex and age (years) in a clinical reading; None for what it does not say.

    >>> read_person("Female , 24yr  bilateral PTB"), read_person("normal")
    (('F', 24.0), (None, None))
    """
    sex = "F" if _FEMALE.search(text) else "M" if _MALE.search(text) else None
    return sex, age_in_years(text)


def scan(root: Path) -> Scan:
    """Scan the Shenzhen Hospital X-ray set; see the data sheet above.

    Raises:
        SourceError: CXR_png is missing, or a reading is not text.
    """
    top = f"{_TOP}/" if (root / _TOP / _IMAGES).is_dir() else ""
    require_folder(root, f"{top}{_IMAGES}", _OBTAIN)
    on_disk, excluded = by_name(list_files(root, _NAME, (f"{top}{_IMAGES}",)), Modality.CXR, _NAME)
    readings = {path.stem: path for path in sorted((root / top / _READINGS).glob("CHNCXR_*.txt"))}
    rows: list[dict[str, object]] = []
    for name, path in on_disk.items():
        parts = _IMAGE_NAME.fullmatch(name)
        if parts is None:
            reason = "the name is not CHNCXR_NNNN_0.png or CHNCXR_NNNN_1.png, so it has no label"
            remedy = "give the file its published name, or remove it"
            excluded.append(Exclusion(path, "cxr", _NAME, "scan", reason, remedy))
            continue
        rows.append(_row(path, parts[1], _LABELS[parts[2]], readings.pop(parts[1], None)))
    excluded += [
        not_on_disk(
            f"{top}{_IMAGES}/{stem}.png",
            Modality.CXR,
            _NAME,
            f"{top}{_READINGS}/{path.name}",
            _OBTAIN,
        )
        for stem, path in readings.items()
    ]
    return Scan(manifest_frame(rows), tuple(excluded))


def _row(path: str, stem: str, label: Label, reading: Path | None) -> dict[str, object]:
    """One manifest row."""
    lines = read_lines(reading, _OBTAIN) if reading else []
    # Sex and age stand in the first line; later numbers are sizes or counts of the reading.
    sex, age = read_person(lines[0][1]) if lines else (None, None)
    return {
        "record_id": f"{_NAME}:{stem}",
        "patient_id": f"{_NAME}:{stem}",
        "patient_known": False,
        "modality": Modality.CXR.value,
        "path": path,
        "label": label.value,
        "source": _NAME,
        "age": age,
        "sex": sex,
    }


SOURCE = Source(
    name=_NAME,
    title="Shenzhen Hospital X-ray set",
    modalities=(Modality.CXR,),
    labels=(Label.NORMAL, Label.TUBERCULOSIS),
    patients_known=False,
    licence="public release of the U.S. NLM",
    url=_URL,
    citation=(
        "Jaeger S. et al., Two public chest X-ray datasets for computer-aided screening of"
        " pulmonary diseases, Quantitative Imaging in Medicine and Surgery 4(6), 475-477, 2014"
    ),
    obtain=_OBTAIN,
    size="662 X-rays, 336 tuberculosis",
    scan=scan,
)
