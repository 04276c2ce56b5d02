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
#: x, y, width and height in pixels, (n, 4).
Boxes: TypeAlias = NDArray[np.int32]

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
_MOST_PARTS = 600  # more small parts than this are texture, and comparing all pairs costs time


def has_text(grey: Grey) -> bool:
    """Does an 8-bit image (height, width) hold at least one line of four glyphs or more?"""
    return bool(text_lines(grey))


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
        for contrast in _CONTRASTS:
            _, mask = cv2.threshold(strokes, contrast, 255, cv2.THRESH_BINARY)
            found = _lines(*_glyphs(grey, np.asarray(mask, np.uint8)))
            lines += found
            if found:  # the other contrast would find the same letters again
                break
    return tuple(
        (round(x * shrink), round(y * shrink), round(w * shrink), round(h * shrink))
        for x, y, w, h in lines
    )


def _glyphs(grey: Grey, mask: Grey) -> tuple[Boxes, NDArray[np.float64]]:
    """Parts of the mask that could be glyphs: boxes (n, 4), and the grey of their strokes (n,)."""
    # Contours cost a tenth of labelled components where next to nothing is set.
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = np.array([cv2.boundingRect(c) for c in contours], np.int32).reshape(-1, 4)
    width, height = boxes[:, 2], boxes[:, 3]
    keep = (height >= _HEIGHT[0]) & (height <= _HEIGHT[1])
    keep &= (width >= _ASPECT[0] * height) & (width <= _ASPECT[1] * height)
    boxes = boxes[keep]
    if not _LEAST_GLYPHS <= len(boxes) <= _MOST_PARTS:
        return np.empty((0, 4), np.int32), np.empty(0)
    fill, tone = np.empty(len(boxes)), np.empty(len(boxes))
    for i, (x, y, w, h) in enumerate(boxes):
        inside = slice(y, y + h), slice(x, x + w)
        tone[i], *_ = cv2.mean(grey[inside], mask[inside])
        fill[i] = cv2.countNonZero(mask[inside]) / (w * h)
    keep = (fill >= _FILL[0]) & (fill <= _FILL[1])
    return boxes[keep], tone[keep]


def _lines(boxes: Boxes, tone: NDArray[np.float64]) -> list[tuple[int, int, int, int]]:
    """Lines of at least four glyphs: boxes (x, y, width, height)."""
    if len(boxes) < _LEAST_GLYPHS:
        return []
    order = np.argsort(boxes[:, 0], kind="stable")
    boxes, tone = boxes[order], tone[order]
    x, y, width, height = boxes.T
    follows = _follows(x, y, width, height, tone)
    lines: list[tuple[int, int, int, int]] = []
    used = np.zeros(len(boxes), bool)
    for start in range(len(boxes)):
        chain = [start]
        while not used[start] and follows[chain[-1]].any():
            chain.append(int(follows[chain[-1]].argmax()))  # the nearest on the right
        if len(chain) >= _LEAST_GLYPHS:
            used[chain] = True
            left, top = int(x[chain].min()), int(y[chain].min())
            right, bottom = (x + width)[chain].max(), (y + height)[chain].max()
            lines.append((left, top, int(right) - left, int(bottom) - top))
    return lines


def _follows(
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    width: NDArray[np.int32],
    height: NDArray[np.int32],
    tone: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """(n, n): may the column's glyph stand right of the row's in one line? Sorted by x."""
    taller = np.maximum(height[:, None], height)
    slack = np.maximum(1.0, _SAME_LINE * taller)
    gap = x - (x + width)[:, None]
    bottom = y + height
    return np.asarray(
        (gap >= -1)
        & (gap <= _GAP * taller)
        & (np.abs(height[:, None] - height) <= np.maximum(1.0, _SAME_HEIGHT * taller))
        & (np.abs(bottom[:, None] - bottom) <= slack)
        & (np.abs(y[:, None] - y) <= slack + 1)
        & (np.abs(tone[:, None] - tone) <= _SAME_GREY)
        & (x > x[:, None])
    )
