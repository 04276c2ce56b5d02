"""Lay one small picture over another that may be a crop of it, and say how alike they are.

A view is (shift_y, scale_y, shift_x, scale_x), both axes in units of the side: the point u of the
target, from -1/2 to 1/2, shows the point shift + scale * u of the source. Many pairs go at once.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.float32]
Views = npt.NDArray[np.float32]

#: The whole picture.
WHOLE = np.array([0, 1, 0, 1], np.float32)
#: Farthest that a view may go: 30 % cut from a side, all at one end at most, with room to move; and
#: 5 % cut from both ends of the other picture leaves 90 % of it, 1/0.9 = 1.11.
_MAX_SHIFT, _MIN_SCALE, _MAX_SCALE = 0.18, 0.6, 1.15
#: Largest change of a view in one step, and damping as a share of the mean curvature.
_MAX_STEP, _DAMPING = 0.05, 1e-5
#: Standard deviation of the neighbourhoods whose correlation is measured, in cells.
_NEAR = 2.0
#: A neighbourhood with less variance than this (detail has 1 on average) is flat and has no say;
#: and what is added to the energy of the others, so that noise cannot correlate.
_FLAT, _NOISE = 0.3, 0.1
#: Percentile of the neighbourhoods that speaks for the picture, and every how many cells one is
#: taken (they overlap).
_WEAK, _STRIDE = 10.0, 2
#: The cubic kernel of Keys (IEEE Trans. ASSP 29, 1981).
_KEYS = -0.5


def samplers(shift: npt.NDArray[np.float32], scale: npt.NDArray[np.float32], side: int) -> Pictures:
    """Cubic interpolation along one axis as matrices (n, side, side): target from source."""
    position = np.clip(_positions(shift, scale, side), 0, side - 1)
    below = np.floor(position)
    after = position - below
    taps = np.stack([1 + after, after, 1 - after, 2 - after], axis=2)
    inner = ((_KEYS + 2) * taps - (_KEYS + 3)) * taps * taps + 1
    outer = ((_KEYS * taps - 5 * _KEYS) * taps + 8 * _KEYS) * taps - 4 * _KEYS
    weights = np.where(taps <= 1, inner, outer).astype(np.float32)
    # One column of zeros before the first cell and two behind the last, where there is nothing.
    out = np.zeros((len(position), side, side + 3), np.float32)
    columns = below.astype(np.intp)[:, :, None] + np.arange(4)
    np.put_along_axis(out, columns, weights, axis=2)
    out = out[:, :, 1 : side + 1]
    # At the rim a point or two of the four are missing; the others share their weight.
    return np.asarray(out / out.sum(axis=2, keepdims=True), np.float32)


def look(pictures: Pictures, views: Views) -> tuple[Pictures, Pictures]:
    """The views of pictures (n, side, side), and 1 where they show the picture, else 0."""
    side = pictures.shape[1]
    rows, columns = (samplers(views[:, i], views[:, i + 1], side) for i in (0, 2))
    inside = [
        np.abs(_positions(views[:, i], views[:, i + 1], side) - (side - 1) / 2) <= side / 2
        for i in (0, 2)
    ]
    mask = (inside[0][:, :, None] & inside[1][:, None, :]).astype(np.float32)
    return np.asarray(rows @ pictures @ columns.transpose(0, 2, 1), np.float32), mask


def refine(sources: Pictures, targets: Pictures, views: Views, steps: int) -> Views:
    """Move views (n, 4) until the sources look like the targets, by Gauss-Newton.

    The intensities of the two are related by a gain and an offset, which are solved for at the
    same time (Baker & Matthews, IJCV 56, 2004, part of "Lucas-Kanade 20 years on").

    Args:
        sources: (n, side, side).
        targets: (n, side, side).
        views: where to start.
        steps: iterations.
    """
    side = sources.shape[1]
    place = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    for _ in range(steps):
        seen, mask = look(sources, views)
        down = np.gradient(seen, axis=1) * (side / views[:, 1, None, None])
        across = np.gradient(seen, axis=2) * (side / views[:, 3, None, None])
        parts = [down, down * place[:, None], across, across * place, -targets, np.ones_like(seen)]
        slopes = np.stack([(part * mask).reshape(len(seen), -1) for part in parts], axis=1)
        curvature = slopes @ slopes.transpose(0, 2, 1)
        damping = _DAMPING * np.trace(curvature, axis1=1, axis2=2) / len(parts)
        curvature += (damping + np.finfo(np.float32).tiny)[:, None, None] * np.eye(
            len(parts), dtype=np.float32
        )
        downhill = -(slopes @ (seen * mask).reshape(len(seen), -1, 1))
        step = np.linalg.solve(curvature, downhill)[:, :4, 0]
        views = views + np.clip(step, -_MAX_STEP, _MAX_STEP)
        views[:, 0::2] = np.clip(views[:, 0::2], -_MAX_SHIFT, _MAX_SHIFT)
        views[:, 1::2] = np.clip(views[:, 1::2], _MIN_SCALE, _MAX_SCALE)
    return views.astype(np.float32)


def likeness(sources: Pictures, targets: Pictures, views: Views) -> npt.NDArray[np.float32]:
    """Correlation (n,) of each view with its target, over what both show."""
    seen, mask = look(sources, views)
    count = np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1)
    seen = (seen - (seen * mask).sum(axis=(1, 2), keepdims=True) / count) * mask
    shown = (targets - (targets * mask).sum(axis=(1, 2), keepdims=True) / count) * mask
    energy = (seen * seen).sum(axis=(1, 2)) * (shown * shown).sum(axis=(1, 2))
    out: npt.NDArray[np.float32] = (seen * shown).sum(axis=(1, 2)) / np.sqrt(
        np.maximum(energy, np.finfo(np.float32).tiny)
    )
    return out


def weakest_likeness(sources: Pictures, targets: Pictures, views: Views) -> npt.NDArray[np.float32]:
    """Correlation (n,) of the neighbourhoods that fit worst, their 10th percentile.

    A copy fits everywhere. The next slice of a CT fits at the skin, the ribs and the table, which
    are most of a picture, but not at the vessels.
    """
    seen, mask = look(sources, views)
    weight = blur(mask, _NEAR)[:, ::_STRIDE, ::_STRIDE] + np.finfo(np.float32).tiny

    def mean(values: Pictures) -> Pictures:
        out: Pictures = blur(values * mask, _NEAR)[:, ::_STRIDE, ::_STRIDE] / weight
        return out

    one, other = mean(seen), mean(targets)
    var_one, var_other = mean(seen * seen) - one * one, mean(targets * targets) - other * other
    energy = np.maximum(var_one, 0) * np.maximum(var_other, 0)
    local = (mean(seen * targets) - one * other) / np.sqrt(energy + _NOISE**2)
    counts = (weight > 1 / 2) & (np.minimum(var_one, var_other) > _FLAT)
    ordered = np.sort(np.where(counts, local, np.inf).reshape(len(local), -1), axis=1)
    place = (counts.sum(axis=(1, 2)) * _WEAK / 100).astype(np.intp)
    weakest = ordered[np.arange(len(ordered)), place]
    out: npt.NDArray[np.float32] = np.where(np.isfinite(weakest), weakest, -1).astype(np.float32)
    return out


def blur(pictures: Pictures, sigma: float) -> Pictures:
    """Gaussian blur of each picture, cells beyond the rim counted as nothing."""
    out: Pictures = np.stack(
        [cv2.GaussianBlur(p, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT) for p in pictures]
    )
    return out


def _positions(
    shift: npt.NDArray[np.float32], scale: npt.NDArray[np.float32], side: int
) -> npt.NDArray[np.float32]:
    """Where each target cell lies in the source, in cells (n, side)."""
    place = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    out: npt.NDArray[np.float32] = (
        shift[:, None] + scale[:, None] * place + np.float32(0.5)
    ) * side - np.float32(0.5)
    return out
