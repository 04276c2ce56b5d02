"""CT slices and chest X-rays to square uint8 instances.

Resizing is to a square without keeping the aspect ratio, on purpose. Padding would keep the ratio
of the anatomy, but it draws a constant bar whose width is the ratio of the file; where one class
comes from one scanner that bar is the label (design.md: border pixels alone reach an AUC of .98
on the public COVID-19 X-rays). A moderate stretch leaves no such mark, lies within what body shape
and our own augmentation (scale and shear) vary anyway, and spends no pixels on bars.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pulmofuse.config import CtPreprocessing, CxrPreprocessing
from pulmofuse.errors import UnreadableFile
from pulmofuse.io import Image
from pulmofuse.preprocessing.tensors import IMAGE_SCALE

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

#: Share of a volume that shows lung: the rest is neck and abdomen.
_LUNG_SHARE = 0.70
#: A crop smaller than this share of the image has found something else than the body.
_MIN_BODY_SHARE = 0.30
#: Rows and columns at the edge whose values spread less than this (of 255) are an empty margin.
_MARGIN_SPREAD = 12
#: Opening by this share of the shorter side cuts thin bridges to the table and to lettering.
_OPENING_SHARE = 0.01


def prepare_ct(image: Image, config: CtPreprocessing) -> ByteArray:
    """CT slices to uint8 (n, size, size), n <= max_slices.

    Each slice is treated as if it came alone, so that a volume and a published single slice take
    the same path: display window (Hounsfield units only), body crop, resize.
    """
    chosen = image.pixels[slice_positions(len(image.pixels), config.max_slices)]
    if image.hounsfield:
        chosen = window_ct(chosen, config.window_level_hu, config.window_width_hu)
    return np.stack([_prepare_slice(plane, config) for plane in chosen])


def _prepare_slice(plane: FloatArray, config: CtPreprocessing) -> ByteArray:
    return resize_square(crop_to_body(plane) if config.body_crop else plane, config.size)


def prepare_cxr(image: Image, config: CxrPreprocessing, name: str) -> ByteArray:
    """A chest X-ray to uint8 (1, size, size): percentile normalisation, resize.

    Raises:
        UnreadableFile: several slices or Hounsfield units (a CT), or nothing between the
            percentiles.
    """
    if image.hounsfield or len(image.pixels) != 1:
        raise UnreadableFile(
            name,
            f"holds {len(image.pixels)} slice(s) of a scan, not a chest X-ray",
            "list it as ct",
        )
    plane = image.pixels[0]
    low, high = np.percentile(plane, [config.low_percentile, config.high_percentile])
    if high <= low:
        raise UnreadableFile(
            name, "is almost blank: its percentiles have one value", "leave it out"
        )
    unit = np.clip((plane - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return resize_square(unit, config.size)[np.newaxis]


def slice_positions(n_slices: int, max_slices: int) -> npt.NDArray[np.intp]:
    """Evenly spaced positions in the middle 70 % of a volume, at most `max_slices`, ascending."""
    margin = (1.0 - _LUNG_SHARE) / 2 * (n_slices - 1)
    positions = np.linspace(margin, n_slices - 1 - margin, max_slices)
    if max_slices == 1:
        positions = np.array([(n_slices - 1) / 2])
    return np.unique(positions.round().astype(np.intp))


def window_ct(hounsfield: FloatArray, level_hu: float, width_hu: float) -> FloatArray:
    """Map Hounsfield units of any shape to [0, 1] through a display window (PS3.3 C.11.2.1.2)."""
    low = level_hu - width_hu / 2
    unit: FloatArray = np.clip((hounsfield - low) / width_hu, 0.0, 1.0).astype(np.float32)
    return unit


def crop_to_body(plane: FloatArray) -> FloatArray:
    """Cut a CT slice (height, width) in [0, 1] to the bounding box of the body.

    Empty margins go first (figures from papers have white ones). Then everything darker than
    Otsu's threshold that is connected to the border is air around the body; of what is left, lungs
    included, the largest connected part is the body. Where the result would be less than 30 % of
    the image (a slice cropped to the lungs, a table, a film of many slices) the slice stays as
    it is.
    """
    rows, columns = _content_box(to_uint8(plane))
    inner = plane[rows, columns]
    body = _body_box(to_uint8(inner))
    cropped = inner if body is None else inner[body]
    return cropped if cropped.size >= _MIN_BODY_SHARE * plane.size else plane


def _content_box(image: ByteArray) -> tuple[slice, slice]:
    """Rows and columns left when empty margins are cut off."""
    spans = []
    for axis in (1, 0):
        spread = image.max(axis=axis).astype(np.int16) - image.min(axis=axis)
        filled = np.flatnonzero(spread >= _MARGIN_SPREAD)
        spans.append(slice(int(filled[0]), int(filled[-1]) + 1) if len(filled) else slice(None))
    return spans[0], spans[1]


def _body_box(image: ByteArray) -> tuple[slice, slice] | None:
    """Bounding box of the body, None where there is none."""
    _, bright = cv2.threshold(image, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    side = max(3, round(_OPENING_SHARE * min(image.shape)) | 1)
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    # A frame of air joins the dark regions at all four borders into one background.
    framed = cv2.copyMakeBorder(1 - bright, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, dark_parts = cv2.connectedComponents(framed, connectivity=4)
    body = (dark_parts != dark_parts[0, 0])[1:-1, 1:-1].astype(np.uint8)
    n_parts, _, stats, _ = cv2.connectedComponentsWithStats(body, connectivity=8)
    if n_parts < 2:
        return None
    largest = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
    left, top, width, height = (int(v) for v in largest[:4])
    return slice(top, top + height), slice(left, left + width)


def resize_square(plane: FloatArray, size: int) -> ByteArray:
    """Resize (height, width) in [0, 1] to uint8 (size, size); see the module on aspect ratio."""
    # Averaging over areas avoids aliasing when shrinking; it would make blocks when enlarging.
    shrinks = min(plane.shape) >= size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(plane), (size, size), interpolation=method)
    return to_uint8(np.asarray(resized))


def to_uint8(unit: npt.NDArray[Any]) -> ByteArray:
    """Round [0, 1] to 0 .. 255."""
    grey: ByteArray = np.clip(np.rint(unit * IMAGE_SCALE), 0, IMAGE_SCALE).astype(np.uint8)
    return grey
