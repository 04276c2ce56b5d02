"""SARS-CoV-2 CT-scan data set: 2,482 CT slices from hospitals of Sao Paulo, in two classes.

Origin: Eduardo Soares, Plamen Angelov (Lancaster University), Sarah Biaso, Michele Higa Froes,
Daniel Kanda Abe (Public Hospital of the Government Employees of Sao Paulo), 2020.
Licence: as its Kaggle page states; read it there.
Citation: Soares E., Angelov P., Biaso S., Froes M.H., Abe D.K., SARS-CoV-2 CT-scan dataset: A
large dataset of real patients CT scans for SARS-CoV-2 identification, medRxiv 2020.04.24.20078584.

Layout (Kaggle):
    ROOT/COVID/*.png, ROOT/non-COVID/*.png
There is no table; the folder is the label.

Labels: COVID is covid19 (1,252 slices). non-COVID (1,230) is not_covid19: people who were not
infected. This release does not say which of them were healthy and which had another lung disease;
a later one by the same authors (4,173 slices of 210 patients) does.

Patients: not published, although there are many slices of each person. Each slice is a patient of
its own with `patient_known` false. Every split of this set puts slices of one person on both sides,
and every figure on it is flattered by that: the audit's near duplicates show how much.

Known defects:
- No patients, no split, no scan: see above. Do not report a test figure on it as if it had them.
- 8-bit images of differing sizes and unknown window, some with text or a frame; no sex, age or
  scanner.

How to obtain: https://www.kaggle.com/datasets/plameneduardo/sarscov2-ctscan-dataset.
"""

from __future__ import annotations

from pathlib import Path

from pulmofuse.schema import Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import Scan, Source, list_files, require_folder, suffix_fault

_NAME = "sars_cov2_ct"
_URL = "https://www.kaggle.com/datasets/plameneduardo/sarscov2-ctscan-dataset"
_OBTAIN = f"get the folders COVID and non-COVID from {_URL}"
_CLASSES = {"COVID": Label.COVID19, "non-COVID": Label.NOT_COVID19}


def scan(root: Path) -> Scan:
    """Scan the SARS-CoV-2 CT-scan data set; see the data sheet above.

    Raises:
        SourceError: a class folder is missing.
    """
    for folder in _CLASSES:
        require_folder(root, folder, _OBTAIN)
    listing = list_files(root, _NAME, _CLASSES)
    rows: list[dict[str, object]] = []
    excluded = list(listing.excluded)
    for path in listing.files:
        fault = suffix_fault(path, Modality.CT)
        if fault is not None:
            excluded.append(Exclusion(path, Modality.CT.value, _NAME, "scan", *fault))
        else:
            rows.append(_row(path))
    return Scan(manifest_frame(rows), tuple(excluded))


def _row(path: str) -> dict[str, object]:
    """One manifest row."""
    return {
        "record_id": f"{_NAME}:{path}",
        "patient_id": f"{_NAME}:{path}",
        "patient_known": False,
        "modality": Modality.CT.value,
        "path": path,
        "label": _CLASSES[path.split("/", 1)[0]].value,
        "source": _NAME,
        "view": "axial",
    }


SOURCE = Source(
    name=_NAME,
    title="SARS-CoV-2 CT-scan data set",
    modalities=(Modality.CT,),
    labels=tuple(_CLASSES.values()),
    patients_known=False,
    licence="as its Kaggle page states",
    url=_URL,
    citation=(
        "Soares E. et al., SARS-CoV-2 CT-scan dataset: A large dataset of real patients CT scans"
        " for SARS-CoV-2 identification, medRxiv 2020.04.24.20078584, 2020"
    ),
    obtain=_OBTAIN,
    size="2,482 slices, 1,252 COVID-19",
    scan=scan,
)
