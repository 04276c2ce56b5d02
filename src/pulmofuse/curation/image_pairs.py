"""Which pictures are copies of one another, by their fingerprints alone.

Three sieves, each finer and dearer than the one before: coarse spectra (`image_candidates`);
correlation of the detail at half size; correlation of the detail after alignment, as a whole and
where it fits worst.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from pulmofuse.curation.alignment import WHOLE, blur, likeness, refine, weakest_likeness
from pulmofuse.curation.image_candidates import Pairs, candidates
from pulmofuse.curation.image_fingerprint import ImageCodes, unpack_images
from pulmofuse.curation.neighbours import Rows

#: Correlation of the detail as a whole from which it is looked at piece by piece.
_ALIKE = 0.72
#: Correlation of the pieces that fit worst from which two pictures are one: for a picture shown
#: whole, for a crop, and for a large crop. Cropping costs detail, as the grid of the crop is finer;
#: the slices of one CT, which only this figure tells apart, all show the same field. Chosen on one
#: half of benchmarks/near_duplicates.py.
_SAME_WHOLE, _SAME_CROP, _SAME_LARGE_CROP = 0.8, 0.75, 0.67
#: Largest shift, and change of scale, of a picture shown whole.
_WHOLE = 0.01
#: Scale below which an axis of a view is that of a large crop; 5 % cut at both ends leave 90 %.
_LARGE = 0.88
#: Correlation of the detail at half size from which it is looked at in full; before that, most
#: pairs are strangers, and the alignment is a first guess.
_HALF_ALIKE = 0.45
_BLURRED_STEPS, _DETAIL_STEPS = 3, 2
#: Blur that widens the reach of the detail's alignment, grid cells.
_BLUR = 1.0
#: Pairs aligned at a time.
_BLOCK = 256


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
        pairs = candidates(codes.coarse[rows])
        pairs = Pairs(rows[pairs.source], rows[pairs.target], pairs.view)
        for pair, score in zip(*_compare(codes, pairs), strict=True):
            scores[pair] = max(score, scores.get(pair, 0.0))
    found = sorted(scores)
    first, second = np.array(found, np.intp).reshape(-1, 2).T
    return first, second, np.array([scores[pair] for pair in found], np.float32)


def _compare(codes: ImageCodes, pairs: Pairs) -> tuple[list[tuple[int, int]], list[float]]:
    """The pairs of rows (smaller, greater) with the same detail, and its correlation."""
    likely = _half_alike(codes, pairs)
    found, scores = [], []
    for part in _blocks(likely):
        one, other = codes.detail(part.source), codes.detail(part.target)
        view = refine(blur(one, _BLUR), blur(other, _BLUR), part.view, _BLURRED_STEPS)
        view = refine(one, other, view, _DETAIL_STEPS)
        alike = likeness(one, other, view) >= _ALIKE
        score = weakest_likeness(one, other, view)
        good = alike & (score >= _least(view))
        ends = np.sort(np.stack([part.source, part.target], axis=1)[good], axis=1)
        found += [(a, b) for a, b in ends.tolist()]
        scores += score[good].clip(max=1).tolist()
    return found, scores


def _least(view: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Correlation (n,) that what fits worst must have, by how much each view (n, 4) leaves out."""
    whole = np.abs(view - WHOLE).max(axis=1) < _WHOLE
    large = view[:, 1::2].min(axis=1) < _LARGE
    return np.select([whole, large], [_SAME_WHOLE, _SAME_LARGE_CROP], _SAME_CROP)


def _half_alike(codes: ImageCodes, pairs: Pairs) -> Pairs:
    """Those of the pairs whose detail is alike at half size."""

    def compare(part: Pairs) -> npt.NDArray[np.float32]:
        return likeness(codes.half_detail(part.source), codes.half_detail(part.target), part.view)

    with ThreadPoolExecutor() as pool:
        alike = list(pool.map(compare, _blocks(pairs)))
    kept = np.concatenate([np.empty(0, np.float32), *alike]) >= _HALF_ALIKE
    return Pairs(pairs.source[kept], pairs.target[kept], pairs.view[kept])


def _blocks(pairs: Pairs) -> Iterator[Pairs]:
    """The pairs, a few at a time."""
    for start in range(0, len(pairs.source), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield Pairs(pairs.source[part], pairs.target[part], pairs.view[part])
