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
Findings: tuberculosis, present or absent; the readings' free text is not used.

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
from pathlib import Path

from pulmofuse.schema import Modality
from pulmofuse.sources import nlm
from pulmofuse.sources.base import Scan, Source
from pulmofuse.sources.listed import age_in_years

_SEX = re.compile(r"Sex:\s*([FMO])\b", re.IGNORECASE)
_AGE = re.compile(r"Age:\s*(\S+)", re.IGNORECASE)
_SAME_PATIENT = re.compile(r"same\s+(?:pt|patient)\s+as\s+(MCUCXR_\d{4}_[01])", re.IGNORECASE)


def parse_reading(text: str) -> nlm.Reading:
    """Read one clinical reading.

    >>> parse_reading("Patient's Sex: F Patient's Age: 027Y normal")
    Reading(sex='F', age=27.0, same_as=None)
    """
    sex, age, same = (pattern.search(text) for pattern in (_SEX, _AGE, _SAME_PATIENT))
    return nlm.Reading(
        sex=sex[1].upper() if sex else None,
        age=age_in_years(age[1]) if age else None,
        same_as=same[1].upper() if same else None,
    )


_SET = nlm.NlmSet(
    name="montgomery",
    top="MontgomerySet",
    prefix="MCUCXR",
    archive="NLM-MontgomeryCXRSet.zip",
    parse=lambda lines: parse_reading(" ".join(lines)),
    view="PA",
)


def scan(root: Path) -> Scan:
    """Scan the Montgomery County X-ray set; see the data sheet above.

    Raises:
        SourceError: CXR_png is missing, or a reading is not text.
    """
    return nlm.scan_set(root, _SET)


SOURCE = Source(
    name=_SET.name,
    title="Montgomery County X-ray set",
    modalities=(Modality.CXR,),
    labels=nlm.LABELS,
    patients_known=False,
    licence=nlm.LICENCE,
    url=nlm.URL,
    citation=nlm.CITATION,
    obtain=_SET.obtain,
    size="138 X-rays, 58 tuberculosis",
    scan=scan,
)
