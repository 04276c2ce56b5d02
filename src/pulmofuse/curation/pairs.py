"""Which records are the same picture or recording: exact copies and near copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from pulmofuse.curation.image_pairs import image_pairs
from pulmofuse.curation.neighbours import Rows
from pulmofuse.curation.sound_pairs import sound_pairs
from pulmofuse.schema import Modality

#: Up to here every pair of a group of copies is named; of a larger group each with the first.
MAX_GROUP = 20

_Found = tuple[Rows, Rows, npt.NDArray[np.float32]]
_SEARCH: dict[str, Callable[[list[bytes]], _Found]] = {
    Modality.CT: image_pairs,
    Modality.CXR: image_pairs,
    Modality.COUGH: sound_pairs,
}


def find_pairs(records: pd.DataFrame) -> pd.DataFrame:
    """Pairs of records with the same content, in time n^1.5.

    Exact pairs have the same sha256, also under two modalities. Near pairs have fingerprints of one
    picture (re-encoded, resized, cropped, brighter, of other contrast, gamma or bit depth) or of
    one recording (re-encoded, resampled, louder, trimmed, with silence at the ends). Crops may cut
    up to 5 % at each edge; of those that cut up to 30 % of a side about nine in ten are found.
    Mirrored or inverted pictures are not looked for. A group of k copies gives all k(k-1)/2 pairs
    up to k = `MAX_GROUP`, and each with the first of a larger group. The result does not depend on
    the order of the rows.

    Args:
        records: record_id, modality, sha256 (null where unknown), fingerprint (bytes; null where
            unknown).

    Returns:
        record_a, record_b (record_a < record_b), kind ("exact" or "near"), score (0 to 1; 1 for
        exact), sorted by the two; each pair once.
    """
    ordered = records.reset_index(drop=True).sort_values("record_id", ignore_index=True)
    identity = ordered["record_id"].astype(str).to_numpy(object)
    found: dict[tuple[int, int], tuple[str, float]] = {}
    # Thousands of small products: threads of BLAS that wait for one another cost tenfold where
    # other programs want the same cores.
    with threadpool_limits(limits=1, user_api="blas"):
        for modality, part in ordered.groupby("modality", sort=True):
            for a, b, score in _near(part, _SEARCH[str(modality)]):
                found[a, b] = ("near", score)
        # One file in two places is one content, whatever modality each of them says.
        for group in _groups(ordered["sha256"].dropna()):
            found.update(dict.fromkeys(_pairs_within(group), ("exact", 1.0)))
    rows = [
        (identity[a], identity[b], kind, score) for (a, b), (kind, score) in sorted(found.items())
    ]
    out = pd.DataFrame(rows, columns=["record_a", "record_b", "kind", "score"])
    return out.astype({"score": "float64"})


def _near(
    part: pd.DataFrame, search: Callable[[list[bytes]], _Found]
) -> Iterator[tuple[int, int, float]]:
    """Pairs of index labels (first < second) and scores; equal fingerprints are searched once."""
    known = part["fingerprint"].dropna()
    known = known[known.map(len) > 0]
    members = [group.tolist() for group in known.groupby(known, sort=False).groups.values()]
    members.sort()
    for group in members:
        yield from ((a, b, 1.0) for a, b in _pairs_within(group))
    first, second, score = search([known[group[0]] for group in members])
    for a, b, s in zip(first.tolist(), second.tolist(), score.tolist(), strict=True):
        for x, y in _pairs_between(members[a], members[b]):
            yield min(x, y), max(x, y), s


def _groups(values: pd.Series) -> Iterator[list[int]]:
    """Index labels of each value that comes more than once."""
    repeated = values[values.duplicated(keep=False)]
    yield from (group.tolist() for group in repeated.groupby(repeated).groups.values())


def _pairs_within(group: list[int]) -> Iterator[tuple[int, int]]:
    if len(group) <= MAX_GROUP:
        yield from combinations(group, 2)
    else:
        yield from ((group[0], other) for other in group[1:])


def _pairs_between(one: list[int], other: list[int]) -> Iterator[tuple[int, int]]:
    """All pairs across two groups, or the first of a group too large for that."""
    small = [group if len(group) <= MAX_GROUP else group[:1] for group in (one, other)]
    yield from ((a, b) for a in small[0] for b in small[1])
