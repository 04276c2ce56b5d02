"""RSNA Pneumonia Detection Challenge: NIH chest X-rays, read again by radiologists.

Origin: Radiological Society of North America and Society of Thoracic Radiology, 2018. The 26,684
training images are a selection of NIH ChestX-ray14, read by radiologists who marked opacities.
Licence: rules of the Kaggle competition for the annotations; the images as NIH ChestX-ray14.
Citation: Shih G. et al., Augmenting the National Institutes of Health chest radiograph dataset with
expert annotations of possible pneumonia, Radiology: Artificial Intelligence 1(1), e180041, 2019.

Layout (Kaggle):
    ROOT/stage_2_train_images/*.dcm               named by `patientId`
    ROOT/stage_2_detailed_class_info.csv          patientId, class (a row per box)
    ROOT/stage_2_train_labels.csv                 patientId, x, y, width, height, Target; not needed
    ROOT/stage_2_test_images/*.dcm                without published labels: excluded
    ROOT/pneumonia-challenge-dataset-mappings_2018.json    optional, from RSNA: which NIH image
The class table rules: an image that it does not name is excluded, and so is a row without a file.
Where the table with the boxes is present, an image whose Target contradicts its class is excluded.

Labels: Normal is normal (8,851); Lung Opacity (Target 1; 6,012) is pneumonia: an opacity that
suggests pneumonia, as seen on the image alone; No Lung Opacity / Not Normal (11,821) is
other_abnormal.
Findings: lung_opacity and pneumonia, both present for Lung Opacity and both absent for the two
other classes; the radiologists were asked for nothing else.

Patients: `patientId` names an image, not a person: there are as many ids as images, though NIH has
several images of many people. With the mapping file the patient is NIH's and known; without it
each image is a patient of its own with `patient_known` false, and a random split leaks.
Sex, age and view stand in the DICOM headers, which a scan does not open.

Known defects:
- The images are images of `nih_chestxray14`, and are also in `covidx_cxr` and
  `radiography_database`: a study that holds two of these has the same image twice.
- "Pneumonia" is an impression of the image; no culture, no clinic.
- Many images are bedside (AP) views of very ill people, and these are more often labelled Lung
  Opacity: the view predicts the label.
- Children and adults are mixed; 8-bit JPEG inside DICOM, 1024 x 1024 pixels, no original size.

How to obtain: https://www.kaggle.com/c/rsna-pneumonia-detection-challenge; the mapping file from
the challenge's page at https://www.rsna.org.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from pulmofuse.errors import SourceError
from pulmofuse.findings import Finding, findings_text
from pulmofuse.schema import Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import (
    Scan,
    Source,
    list_files,
    read_text_table,
    require_file,
    require_folder,
)
from pulmofuse.sources.listed import by_name, not_named, not_on_disk

_NAME = "rsna_pneumonia"
_URL = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge"
_IMAGES = "stage_2_train_images"
_TEST_IMAGES = "stage_2_test_images"
_CLASS_TABLE = "stage_2_detailed_class_info.csv"
_BOX_TABLE = "stage_2_train_labels.csv"
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_OBTAIN = f"get {_IMAGES} and {_CLASS_TABLE} from {_URL}"
_CLASSES = {
    "Normal": Label.NORMAL,
    "Lung Opacity": Label.PNEUMONIA,
    "No Lung Opacity / Not Normal": Label.OTHER_ABNORMAL,
}
_NIH_IMAGE = re.compile(r"(\d{8})_\d{3}\.png")


def scan(root: Path) -> Scan:
    """Scan the RSNA Pneumonia Detection Challenge; see the data sheet above.

    Raises:
        SourceError: the image folder or the class table is missing, a table or the mapping is not
            what it should be, or an image has two classes.
    """
    require_folder(root, _IMAGES, _OBTAIN)
    labels = _read_classes(require_file(root, _CLASS_TABLE, _OBTAIN))
    boxed = _read_targets(root / _BOX_TABLE)
    patients = _read_mapping(root / _MAPPING)
    folders = [name for name in (_IMAGES, _TEST_IMAGES) if (root / name).is_dir()]
    on_disk, excluded = by_name(list_files(root, _NAME, folders), Modality.CXR, _NAME)
    rows: list[dict[str, object]] = []
    for image, label in labels.items():
        path = on_disk.pop(f"{image}.dcm", None)
        if path is None:
            wanted, remedy = f"{_IMAGES}/{image}.dcm", f"get {_IMAGES} from {_URL}"
            excluded.append(not_on_disk(wanted, Modality.CXR, _NAME, _CLASS_TABLE, remedy))
        elif image in boxed and boxed[image] is not (label is Label.PNEUMONIA):
            reason = f"its Target in {_BOX_TABLE} contradicts its class in {_CLASS_TABLE}"
            remedy = "use the two tables of one release"
            excluded.append(Exclusion(path, "cxr", _NAME, "scan", reason, remedy))
        else:
            rows.append(_row(path, image, label, patients.get(image)))
    excluded += [not_named(p, Modality.CXR, _NAME, _CLASS_TABLE) for p in on_disk.values()]
    return Scan(manifest_frame(rows), tuple(excluded))


def _row(path: str, image: str, label: Label, patient: str | None) -> dict[str, object]:
    """One manifest row."""
    return {
        "record_id": f"{_NAME}:{image}",
        "patient_id": f"{_NAME}:{f'nih_{patient}' if patient else image}",
        "patient_known": patient is not None,
        "modality": Modality.CXR.value,
        "path": path,
        "label": label.value,
        "source": _NAME,
        "findings": findings_text(
            dict.fromkeys((Finding.LUNG_OPACITY, Finding.PNEUMONIA), int(label is Label.PNEUMONIA))
        ),
    }


def _read_classes(path: Path) -> dict[str, Label]:
    """Label of each image; the table repeats an image for each of its boxes."""
    table = read_text_table(path, ("patientid", "class"), _OBTAIN)
    found: dict[str, Label] = {}
    rows = zip(table["patientid"], table["class"], strict=True)
    for number, (image, name) in enumerate(rows, start=2):  # line 1 is the header
        where = f"{path}, line {number}"
        label = _CLASSES.get(name)
        if not image or label is None:
            why = f"needs a patientId and a class, one of {', '.join(_CLASSES)}; got {name!r}"
            raise SourceError(where, why, "use the published table")
        if found.setdefault(image, label) is not label:
            raise SourceError(where, f"contradicts an earlier row of {image}", "keep one of them")
    return found


def _read_targets(path: Path) -> dict[str, bool]:
    """Whether each image has a box, from the table of the boxes; empty where it is absent."""
    if not path.is_file():
        return {}
    table = read_text_table(path, ("patientid", "target"), _OBTAIN)
    rows = zip(table["patientid"], table["target"], strict=True)
    return {image: target == "1" for image, target in rows}


def _read_mapping(path: Path) -> dict[str, str]:
    """NIH patient of each image, from RSNA's mapping file; empty where it is absent."""
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(path, f"cannot be read as JSON ({error})", "fetch it again") from None
    found: dict[str, str] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [None], start=1):
        keys = entry if isinstance(entry, dict) else {}
        image = keys.get("subset_img_id")
        nih = _NIH_IMAGE.fullmatch(str(keys.get("img_id")))
        if not isinstance(image, str) or nih is None:
            why = "is not a list of {img_id: NNNNNNNN_NNN.png, subset_img_id: patientId}"
            raise SourceError(f"{path}, entry {number}", why, "fetch RSNA's mapping file again")
        found[image] = nih[1]
    return found


SOURCE = Source(
    name=_NAME,
    title="RSNA Pneumonia Detection Challenge",
    modalities=(Modality.CXR,),
    labels=tuple(_CLASSES.values()),
    patients_known=None,
    licence="rules of the Kaggle competition",
    url=_URL,
    citation=(
        "Shih G. et al., Augmenting the National Institutes of Health chest radiograph dataset"
        " with expert annotations of possible pneumonia, Radiology: Artificial Intelligence 1(1),"
        " e180041, 2019"
    ),
    obtain=_OBTAIN,
    size="26,684 X-rays",
    scan=scan,
)
