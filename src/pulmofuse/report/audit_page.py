"""audit.html: what was audited, the answers, and the copies side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulmofuse.errors import StudyError
from pulmofuse.files import atomic_path, read_json
from pulmofuse.report.environment import environment
from pulmofuse.report.limits import check_title
from pulmofuse.report.names import COLOURS
from pulmofuse.report.pictures import picture_uri
from pulmofuse.report.study_files import Audit, Check, read_audit
from pulmofuse.schema import iterate

_PICTURE_PIXELS = 224

#: Stage of excluded.csv that a file which cannot be read stands under.
_READ = "read"
#: Unreadable files on the page; excluded.csv lists all of them.
_MOST_UNREADABLE = 200

#: Parts of the list of copies: anchor, heading, whether it stands open.
_FOLDS = (
    ("contradicting", "Contradicting labels", True),
    ("across", "Across splits", True),
    ("equal", "Equal content on one side", False),
    ("near", "Nearly equal on one side", False),
)

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


@dataclass(frozen=True)
class _Fold:
    """Pairs of one gravity.

    Attributes:
        anchor, title: of the part.
        n_listed: pairs of this kind in duplicates.csv.
        n_shown: how many of them are on the page.
        pairs: those, read from disk one by one while the page is written.
        open: whether the part stands open.
    """

    anchor: str
    title: str
    n_listed: int
    n_shown: int
    pairs: Iterator[_Pair]
    open: bool


def write_audit_page(folder: Path) -> Path:
    """Read audit.json, audited.json, duplicates.csv and pairs/ of a folder; write `audit.html`.

    The page is one file that loads nothing from anywhere. It is written piece by piece, so that
    memory does not grow with the number of pictures.

    Raises:
        StudyError: audit.json or duplicates.csv is missing or damaged.
    """
    audit = read_audit(folder)
    audited = _audited(folder / "audited.json")
    at_scan = list(audited["unreadable_at_scan"]) if audited else []
    unreadable = [row for row in _rows(folder / "excluded.csv") if row["stage"] == _READ]
    duplicates = _table(folder / "duplicates.csv")
    kinds = _kinds(duplicates)
    context: dict[str, Any] = {
        "summary": _summary(audit),
        "verdicts": _verdicts(audit),
        "audited": audited,
        "unreadable": [*at_scan, *unreadable],
        "n_at_scan": len(at_scan),
        "most_unreadable": _MOST_UNREADABLE,
        "odd": _rows(folder / "remarks.csv"),
        "groups": _groups(audit),
        "n_pairs": len(duplicates),
        "n_exact": int((duplicates["kind"] == "exact").sum()),
        "n_contradicting": int(kinds["contradicting"].sum()),
        "n_across": int(kinds["across"].sum()),
        "folds": _folds(folder, kinds),
        "colours": COLOURS,
    }
    path = folder / "audit.html"
    template = environment().get_template("audit.html.j2")
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as page:
        page.writelines(template.generate(context))
    return path


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise StudyError(path, f"cannot be read as a table ({error})", "audit again") from None


def _audited(path: Path) -> dict[str, Any] | None:
    """What was audited; null for an audit of an earlier version, which did not say."""
    return dict(read_json(path)) if path.is_file() else None


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, every cell as text; none where there is no such file."""
    return list(iterate(_table(path))) if path.is_file() else []


def _kinds(pairs: pd.DataFrame) -> pd.DataFrame:
    """Which pairs contradict each other, and which lie across two splits (bool columns)."""
    placed = (pairs["split_a"] != "") & (pairs["split_b"] != "")
    return pd.DataFrame(
        {
            "contradicting": (pairs["contradicting"] == "True").to_numpy(dtype=bool),
            "across": (placed & (pairs["split_a"] != pairs["split_b"])).to_numpy(dtype=bool),
            "exact": (pairs["kind"] == "exact").to_numpy(dtype=bool),
        }
    )


def _fold_of(kinds: pd.DataFrame) -> NDArray[np.str_]:
    """The gravest that is true of each pair: one of the anchors of `_FOLDS`."""
    return np.select(
        [kinds["contradicting"], kinds["across"], kinds["exact"]],
        ["contradicting", "across", "equal"],
        "near",
    )


def _folds(folder: Path, kinds: pd.DataFrame) -> list[_Fold]:
    """The pairs by gravity; kinds that do not occur are left out."""
    listed = _fold_of(kinds)
    entries = _entries(folder)
    shown = _fold_of(_kinds(pd.DataFrame(entries))) if entries else np.array([])
    found = []
    for anchor, title, is_open in _FOLDS:
        own = [entry for entry, fold in zip(entries, shown, strict=True) if fold == anchor]
        n_listed = int((listed == anchor).sum())
        if n_listed:
            pairs = (_pair(folder, entry) for entry in own)
            found.append(_Fold(anchor, title, n_listed, len(own), pairs, is_open))
    return found


def _entries(folder: Path) -> list[dict[str, str]]:
    """Pairs with pictures, every cell as text."""
    index = folder / "pairs" / "index.json"
    entries = read_json(index) if index.is_file() else []
    return [
        {key: "" if value is None else str(value) for key, value in entry.items()}
        for entry in entries
    ]


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


def _pair(folder: Path, cells: dict[str, str]) -> _Pair:
    """One pair with its pictures."""
    pictures = {
        side: picture_uri(folder / "pairs" / name, folder, _PICTURE_PIXELS) if name else None
        for side in ("a", "b")
        for name in [cells.get(f"image_{side}")]
    }
    (kind,) = _kinds(pd.DataFrame([cells])).to_dict("records")
    return _Pair(
        kind="Equal content" if kind["exact"] else f"Nearly equal (score {cells['score'][:5]})",
        contradicting=kind["contradicting"],
        across=kind["across"],
        cells=cells,
        pictures=pictures,
    )
