"""Which recordings are copies of one another, by their fingerprints alone.

Candidates share a strong onset: nearest neighbours among patches, whitened because every cough
looks like a cough. A pair is confirmed when the onsets of one recording stand at the same distances
in the other (the constellation of Wang, ISMIR 2003, with patches in place of peaks).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pulmofuse.curation.neighbours import Rows, Vectors, build_cells, neighbours, unit
from pulmofuse.curation.sound_fingerprint import N_BANDS, N_STEPS, SoundCodes, unpack_sounds

#: Onsets of each recording that candidates are looked up by, the strongest.
_LOOKED_UP = 4
#: Directions of the patches that candidates are looked up in, of 384.
_DIRECTIONS = 64
#: Correlation of levels one step (16 ms) and one band apart, and variance that neighbours do not
#: share. Coughs measure .85 and .78; a little more tells copies from strangers best (tuning half).
#: Fixed, so that the verdict on a pair does not depend on the other recordings.
_STEP_CORRELATION, _BAND_CORRELATION, _OWN_VARIANCE = 0.93, 0.9, 0.1
#: Cosine in these from which the onset may be the same, and how many for each onset. Of copies
#: 99.5 % lie above .95; of onsets of strangers 45 in a million above .9 (tuning half).
_CANDIDATE, _CANDIDATES = 0.9, 8
#: Two onsets are at the same place when they are no further apart; an Opus frame is 20 ms.
_SAME_TIME_S = 0.03
#: Best cosine of whitened patches from which two recordings can be one; with one onset in common,
#: and with more. Both, and the next, chosen on one half of benchmarks/near_duplicates.py.
_ALONE, _TOGETHER = 0.8, 0.7
#: Mean cosine of the onsets that both should have from which two recordings are one.
_SAME = 0.4
#: Patches whitened at a time.
_BLOCK = 1 << 14
#: Pairs confirmed at a time.
_PAIRS = 2048


def sound_pairs(fingerprints: list[bytes]) -> tuple[Rows, Rows, npt.NDArray[np.float32]]:
    """Pairs of rows whose recordings are the same but for format, gain and what is cut off.

    Args:
        fingerprints: of `sound_fingerprint`, all different.

    Returns:
        First row, second row (first < second) and mean agreement of the onsets that both should
        have, 0 to 1; sorted.
    """
    codes = unpack_sounds(fingerprints)
    if not len(codes.owner):
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.float32)
    starts = np.searchsorted(codes.owner, np.arange(len(fingerprints) + 1))
    white = _whitening(N_BANDS * N_STEPS)
    found = []
    pairs = _candidates(codes, starts)
    for begin in range(0, len(pairs), _PAIRS):
        block = pairs[begin : begin + _PAIRS]
        used = np.unique(block)
        onsets = np.flatnonzero(np.isin(codes.owner, used))
        vectors = unit(codes.patches(onsets) @ white)
        where = {row: slice(*np.searchsorted(onsets, starts[row : row + 2])) for row in used}
        for a, b in block.tolist():
            similar = vectors[where[a]] @ vectors[where[b]].T
            times = (codes.time_s[starts[row] : starts[row + 1]] for row in (a, b))
            if (score := _agreement(similar, *times)) >= _SAME:
                found.append((a, b, score))
    rows = np.array([pair[:2] for pair in found], np.intp).reshape(-1, 2)
    return rows[:, 0], rows[:, 1], np.array([pair[2] for pair in found], np.float32)


@cache
def _whitening(directions: int) -> npt.NDArray[np.float32]:
    """Matrix (N_STEPS * N_BANDS, directions) behind which the levels of a cough are independent.

    Levels are taken to correlate as in a first-order autoregression along time and across bands;
    of the directions those are kept in which patches vary most.
    """
    time, band = (
        correlation ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        for correlation, n in ((_STEP_CORRELATION, N_STEPS), (_BAND_CORRELATION, N_BANDS))
    )
    variance, axes = np.linalg.eigh(np.kron(time, band))
    return np.asarray((axes / np.sqrt(variance + _OWN_VARIANCE))[:, -directions:], np.float32)


def _candidates(codes: SoundCodes, starts: Rows) -> Rows:
    """Pairs of recordings (n, 2) with a strong onset in common, first < second, sorted."""
    place = np.arange(len(codes.owner)) - starts[codes.owner]
    strong = np.flatnonzero(place < _LOOKED_UP)
    white = _whitening(_DIRECTIONS)
    vectors = np.empty((len(strong), _DIRECTIONS), np.float32)
    for start in range(0, len(strong), _BLOCK):
        part = slice(start, start + _BLOCK)
        vectors[part] = unit(codes.patches(strong[part]) @ white)
    owner = codes.owner[strong]
    found = neighbours(build_cells(vectors), [vectors], owner, _CANDIDATE, _CANDIDATES)
    pairs = np.sort(np.stack([owner[found.query], owner[found.row]], axis=1), axis=1)
    return np.unique(pairs, axis=0)


def _agreement(similar: Vectors, one_s: Vectors, other_s: Vectors) -> float:
    """How well the onsets of two recordings agree at the best delay, 0 to 1.

    Args:
        similar: (k, l), cosine of each onset of one with each of the other.
        one_s: (k,), times of the one.
        other_s: (l,), times of the other.
    """
    best = np.unravel_index(similar.argmax(), similar.shape)
    delay = other_s[best[1]] - one_s[best[0]]
    apart = np.abs(other_s[None, :] - one_s[:, None] - delay)
    matched = np.where(apart <= _SAME_TIME_S, similar, 0).max(
        axis=1 if len(one_s) < len(other_s) else 0
    )
    together = matched[matched > 0]
    if similar[best] < (_ALONE if len(together) == 1 else _TOGETHER):
        return 0.0
    begin = max(one_s.min() + delay, other_s.min()) - _SAME_TIME_S
    end = min(one_s.max() + delay, other_s.max()) + _SAME_TIME_S
    expected = min(
        int(((times >= begin) & (times <= end)).sum()) for times in (one_s + delay, other_s)
    )
    return float(min(1.0, together.sum() / max(expected, 1)))
