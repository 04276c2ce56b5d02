"""What an image owes to its site, taken out: its grey curve, its letters, what is not lung.

Each function takes one plane (height, width) and needs nothing but it: no statistics of a data
set, so that a single image at serving time takes the very path of the training images.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pulmofuse.curation.burnt_in import text_lines

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
#: Rows and columns of a part of an image.
Box = tuple[slice, slice]
Histogram = Literal["equalised", "clahe", "matched"]

#: Bins of the distribution of grey levels: as many as 8 bits tell apart.
_BINS = 256
#: Most that a bin may hold, as a multiple of an equal share. A CT window cuts all soft tissue to
#: white: without a limit the two levels that compression leaves of it would be torn far apart.
_FULLEST = 4.0
#: Contrast limit and tiles per side of CLAHE: the usual ones (Zuiderveld 1994; OpenCV).
_CLIP_LIMIT, _TILES = 2.0, 8
#: Letters are painted over with this much around them, as a share of their height, because their
#: edges are blurred by compression; pixels, at least.
_LETTER_EDGE, _LEAST_EDGE = 0.25, 2
#: A line may go on for so many letter heights on either side of what was found of it; there its
#: strokes stand out by so many grey levels.
_LINE_GOES_ON, _STROKE_CONTRAST = 12, 40


def box_in_pixels(
    box: tuple[float, float, float, float], shape: tuple[int, int], margin: float
) -> Box:
    """Rows and columns of a box of shares, widened on each side and cut at the image.

    Args:
        box: top, bottom, left, right as shares of the sides.
        shape: height and width of the image, pixels.
        margin: what is added on each side, as a share of the box's own height or width.
    """
    spans = []
    for (low, high), length in zip((box[:2], box[2:]), shape, strict=True):
        extra = margin * (high - low)
        first = max(0, round((low - extra) * length))
        spans.append(slice(first, min(length, round((high + extra) * length))))
    return spans[0], spans[1]


def standardise_histogram(unit: FloatArray, method: Histogram, region: Box) -> FloatArray:
    """Bring the grey levels of an image to a distribution that is the same for all images.

    `equalised` and `matched` are one monotone curve for the whole image, which brings the levels
    inside `region` to equal shares or to the reference; letters and borders outside it follow and
    do not steer. What one level holds beyond four equal shares is dealt to all levels alike, so
    that `equalised` raises contrast five-fold at most and what is saturated stays flat. `clahe`
    equalises locally, with limited contrast too (Pizer 1987, Zuiderveld 1994).

    Args:
        unit: (height, width) in [0, 1].
        method: which.
        region: the part of the image whose levels decide, for the first two.

    Returns:
        The same shape, in [0, 1].
    """
    if method == "clahe":
        clahe = cv2.createCLAHE(_CLIP_LIMIT, (_TILES, _TILES))
        # OpenCV's limit is per grey level and useless with 16 bits, where no level repeats.
        grey = np.rint(np.clip(unit, 0.0, 1.0) * 255).astype(np.uint8)
        return np.asarray(clahe.apply(grey), np.float32) / np.float32(255)
    counts, edges = np.histogram(unit[region], bins=_BINS, range=(0.0, 1.0))
    shares = counts / counts.sum()
    limited = np.minimum(shares, _FULLEST / _BINS)
    ranks = np.concatenate([[0.0], np.cumsum(limited + max(0.0, 1.0 - limited.sum()) / _BINS)])
    ranks = np.minimum(ranks, 1.0)  # rounding
    curve = np.interp(unit, edges, ranks)
    return np.asarray(curve if method == "equalised" else reference_greys(curve), np.float32)


def reference_greys(ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Grey level in [0, 1] of each rank in [0, 1] of the reference image.

    The reference follows from our own normalisation and from no data set: percentile 1 becomes
    black and percentile 99 white, and between them greys are normally distributed about .5, the
    distribution that assumes least for a given mean and spread (Jaynes 1957). So its standard
    deviation is .5 / 2.326. Equal shares would spend half of the levels on the darkest and
    brightest half of the pixels; here the middle tones, lung and mediastinum, get more of them.
    """
    spread = 0.5 / ndtri(0.99)
    greys: npt.NDArray[np.float64] = np.clip(0.5 + spread * ndtri(ranks), 0.0, 1.0)
    return greys


def paint_letters(plane: FloatArray, grey: ByteArray) -> FloatArray:
    """Replace the lines of text that `curation.burnt_in` finds by the mean of their surroundings.

    Args:
        plane: (height, width), any unit.
        grey: the same image as the eye sees it, in which letters are looked for.

    Returns:
        A copy, or the plane itself where there are none.
    """
    lines = text_lines(grey)
    if not lines:
        return plane
    kept = np.ones(plane.shape, np.float32)
    for x, y, width, height in lines:
        edge = max(_LEAST_EDGE, round(_LETTER_EDGE * height))
        rows = slice(max(0, y - edge), y + height + edge)
        kept[rows, max(0, x - edge) : x + width + edge] = 0.0
        # The finder needs a few letters of a line and need not see them all.
        reach = slice(max(0, x - _LINE_GOES_ON * height), x + width + _LINE_GOES_ON * height)
        kept[rows, reach][_strokes(grey[rows, reach], height, edge)] = 0.0
    out = plane.copy()
    for x, y, width, height in lines:
        wide = _LINE_GOES_ON * height + 2 * _LEAST_EDGE
        high = 2 * max(_LEAST_EDGE, height)
        part = (
            slice(max(0, y - high), y + height + high),
            slice(max(0, x - wide), x + width + wide),
        )
        weight = kept[part]
        if weight.any():
            out[part] = np.where(weight > 0, out[part], _surroundings(plane[part], weight, height))
    return out


def _strokes(grey: ByteArray, height: int, edge: int) -> npt.NDArray[np.bool_]:
    """Where lines thinner than half a letter stand out, bright or dark, widened by `edge`."""
    square = np.ones((max(3, height // 2 | 1),) * 2, np.uint8)
    detail = np.maximum(
        cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, square),
        cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, square),
    )
    strong = np.asarray(detail >= _STROKE_CONTRAST, np.uint8)
    return np.asarray(cv2.dilate(strong, np.ones((2 * edge + 1,) * 2, np.uint8)), dtype=bool)


def _surroundings(plane: FloatArray, weight: FloatArray, height: int) -> FloatArray:
    """Weighted local mean of a part of an image (normalised convolution, Knutsson 1993)."""
    sigma = max(1.0, height / 2)
    total = cv2.GaussianBlur(plane * weight, (0, 0), sigma)
    share = cv2.GaussianBlur(weight, (0, 0), sigma)
    mean = float((plane * weight).sum() / weight.sum())
    return np.asarray(np.where(share > 1e-3, total / np.maximum(share, 1e-3), mean), np.float32)
