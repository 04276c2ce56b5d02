"""DICOM files: Hounsfield units for CT, display values for everything else.

A single file of one or more frames. CT goes through the modality LUT only (PS3.3 C.11.1), so that
the study's own window can be applied later; any other modality goes on through the VOI LUT or
window that the maker of the image chose for looking at it (C.11.2), and MONOCHROME1 is turned so
that bright is dense (C.7.6.3.1.2).
"""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import Content, check_pixels, decoding
from pulmofuse.io.quiet import quiet_stderr
from pulmofuse.io.raster import check_finite, scale_to_unit

# Research files break the standard in a hundred harmless ways; what matters is raised as an error.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
#: ITU-R BT.601 luma, as OpenCV uses for ordinary images.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_DECOMPRESS = "write it without compression first, e.g. `gdcmconv --raw IN OUT`"


def read_dicom(content: Content) -> tuple[npt.NDArray[np.float32], bool, dict[str, Any]]:
    """Decode a DICOM file.

    Returns:
        Pixels (frames, height, width), whether they are Hounsfield units (else [0, 1]), and
        traits.

    Raises:
        UnreadableFile: not parsable, no pixel data, absurd size, a compression that no installed
            plug-in decodes, cut pixel data, or values that are not finite.
    """
    with decoding(content.name, "DICOM is damaged"):
        dataset = pydicom.dcmread(io.BytesIO(content.data))
        _check(content.name, dataset)
    compression = _transfer_syntax(dataset)
    with (
        decoding(
            content.name, f"its pixel data ({compression}) cannot be decoded here", _DECOMPRESS
        ),
        quiet_stderr(),
    ):
        stored = pixel_array(dataset)
    with decoding(content.name, "DICOM does not say how its values are to be shown"):
        frames = _frames(dataset, stored)
        hounsfield = _is_hounsfield(dataset)
        pixels = (
            _hounsfield(dataset, frames) if hounsfield else _display(content.name, dataset, frames)
        )
        traits = _traits(dataset, compression)
    check_finite(content.name, pixels)
    return pixels, hounsfield, traits


def _check(name: str, dataset: Dataset) -> None:
    """Refuse a file without pixel data or of absurd size before anything is decoded."""
    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        what = dataset.get("Modality") or "no image"
        raise UnreadableFile(
            name, f"DICOM holds no pixel data ({what})", "leave it out; it is not an image"
        )
    check_pixels(
        name, int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    )


def _transfer_syntax(dataset: Dataset) -> str:
    """Name of the compression, e.g. "JPEG Baseline (Process 1)"."""
    uid = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    return str(uid.name) if uid is not None else "no transfer syntax"


def _frames(dataset: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Stored values as (frames, height, width); colour goes to luma, scaled by its type."""
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.shape[-2:] != (dataset.Rows, dataset.Columns):
        full = np.iinfo(stored.dtype).max if stored.dtype.kind in "ui" else 1.0
        stored = stored[..., :3].astype(np.float32) @ _LUMA / np.float32(full)
    return stored.reshape(-1, int(dataset.Rows), int(dataset.Columns))


def _is_grey(dataset: Dataset) -> bool:
    return str(dataset.get("PhotometricInterpretation", "")).startswith("MONOCHROME")


def _rescales(dataset: Dataset) -> list[Dataset]:
    """Where the modality LUT stands: in the file itself, or once or per frame (enhanced CT)."""
    if "RescaleSlope" in dataset or "ModalityLUTSequence" in dataset:
        return [dataset]
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        found = [
            group.PixelValueTransformationSequence[0]
            for group in dataset.get(groups) or []
            if "PixelValueTransformationSequence" in group
        ]
        if found:
            return found
    return []


def _is_hounsfield(dataset: Dataset) -> bool:
    """Whether the file says how to get Hounsfield units (a CT screenshot does not)."""
    return dataset.get("Modality") == "CT" and _is_grey(dataset) and bool(_rescales(dataset))


def _hounsfield(dataset: Dataset, frames: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    rescales = _rescales(dataset)
    if len(rescales) == 1:
        return np.asarray(apply_modality_lut(frames, rescales[0]), dtype=np.float32)
    pairs = zip(frames, rescales, strict=True)
    return np.stack([np.asarray(apply_modality_lut(f, r), dtype=np.float32) for f, r in pairs])


def _display(name: str, dataset: Dataset, frames: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Values as a viewer would show them, in [0, 1]."""
    if not _is_grey(dataset):
        return scale_to_unit(name, frames)
    shown = np.asarray(apply_modality_lut(frames, dataset))
    windowed = "WindowCenter" in dataset or "VOILUTSequence" in dataset
    if windowed:
        shown = np.asarray(apply_voi_lut(shown, dataset))
    if shown.dtype == np.uint8 and dataset.BitsStored == 8 and not windowed:
        unit = shown.astype(np.float32) / np.float32(255)
    else:
        # Twelve bits in a word of sixteen: the type does not tell the range, the extremes do.
        unit = scale_to_unit(name, shown)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    return np.float32(1.0) - unit if inverted else unit


def _traits(dataset: Dataset, compression: str) -> dict[str, Any]:
    """Acquisition traits; nothing that names a person, a place or a day."""
    colour = int(dataset.get("SamplesPerPixel") or 1) > 1 or not _is_grey(dataset)
    traits: dict[str, Any] = {
        "channels": int(dataset.get("SamplesPerPixel") or 1),
        "bit_depth": int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 0),
        "colour": colour,
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
    return traits
