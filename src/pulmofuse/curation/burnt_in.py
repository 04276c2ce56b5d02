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
#: x, y, width, height and area of connected components, in pixels, int (n,) each.
Boxes: TypeAlias = NDArray[np.int32]

_WORK_SIDE = 512  # letters that a reader sees at all are 6 pixels high and more at this size
_STROKE = 9  # pixels; strokes are thinner than this, anatomy mostly is not
_CONTRAST = 70  # grey levels by which a stroke stands out
_HEIGHT = (6, 40)  # of a glyph, pixels
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
    lines: list[tuple[int, int, int, int]] = []
    for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):  # bright letters, dark letters
        lines += _lines(*_glyphs(grey, kind))
    return tuple(
        (round(x * shrink), round(y * shrink), round(w * shrink), round(h * shrink))
        for x, y, w, h in lines
    )


def _glyphs(grey: Grey, kind: int) -> tuple[Boxes, NDArray[np.float64]]:
    """Parts that could be glyphs: boxes (n, 5), and the grey of their strokes (n,)."""
    square = cv2.getStructuringElement(cv2.MORPH_RECT, (_STROKE, _STROKE))
    strokes = cv2.morphologyEx(grey, kind, square)
    mask = cv2.compare(strokes, _CONTRAST, cv2.CMP_GT)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    _, _, width, height, area = stats.T
    keep = (height >= _HEIGHT[0]) & (height <= _HEIGHT[1])
    keep &= (width >= _ASPECT[0] * height) & (width <= _ASPECT[1] * height)
    keep &= (area >= _FILL[0] * width * height) & (area <= _FILL[1] * width * height)
    keep[0] = False  # the background
    chosen = np.flatnonzero(keep)
    if not _LEAST_GLYPHS <= chosen.size <= _MOST_PARTS:
        return np.empty((0, 5), np.int32), np.empty(0)
    return stats[chosen], _stroke_grey(grey, labels, stats, chosen)


def _stroke_grey(
    grey: Grey, labels: NDArray[np.int32], stats: Boxes, chosen: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Mean grey of each chosen part (n,)."""
    means = np.empty(chosen.size)
    for i, part in enumerate(chosen):
        x, y, width, height, area = stats[part]
        box = slice(y, y + height), slice(x, x + width)
        means[i] = grey[box][labels[box] == part].sum() / area
    return means


def _lines(boxes: Boxes, tone: NDArray[np.float64]) -> list[tuple[int, int, int, int]]:
    """Lines of at least four glyphs: boxes (x, y, width, height)."""
    if len(boxes) < _LEAST_GLYPHS:
        return []
    order = np.argsort(boxes[:, 0], kind="stable")
    boxes, tone = boxes[order], tone[order]
    x, y, width, height, _ = boxes.T
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
