"""Which fusion a study makes its claim of: the one named before any result, in every file alike."""

from __future__ import annotations

from collections.abc import Iterable

from pulmofuse.schema import SUBSET_JOIN, Modality

#: Named before any result: log-odds needs no pairs and no tuning. The others stand in only where it
#: was not run. To choose the best of them on test would flatter, and to choose it on validation
#: would claim another rule in every study.
CLAIMED_METHODS: tuple[str, ...] = ("log_odds", "weighted_mean", "mean", "gated_attention")

_ORDER = [m.value for m in Modality]


def claimed(fusions: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The (subset, method) that a study claims something of.

    Args:
        fusions: (subset, method) of what has a figure; single modalities are passed over.

    Returns:
        Of the largest subset the first of `CLAIMED_METHODS`; of subsets equally large the first in
        the order CT, CXR, cough. None where nothing was fused by any of these methods.
    """
    named = [
        (subset, method)
        for subset, method in fusions
        if SUBSET_JOIN in subset and method in CLAIMED_METHODS
    ]
    return min(named, key=_precedence, default=None)


def _precedence(fusion: tuple[str, str]) -> tuple[int, list[int], int]:
    subset, method = fusion
    parts = subset.split(SUBSET_JOIN)
    places = [_ORDER.index(p) if p in _ORDER else len(_ORDER) for p in parts]
    return -len(parts), places, CLAIMED_METHODS.index(method)
