"""Which recordings are copies of one another, by their fingerprints alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pulmofuse.curation.neighbours import Rows, build_cells, neighbours
from pulmofuse.curation.sound_fingerprint import unpack_sounds

#: Cosine of two patches from which the onset may be the same, and how many for each onset.
_CANDIDATE, _CANDIDATES = 0.85, 16
#: Score from which two recordings are one (benchmarks/near_duplicates.py).
ALIKE = 0.85


def sound_pairs(fingerprints: list[bytes]) -> tuple[Rows, Rows, npt.NDArray[np.float32]]:
    """Pairs of rows whose recordings are the same but for format, gain and what is cut off.

    Args:
        fingerprints: of `sound_fingerprint`, all different.

    Returns:
        First row, second row (first < second) and score, 0 to 1; sorted.
    """
    codes = unpack_sounds(fingerprints)
    patches = codes.patches(slice(None))
    if not len(patches):
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.float32)
    cells = build_cells(patches)
    found = neighbours(cells, [patches], codes.owner, _CANDIDATE, _CANDIDATES)
    a, b, score = found.query, found.row, found.score
    pairs, place = np.unique(
        np.sort(np.stack([codes.owner[a], codes.owner[b]], axis=1), axis=1),
        axis=0,
        return_inverse=True,
    )
    best = np.zeros(len(pairs), np.float32)
    np.maximum.at(best, place.ravel(), score)
    alike = best >= ALIKE
    return pairs[alike, 0], pairs[alike, 1], best[alike]
