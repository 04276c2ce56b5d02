"""What a DICOM file says of how it was taken; nothing that names a person, a place or a day."""

from __future__ import annotations

import re
from typing import Any

from pydicom.dataset import Dataset

from pulmofuse.io.display import is_grey

#: ViewPosition (PS3.3 C.8.7.1.1.4 and C.8.11.5), lateral ones as the manifests of data sets say.
_VIEW_POSITIONS = {
    "PA": "PA",
    "AP": "AP",
    "LL": "L",
    "RL": "L",
    "LAT": "L",
    "LATERAL": "L",
    "LLD": "LLD",  # lying on the left side: a frontal projection with a horizontal beam
    "RLD": "RLD",
    "LLO": "oblique",
    "RLO": "oblique",
    "LAO": "oblique",
    "RAO": "oblique",
    "LPO": "oblique",
    "RPO": "oblique",
}
#: Context group 4010 (PS3.16): SNOMED CT, and SNOMED RT of older files.
_VIEW_CODES = {
    "272479007": "PA",
    "R-10214": "PA",
    "R-40888": "PA",
    "399348003": "AP",
    "R-10206": "AP",
    "399173006": "L",
    "R-10236": "L",
    "399198007": "L",
    "R-10232": "L",
    "399067008": "L",
    "R-102CD": "L",
}
#: Modalities that are projections, of which a view can be told.
_PROJECTIONS = {"CR", "DX", "RG", "RF", "XA", "PX"}
_CHEST = re.compile(r"\b(CHEST|THORAX|CXR|LUNGS?)\b")
_VIEW_WORDS = {
    "PA": re.compile(r"\b(PA|P\.A|P/A|POSTERO-?ANTERIOR)\b"),
    "AP": re.compile(r"\b(AP|A\.P|A/P|ANTERO-?POSTERIOR)\b"),
    "L": re.compile(r"\b(LAT|LATERAL)\b"),
}
#: A code string (VR CS, PS3.5 6.2): anything else was typed in by hand and may be anything.
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")


def dicom_traits(dataset: Dataset, compression: str) -> dict[str, Any]:
    """Acquisition traits of a file (JSON values).

    Args:
        dataset: the file.
        compression: name of its transfer syntax.
    """
    samples = int(dataset.get("SamplesPerPixel") or 1)
    traits: dict[str, Any] = {
        "channels": samples,
        "bit_depth": int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 0),
        "colour": samples > 1 or not is_grey(dataset),
        "compression": compression,
        "photometric": str(dataset.get("PhotometricInterpretation", "")),
    }
    for trait, keyword in (("dicom_modality", "Modality"), ("manufacturer", "Manufacturer")):
        if dataset.get(keyword):
            traits[trait] = str(dataset.get(keyword))
    spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    if spacing:
        traits["pixel_spacing_mm"] = float(spacing[0])
    if dataset.get("SliceThickness"):
        traits["slice_thickness_mm"] = float(dataset.SliceThickness)
    if dataset.get("Modality") in _PROJECTIONS and (view := view_of(dataset)):
        traits["view"] = view
    body_part = str(dataset.get("BodyPartExamined") or "").strip().upper()
    if _CODE_STRING.fullmatch(body_part):
        traits["body_part"] = body_part
    return traits


def view_of(dataset: Dataset) -> str | None:
    """The projection of an X-ray: PA, AP, L (lateral), LLD, RLD or oblique; None if not certain.

    ViewPosition decides, then ViewCodeSequence, then the words of SeriesDescription if they speak
    of the chest and of exactly one view ("Chest PA/LAT" does not).
    """
    position = str(dataset.get("ViewPosition") or "").strip().upper()
    if position in _VIEW_POSITIONS:
        return _VIEW_POSITIONS[position]
    for item in dataset.get("ViewCodeSequence") or []:
        if (code := str(item.get("CodeValue") or "")) in _VIEW_CODES:
            return _VIEW_CODES[code]
    description = str(dataset.get("SeriesDescription") or "").upper().replace("_", " ")
    if not _CHEST.search(description):
        return None
    found = [view for view, words in _VIEW_WORDS.items() if words.search(description)]
    return found[0] if len(found) == 1 else None
