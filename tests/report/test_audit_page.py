"""audit.html: answers and copies, one file that loads nothing."""

from __future__ import annotations

import base64
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
    ("a/1.png", "a/2.png", "exact", 1.0, "covid19", "normal", "train", "test", "p1", "p2", True),
    ("a/<b>.png", "a/4.png", "near", 0.93, "healthy", "negative", "", "", "p3", "p4", False),
    ("a/5.png", "a/6.png", "near", 0.91, "normal", "normal", "train", "train", "p5", "p5", False),
]
COLUMNS = [
    "path_a", "path_b", "kind", "score", "label_a", "label_b", "split_a", "split_b",
    "patient_a", "patient_b", "contradicting",
]  # fmt: skip


def check(name: str, verdict: str, **more: object) -> dict[str, object]:
    base = {"value": 1.0, "low": None, "high": None, "detail": f"What {name} found.", "remedy": ""}
    return {"id": name, "verdict": verdict, "modality": "", **base, **more}


AUDITED = {
    "manifest": "mine.parquet",
    "sha256": "0f" * 32,
    "study": None,
    "classes": {"covid19": ["covid19"], "well": ["normal", "not_covid19"]},
    "without_class": 7,
    "unreadable_at_scan": [
        {"path": "a/empty.png", "reason": "is empty", "remedy": "leave it out"},
    ],
    "seed": 23,
    "version": "0.9.9",
    "date": "2026-01-02T03:04:05+00:00",
    "modalities": [
        {"modality": "ct", "files": 1234, "left_out_before": 5, "patients": 99,
         "patient_unknown": 12, "sources": ["one", "two"], "sites": 3},
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = [
        {"source": "one", "site": "all", "covid19": 12},
        {"source": "one", "site": "phone", "covid19": 7},
    ]
    checks = [
        check("leakage.exact_duplicate", "fail"),
        check("labels.contradiction", "warn"),
        check("confounding.traits", "pass", modality="ct", value=0.51, low=0.4, high=0.6),
        check("support", "pass", modality="ct", table=table),
    ]
    (tmp_path / "audit.json").write_text(json.dumps({"verdict": "fail", "checks": checks}))
    (tmp_path / "audited.json").write_text(json.dumps(AUDITED))
    pd.DataFrame(
        [
            ("a/torn.png", "ct", "one", "read", "ends <early>", "copy it again"),
            ("a/odd.png", "ct", "one", "label", "no class", "none needed"),
        ],
        columns=["path", "modality", "source", "stage", "reason", "remedy"],
    ).to_csv(tmp_path / "excluded.csv", index=False)
    pd.DataFrame(PAIRS, columns=COLUMNS).to_csv(tmp_path / "duplicates.csv", index=False)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    cv2.imwrite(str(pairs / "0.jpg"), np.full((40, 40), 90, np.uint8))
    entries = [dict(zip(COLUMNS, row, strict=True)) for row in PAIRS]
    entries[0] |= {"image_a": "0.jpg", "image_b": "../outside.png"}
    (pairs / "index.json").write_text(json.dumps(entries))
    write_audit_page(tmp_path)
    return tmp_path


def test_answers_are_grouped_and_the_gravest_come_first_in_the_summary(folder: Path) -> None:
    page = read_page(folder / "audit.html")
    wanted = ["audited", "leakage", "labels", "shortcuts", "size", "pairs"]
    assert [name for name in page.ids() if name in wanted] == wanted
    assert page.unbalanced == []
    assert "leakage of equal files" in page.texts["answer"]
    assert "0.51 [0.40, 0.60]" in page.texts["shortcuts"]


def test_the_page_says_what_was_audited(folder: Path) -> None:
    page = read_page(folder / "audit.html")
    text = page.texts["audited"]
    for words in ("mine.parquet", "0f" * 32, "23", "2026-01-02T03:04:05+00:00", "0.9.9"):
        assert words in text
    assert "covid19, well (labels normal, not_covid19) as the data sets label them" in text
    assert "7 records have no class" in text
    head, row = page.tables["Files and patients"]
    assert dict(zip(head, row, strict=True)) == {
        "Data": "CT", "Files": "1,234", "Left out before": "5", "Patients": "99",
        "Files of unknown patients": "12", "Sites": "3", "Sources": "one, two",
    }  # fmt: skip


def test_files_that_could_not_be_read_are_named(folder: Path) -> None:
    page = read_page(folder / "audit.html")
    rows = page.tables["Unreadable files"][1:]
    assert rows == [
        ["a/empty.png", "is empty", "leave it out"],
        ["a/torn.png", "ends <early>", "copy it again"],
    ]
    assert "2, listed below" in page.texts["audited"]
    assert "1 of them was left out when the manifest was made" in page.texts["audited"]


def test_odd_files_are_named_with_what_becomes_of_them(folder: Path) -> None:
    pd.DataFrame(
        [("a/cat.png", "ct", "one", "not_radiology", "looks like a <photo>", "leave it out", True)],
        columns=["path", "modality", "source", "kind", "reason", "remedy", "excluded"],
    ).to_csv(folder / "remarks.csv", index=False)
    write_audit_page(folder)
    page = read_page(folder / "audit.html")
    assert page.tables["Odd files"][1:] == [
        ["a/cat.png", "looks like a <photo>", "leave it out", "yes"]
    ]


def test_an_audit_of_an_earlier_version_has_a_page_too(folder: Path) -> None:
    (folder / "audited.json").unlink()
    (folder / "excluded.csv").unlink()
    write_audit_page(folder)
    assert "Not recorded" in read_page(folder / "audit.html").texts["audited"]


def test_patients_are_counted_by_source_and_site(folder: Path) -> None:
    table = read_page(folder / "audit.html").tables["Patients per class and split, CT"]
    assert table == [["source", "site", "covid19"], ["one", "all", "12"], ["one", "phone", "7"]]


def test_pairs_are_counted_and_folded_by_gravity(folder: Path) -> None:
    page = read_page(folder / "audit.html")
    text = page.texts["pairs"]
    assert "3 pairs of files: 1 with equal content, 2 nearly equal" in text
    assert "1 of them carry contradicting labels, 1 lie across two splits" in text
    folds = [attributes for tag, attributes in page.tags if tag == "details"][-2:]
    assert [f["id"] for f in folds] == ["pairs-contradicting", "pairs-near"]
    assert ["open" in f for f in folds] == [True, False]
    html = (folder / "audit.html").read_text(encoding="utf-8")
    assert html.count("data:image/") == 1, "a picture outside the folder is not shown"
    assert html.count('loading="lazy"') == 1
    assert "a/&lt;b&gt;.png" in html


def test_pairs_beyond_those_drawn_are_said_to_be_listed_only(folder: Path) -> None:
    entries = json.loads((folder / "pairs" / "index.json").read_text(encoding="utf-8"))
    (folder / "pairs" / "index.json").write_text(json.dumps(entries[:2]))
    write_audit_page(folder)
    text = read_page(folder / "audit.html").texts["pairs"]
    assert "Nearly equal on one side: 2 pairs, 1 of them pictured" in text
    assert "The other 1 are listed in duplicates.csv , without a picture." in text


def test_a_small_jpeg_is_shown_byte_for_byte(folder: Path) -> None:
    wanted = base64.b64encode((folder / "pairs" / "0.jpg").read_bytes()).decode("ascii")
    assert f"data:image/jpeg;base64,{wanted}" in (folder / "audit.html").read_text("utf-8")


def test_the_page_loads_nothing(folder: Path) -> None:
    page = read_page(folder / "audit.html")
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert all(str(a.get("src", "data:")).startswith("data:") for _, a in page.tags)


def test_a_folder_without_an_audit_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"audit\.json"):
        write_audit_page(tmp_path)
