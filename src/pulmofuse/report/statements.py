"""What a rule of the conclusion gives, and how it finds its figures in the tables of a study."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from pulmofuse.report.fusion_files import FusionFiles
from pulmofuse.report.results import Headline
from pulmofuse.report.study_files import StudyFiles

CHANCE = 0.5


@dataclass(frozen=True)
class Statement:
    """One thing that the figures say.

    Attributes:
        rule: name of the rule that made it.
        tone: "for" supports the study's claim, "against" speaks against it, "note" does neither.
        text: a sentence or two.
    """

    rule: str
    tone: str
    text: str


#: A rule looks at figures and gives one statement or none.
Rule = Callable[[StudyFiles, Headline, FusionFiles], Statement | None]


def figures(row: pd.Series) -> tuple[float, float, float] | None:
    """(value, low, high) of a row; None without a finite value."""
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    return (value, low, high) if math.isfinite(value) else None


def rows_of(frame: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Rows of a table whose columns have these values; none where a column is missing."""
    if frame.empty or any(name not in frame for name in wanted):
        return pd.DataFrame()
    keep = pd.Series(True, index=frame.index)
    for name, value in wanted.items():
        keep &= frame[name] == value
    return frame[keep]


def row_of(frame: pd.DataFrame, **wanted: str) -> pd.Series | None:
    """The first of `rows_of`; None where there is none."""
    rows = rows_of(frame, **wanted)
    return None if rows.empty else rows.iloc[0]
