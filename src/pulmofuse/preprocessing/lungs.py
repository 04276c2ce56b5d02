"""Where the lungs lie in a cached CT slice or chest X-ray, found without a trained model.

A trained segmentation model would bring weights, a licence and a bias of its own; the negative
controls need only a region that surely holds the lungs, so the classical ways are taken.

*CT*: lungs are the dark parts inside the body (Otsu 1979; Hu, Hoffman & Reinhardt 2001), and the
convex hull of all of them, mediastinum included, closes over consolidated lung, which is bright.

*Chest X-ray*: a white lung has no dark region to find, so the outline of a pair of lungs is moved
and scaled over the image and put where image and outline correlate best (template matching,
Lewis 1995); the hulls of the dark regions that overlap it are added, and their mirror image.

Disease must not shrink the mask, which would leave the disease to be seen and make the mask's own
shape a label: hence the hulls, the mirror images and a least height.

Where what was found cannot be lungs by its size or its fit, a central box that covers the lungs of
nearly every image stands in, and the caller is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pulmofuse.schema import Modality

ByteArray = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

#: Lungs are looked for in images of this side: enough for their outline, and fast.
_SIDE = 128
#: The X-ray's outline is fitted at this side: 60 fits in 10 ms.
_FIT_SIDE = 64

# All numbers below were chosen by eye on training and validation images of COVID-CT and
# DarkCovidNet (docs/decisions/0010-controls.md). Lengths and areas are shares of the image.

#: Central box that stands in: top, bottom, left, right.
_BOXES = {Modality.CT: (0.08, 0.92, 0.03, 0.97), Modality.CXR: (0.06, 0.90, 0.05, 0.95)}
#: Least and most of the image that lungs cover before they are widened.
_AREAS = {Modality.CT: (0.15, 0.85), Modality.CXR: (0.15, 0.75)}
#: How far the mask is widened on all sides.
_WIDEN = 0.04

#: A dark part of a CT slice smaller than this, or than this share of the largest one, is no lung.
_CT_PART, _CT_PART_OF_LARGEST = 0.008, 0.15
#: Dark parts that reach this close to a corner are the air around the body.
_CT_CORNER = 0.04

#: Height by width of a thoracic cavity, in slices that were stretched to a square.
_CT_ASPECT = (0.6, 1.6)

#: Half of the outline of a pair of lungs (the image's left one), x from 0 (wall) to .5 (midline),
#: y from 0 (apex) to 1 (base), after ordinary adult films.
_OUTLINE = (
    (0.34, 0.00), (0.22, 0.06), (0.12, 0.20), (0.06, 0.40), (0.02, 0.65), (0.00, 1.00),
    (0.12, 0.92), (0.26, 0.86), (0.38, 0.88), (0.41, 0.70), (0.40, 0.45), (0.42, 0.20),
    (0.42, 0.06),
)  # fmt: skip
#: Heights and widths of the pair that are tried, and the bright margin around it.
_HEIGHTS = (0.40, 0.48, 0.56, 0.64, 0.72, 0.80, 0.88)
_WIDTHS = (0.46, 0.54, 0.62, 0.70, 0.78, 0.86, 0.94)
_MARGIN = 0.07
#: Standard deviation of the surroundings that local contrast is taken against.
_SURROUNDINGS = 0.18
#: A pair of lungs that is lower than this share of its width has white bases: it reaches further.
_LEAST_ASPECT = 0.9
#: Least correlation of image and outline.
_LEAST_FIT = 0.35
#: Dark regions are looked for this far around the outline; openings of this radius part them from
#: the air beside the body, smaller ones are no lung, and this share of each lies in the outline.
_NEAR, _OPENING, _CXR_PART, _OVERLAP = 0.08, 0.02, 0.01, 0.6


def lung_mask(image: ByteArray, modality: Modality) -> tuple[Mask, bool]:
    """The lungs, generously widened, in one image.

    Args:
        image: uint8 (height, width), air dark and bone bright.
        modality: ct or cxr.

    Returns:
        Mask (height, width), true on the lungs, and whether they were found; where not, the mask
        is the central box.

    Raises:
        ValueError: the modality shows no lungs.
    """
    lungs = _lungs(image, modality)
    mask = _box(_BOXES[modality]) if lungs is None else _widened(lungs)
    full = cv2.resize(mask, image.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(full, dtype=bool), lungs is not None


def lung_box(image: ByteArray, modality: Modality) -> tuple[float, float, float, float] | None:
    """The bounding box of both lungs, not widened: top, bottom, left, right, shares of the sides.

    None where they were not found. Arguments and errors are those of `lung_mask`.
    """
    lungs = _lungs(image, modality)
    if lungs is None:
        return None
    left, top, width, height = cv2.boundingRect(lungs)
    return top / _SIDE, (top + height) / _SIDE, left / _SIDE, (left + width) / _SIDE


def _lungs(image: ByteArray, modality: Modality) -> ByteArray | None:
    """The lungs (side, side), 0 or 1; None where nothing found can be lungs."""
    if modality not in _BOXES:
        raise ValueError(f"{modality.value} shows no lungs")
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    smooth: ByteArray = np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0), dtype=np.uint8)
    lungs = _ct_lungs(smooth) if modality is Modality.CT else _cxr_lungs(smooth)
    least, most = _AREAS[modality]
    return lungs if lungs is not None and least <= float(lungs.mean()) <= most else None


def _ct_lungs(image: ByteArray) -> ByteArray | None:
    """Convex hull (side, side) of the dark parts inside the body, 0 or 1; None without any."""
    _, dark = cv2.threshold(image, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    corner = round(_CT_CORNER * _SIDE)
    parts = [
        part
        for part in _parts(np.asarray(dark, dtype=np.uint8), _CT_PART * _SIDE**2)
        if not any(
            part[rows, columns].any()
            for rows in (slice(corner), slice(-corner, None))
            for columns in (slice(corner), slice(-corner, None))
        )
    ]
    if not parts:
        return None
    largest = max(int(part.sum()) for part in parts)
    kept = np.maximum.reduce([p for p in parts if p.sum() >= _CT_PART_OF_LARGEST * largest])
    # A white lung leaves a dent in the hull; its mirror image, the other lung, fills it.
    hull = _hull(np.maximum(kept, kept[:, ::-1]))
    _, _, width, height = cv2.boundingRect(hull)
    return hull if _CT_ASPECT[0] <= height / width <= _CT_ASPECT[1] else None


def _cxr_lungs(image: ByteArray) -> ByteArray | None:
    """Fitted outline and the dark regions that belong to it, 0 or 1; None where nothing fits."""
    fitted = _fitted_outline(image)
    if fitted is None:
        return None
    outline, midline = fitted
    near = cv2.dilate(outline, _disc(_NEAR)).astype(bool)
    threshold, _ = cv2.threshold(image[near][:, None], 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    dark = np.asarray((image <= threshold) & near, np.uint8)
    dark = np.asarray(cv2.morphologyEx(dark, cv2.MORPH_OPEN, _disc(_OPENING)))
    lungs = outline.copy()
    for part in _parts(dark, _CXR_PART * _SIDE**2):
        if part[outline > 0].sum() >= _OVERLAP * part.sum():
            lungs |= _hull(part)
    # Where one lung is white, in part or all of it, the other one shows how far it reaches.
    across = np.array([[-1.0, 0.0, 2 * midline], [0.0, 1.0, 0.0]])
    mirrored = cv2.warpAffine(lungs, across, (_SIDE, _SIDE), flags=cv2.INTER_NEAREST)
    return np.maximum(lungs, np.asarray(mirrored, dtype=np.uint8))


def _fitted_outline(image: ByteArray) -> tuple[ByteArray, float] | None:
    """The outline of a pair of lungs where it correlates best with the image, and its midline."""
    small = cv2.resize(image, (_FIT_SIDE, _FIT_SIDE), interpolation=cv2.INTER_AREA)
    margin = round(_MARGIN * _FIT_SIDE)
    # Lungs may reach the edge of the film, the margin of the outline then lies beyond it.
    framed = cv2.copyMakeBorder(small, *(margin,) * 4, cv2.BORDER_REPLICATE)
    ground = -_local_contrast(np.asarray(framed, np.float32))
    best, place = _LEAST_FIT, None
    for height, width, template in _templates():
        fit = cv2.matchTemplate(ground, template, cv2.TM_CCOEFF_NORMED)
        _, peak, _, (left, top) = cv2.minMaxLoc(fit)
        if peak > best:
            best, place = float(peak), (top, left, height, width)
    if place is None:
        return None
    top, left, height, width = (pixels * _SIDE // _FIT_SIDE for pixels in place)
    mask = np.zeros((_SIDE, _SIDE), np.uint8)
    _draw_pair(mask, left, top, width, max(height, round(_LEAST_ASPECT * width)))
    return mask, left + width / 2


def _local_contrast(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A plane less its surroundings, so that black air beside the body does not outweigh lungs."""
    sigma = _SURROUNDINGS * _FIT_SIDE
    out: npt.NDArray[np.float32] = plane - cv2.GaussianBlur(plane, (0, 0), sigma)
    return out / max(float(out.std()), 1e-6)


@lru_cache(maxsize=1)
def _templates() -> tuple[tuple[int, int, npt.NDArray[np.float32]], ...]:
    """Height, width (pixels of the pair) and picture, 1 in the lungs, of each size to try."""
    out = []
    margin = round(_MARGIN * _FIT_SIDE)
    for height in (round(share * _FIT_SIDE) for share in _HEIGHTS):
        for width in (round(share * _FIT_SIDE) for share in _WIDTHS):
            canvas = np.zeros((height + 2 * margin, width + 2 * margin), np.uint8)
            _draw_pair(canvas, margin, margin, width, height)
            soft = np.asarray(cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), 1.0), np.float32)
            out.append((height, width, _local_contrast(soft)))
    return tuple(out)


def _draw_pair(canvas: ByteArray, left: int, top: int, width: int, height: int) -> None:
    """Fill both lungs of a pair whose box is given, in place."""
    outline = np.array(_OUTLINE)
    for points in (outline, np.column_stack([1 - outline[:, 0], outline[:, 1]])):
        pixels = points * (width, height) + (left, top)
        cv2.fillPoly(canvas, [np.round(pixels).astype(np.int32)], 1)


def _parts(binary: ByteArray, least: float) -> Iterator[ByteArray]:
    """Connected parts (0 or 1) of at least so many pixels."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=4)
    for i in range(1, n):
        if stats[i, cv2.CC_STAT_AREA] >= least:
            yield np.asarray(labels == i, np.uint8)


def _hull(part: ByteArray) -> ByteArray:
    """The convex hull of all that is 1."""
    points = cv2.findNonZero(part)
    filled = np.zeros_like(part)
    cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled


def _widened(lungs: ByteArray) -> ByteArray:
    return np.asarray(cv2.dilate(lungs, _disc(_WIDEN)), np.uint8)


def _disc(radius: float) -> npt.NDArray[Any]:
    """A structuring element; its radius is a share of the image."""
    side = 2 * max(1, round(radius * _SIDE)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))


def _box(place: tuple[float, float, float, float]) -> ByteArray:
    top, bottom, left, right = (round(share * _SIDE) for share in place)
    mask = np.zeros((_SIDE, _SIDE), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask
