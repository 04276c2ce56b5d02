"""Pictures of copies: which pairs, how large, and what was audited."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import soundfile

from pulmofuse.curation.copies import no_pairs
from pulmofuse.files import sha256_file
from pulmofuse.pipeline import audits, pairs
from pulmofuse.schema import manifest_frame
from tests.curation.copies import coughs, picture
from tests.report.page import read_page

COLUMNS = [
    "path_a", "path_b", "kind", "score", "label_a", "label_b", "split_a", "split_b",
    "patient_a", "patient_b", "contradicting",
]  # fmt: skip


def _pair(a: str, b: str, labels: str = "aa", splits: tuple[str | None, ...] = (None, None)):
    return (a, b, "near", 0.9, *labels, *splits, "p1", "p2", labels[0] != labels[1])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three wide pictures, a wide one of 16 bits, a recording, and a text."""
    for number in range(3):
        grey = np.round(picture(number, 300)[:200] * 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), grey)
    deep = np.round(picture(0, 300)[:200] * 900).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    soundfile.write(tmp_path / "cough.wav", coughs(1), 16_000)
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def _drawn(root: Path, *rows: tuple[object, ...]) -> list[dict[str, object]]:
    table = pd.DataFrame(rows, columns=COLUMNS)
    paths = {*table["path_a"], *table["path_b"]}
    modalities = {path: "cough" if path.endswith("wav") else "cxr" for path in paths}
    pairs.draw_pairs(table, modalities, root, root / "pairs")
    return json.loads((root / "pairs" / "index.json").read_text(encoding="utf-8"))


def _read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_pictures_are_those_of_the_files_small_and_as_bright(root: Path) -> None:
    (entry,) = _drawn(root, _pair("0.png", "deep.png"))
    shown = [_read(root / "pairs" / entry[key]) for key in ("image_a", "image_b")]
    original = cv2.resize(_read(root / "0.png"), (168, 112), interpolation=cv2.INTER_AREA)
    for small in shown:
        assert small.shape == (112, 168)
        assert np.corrcoef(small.ravel(), original.ravel())[0, 1] > 0.98
    assert np.abs(shown[0].astype(int) - shown[1].astype(int)).mean() < 2


def test_a_sound_is_its_spectrogram(root: Path) -> None:
    (entry,) = _drawn(root, _pair("cough.wav", "cough.wav"))
    image = _read(root / "pairs" / entry["image_a"])
    assert image.shape == (84, 224)
    # Coughs come and go: some columns are loud, others are not.
    loudness = image.mean(axis=0)
    assert loudness.max() > 2 * loudness.min()


def test_each_file_is_drawn_once_and_pictures_of_an_earlier_audit_go(root: Path) -> None:
    _drawn(root, _pair("0.png", "1.png"), _pair("1.png", "2.png"))
    assert len(list((root / "pairs").glob("*.jpg"))) == 3
    entries = _drawn(root, _pair("0.png", "2.png"))
    assert sorted(p.name for p in (root / "pairs").glob("*.jpg")) == ["0000.jpg", "0001.jpg"]
    assert [entries[0]["split_a"], entries[0]["score"]] == [None, 0.9]


def test_a_file_that_cannot_be_drawn_has_no_picture_and_ends_nothing(root: Path) -> None:
    (entry,) = _drawn(root, _pair("0.png", "text.png"))
    assert (entry["image_a"], entry["image_b"]) == ("0000.jpg", None)


@pytest.mark.parametrize(
    ("grave", "rest", "drawn"),
    [(0, 0, 0), (2, 1, 3), (2, 5, 4), (6, 3, 6), (9, 3, 8)],
    ids=["none", "few", "rest cut", "grave beyond the cap", "grave beyond theirs"],
)
def test_grave_pairs_are_always_drawn_and_the_rest_up_to_a_cap(
    monkeypatch: pytest.MonkeyPatch, grave: int, rest: int, drawn: int
) -> None:
    monkeypatch.setattr(pairs, "MOST_PAIRS", 4)
    monkeypatch.setattr(pairs, "MOST_GRAVE_PAIRS", 8)
    torn = [_pair("a", "b", "ab"), _pair("c", "d", "aa", ("train", "test"))]
    rows = [torn[i % 2] for i in range(grave)] + [_pair("e", "f", "aa", ("val", "val"))] * rest
    assert pairs.n_drawn(pd.DataFrame(rows, columns=COLUMNS)) == drawn


def test_five_hundred_pairs_make_a_page_of_less_than_fifteen_megabytes(root: Path) -> None:
    """Of square pictures with as much detail as noise has, which JPEG can hardly shrink."""
    noise = np.random.default_rng(0).integers(0, 256, (168, 168), np.uint8)
    real = cv2.GaussianBlur(noise, (0, 0), 1.5)
    cv2.imwrite(str(root / "0.png"), cv2.normalize(real, None, 0, 255, cv2.NORM_MINMAX))
    (entry,) = _drawn(root, _pair("0.png", "1.png"))
    content = (root / "pairs" / entry["image_a"]).read_bytes()
    assert 2 * 500 * len(base64.b64encode(content)) < 15_000_000


def test_the_page_of_an_audit_names_manifest_classes_and_unreadable_files(tmp_path: Path) -> None:
    frame = manifest_frame(
        {"record_id": name, "patient_id": name, "patient_known": name == "a", "modality": "ct",
         "path": f"{name}.png", "label": label, "source": "s", "site": "here"}
        for name, label in (("a", "normal"), ("b", "pneumonia"), ("c", "covid19"), ("d", "unknown"))
    )  # fmt: skip
    manifest = tmp_path / "mine.csv"
    manifest.write_text("the records\n")
    (tmp_path / "mine.excluded.csv").write_text(
        "path,modality,source,stage,reason,remedy\nx.png,ct,s,read,is empty,leave it out\n"
        "y.png,ct,s,scan,is not named,remove it\na.png,ct,s,read,was empty,mended since\n"
    )
    classes = {"normal": "well", "pneumonia": "well", "covid19": "ill"}
    records = frame.assign(y_true=frame["label"].map(classes), used=frame["record_id"] != "c")
    audits.write_audit(
        records, no_pairs(), 5, tmp_path, tmp_path / "out", manifest=manifest, study="mine"
    )
    told = json.loads((tmp_path / "out" / "audited.json").read_text(encoding="utf-8"))
    assert told["sha256"] == sha256_file(manifest)
    assert told["classes"] == {"ill": ["covid19"], "well": ["normal", "pneumonia"]}
    assert (told["without_class"], told["seed"], told["study"]) == (1, 5, "mine")
    assert told["unreadable_at_scan"] == [
        {"path": "x.png", "reason": "is empty", "remedy": "leave it out"}
    ]
    assert told["modalities"] == [
        {"modality": "ct", "files": 3, "left_out_before": 1, "patients": 3, "patient_unknown": 2,
         "sources": ["s"], "sites": 1},
    ]  # fmt: skip
    text = read_page(tmp_path / "out" / "audit.html").texts["audited"]
    assert "mine.csv" in text
    assert "as in the study mine" in text
    assert "x.png" in text


def test_a_list_beside_the_manifest_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    frame = manifest_frame(
        [{"record_id": "a", "patient_id": "a", "patient_known": True, "modality": "ct",
          "path": "a.png", "label": "unknown", "source": "s"}]
    )  # fmt: skip
    manifest = tmp_path / "mine.csv"
    manifest.write_text("the records\n")
    (tmp_path / "mine.excluded.csv").write_text("something else\n1\n")
    records = frame.assign(y_true=None, used=True)
    audits.write_audit(records, no_pairs(), 5, tmp_path, tmp_path / "out", manifest=manifest)
    told = json.loads((tmp_path / "out" / "audited.json").read_text(encoding="utf-8"))
    (entry,) = told["unreadable_at_scan"]
    assert entry["path"] == "mine.excluded.csv"
    assert "is not the list" in entry["reason"]
