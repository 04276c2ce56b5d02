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
from pulmofuse.config.preprocessing import ImagePreprocessing
from pulmofuse.errors import UnreadableFile
from pulmofuse.io import Image
from pulmofuse.preprocessing.lungs import lung_box
from pulmofuse.preprocessing.standardise import (
    box_in_pixels,
    paint_letters,
    standardise_histogram,
)
from pulmofuse.preprocessing.tensors import IMAGE_SCALE
from pulmofuse.schema import Modality

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


def prepare_ct(image: Image, config: CtPreprocessing) -> tuple[ByteArray, float | None]:
    """CT slices to uint8 (n, size, size), n <= max_slices, and in what share lungs were found.

    Each slice is treated as if it came alone, so that a volume and a published single slice take
    the same path: display window (Hounsfield units only), letters, body crop, lung crop, resize,
    histogram. The share is None where nobody looked for lungs.
    """
    chosen = image.pixels[slice_positions(len(image.pixels), config.max_slices)]
    if image.hounsfield:
        chosen = window_ct(chosen, config.window_level_hu, config.window_width_hu)
    slices, found = zip(*(_prepare_slice(plane, config) for plane in chosen), strict=True)
    return np.stack(slices), float(np.mean(found)) if _looks_for_lungs(config) else None


def _prepare_slice(plane: FloatArray, config: CtPreprocessing) -> tuple[ByteArray, bool]:
    """One slice as an instance, and whether lungs were found."""
    if config.mask_letters:
        plane = paint_letters(plane, to_uint8(plane))
    if config.body_crop:
        plane = crop_to_body(plane)
    lungs = lung_box(to_uint8(plane), Modality.CT) if _looks_for_lungs(config) else None
    if lungs is not None and config.crop == "lungs":
        plane = plane[box_in_pixels(lungs, plane.shape, config.crop_margin)]
    return _to_instance(plane, lungs, config), lungs is not None


def prepare_cxr(
    image: Image, config: CxrPreprocessing, name: str
) -> tuple[ByteArray, float | None]:
    """A chest X-ray to uint8 (1, size, size), and 1 or 0 for lungs found or not.

    Percentile normalisation, letters, lung crop, resize, histogram. None where nobody looked for
    lungs.

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
    levels = None if image.levels is None else image.levels[0]
    unit = (
        _between_percentiles(plane, config)
        if levels is None
        else _levels_between_percentiles(levels, config)
    )
    if unit is None:
        raise UnreadableFile(
            name, "is almost blank: its percentiles have one value", "leave it out"
        )
    if config.mask_letters:
        plane = paint_letters(plane, to_uint8(unit))
        painted = _between_percentiles(plane, config)
        unit = unit if painted is None else painted
    if not _looks_for_lungs(config):
        return _to_instance(unit, None, config)[np.newaxis], None
    lungs = lung_box(to_uint8(unit), Modality.CXR)
    if lungs is not None and config.crop == "lungs":
        box = box_in_pixels(lungs, plane.shape, config.crop_margin)
        # What was cut off has no say in what is black and white.
        cropped = _between_percentiles(plane[box], config)
        unit = unit[box] if cropped is None else cropped
    return _to_instance(unit, lungs, config)[np.newaxis], float(lungs is not None)


def _between_percentiles(plane: FloatArray, config: CxrPreprocessing) -> FloatArray | None:
    """A plane in [0, 1] between its percentiles; None where they have one value."""
    low, high = np.percentile(plane, [config.low_percentile, config.high_percentile])
    if high <= low:
        return None
    unit: FloatArray = np.clip((plane - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return unit


def _levels_between_percentiles(levels: ByteArray, config: CxrPreprocessing) -> FloatArray | None:
    """What `_between_percentiles` gives, bit by bit, of the 255th part of stored levels.

    Counting 256 levels and looking up 256 values is much faster than sorting all pixels.
    """
    counts = np.rint(cv2.calcHist([levels], [0], None, [256], (0, 256))).astype(np.int64).ravel()
    ends, unit = np.cumsum(counts), np.arange(256, dtype=np.float32) / np.float32(255)

    def percentile(q: float) -> float:
        """By linear interpolation between order statistics, as `np.percentile` rounds it."""
        place = (levels.size - 1) * (q / 100)
        first = int(place)
        a, b = unit[np.searchsorted(ends, [first, min(first + 1, levels.size - 1)], side="right")]
        share, step = place - first, float(b - a)
        return float(b) - step * (1 - share) if share >= 0.5 else float(a) + step * share

    low, high = percentile(config.low_percentile), percentile(config.high_percentile)
    if high <= low:
        return None
    table = np.clip((unit.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    return np.asarray(cv2.LUT(levels, table.astype(np.float32)))


def _looks_for_lungs(config: ImagePreprocessing) -> bool:
    return config.crop == "lungs" or config.histogram in {"equalised", "matched"}


def _to_instance(
    unit: FloatArray,
    lungs: tuple[float, float, float, float] | None,
    config: ImagePreprocessing,
) -> ByteArray:
    """Resize (height, width) in [0, 1] to uint8 (size, size) and standardise its grey levels.

    Grey levels come last: at the size that the network sees, every image has the same number of
    pixels and its noise is averaged, whatever the resolution of its file.
    """
    if config.histogram == "none":
        return resize_square(unit, config.size)
    region = (slice(None), slice(None))  # of a crop, and where no lungs were found
    if lungs is not None and config.crop == "none":
        region = box_in_pixels(lungs, (config.size, config.size), config.crop_margin)
    return to_uint8(standardise_histogram(_resized(unit, config.size), config.histogram, region))


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
    return to_uint8(_resized(plane, size))


def _resized(plane: FloatArray, size: int) -> FloatArray:
    # Averaging over areas avoids aliasing when shrinking; it would make blocks when enlarging.
    shrinks = min(plane.shape) >= size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(plane), (size, size), interpolation=method)
    return np.asarray(resized)


def to_uint8(unit: npt.NDArray[Any]) -> ByteArray:
    """Round [0, 1] to 0 .. 255."""
    grey: ByteArray = np.clip(np.rint(unit * IMAGE_SCALE), 0, IMAGE_SCALE).astype(np.uint8)
    return grey
