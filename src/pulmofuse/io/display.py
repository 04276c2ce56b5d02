"""DICOM: from stored values to Hounsfield units or to what a viewer would show.

CT goes through the modality LUT only (PS3.3 C.11.1), so that the study's own window can be applied
later; any other modality goes on through the VOI LUT or window that the maker of the image chose
for looking at it (C.11.2), and MONOCHROME1 is turned so that bright is dense (C.7.6.3.1.2).

Pixel padding (C.7.5.1.1.2) is no part of the image: it is air in Hounsfield units and black
otherwise, and has no say in any scaling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi

from pulmofuse.io.decoded import AIR_HU, scale_to_unit

FloatArray = npt.NDArray[np.float32]

#: ITU-R BT.601 luma, as OpenCV uses for ordinary images.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_PER_FRAME = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


@dataclass(frozen=True, eq=False)
class Shown:
    """Values of one file on their way to display; `to_unit` is the last step.

    Attributes:
        pixels: (frames, height, width); Hounsfield units, [0, 1] or without a known range.
        hounsfield: in Hounsfield units.
        unit: in [0, 1] already.
        inverted: the lowest is the brightest (MONOCHROME1); never so in Hounsfield units.
        voi: what was applied: "none", "window", "lut", or "ignored" where it showed one grey only.
        padding: bool, same shape; None where all is image.
    """

    pixels: npt.NDArray[Any]
    hounsfield: bool
    unit: bool
    inverted: bool
    voi: str
    padding: npt.NDArray[np.bool_] | None


def to_unit(name: str, shown: Shown) -> FloatArray:
    """Bring values to [0, 1] with bright for dense and padding black; HU stay as they are.

    Raises:
        UnreadableFile: a value is NaN or infinite.
    """
    if shown.hounsfield:
        return np.asarray(shown.pixels, dtype=np.float32)
    # Twelve bits in a word of sixteen: the type does not tell the range, the extremes do.
    unit = shown.pixels if shown.unit else scale_to_unit(name, shown.pixels, shown.padding)
    if shown.inverted:
        unit = np.float32(1.0) - unit
    if shown.padding is not None:
        unit[shown.padding] = 0.0
    return np.asarray(unit, dtype=np.float32)


def show(dataset: Dataset, stored: npt.NDArray[Any], *, trust_window: bool = False) -> Shown:
    """Apply the modality LUT, and the VOI LUT or window where the values are no Hounsfield units.

    Args:
        dataset: the file.
        stored: its decoded pixel data as pydicom gives them.
        trust_window: apply a window even where it leaves one grey only.
    """
    frames = _frames(dataset, stored)
    if not is_grey(dataset):
        return Shown(frames, False, False, False, "none", None)
    padding = _padding(dataset, frames)
    # A CT screenshot does not say how to get Hounsfield units.
    hounsfield = dataset.get("Modality") == "CT" and bool(_rescales(dataset))
    values = _rescaled(dataset, frames)
    if hounsfield:
        values = values.astype(np.float32, copy=values is frames)
        if padding is not None:
            values[padding] = AIR_HU
        return Shown(values, True, False, False, "none", padding)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    windowed = _voi(dataset, values)
    if windowed is not None and (trust_window or _shows_something(windowed[0], padding)):
        return Shown(windowed[0], False, True, inverted, windowed[1], padding)
    voi = "none" if windowed is None else "ignored"
    if values.dtype == np.uint8 and dataset.BitsStored == 8:
        return Shown(values / np.float32(255), False, True, inverted, voi, padding)
    return Shown(values, False, False, inverted, voi, padding)


def is_grey(dataset: Dataset) -> bool:
    """Whether stored values are grey levels (MONOCHROME1 or MONOCHROME2)."""
    return str(dataset.get("PhotometricInterpretation", "")).startswith("MONOCHROME")


def _frames(dataset: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Stored values as (frames, height, width); colour goes to luma, scaled by its type."""
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.shape[-2:] != (dataset.Rows, dataset.Columns):
        full = np.iinfo(stored.dtype).max if stored.dtype.kind in "ui" else 1.0
        stored = stored[..., :3].astype(np.float32) @ _LUMA / np.float32(full)
    return stored.reshape(-1, int(dataset.Rows), int(dataset.Columns))


def _padding(dataset: Dataset, frames: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Where the stored value is padding; None if nowhere, or everywhere (then it means nothing)."""
    value = dataset.get("PixelPaddingValue")
    if value is None or frames.dtype.kind not in "ui":
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted(
        _as_stored(int(v), frames.dtype) for v in (value, value if limit is None else limit)
    )
    mask = frames == low if low == high else (frames >= low) & (frames <= high)
    return mask if mask.any() and not mask.all() else None


def _as_stored(value: int, dtype: np.dtype[Any]) -> int:
    """A padding value as a number of the stored type; some writers mix up the sign (VR US, SS)."""
    bits = 8 * dtype.itemsize
    wrapped = value & ((1 << bits) - 1)
    return wrapped - (1 << bits) if dtype.kind == "i" and wrapped >> (bits - 1) else wrapped


def functional(dataset: Dataset, macro: str) -> list[Dataset]:
    """One item for all frames, or one per frame, of an enhanced file's macro; empty if none."""
    for groups in _PER_FRAME:
        found = [group[macro][0] for group in dataset.get(groups) or [] if group.get(macro)]
        if found:
            return found
    return []


def _rescales(dataset: Dataset) -> list[Dataset]:
    """Where the modality LUT stands: in the file itself, or once or per frame (enhanced CT)."""
    if "RescaleSlope" in dataset or "ModalityLUTSequence" in dataset:
        return [dataset]
    return functional(dataset, "PixelValueTransformationSequence")


def _rescaled(dataset: Dataset, frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values after the modality LUT: a new array, or `frames` where it changes nothing."""
    rescales = _rescales(dataset)
    if not rescales:
        return frames
    if len(rescales) == 1:
        return _modality(frames, rescales[0])
    return np.stack([_modality(f, r) for f, r in zip(frames, rescales, strict=True)])


def _modality(frames: npt.NDArray[Any], item: Dataset) -> npt.NDArray[Any]:
    if "ModalityLUTSequence" in item:
        return np.asarray(apply_modality_lut(frames, item)).astype(np.float32)
    slope, intercept = float(item.RescaleSlope), float(item.get("RescaleIntercept") or 0.0)
    if (slope, intercept) == (1.0, 0.0):
        return frames
    # Sixteen bits fit into the 24 of a float32; more do not.
    kind: type[np.floating[Any]] = np.float32 if frames.dtype.itemsize <= 2 else np.float64
    values: npt.NDArray[np.floating[Any]] = frames.astype(kind)
    values *= kind(slope)
    values += kind(intercept)
    return values.astype(np.float32, copy=False)


def _voi(dataset: Dataset, values: npt.NDArray[Any]) -> tuple[FloatArray, str] | None:
    """Values in [0, 1] through the first VOI LUT or window of the file, and which it was."""
    if dataset.get("VOILUTSequence"):
        table = np.asarray(dataset.VOILUTSequence[0].LUTData)
        table = table.view(np.uint8) if table.dtype.kind == "S" else table
        looked_up = np.asarray(apply_voi(_whole(values), dataset)).astype(np.float32)
        # The table's extremes and not the image's: writers err in how many bits they declare.
        low, high = float(table.min()), float(table.max())
        return np.clip((looked_up - low) / ((high - low) or 1.0), 0.0, 1.0), "lut"
    items = [dataset] if "WindowCenter" in dataset else functional(dataset, "FrameVOILUTSequence")
    if not items or not all(_is_window(item) for item in items):
        return None
    if len(items) == 1:
        return _window(values, items[0]), "window"
    frames = [_window(frame, item) for frame, item in zip(values, items, strict=True)]
    return np.stack(frames), "window"


def _whole(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Table look-up needs whole numbers; a rescale with slope 1 has left them whole."""
    return np.rint(values).astype(np.int32) if values.dtype.kind == "f" else values


def _first(value: Any) -> float:
    """The first of several alternatives; the file means it to be the default."""
    return float(value if isinstance(value, str | int | float) else value[0])


def _is_window(item: Dataset) -> bool:
    """Whether a window is there and has a width (C.11.2.1.2: 1 for LINEAR, above 0 else)."""
    if item.get("WindowCenter") in (None, "") or item.get("WindowWidth") in (None, ""):
        return False
    linear = item.get("VOILUTFunction", "LINEAR") in {"LINEAR", None, ""}
    width = _first(item.WindowWidth)
    return width >= 1.0 if linear else width > 0.0


def _window(values: npt.NDArray[Any], item: Dataset) -> FloatArray:
    """Values of any shape to [0, 1] (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    centre, width = _first(item.WindowCenter), _first(item.WindowWidth)
    x = values.astype(np.float32)
    match item.get("VOILUTFunction") or "LINEAR":
        case "SIGMOID":
            # Beyond 80 the exponential leaves float32 and the result is 0 or 1 anyway.
            exponent = np.clip(-4.0 * (x - np.float32(centre)) / np.float32(width), -80.0, 80.0)
            return np.asarray(1.0 / (1.0 + np.exp(exponent)), dtype=np.float32)
        case "LINEAR_EXACT":
            low, span = centre - width / 2, width
        case _:
            low, span = centre - 0.5 - (width - 1.0) / 2, width - 1.0
    if span == 0.0:
        return (x > low).astype(np.float32)
    x -= np.float32(low)
    x /= np.float32(span)
    return np.clip(x, 0.0, 1.0, out=x)


def _shows_something(unit: FloatArray, padding: npt.NDArray[np.bool_] | None) -> bool:
    """Whether a window leaves at least two greys; one that belongs to another image does not."""
    seen = unit if padding is None else unit[~padding]
    return float(seen.min()) < float(seen.max())
