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
Findings: tuberculosis, present or absent; the readings' free text is not used.

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

from pulmofuse.schema import Modality
from pulmofuse.sources import nlm
from pulmofuse.sources.base import Scan, Source
from pulmofuse.sources.listed import age_in_years

_FEMALE = re.compile(r"\bfemal", re.IGNORECASE)
_MALE = re.compile(r"\bmale", re.IGNORECASE)


def read_person(text: str) -> tuple[str | None, float | None]:
    """Sex and age (years) in a clinical reading; None for what it does not say.

    >>> read_person("Female , 24yr  bilateral PTB"), read_person("normal")
    (('F', 24.0), (None, None))
    """
    sex = "F" if _FEMALE.search(text) else "M" if _MALE.search(text) else None
    return sex, age_in_years(text)


def _parse(lines: list[str]) -> nlm.Reading:
    # Sex and age stand in the first line; later numbers are sizes or counts of the reading.
    return nlm.Reading(*read_person(lines[0]))


_SET = nlm.NlmSet(
    name="shenzhen",
    top="ChinaSet_AllFiles",
    prefix="CHNCXR",
    archive="ChinaSet_AllFiles.zip",
    parse=_parse,
)


def scan(root: Path) -> Scan:
    """Scan the Shenzhen Hospital X-ray set; see the data sheet above.

    Raises:
        SourceError: CXR_png is missing, or a reading is not text.
    """
    return nlm.scan_set(root, _SET)


SOURCE = Source(
    name=_SET.name,
    title="Shenzhen Hospital X-ray set",
    modalities=(Modality.CXR,),
    labels=nlm.LABELS,
    patients_known=False,
    licence=nlm.LICENCE,
    url=nlm.URL,
    citation=nlm.CITATION,
    obtain=_SET.obtain,
    size="662 X-rays, 336 tuberculosis",
    scan=scan,
)
