"""`pulmofuse audit`: from a manifest and its files to audit.json, duplicates.csv and audit.html."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pulmofuse.auditing import audit_manifest
from pulmofuse.cli import app
from pulmofuse.curation import reading
from pulmofuse.errors import ManifestError
from pulmofuse.schema import manifest_frame, write_manifest
from pulmofuse.sources.synthetic import SyntheticConfig, generate

DUPLICATES = [
    "path_a", "path_b", "kind", "score", "label_a", "label_b", "split_a", "split_b",
    "patient_a", "patient_b", "contradicting",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """X-rays of 24 simulated patients; a shrunk JPEG copy in train of one in test; a torn one."""
    root = tmp_path_factory.mktemp("data")
    generate(root, SyntheticConfig(patients=24, classes=("normal", "covid19"), seed=5))
    paths = sorted(p.relative_to(root).as_posix() for p in (root / "cxr").rglob("*.png"))
    rows = [
        {
            "record_id": path,
            "patient_id": f"made:{number}",
            "patient_known": True,
            "modality": "cxr",
            "path": path,
            "label": path.split("/")[1],
            "source": "made",
            "split": "test" if number % 3 == 0 else "train",
        }
        for number, path in enumerate(paths)
    ]
    tested = next(row for row in rows if row["split"] == "test")
    picture = cv2.imread(str(root / str(tested["path"])), cv2.IMREAD_GRAYSCALE)
    smaller = cv2.resize(picture, None, fx=0.85, fy=0.85, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(root / "copy.jpg"), smaller, [cv2.IMWRITE_JPEG_QUALITY, 85])
    rows.append({**tested, "record_id": "copy", "path": "copy.jpg", "split": "train"})
    rows[-1]["patient_id"] = "made:another"
    other = next(row for row in rows if row["label"] == "normal" and row["split"] == "train")
    (root / "torn.png").write_bytes((root / str(other["path"])).read_bytes())
    rows.append({**other, "record_id": "torn", "path": "torn.png", "label": "covid19"})
    rows[-1]["patient_id"] = "made:third"
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows.append({**other, "record_id": "broken", "path": "broken.png", "patient_id": "made:4th"})
    write_manifest(root / "manifest.csv", manifest_frame(rows))
    return root


@pytest.fixture(scope="module")
def out(root: Path) -> Path:
    folder = root / "audit"
    words = ["audit", str(root / "manifest.csv"), "--data-root", str(root), "--out", str(folder)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "verdict: fail" in result.output
    assert str(folder / "audit.html") in result.output.replace("\n", "")
    return folder


def test_planted_leak_and_contradiction_are_found_and_nothing_else_leaks(out: Path) -> None:
    checks = json.loads((out / "audit.json").read_text(encoding="utf-8"))["checks"]
    verdicts = [(c["id"], c["verdict"]) for c in checks if not c["modality"]]
    assert ("leakage.near_duplicate", "fail") in verdicts
    assert ("labels.contradiction", "fail") in verdicts
    assert ("leakage.patient", "pass") in verdicts
    assert ("leakage.exact_duplicate", "pass") in verdicts


def test_duplicates_are_listed_with_the_gravest_first(out: Path) -> None:
    table = pd.read_csv(out / "duplicates.csv")
    assert table.columns.tolist() == DUPLICATES
    assert table["kind"].tolist()[:2] == ["exact", "near"]
    assert set(table.loc[0, ["label_a", "label_b"]]) == {"normal", "covid19"}
    assert set(table.loc[1, ["split_a", "split_b"]]) == {"test", "train"}
    assert "copy.jpg" in set(table.loc[1, ["path_a", "path_b"]])
    assert len(table) == 2


def test_the_page_shows_the_pairs(out: Path) -> None:
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == 4
    assert "copy.jpg" in page


def test_a_broken_file_is_listed_and_ends_nothing(out: Path) -> None:
    assert pd.read_csv(out / "excluded.csv")["path"].tolist() == ["broken.png"]


def test_json_is_audit_json_and_a_second_run_reads_no_good_file(
    root: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    read = reading._read
    monkeypatch.setattr(
        reading, "_read", lambda where, row: (opened.append(row["path"]), read(where, row))[1]
    )
    words = ["audit", str(root / "manifest.csv"), "--data-root", str(root), "--out", str(out)]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(result.stdout) == json.loads((out / "audit.json").read_text("utf-8"))
    assert opened == []


def test_a_manifest_without_a_readable_file_is_one_clear_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="none of its"):
        audit_manifest(root / "manifest.csv", tmp_path, tmp_path / "out")


def test_a_study_configuration_gives_the_classes(root: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: made\nquestion: is it?\nsources: [{name: folder}]\n"
        "target: {classes: [sick, well], positive: sick, mapping: {covid19: sick, normal: well}}\n"
    )
    words = ["audit", str(root / "manifest.csv"), "--data-root", str(root)]
    found = CliRunner().invoke(app, [*words, "--out", str(tmp_path), "--config", str(study)])
    assert found.exit_code == 0, found.output
    table = pd.read_csv(tmp_path / "duplicates.csv")
    assert set(table["label_a"]) | set(table["label_b"]) == {"sick", "well"}


def test_pixels_are_those_of_the_copy_not_of_a_stranger(root: Path, out: Path) -> None:
    pairs = json.loads((out / "pairs" / "index.json").read_text(encoding="utf-8"))
    near = next(pair for pair in pairs if pair["kind"] == "near")
    a, b = (
        cv2.imread(str(out / "pairs" / near[key]), cv2.IMREAD_GRAYSCALE).astype(float).ravel()
        for key in ("image_a", "image_b")
    )
    assert np.corrcoef(a, b)[0, 1] > 0.98
