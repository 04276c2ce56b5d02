"""The files of a study that speak of fusion: paired tests, controls, dependence, shares, curves.

Every one may be missing (one modality, an older study, a step that is switched off): its table is
then empty, and its part of the report says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pulmofuse.errors import StudyError

_AGAIN = "run the study again; finished steps are kept"

_TEXT = {
    "family", "metric", "subset", "method", "subset_a", "method_a", "subset_b", "method_b", "test",
    "control", "detail", "modality", "weight_rule", "split", "label", "note", "class", "question",
}  # fmt: skip

#: File of each table.
TABLES: dict[str, str] = {
    "comparisons": "comparisons.csv",
    "controls": "fusion_controls.csv",
    "dependence": "rho_curve.csv",
    "shares": "shapley.csv",
    "decisions": "decision_curves.csv",
    "prevalence": "prevalence.csv",
    "reliability": "calibration.csv",
    "conformal": "conformal.csv",
    "pairs": "pairs.csv",
}


@dataclass(frozen=True, eq=False)
class FusionFiles:
    """Tables as they are in the files; a table that is not there has no rows and no columns."""

    comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    controls: pd.DataFrame = field(default_factory=pd.DataFrame)
    dependence: pd.DataFrame = field(default_factory=pd.DataFrame)
    shares: pd.DataFrame = field(default_factory=pd.DataFrame)
    decisions: pd.DataFrame = field(default_factory=pd.DataFrame)
    prevalence: pd.DataFrame = field(default_factory=pd.DataFrame)
    reliability: pd.DataFrame = field(default_factory=pd.DataFrame)
    conformal: pd.DataFrame = field(default_factory=pd.DataFrame)
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    power: Mapping[str, Any] = field(default_factory=dict)


def read_fusion(folder: Path) -> FusionFiles:
    """Read what there is.

    Raises:
        StudyError: a file is damaged.
    """
    tables = {name: _table(folder / file) for name, file in TABLES.items()}
    return FusionFiles(**tables, power=_power(folder / "power.json"))


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (OSError, ValueError) as error:
        raise StudyError(path, f"cannot be read as a table ({error})", _AGAIN) from None
    text = [name for name in frame if name in _TEXT]
    frame[text] = frame[text].fillna("").astype(str)
    return frame


def _power(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StudyError(path, f"is not JSON ({error})", _AGAIN) from None
