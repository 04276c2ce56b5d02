"""Which pictures are copies of one another, by their fingerprints alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import idctn

from pulmofuse.curation.alignment import WHOLE, likeness, look, refine
from pulmofuse.curation.image_fingerprint import (
    COLUMNS,
    GRID,
    N_COARSE,
    RADIUS,
    ROWS,
    ImageCodes,
    unpack_images,
)
from pulmofuse.curation.neighbours import Rows, Vectors, build_cells, neighbours, unit

#: Side of the grid that the coarse coefficients are laid out on for a first alignment.
_SIDE = 20
#: The highest coarse frequencies move most when a picture is cropped; radius at which they fade.
_FADE = 8.0
#: Crops of one axis that candidates are looked up for, (shift, scale): none, and 5 % cut at
#: either end; a smaller cut lies near enough to one of the three.
_CROPS = ((0.0, 1.0), (-0.025, 0.95), (0.025, 0.95))
#: Cosine of coarse spectra from which a pair is looked at, and how many for each picture.
_CANDIDATE, _CANDIDATES = 0.75, 16
#: Correlation of coarse pictures after alignment from which the detail is compared.
_COARSE_ALIKE = 0.9
#: Correlation of the detail from which two pictures are one (benchmarks/near_duplicates.py).
ALIKE = 0.75
#: Below this the detail is not even nearly alike, and a finer alignment would not help.
_HOPELESS = 0.3
_COARSE_STEPS, _BLURRED_STEPS, _DETAIL_STEPS = 6, 2, 2
#: Blur that widens the reach of the detail's alignment, grid cells.
_BLUR = 1.0
#: Pairs aligned at a time.
_BLOCK = 256


def image_pairs(fingerprints: list[bytes]) -> tuple[Rows, Rows, npt.NDArray[np.float32]]:
    """Pairs of rows whose pictures are the same but for size, rim, contrast and compression.

    Args:
        fingerprints: of `image_fingerprint`, all different.

    Returns:
        First row, second row (first < second) and correlation of the detail, 0 to 1; sorted.
    """
    codes = unpack_images(fingerprints)
    first, second = _candidates(codes)
    scores = np.full(len(first), -1, np.float32)
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores[part] = _compare(codes, first[part], second[part])
    alike = scores >= ALIKE
    return first[alike], second[alike], np.clip(scores[alike], 0, 1)


def _candidates(codes: ImageCodes) -> tuple[Rows, Rows]:
    """Pairs of rows (first < second) of one layout with similar coarse spectra."""
    firsts, seconds = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for layout in np.unique(codes.layout):
        rows = np.flatnonzero(codes.layout == layout)
        views = _views(codes.coarse[rows])
        _, whole = next(views)
        cells = build_cells(whole)
        labels = np.arange(len(rows))
        a, b = neighbours(cells, _chain(labels, whole, views), _CANDIDATE, _CANDIDATES)
        firsts.append(rows[np.minimum(a, b)[a != b]])
        seconds.append(rows[np.maximum(a, b)[a != b]])
    pairs = np.unique(np.stack([np.concatenate(firsts), np.concatenate(seconds)], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _chain(
    labels: Rows, whole: Vectors, rest: Iterator[tuple[Rows, Vectors]]
) -> Iterator[tuple[Rows, Vectors]]:
    yield labels, whole
    yield from rest


def _views(coarse: npt.NDArray[np.int8]) -> Iterator[tuple[Rows, Vectors]]:
    """The coarse spectra of the whole pictures, then of each crop; rows and unit vectors.

    What all pictures of the collection have in common (lungs in the middle, shoulders above) is
    taken away, so that only what is a picture's own counts.
    """
    fade = np.exp(-((RADIUS / _FADE) ** 2))
    labels = np.arange(len(coarse))
    common: Vectors | None = None
    for (down, high), (right, wide) in product(_CROPS, repeat=2):
        crop = _crop_matrix(np.array([[down, high, right, wide]], np.float32))
        vectors = unit((coarse.astype(np.float32) @ crop.T) * fade)
        if common is None:
            common = vectors.mean(axis=0)
        yield labels, unit(vectors - common)


def _crop_matrix(view: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Matrix (N_COARSE, N_COARSE) from the whitened coefficients of a picture to those of a view."""
    seen, _ = look(_basis(GRID // 2), np.repeat(view, N_COARSE, axis=0))
    spectra = np.stack([cv2.dct(picture)[ROWS, COLUMNS] for picture in seen], axis=1)
    out: npt.NDArray[np.float32] = spectra * RADIUS[:, None]
    return out


def _basis(side: int) -> npt.NDArray[np.float32]:
    """What one unit of each whitened coefficient looks like, (N_COARSE, side, side)."""
    spectra = np.zeros((N_COARSE, side, side), np.float32)
    spectra[np.arange(N_COARSE), ROWS, COLUMNS] = 1 / RADIUS
    out: npt.NDArray[np.float32] = idctn(spectra, axes=(1, 2), norm="ortho")
    return out


def _compare(codes: ImageCodes, first: Rows, second: Rows) -> npt.NDArray[np.float32]:
    """Correlation (n,) of the detail of aligned pairs, -1 where it was not worth comparing."""
    scores = np.full(len(first), -1, np.float32)
    if not len(first):
        return scores
    fade = np.exp(-((RADIUS / _FADE) ** 2))
    basis = (_basis(_SIDE) * (RADIUS * fade)[:, None, None]).reshape(N_COARSE, -1)
    one, other = (
        (codes.coarse[rows].astype(np.float32) @ basis).reshape(-1, _SIDE, _SIDE)
        for rows in (first, second)
    )
    one, other = (x / np.sqrt((x * x).mean(axis=(1, 2), keepdims=True) + 1e-6) for x in (one, other))
    views = refine(one, other, np.tile(WHOLE, (len(first), 1)), _COARSE_STEPS)
    near = np.flatnonzero(likeness(one, other, views) >= _COARSE_ALIKE)
    if not len(near):
        return scores
    one, other, views = codes.detail(first[near]), codes.detail(second[near]), views[near]
    scores[near] = likeness(one, other, views)
    hopeful = scores[near] >= _HOPELESS
    near, one, other, views = near[hopeful], one[hopeful], other[hopeful], views[hopeful]
    if len(near):
        views = refine(_blur(one), _blur(other), views, _BLURRED_STEPS)
        scores[near] = likeness(one, other, refine(one, other, views, _DETAIL_STEPS))
    return scores


def _blur(pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.stack([cv2.GaussianBlur(picture, (0, 0), _BLUR) for picture in pictures])
