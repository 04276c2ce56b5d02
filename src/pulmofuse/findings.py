"""Findings of a chest X-ray: the vocabulary, and how a manifest states them.

A label is one class of a patient; findings are many statements about one image, each of them
present (1), absent (0) or not said. What a data set does not say is never taken for a negative: a
set of tuberculosis X-rays says nothing of hernias. The manifest's column `findings` holds them as
the text of a JSON object, `{"mass": 1, "hernia": 0}`; a name that is not there is not said.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class Finding(StrEnum):
    """What a data set may say of a chest X-ray; the first 14 are those of NIH ChestX-ray14.

    Wang X. et al., ChestX-ray8, CVPR 2017, and the authors' extension to 14, in their order.
    """

    ATELECTASIS = "atelectasis"
    CARDIOMEGALY = "cardiomegaly"
    EFFUSION = "effusion"
    INFILTRATION = "infiltration"
    MASS = "mass"
    NODULE = "nodule"
    PNEUMONIA = "pneumonia"
    PNEUMOTHORAX = "pneumothorax"
    CONSOLIDATION = "consolidation"
    EDEMA = "edema"
    EMPHYSEMA = "emphysema"
    FIBROSIS = "fibrosis"
    PLEURAL_THICKENING = "pleural_thickening"
    HERNIA = "hernia"
    LUNG_OPACITY = "lung_opacity"  # the RSNA challenge's: an opacity that suggests pneumonia
    TUBERCULOSIS = "tuberculosis"
    COVID19 = "covid19"
    ARDS = "ards"  # acute respiratory distress syndrome


#: The findings of NIH ChestX-ray14, in the order of its lists.
NIH_FINDINGS: tuple[Finding, ...] = tuple(Finding)[:14]

_NAMES = tuple(finding.value for finding in Finding)


def findings_text(stated: Mapping[Finding, int]) -> str | None:
    """Findings as the manifest writes them, in the order of `Finding`; None where nothing is said.

    >>> findings_text({Finding.HERNIA: 0, Finding.MASS: 1})
    '{"mass": 1, "hernia": 0}'
    """
    ordered = {finding.value: int(stated[finding]) for finding in Finding if finding in stated}
    return json.dumps(ordered) if ordered else None


@lru_cache(maxsize=4096)
def parse_findings(text: str) -> Mapping[Finding, int]:
    """Read what `findings_text` wrote.

    Raises:
        ValueError: no JSON object, a name that is no finding, one that stands twice, or a value
            that is neither 0 nor 1.
    """
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        pairs = None
    # Any other JSON value is a list, text, a number or null.
    if not isinstance(pairs, tuple):
        raise ValueError(  # noqa: TRY004  # the type of the text is right, its content is not
            'is not a JSON object such as {"mass": 1, "hernia": 0}'
        )
    stated: dict[Finding, int] = {}
    for name, value in pairs:
        if name not in _NAMES:
            nearest = difflib.get_close_matches(name.lower(), _NAMES, n=1, cutoff=0.6)
            known = f"the nearest is {nearest[0]}" if nearest else f"they are {', '.join(_NAMES)}"
            raise ValueError(f"names {name!r}, which is no finding; {known}")
        if type(value) is not int or value not in (0, 1):
            raise ValueError(f"says {name} is {value!r}; 1 is present, 0 absent, nothing not said")
        if Finding(name) in stated:
            raise ValueError(f"names {name} twice")
        stated[Finding(name)] = value
    return stated


def findings_matrix(texts: Iterable[str | None], findings: Iterable[str]) -> NDArray[np.float32]:
    """What the manifest says of some findings.

    Args:
        texts: (n,) cells of the column `findings`.
        findings: (k,) names, in the order of the columns.

    Returns:
        (n, k): 1 present, 0 absent, NaN not said.
    """
    names = [Finding(name) for name in findings]
    rows = [parse_findings(text) if isinstance(text, str) else {} for text in texts]
    values = [[row.get(name, np.nan) for name in names] for row in rows]
    return np.array(values, dtype=np.float32).reshape(len(rows), len(names))
