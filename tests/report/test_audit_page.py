"""audit.html: answers and copies, one file that loads nothing."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pulmofuse.errors import StudyError
from pulmofuse.report import write_audit_page
from tests.report.page import read_page

PAIRS = [
    ("a/1.png", "a/2.png", "exact", 1.0, "covid19", "normal", "train", "test", "p1", "p2"),
    ("a/<b>.png", "a/4.png", "near", 0.93, "normal", "not_covid19", "", "", "p3", "p4"),
    ("a/5.png", "a/6.png", "near", 0.91, "normal", "normal", "train", "train", "p5", "p5"),
]
COLUMNS = [
    "path_a", "path_b", "kind", "score", "label_a", "label_b", "split_a", "split_b",
    "patient_a", "patient_b",
]  # fmt: skip


def check(name: str, verdict: str, **more: object) -> dict[str, object]:
    base = {"value": 1.0, "low": None, "high": None, "detail": f"What {name} found.", "remedy": ""}
    return {"id": name, "verdict": verdict, "modality": "", **base, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = [{"source": "one", "covid19": 12, "auc": 0.75}, {"source": "two", "covid19": 0}]
    checks = [
        check("leakage.exact_duplicate", "fail"),
        check("labels.contradiction", "warn"),
        check("confounding.traits", "pass", modality="ct", value=0.51, low=0.4, high=0.6),
        check("support", "pass", modality="ct", table=table),
    ]
    (tmp_path / "audit.json").write_text(json.dumps({"verdict": "fail", "checks": checks}))
    pd.DataFrame(PAIRS, columns=COLUMNS).to_csv(tmp_path / "duplicates.csv", index=False)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    cv2.imwrite(str(pairs / "000-a.png"), np.full((40, 40), 90, np.uint8))
    entries = [dict(zip(COLUMNS, row, strict=True)) for row in PAIRS]
    entries[0] |= {"image_a": "000-a.png", "image_b": "../outside.png"}
    (pairs / "index.json").write_text(json.dumps(entries))
    write_audit_page(tmp_path)
    return tmp_path


def test_answers_are_grouped_and_the_gravest_come_first_in_the_summary(folder: Path) -> None:
    page = read_page(folder / "audit.html")
    wanted = ["leakage", "labels", "shortcuts", "size", "pairs"]
    assert [name for name in page.ids() if name in wanted] == wanted
    assert page.unbalanced == []
    assert "leakage of equal files" in page.texts["answer"]
    assert "0.51 [0.40, 0.60]" in page.texts["shortcuts"]


def test_pairs_are_counted_and_shown(folder: Path) -> None:
    text = read_page(folder / "audit.html").texts["pairs"]
    assert "3 pairs" in text
    assert "1 with equal content, 2 nearly equal" in text
    assert "1 of them carry contradicting labels, 1 lie across two splits" in text
    html = (folder / "audit.html").read_text(encoding="utf-8")
    assert html.count("data:image/") == 1, "a picture outside the folder is not shown"
    assert "a/&lt;b&gt;.png" in html


def test_the_page_loads_nothing(folder: Path) -> None:
    page = read_page(folder / "audit.html")
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert all(str(a.get("src", "data:")).startswith("data:") for _, a in page.tags)


def test_a_folder_without_an_audit_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"audit\.json"):
        write_audit_page(tmp_path)
