"""What is odd about one file that can be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from pulmofuse.schema import Oddity

__all__ = ["Oddity", "Remark", "mark_shared_files", "series_remarks"]


@dataclass(frozen=True)
class Remark:
    """One oddity of one file.

    Attributes:
        kind: which.
        reason: in plain words, without a full stop, e.g. "looks like a lateral view (score .98)".
        remedy: what the user can do, without a full stop.
    """

    kind: Oddity
    reason: str
    remedy: str


def series_remarks(traits: Mapping[str, Any]) -> tuple[Remark, ...]:
    """What is wrong with a folder of slices, from the trait `flaws` of `io.read_series`."""
    return tuple(Remark(Oddity.INCOMPLETE, *flaw) for flaw in traits.get("flaws", ()))


def mark_shared_files(records: pd.DataFrame) -> pd.DataFrame:
    """Add a remark to every file whose very content stands under another modality as well.

    A picture is CT or X-ray and never both, whatever the classifier of views makes of it; which of
    the two places is wrong, its bytes do not say.

    Args:
        records: path, modality, sha256 (null where unknown), remarks (JSON text, or null); no index
            label stands twice.

    Returns:
        The same rows and columns, with those remarks.
    """
    known = records[records["sha256"].notna()]
    modalities = known.groupby("sha256")["modality"].transform("nunique")
    shared = known[modalities > 1]
    if shared.empty:
        return records
    marked = records["remarks"].copy()
    for _, copies in shared.groupby("sha256"):
        for row, path, modality in zip(
            copies.index, copies["path"], copies["modality"], strict=True
        ):
            others = copies[copies["modality"] != modality]
            other = f"{others['path'].iloc[0]}, among {str(others['modality'].iloc[0]).upper()}"
            remark = Remark(
                Oddity.WRONG_MODALITY,
                f"{path}, among {str(modality).upper()}, is the same file as {other}",
                "leave it out where it does not belong",
            )
            before = json.loads(marked[row]) if isinstance(marked[row], str) else []
            marked[row] = json.dumps([*before, asdict(remark)])
    return records.assign(remarks=marked)
