"""audit.html: the answers of the audit, and the copies side by side."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pulmofuse.curation.copies import labels_agree
from pulmofuse.errors import StudyError
from pulmofuse.files import read_json, write_text
from pulmofuse.report.environment import environment
from pulmofuse.report.limits import check_title
from pulmofuse.report.names import COLOURS
from pulmofuse.report.pictures import thumbnail_uri
from pulmofuse.report.study_files import Audit, Check, read_audit

_PICTURE_PIXELS = 220

#: Start of the ids, anchor and heading of each part of the page.
_GROUPS = (
    ("leakage.", "leakage", "Does training know the test set?"),
    ("labels.", "labels", "Do the labels agree?"),
    ("confounding.", "shortcuts", "Does something other than disease tell the classes apart?"),
    ("", "size", "Are there enough patients?"),
)


@dataclass(frozen=True)
class _Pair:
    """Two files that are copies of each other."""

    kind: str
    contradicting: bool
    across: bool
    cells: dict[str, str]
    pictures: dict[str, str | None]


def write_audit_page(folder: Path) -> Path:
    """Read audit.json, duplicates.csv and pairs/ of a folder; write `audit.html` into it.

    The page is one file that loads nothing from anywhere.

    Raises:
        StudyError: audit.json or duplicates.csv is missing or damaged.
    """
    audit = read_audit(folder)
    duplicates = _duplicates(folder / "duplicates.csv")
    across = _across(duplicates)
    context: dict[str, Any] = {
        "summary": _summary(audit),
        "verdicts": _verdicts(audit),
        "groups": _groups(audit),
        "n_pairs": len(duplicates),
        "n_exact": int((duplicates["kind"] == "exact").sum()),
        "n_contradicting": sum(
            not labels_agree(a, b)
            for a, b in zip(duplicates["label_a"], duplicates["label_b"], strict=True)
        ),
        "n_across": int(across.sum()),
        "pairs": _pairs(folder),
        "colours": COLOURS,
    }
    path = folder / "audit.html"
    write_text(path, environment().get_template("audit.html.j2").render(context))
    return path


def _duplicates(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise StudyError(path, f"cannot be read as a table ({error})", "audit again") from None


def _across(duplicates: pd.DataFrame) -> pd.Series:
    placed = (duplicates["split_a"] != "") & (duplicates["split_b"] != "")
    return placed & (duplicates["split_a"] != duplicates["split_b"])


def _verdicts(audit: Audit) -> list[tuple[str, int]]:
    counts = Counter(check.verdict for check in audit.checks)
    return [(verdict, counts[verdict]) for verdict in ("fail", "warn", "pass") if counts[verdict]]


def _summary(audit: Audit) -> str:
    """One sentence made of the gravest answers."""
    grave = [check for check in audit.checks if check.verdict == "fail"]
    if grave:
        named = list(dict.fromkeys(_lower(check_title(c) or c.id) for c in grave))
        return f"Not as it is. What speaks against it: {'; '.join(named)}."
    if any(check.verdict == "warn" for check in audit.checks):
        return "With care: nothing forbids it, and the warnings below belong beside every figure."
    return "Nothing that was asked speaks against it."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _groups(audit: Audit) -> list[tuple[str, str, list[tuple[Check, str]]]]:
    """Anchor, heading and checks of each part that has any."""
    left = list(audit.checks)
    found = []
    for start, anchor, heading in _GROUPS:
        own = [check for check in left if check.id.startswith(start)]
        left = [check for check in left if not check.id.startswith(start)]
        if own:
            found.append((anchor, heading, [(check, check_title(check)) for check in own]))
    return found


def _pairs(folder: Path) -> list[_Pair]:
    index = folder / "pairs" / "index.json"
    entries = read_json(index) if index.is_file() else []
    return [_pair(folder, entry) for entry in entries]


def _pair(folder: Path, entry: dict[str, Any]) -> _Pair:
    cells = {key: "" if value is None else str(value) for key, value in entry.items()}
    pictures = {
        side: thumbnail_uri(folder / "pairs" / name, folder, _PICTURE_PIXELS) if name else None
        for side in ("a", "b")
        for name in [cells.get(f"image_{side}")]
    }
    kind = cells["kind"]
    splits = {cells["split_a"], cells["split_b"]}
    return _Pair(
        kind="Equal content" if kind == "exact" else f"Nearly equal (score {cells['score'][:5]})",
        contradicting=not labels_agree(cells["label_a"], cells["label_b"]),
        across="" not in splits and len(splits) > 1,
        cells=cells,
        pictures=pictures,
    )
