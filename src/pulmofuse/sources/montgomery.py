"""Montgomery County X-ray set: 138 chest X-rays, normal or with signs of tuberculosis.

Origin: tuberculosis control programme of the Department of Health and Human Services, Montgomery
County, Maryland, United States; published by the U.S. National Library of Medicine (Stefan Jaeger,
Sema Candemir, Sameer Antani, Yi-Xiang J. Wang, Pu-Xuan Lu, George Thoma).
Licence: released by the National Library of Medicine, which asks for the citations below.
Citation: Jaeger S. et al., Two public chest X-ray datasets for computer-aided screening of
pulmonary diseases, Quantitative Imaging in Medicine and Surgery 4(6), 475-477, 2014. Candemir S. et
al., Lung segmentation in chest radiographs using anatomical atlases with nonrigid registration,
IEEE Transactions on Medical Imaging 33(2), 577-590, 2014.

Layout (NLM-MontgomeryCXRSet.zip):
    ROOT/CXR_png/MCUCXR_NNNN_L.png                        L is 0 or 1
    ROOT/ClinicalReadings/MCUCXR_NNNN_L.txt               sex, age and reading; optional
    ROOT/ManualMask/{leftMask,rightMask}/MCUCXR_NNNN_L.png    lung masks; not used
ROOT may also be the folder that holds MontgomerySet. A reading without an image is excluded; an
image without a reading has no sex and no age.

Labels: the last part of the name: 0 is normal (80), 1 is tuberculosis (58). The label is the
radiologist's, not a culture's.

Patients: numbered images; no table says who is who. A reading may say "same pt as MCUCXR_NNNN_L":
such images are one patient here. As nobody says that this is complete, `patient_known` is false
throughout. All images are postero-anterior (`view` PA) and of one programme.

Known defects:
- Sex "O" occurs; at least one image has no report of its own, only the note named above.
- The images are large: 4,020 x 4,892 pixels, or the same turned.
- 138 images: intervals are wide. It serves best as an external test set for `shenzhen`.

How to obtain: https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pulmofuse.schema import Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import Scan, Source, list_files, require_folder
from pulmofuse.sources.listed import age_in_years, by_name, not_on_disk, read_lines

_NAME = "montgomery"
_URL = "https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets"
_OBTAIN = f"get NLM-MontgomeryCXRSet.zip from {_URL} and unpack it"
_TOP = "MontgomerySet"
_IMAGES = "CXR_png"
_READINGS = "ClinicalReadings"
_IMAGE_NAME = re.compile(r"(MCUCXR_\d{4}_([01]))\.png")
_LABELS = {"0": Label.NORMAL, "1": Label.TUBERCULOSIS}
_SEX = re.compile(r"Sex:\s*([FMO])\b", re.IGNORECASE)
_AGE = re.compile(r"Age:\s*(\S+)", re.IGNORECASE)
_SAME_PATIENT = re.compile(r"same\s+(?:pt|patient)\s+as\s+(MCUCXR_\d{4}_[01])", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """What a clinical reading says of the person; None for what it does not say.

    Attributes:
        age: years.
        same_as: name (without suffix) of another image of the same person.
    """

    sex: str | None = None
    age: float | None = None
    same_as: str | None = None


def parse_reading(text: str) -> Reading:
    """Read one clinical reading.

    >>> parse_reading("Patient's Sex: F Patient's Age: 027Y normal")
    Reading(sex='F', age=27.0, same_as=None)
    """
    sex, age, same = (pattern.search(text) for pattern in (_SEX, _AGE, _SAME_PATIENT))
    return Reading(
        sex=sex[1].upper() if sex else None,
        age=age_in_years(age[1]) if age else None,
        same_as=same[1].upper() if same else None,
    )


def scan(root: Path) -> Scan:
    """Scan the Montgomery County X-ray set; see the data sheet above.

    Raises:
        SourceError: CXR_png is missing, or a reading is not text.
    """
    top = f"{_TOP}/" if (root / _TOP / _IMAGES).is_dir() else ""
    require_folder(root, f"{top}{_IMAGES}", _OBTAIN)
    on_disk, excluded = by_name(list_files(root, _NAME, (f"{top}{_IMAGES}",)), Modality.CXR, _NAME)
    readings = {
        path.stem: parse_reading(" ".join(line for _, line in read_lines(path, _OBTAIN)))
        for path in sorted((root / top / _READINGS).glob("MCUCXR_*.txt"))
    }
    patients = _patients(readings)
    rows: list[dict[str, object]] = []
    for name, path in on_disk.items():
        parts = _IMAGE_NAME.fullmatch(name)
        if parts is None:
            reason = "the name is not MCUCXR_NNNN_0.png or MCUCXR_NNNN_1.png, so it has no label"
            remedy = "give the file its published name, or remove it"
            excluded.append(Exclusion(path, "cxr", _NAME, "scan", reason, remedy))
            continue
        stem = parts[1]
        reading = readings.pop(stem, Reading())
        rows.append(_row(path, stem, _LABELS[parts[2]], reading, patients.get(stem, stem)))
    excluded += [
        not_on_disk(
            f"{top}{_IMAGES}/{stem}.png",
            Modality.CXR,
            _NAME,
            f"{top}{_READINGS}/{stem}.txt",
            _OBTAIN,
        )
        for stem in readings
    ]
    return Scan(manifest_frame(rows), tuple(excluded))


def _patients(readings: dict[str, Reading]) -> dict[str, str]:
    """Patient of each image: the least name among those that the readings join."""
    groups: dict[str, set[str]] = {}
    for stem, reading in readings.items():
        if reading.same_as:
            joined = groups.get(stem, {stem}) | groups.get(reading.same_as, {reading.same_as})
            groups |= dict.fromkeys(joined, joined)
    return {stem: min(group) for stem, group in groups.items()}


def _row(path: str, stem: str, label: Label, reading: Reading, patient: str) -> dict[str, object]:
    """One manifest row."""
    return {
        "record_id": f"{_NAME}:{stem}",
        "patient_id": f"{_NAME}:{patient}",
        "patient_known": False,
        "modality": Modality.CXR.value,
        "path": path,
        "label": label.value,
        "source": _NAME,
        "age": reading.age,
        "sex": reading.sex,
        "view": "PA",
    }


SOURCE = Source(
    name=_NAME,
    title="Montgomery County X-ray set",
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
    size="138 X-rays, 58 tuberculosis",
    scan=scan,
)
