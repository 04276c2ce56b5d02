"""Letters that somebody drew into the pixels of a radiograph: names, dates, captions.

Text is told from anatomy by its regularity: several glyphs of one height stand beside each other on
one line, each drawn in thin strokes of one brightness that stands out sharply. A single letter (the
marker of the side, the letter of a figure's panel) is not reported, nor are arrows and scales.
No letter is read, so nothing of a patient's name ever leaves this function.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Grey: TypeAlias = NDArray[np.uint8]
#: x, y, width and height in pixels, (n, 4), from left to right.
Boxes: TypeAlias = NDArray[np.int32]
#: Rows of two glyphs that may stand beside each other: left and right, ascending in this order.
Neighbours: TypeAlias = tuple[NDArray[np.intp], NDArray[np.intp]]

_WORK_SIDE = 512  # letters that a reader sees at all are 5 pixels high and more at this size
_STROKE = 7  # pixels; strokes are thinner than this, anatomy mostly is not
#: Grey levels by which a stroke stands out: small letters run together below the higher one.
_CONTRASTS = (70, 120)
_HEIGHT = (5, 40)  # of a glyph, pixels
_ASPECT = (0.12, 1.5)  # width by height of a glyph: from I to W
_FILL = (0.12, 0.85)  # share of its box that a glyph covers
_SAME_HEIGHT = 0.2  # of the taller glyph; capitals and digits are all of one height
_SAME_LINE = 0.15  # of the height; by how much tops and bottoms may differ, at least one pixel
_GAP = 1.0  # of the height; between one glyph and the next
_SAME_GREY = 45  # grey levels between the strokes of neighbouring glyphs
_LEAST_GLYPHS = 4  # of one line: three vessels on a line are chance
_MOST_PARTS = 600  # more small parts than this are texture, and pairs of them cost time


def text_lines(grey: Grey) -> tuple[tuple[int, int, int, int], ...]:
    """Boxes (x, y, width, height) of the lines of text, in the pixels of the image.

    Args:
        grey: (height, width), uint8.
    """
    shrink = max(1.0, max(grey.shape) / _WORK_SIDE)
    if shrink > 1.0:
        size = (round(grey.shape[1] / shrink), round(grey.shape[0] / shrink))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))
    square = cv2.getStructuringElement(cv2.MORPH_RECT, (_STROKE, _STROKE))
    lines: list[tuple[int, int, int, int]] = []
    for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):  # bright letters, dark letters
        strokes = cv2.morphologyEx(grey, kind, square)
        _, strongest, _, _ = cv2.minMaxLoc(strokes)
        for contrast in _CONTRASTS:
            if strongest <= contrast:
                break
            _, mask = cv2.threshold(strokes, contrast, 255, cv2.THRESH_BINARY)
            found = _lines(grey, np.asarray(mask, np.uint8))
            lines += found
            if found:  # the other contrast would find the same letters again
                break
    return tuple(
        (round(x * shrink), round(y * shrink), round(w * shrink), round(h * shrink))
        for x, y, w, h in lines
    )


def _lines(grey: Grey, mask: Grey) -> list[tuple[int, int, int, int]]:
    """Lines of at least four glyphs among the parts of a mask: boxes (x, y, width, height)."""
    boxes = _boxes(mask)
    if not len(boxes):
        return []
    left, right = _neighbours(boxes)
    if not _has_line(len(boxes), left, right):  # mostly so; looking at strokes takes longest
        return []
    paired = np.unique(np.concatenate([left, right]))
    fill, tone = np.zeros(len(boxes)), np.zeros(len(boxes))
    for i in paired:
        x, y, w, h = boxes[i].tolist()
        inside = mask[y : y + h, x : x + w]
        fill[i] = cv2.countNonZero(inside) / (w * h)
        tone[i], *_ = cv2.mean(grey[y : y + h, x : x + w], inside)
    glyph = (fill >= _FILL[0]) & (fill <= _FILL[1])
    keep = glyph[left] & glyph[right] & (np.abs(tone[left] - tone[right]) <= _SAME_GREY)
    return _chains(boxes, left[keep], right[keep])


def _boxes(mask: Grey) -> Boxes:
    """Parts of the mask that have the size of a glyph; none where there are too few or too many."""
    # Contours cost a tenth of labelled components where next to nothing is set.
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) < _LEAST_GLYPHS:
        return np.empty((0, 4), np.int32)
    # All at once: texture has hundreds of parts, and a call for each takes longer.
    points = np.concatenate(contours).reshape(-1, 2)
    starts = np.cumsum([0, *(len(contour) for contour in contours[:-1])])
    low = np.minimum.reduceat(points, starts)
    boxes = np.hstack([low, np.maximum.reduceat(points, starts) - low + 1])
    width, height = boxes[:, 2], boxes[:, 3]
    keep = (height >= _HEIGHT[0]) & (height <= _HEIGHT[1])
    keep &= (width >= _ASPECT[0] * height) & (width <= _ASPECT[1] * height)
    boxes = boxes[keep]
    if not _LEAST_GLYPHS <= len(boxes) <= _MOST_PARTS:
        return np.empty((0, 4), np.int32)
    return boxes[np.argsort(boxes[:, 0], kind="stable")]


def _neighbours(boxes: Boxes) -> Neighbours:
    """Which box may stand right of which in one line, by place and size alone."""
    x, y, width, height = boxes.T
    gap = x - (x + width)[:, None]
    left, right = np.nonzero((gap >= -1) & (gap <= _GAP * _HEIGHT[1]) & (x > x[:, None]))
    taller = np.maximum(height[left], height[right])
    slack = np.maximum(1.0, _SAME_LINE * taller)
    bottom = y + height
    keep = (
        (gap[left, right] <= _GAP * taller)
        & (np.abs(height[left] - height[right]) <= np.maximum(1.0, _SAME_HEIGHT * taller))
        & (np.abs(bottom[left] - bottom[right]) <= slack)
        & (np.abs(y[left] - y[right]) <= slack + 1)
    )
    return left[keep], right[keep]


def _has_line(n_boxes: int, left: NDArray[np.intp], right: NDArray[np.intp]) -> bool:
    """Does any way from neighbour to neighbour pass `_LEAST_GLYPHS` boxes?"""
    goes_on = np.ones(n_boxes, bool)
    for _ in range(_LEAST_GLYPHS - 1):
        further = np.zeros(n_boxes, bool)
        further[left[goes_on[right]]] = True
        goes_on = further
    return bool(goes_on.any())


def _chains(
    boxes: Boxes, left: NDArray[np.intp], right: NDArray[np.intp]
) -> list[tuple[int, int, int, int]]:
    """Boxes around the lines that are found by going on to the nearest neighbour on the right."""
    follower: dict[int, int] = {}
    for i, j in zip(left.tolist(), right.tolist(), strict=True):
        follower.setdefault(i, j)
    lines: list[tuple[int, int, int, int]] = []
    used: set[int] = set()
    for start in follower:
        chain = [start]
        while start not in used and chain[-1] in follower:
            chain.append(follower[chain[-1]])
        if len(chain) >= _LEAST_GLYPHS:
            used.update(chain)
            x, y, width, height = boxes[chain].T
            bounds = x.min(), y.min(), (x + width).max(), (y + height).max()
            x0, y0, x1, y1 = map(int, bounds)
            lines.append((x0, y0, x1 - x0, y1 - y0))
    return lines
