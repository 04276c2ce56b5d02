"""Which pictures may be copies of one another, by their coarse spectra.

Nearest neighbours, whitened by what the collection has in common, for the whole picture and for
crops of it; then the correlation after a first-order correction of the crop (the tangent distance
of Simard et al., NIPS 1992).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from pulmofuse.curation.alignment import samplers
from pulmofuse.curation.image_fingerprint import COLUMNS, RADIUS, ROWS
from pulmofuse.curation.neighbours import (
    Cells,
    Rows,
    Vectors,
    build_cells,
    neighbours,
    unit,
    whitening,
)

Matrix = npt.NDArray[np.float32]
Views = npt.NDArray[np.float32]

#: The highest coarse frequencies move most when a picture is cropped; radius at which they fade.
_FADE = 5.0
#: Crops of one axis of up to 5 % at each end, (shift, scale): none, 6 % cut at either end, 5 %
#: between both ends; every such cut lies near one of them.
_SMALL_CROPS = ((0.0, 1.0), (-0.03, 0.94), (0.03, 0.94), (0.0, 0.95))
_SMALL_VIEWS = np.array([y + x for y, x in product(_SMALL_CROPS, repeat=2)], np.float32)
#: Crops that keep 70 to 90 % of a side. Chosen one after the other from 1,369, each for the most
#: of 240 random crops that no earlier one looks like (of one half of the images of
#: benchmarks/near_duplicates.py); all 240 then have a cosine of .86 with one of them. The last
#: four are cut at one end only, which is rare among random crops.
_LARGE_VIEWS = np.array(
    [
        (0.00, 0.85, -0.03, 0.80), (0.00, 0.85, 0.06, 0.80), (0.06, 0.80, 0.00, 0.90),
        (0.00, 0.90, -0.09, 0.80), (-0.06, 0.80, 0.00, 0.90), (-0.11, 0.75, 0.03, 0.70),
        (-0.06, 0.80, -0.05, 0.75), (0.00, 0.80, 0.02, 0.95), (0.09, 0.80, -0.03, 0.85),
        (-0.06, 0.85, 0.11, 0.75), (0.06, 0.80, 0.00, 0.75), (0.06, 0.80, 0.05, 0.75),
        (0.00, 0.75, -0.03, 0.85), (-0.03, 0.85, 0.00, 0.75), (-0.11, 0.75, -0.02, 0.95),
        (0.11, 0.75, 0.00, 0.95), (0.06, 0.85, -0.09, 0.80), (-0.05, 0.75, 0.04, 0.90),
        (-0.03, 0.85, -0.05, 0.75), (0.00, 1.00, 0.05, 0.75), (0.00, 1.00, -0.03, 0.85),
        (-0.05, 0.75, 0.03, 0.70), (-0.05, 0.75, -0.03, 0.75), (0.03, 0.80, 0.09, 0.80),
        (0.00, 0.85, -0.02, 0.95), (-0.08, 0.75, -0.09, 0.80), (0.09, 0.80, 0.03, 0.85),
        (-0.08, 0.75, 0.06, 0.70), (-0.13, 0.70, 0.03, 0.75), (-0.06, 0.80, 0.00, 0.95),
        (0.09, 0.80, -0.06, 0.80), (-0.03, 0.85, 0.00, 0.85), (0.00, 1.00, -0.10, 0.80),
        (0.00, 1.00, 0.10, 0.80), (-0.10, 0.80, 0.00, 1.00), (0.10, 0.80, 0.00, 1.00),
    ],
    np.float32,
)  # fmt: skip
#: Share of the mean variance added to every direction before whitening, and the number of
#: pictures from which their own covariance is worth more than equal variances.
_RIDGE, _FEW = 0.2, 500
#: Directions kept, those in which the pictures of a collection differ most, of 75.
_DIRECTIONS = 32
#: Pictures from which it is known how near the others are, and the share of them that must have
#: room: where more than `most` are near anyway, looking farther costs time and brings nothing.
_SAMPLE, _WITH_ROOM = 128, 0.75
#: Cosine after the first-order correction from which the detail is compared.
_CORRECTED = 0.94
#: Farthest that the first-order correction may move a view, and the step of its differences.
_REACH, _DIFFERENCE = 0.04, 0.005
#: Damping of that correction as a share of the mean curvature.
_DAMPING = 1e-3
#: Pairs corrected at a time.
_BLOCK = 1 << 14
#: Side of the grid on which crops of spectra are worked out; twice the highest frequency.
_SIDE = 32


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of rows: the view (n, 4) of the source is laid over the target."""

    source: Rows
    target: Rows
    view: Views


@dataclass(frozen=True, eq=False)
class _Lookup:
    """Views (n, 4) that candidates are looked up for; least cosine, and how many per picture."""

    views: Views
    cosine: float
    most: int


_SMALL = _Lookup(_SMALL_VIEWS, 0.86, 16)
_LARGE = _Lookup(_LARGE_VIEWS, 0.72, 6)


def candidates(coarse: npt.NDArray[np.int8]) -> Pairs:
    """Pairs with similar coarse spectra, before and after a first-order correction of the view.

    Args:
        coarse: (n, N_COARSE), of `ImageCodes`.
    """
    spectra = _Spectra(coarse)
    whole = spectra.seen(None)
    cells = build_cells(whole)
    near = max(_LARGE.cosine, _bar(whole, _LARGE.most))
    lookups = (_SMALL, _Lookup(_LARGE.views, near, _LARGE.most))
    parts = [part for lookup in lookups for part in _look_up(spectra, cells, lookup)]
    if not parts:
        return Pairs(np.empty(0, np.intp), np.empty(0, np.intp), np.empty((0, 4), np.float32))
    source, target, view = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pairs(source, target, view)


class _Spectra:
    """The coarse spectra of a collection, whitened by what its pictures have in common.

    Lungs in the middle and shoulders above are in every chest X-ray. Few pictures say little about
    what is common, so their covariance counts less.
    """

    def __init__(self, coarse: npt.NDArray[np.int8]) -> None:
        self._coarse = coarse
        self._fade = np.exp(-((RADIUS / _FADE) ** 2)).astype(np.float32)
        self._white = whitening(unit(coarse * self._fade), _RIDGE, _FEW, _DIRECTIONS)

    def seen(self, crop: Matrix | None) -> Vectors:
        """Unit vectors (n, _DIRECTIONS) of the pictures, whole or cropped."""
        spectra = self._coarse if crop is None else self._coarse @ crop.T
        return self._white(unit(spectra * self._fade))

    def whiten(self, rows: Rows, change: Matrix | None) -> Vectors:
        """Whitened spectra (len(rows), _DIRECTIONS), after a linear change of the raw ones."""
        spectra = self._coarse[rows].astype(np.float32)
        changed = spectra if change is None else spectra @ change.T
        out: Vectors = (changed * self._fade) @ self._white.matrix
        return out


def _bar(vectors: Vectors, most: int) -> float:
    """Cosine above which three in four pictures have fewer than `most` others.

    In a large collection strangers are as near as copies in a small one.

    Args:
        vectors: (n, d), unit length.
        most: neighbours.
    """
    if len(vectors) <= most:
        return -1.0
    rows = np.linspace(0, len(vectors) - 1, min(_SAMPLE, len(vectors))).astype(np.intp)
    similar = vectors[rows] @ vectors.T
    similar[np.arange(len(rows)), rows] = -1
    return float(np.quantile(np.partition(similar, -most, axis=1)[:, -most], _WITH_ROOM))


def _look_up(
    spectra: _Spectra, cells: Cells, lookup: _Lookup
) -> Iterator[tuple[Rows, Rows, Views]]:
    """Source, target and corrected view of the neighbours that stay near when corrected."""
    n = len(cells.rows)
    views = (spectra.seen(_crop_matrix(*view)) for view in lookup.views)
    found = neighbours(cells, views, np.arange(n), lookup.cosine, lookup.most)
    for number, view in enumerate(lookup.views):
        chosen = np.flatnonzero(found.view == number)
        crop, slopes = _crop_matrix(*view), _slopes(*view)
        for start in range(0, len(chosen), _BLOCK):
            part = chosen[start : start + _BLOCK]
            source, target = found.query[part], found.row[part]
            seen, shown = spectra.whiten(source, crop), spectra.whiten(target, None)
            moves = np.stack([spectra.whiten(source, slope) for slope in slopes], axis=1)
            step, cosine = _correct(seen, moves, shown)
            good = cosine >= _CORRECTED
            yield source[good], target[good], view + step[good]


@cache
def _slopes(*view: float) -> tuple[Matrix, ...]:
    """How `_crop_matrix` changes with each of the four numbers of the view."""
    steps = np.eye(4) * _DIFFERENCE
    return tuple(
        (_crop_matrix(*(view + step)) - _crop_matrix(*(view - step))) / np.float32(2 * _DIFFERENCE)
        for step in steps
    )


@cache
def _crop_matrix(*view: float) -> Matrix:
    """Matrix (N_COARSE, N_COARSE) from the spectrum of a picture to that of a view of it."""
    down, across = (_crop_axis(view[i], view[i + 1]) for i in (0, 2))
    crop = down[np.ix_(ROWS, ROWS)] * across[np.ix_(COLUMNS, COLUMNS)]
    out: Matrix = (RADIUS[:, None] * crop / RADIUS).astype(np.float32)
    return out


def _crop_axis(shift: float, scale: float) -> Matrix:
    """The same for one axis, (_SIDE, _SIDE): back to places, a look, and forth to frequencies."""
    waves = dct(np.eye(_SIDE), axis=0, norm="ortho")
    one = np.array([[shift], [scale]], np.float32)
    out: Matrix = waves @ samplers(one[0], one[1], _SIDE)[0] @ waves.T
    return out


def _correct(
    seen: Vectors, moves: npt.NDArray[np.float32], shown: Vectors
) -> tuple[Views, npt.NDArray[np.float32]]:
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
