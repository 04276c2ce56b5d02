"""Reading the files of a manifest once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import soundfile

from pulmofuse.curation import read_files, reading, remark_rows, unreadable_files
from pulmofuse.files import sha256_file, sha256_path
from pulmofuse.schema import Oddity


def silent(done: int, total: int, note: str) -> None:
    del done, total, note


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        pixels = cv2.GaussianBlur(rng.integers(0, 255, (96, 80), dtype=np.uint8), (0, 0), 4)
        cv2.imwrite(str(tmp_path / name), cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX))
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    soundfile.write(tmp_path / "c.wav", rng.normal(0, 0.1, 16000), 16000)
    return tmp_path


@pytest.fixture
def manifest() -> pd.DataFrame:
    paths = ["b.png", "c.wav", "cut.png", "a.png", "absent.png"]
    modality = ["cxr", "cough", "cxr", "ct", "cxr"]
    return pd.DataFrame({"path": paths, "modality": modality, "source": "made up"})


def test_one_row_per_file_in_the_order_of_the_manifest(root: Path, manifest: pd.DataFrame) -> None:
    files = read_files(manifest, root, None, silent)
    assert files["path"].tolist() == manifest["path"].tolist()
    assert files["reason"].isna().tolist() == [True, True, False, True, False]
    assert files["sha256"].iloc[0] == sha256_file(root / "b.png")
    assert json.loads(files["traits"].iloc[0])["width"] == 80
    assert json.loads(files["traits"].iloc[1])["sample_rate_hz"] == 16000
    assert all(isinstance(f, bytes) and f for f in files["fingerprint"][[0, 1, 3]])


def test_unreadable_files_are_exclusions_with_reason_and_remedy(
    root: Path, manifest: pd.DataFrame
) -> None:
    faults = unreadable_files(read_files(manifest, root, None, silent), manifest)
    assert faults["path"].tolist() == ["cut.png", "absent.png"]
    assert faults["stage"].eq("read").all()
    assert "ends after 200" in faults["reason"].iloc[0]
    assert faults["reason"].iloc[1] == "no such file"


def test_a_killed_run_goes_on_and_a_changed_file_is_read_again(
    root: Path, manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_BATCH_FILES", "_LEAST_BATCH", "_MOST_BATCH", "_PART_FILES"):
        monkeypatch.setattr(reading, limit, 2)
    store = tmp_path / "store"

    def killed(done: int, total: int, note: str) -> None:
        del total, note
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_files(manifest, root, store, killed)
    opened: list[str] = []
    read = reading._read
    monkeypatch.setattr(
        reading, "_read", lambda where, row: (opened.append(row["path"]), read(where, row))[1]
    )
    whole = read_files(manifest, root, store, silent)
    assert opened == ["absent.png"]
    pd.testing.assert_frame_equal(whole, read_files(manifest, root, None, silent))
    opened.clear()
    (root / "cut.png").write_bytes((root / "b.png").read_bytes())
    again = read_files(manifest, root, store, silent)
    assert sorted(opened) == ["absent.png", "cut.png"]
    assert pd.isna(again["reason"].iloc[2])


def test_folders_pipes_and_large_files_are_left_to_their_reader(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "series").mkdir()
    for name in ("a.png", "b.png"):
        (root / "series" / name).write_bytes((root / name).read_bytes())
    os.mkfifo(root / "pipe.png")
    paths = ["series", "pipe.png", "b.png"]
    manifest = pd.DataFrame({"path": paths, "modality": "ct", "source": "made up"})
    whole = read_files(manifest, root, None, silent)
    assert whole["sha256"].iloc[0] == sha256_path(root / "series")
    assert whole["sha256"].iloc[1] is None
    assert whole["reason"].iloc[1] == "is not a regular file"
    # Above the limit a file is not read into memory for its hash; what is seen stays the same.
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 10)
    pd.testing.assert_frame_equal(read_files(manifest, root, None, silent), whole)


def test_remarks_become_rows_and_say_what_leaves_a_file_out() -> None:
    remarks = [
        {"kind": "lateral", "reason": "seen from the side", "remedy": "leave it out"},
        {"kind": "burnt_in_text", "reason": "letters", "remedy": "none needed"},
    ]
    records = pd.DataFrame(
        {
            "path": ["a.png", "b.png", "c.png"],
            "modality": "cxr",
            "source": "made up",
            "remarks": [json.dumps(remarks), "[]", None],
        }
    )
    rows = remark_rows(records, [Oddity.LATERAL])
    assert rows["path"].tolist() == ["a.png", "a.png"]
    assert rows["kind"].tolist() == ["lateral", "burnt_in_text"]
    assert rows["excluded"].tolist() == [True, False]


def test_a_damaged_part_of_the_store_costs_a_second_reading_only(
    root: Path, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    first = read_files(manifest, root, store, silent)
    for part in store.rglob("*.parquet"):
        part.write_bytes(b"PAR1 damaged")
    pd.testing.assert_frame_equal(read_files(manifest, root, store, silent), first)


def test_another_store_is_read_and_never_written(
    root: Path, manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    read_files(manifest[manifest["path"] != "absent.png"], root, theirs, silent)
    before = {p: p.stat().st_mtime_ns for p in theirs.rglob("*")}
    opened: list[str] = []
    read = reading._read
    monkeypatch.setattr(
        reading, "_read", lambda where, row: (opened.append(row["path"]), read(where, row))[1]
    )
    read_files(manifest, root, ours, silent, seen_before=theirs)
    assert opened == ["absent.png"]
    assert {p: p.stat().st_mtime_ns for p in theirs.rglob("*")} == before


@pytest.mark.parametrize(
    ("size", "seconds", "following"),
    [(32, 0.5, 32), (32, 0.0, 64), (32, 0.05, 64), (32, 1.0, 16), (32, 60.0, 8), (400, 0.3, 512)],
)
def test_batches_take_about_half_a_second(size: int, seconds: float, following: int) -> None:
    assert reading._next_size(size, seconds) == following
