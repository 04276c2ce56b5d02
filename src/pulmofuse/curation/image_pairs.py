"""Which pictures are copies of one another, by their fingerprints alone.

Four sieves, each finer and dearer than the one before: nearest neighbours among coarse spectra
(whitened by what the collection has in common, and looked up as a whole and as several crops);
correlation of the coarse spectra after a first-order correction of the crop (the tangent distance
of Simard et al., NIPS 1992); correlation of the detail after
alignment, as a whole and where it fits worst.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import idctn

from pulmofuse.curation.alignment import WHOLE, blur, likeness, look, refine, weakest_likeness
from pulmofuse.curation.image_fingerprint import (
    COLUMNS,
    N_COARSE,
    RADIUS,
    ROWS,
    ImageCodes,
    unpack_images,
)
from pulmofuse.curation.neighbours import Rows, Vectors, build_cells, neighbours, unit, whitening

Matrix = npt.NDArray[np.float32]

#: The highest coarse frequencies move most when a picture is cropped; radius at which they fade.
_FADE = 5.0
#: Crops of one axis that candidates are looked up for, (shift, scale): none, 6 % cut at either
#: end, 5 % between both ends; every cut of up to 5 % at each end lies near one of them.
_CROPS = ((0.0, 1.0), (-0.03, 0.94), (0.03, 0.94), (0.0, 0.95))
VIEWS = np.array([y + x for y, x in product(_CROPS, repeat=2)], np.float32)
#: Share of the mean variance added to every direction before whitening, and the number of
#: pictures from which their own covariance is worth more than equal variances.
_RIDGE, _FEW = 0.2, 500
#: Directions kept, those in which the pictures of a collection differ most, of 75.
_DIRECTIONS = 32
#: Cosine of coarse spectra from which a pair is looked at, and how many for each picture.
_CANDIDATE, _CANDIDATES = 0.86, 16
#: Cosine after the first-order correction from which the detail is compared.
_CORRECTED = 0.94
#: Farthest that the first-order correction may move a view, and the step of its differences.
_REACH, _DIFFERENCE = 0.04, 0.005
#: Damping of that correction as a share of the mean curvature.
_DAMPING = 1e-3
#: Correlation of the detail as a whole from which it is looked at piece by piece.
_ALIKE = 0.72
#: Correlation of the pieces that fit worst from which two pictures are one, for a picture shown
#: whole and for a crop. Cropping costs detail; the slices of one CT, which only this figure tells
#: apart, all show the same field. Both chosen on one half of benchmarks/near_duplicates.py.
_SAME_WHOLE, _SAME_CROP = 0.8, 0.75
#: Largest shift, and change of scale, of a picture shown whole.
_WHOLE = 0.01
#: Correlation of the detail at half size from which it is looked at in full; before that, most
#: pairs are strangers, and the alignment is a first guess.
_HALF_ALIKE = 0.5
_BLURRED_STEPS, _DETAIL_STEPS = 3, 2
#: Blur that widens the reach of the detail's alignment, grid cells.
_BLUR = 1.0
#: Pairs aligned at a time, and pairs corrected at a time.
_BLOCK, _WIDE_BLOCK = 256, 1 << 14
#: Side of the grid on which crops of spectra are worked out; twice the highest frequency.
_SIDE = 32


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of rows: the view (n, 4) of the source is laid over the target."""

    source: Rows
    target: Rows
    view: npt.NDArray[np.float32]


def image_pairs(fingerprints: list[bytes]) -> tuple[Rows, Rows, npt.NDArray[np.float32]]:
    """Pairs of rows whose pictures are the same but for size, rim, contrast and compression.

    Args:
        fingerprints: of `image_fingerprint`, all different.

    Returns:
        First row, second row (first < second) and correlation of what fits worst, 0 to 1; sorted.
    """
    codes = unpack_images(fingerprints)
    scores: dict[tuple[int, int], float] = {}
    for layout in np.unique(codes.layout):
        rows = np.flatnonzero(codes.layout == layout)
        pairs = _candidates(codes.coarse[rows])
        pairs = _Pairs(rows[pairs.source], rows[pairs.target], pairs.view)
        for pair, score in zip(*_compare(codes, pairs), strict=True):
            scores[pair] = max(score, scores.get(pair, 0.0))
    found = sorted(scores)
    first, second = np.array(found, np.intp).reshape(-1, 2).T
    return first, second, np.array([scores[pair] for pair in found], np.float32)


def _candidates(coarse: npt.NDArray[np.int8]) -> _Pairs:
    """Pairs with similar coarse spectra, before and after a first-order correction of the view."""
    spectra = _Spectra(coarse)
    views = spectra.views()
    cells = build_cells(next(views))
    found = neighbours(cells, spectra.views(), np.arange(len(coarse)), _CANDIDATE, _CANDIDATES)
    sources, targets, corrected = [], [], []
    for number, (view, (crop, slopes)) in enumerate(zip(VIEWS, _crops(), strict=True)):
        chosen = np.flatnonzero(found.view == number)
        for start in range(0, len(chosen), _WIDE_BLOCK):
            part = chosen[start : start + _WIDE_BLOCK]
            source, target = found.query[part], found.row[part]
            seen, shown = spectra.whiten(source, crop), spectra.whiten(target, None)
            moves = np.stack([spectra.whiten(source, slope) for slope in slopes], axis=1)
            step, cosine = _correct(seen, moves, shown)
            good = cosine >= _CORRECTED
            sources.append(source[good])
            targets.append(target[good])
            corrected.append(view + step[good])
    if not sources:
        return _Pairs(np.empty(0, np.intp), np.empty(0, np.intp), np.empty((0, 4), np.float32))
    return _Pairs(np.concatenate(sources), np.concatenate(targets), np.concatenate(corrected))


class _Spectra:
    """The coarse spectra of a collection, whitened by what its pictures have in common.

    Lungs in the middle and shoulders above are in every chest X-ray. Few pictures say little about
    what is common, so their covariance counts less.
    """

    def __init__(self, coarse: npt.NDArray[np.int8]) -> None:
        self._coarse = coarse
        self._fade = np.exp(-((RADIUS / _FADE) ** 2)).astype(np.float32)
        self._white = whitening(unit(coarse * self._fade), _RIDGE, _FEW, _DIRECTIONS)

    def views(self) -> Iterator[Vectors]:
        """Unit vectors (n, _DIRECTIONS) of the pictures seen through each of `VIEWS`."""
        for crop, _ in _crops():
            yield self._white(unit((self._coarse @ crop.T) * self._fade))

    def whiten(self, rows: Rows, change: Matrix | None) -> Vectors:
        """Whitened spectra (len(rows), _DIRECTIONS), after a linear change of the raw ones."""
        spectra = self._coarse[rows].astype(np.float32)
        changed = spectra if change is None else spectra @ change.T
        out: Vectors = (changed * self._fade) @ self._white.matrix
        return out


@cache
def _crops() -> tuple[tuple[Matrix, tuple[Matrix, ...]], ...]:
    """Matrices (N_COARSE, N_COARSE) from the spectrum of a picture to that of each of `VIEWS`.

    Each with its four slopes: how it changes with the numbers of the view.
    """
    steps = np.eye(4, dtype=np.float32) * _DIFFERENCE
    return tuple(
        (
            _crop_matrix(view),
            tuple(
                (_crop_matrix(view + step) - _crop_matrix(view - step)) / (2 * _DIFFERENCE)
                for step in steps
            ),
        )
        for view in VIEWS
    )


def _crop_matrix(view: npt.NDArray[np.float32]) -> Matrix:
    spectra = np.zeros((N_COARSE, _SIDE, _SIDE), np.float32)
    spectra[np.arange(N_COARSE), ROWS, COLUMNS] = 1 / RADIUS
    pictures = idctn(spectra, axes=(1, 2), norm="ortho")
    seen, _ = look(pictures, np.tile(view, (N_COARSE, 1)).astype(np.float32))
    cropped = np.stack([cv2.dct(picture)[ROWS, COLUMNS] for picture in seen], axis=1)
    out: Matrix = cropped * RADIUS[:, None]
    return out


def _correct(
    seen: Vectors, moves: npt.NDArray[np.float32], shown: Vectors
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Least-squares step (n, 4) of the view and gain that bring `seen` to `shown`; their cosine.

    Args:
        seen: (n, d), spectra of the view.
        shown: (n, d), spectra of the target.
        moves: (n, 4, d), change of `seen` with the view.
    """
    slopes = np.concatenate([moves, -shown[:, None]], axis=1)
    curvature = slopes @ slopes.transpose(0, 2, 1)
    # A flat direction is left where it is.
    ridge = _DAMPING * np.trace(curvature, axis1=1, axis2=2) / slopes.shape[1]
    ridge += np.finfo(np.float32).tiny
    curvature += ridge[:, None, None] * np.eye(slopes.shape[1], dtype=np.float32)
    step = np.linalg.solve(curvature, -(slopes @ seen[:, :, None]))[:, :4, 0]
    step = np.clip(step, -_REACH, _REACH)
    moved = unit(seen + np.einsum("ij,ijk->ik", step, moves))
    return step, np.einsum("ij,ij->i", moved, unit(shown))


def _compare(codes: ImageCodes, pairs: _Pairs) -> tuple[list[tuple[int, int]], list[float]]:
    """The pairs of rows (smaller, greater) with the same detail, and its correlation."""
    likely = _half_alike(codes, pairs)
    found, scores = [], []
    for part in _blocks(likely):
        one, other = codes.detail(part.source), codes.detail(part.target)
        view = refine(blur(one, _BLUR), blur(other, _BLUR), part.view, _BLURRED_STEPS)
        view = refine(one, other, view, _DETAIL_STEPS)
        alike = likeness(one, other, view) >= _ALIKE
        score = weakest_likeness(one, other, view)
        whole = np.abs(view - WHOLE).max(axis=1) < _WHOLE
        good = alike & (score >= np.where(whole, _SAME_WHOLE, _SAME_CROP))
        ends = np.sort(np.stack([part.source, part.target], axis=1)[good], axis=1)
        found += [(a, b) for a, b in ends.tolist()]
        scores += score[good].clip(max=1).tolist()
    return found, scores


def _half_alike(codes: ImageCodes, pairs: _Pairs) -> _Pairs:
    """Those of the pairs whose detail is alike at half size."""

    def compare(part: _Pairs) -> npt.NDArray[np.float32]:
        return likeness(codes.half_detail(part.source), codes.half_detail(part.target), part.view)

    with ThreadPoolExecutor() as pool:
        alike = list(pool.map(compare, _blocks(pairs)))
    kept = np.concatenate([np.empty(0, np.float32), *alike]) >= _HALF_ALIKE
    return _Pairs(pairs.source[kept], pairs.target[kept], pairs.view[kept])


def _blocks(pairs: _Pairs) -> Iterator[_Pairs]:
    """The pairs, a few at a time."""
    for start in range(0, len(pairs.source), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield _Pairs(pairs.source[part], pairs.target[part], pairs.view[part])
