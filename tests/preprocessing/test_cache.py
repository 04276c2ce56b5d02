"""The cache decodes each content once, survives being killed, and is the same in every run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pulmofuse.preprocessing.cache as cache_module
from pulmofuse.config import CoughPreprocessing, CtPreprocessing, CxrPreprocessing
from pulmofuse.errors import StudyError
from pulmofuse.preprocessing import build_cache, prepare
from pulmofuse.schema import Modality
from tests.io import samples as s

CONFIG = CxrPreprocessing(size=32)


def image(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (36, 40), dtype=np.uint8)
    return s.encode(pixels, ".png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Seven images, one copy of the first, one web page and one empty file."""
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    for i in range(7):
        (root / f"{i}.png").write_bytes(image(i))
    (root / "sub" / "copy of 0.png").write_bytes(image(0))
    (root / "page.png").write_bytes(b"<html>404</html>")
    (root / "empty.png").write_bytes(b"")
    return root


PATHS = [*(f"{i}.png" for i in range(7)), "sub/copy of 0.png", "page.png", "empty.png", "gone.png"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded, in the order of their start."""
    names: list[str] = []
    original = cache_module.prepare

    def counting(source: Path, *args: Any, **kwargs: Any) -> Any:
        names.append(source.name)
        return original(source, *args, **kwargs)

    monkeypatch.setattr(cache_module, "prepare", counting)
    return names


def build(root: Path, folder: Path, paths: list[str] = PATHS, **kwargs: Any) -> Any:
    return build_cache(paths, root, Modality.CXR, CONFIG, folder, **kwargs)


def home(folder: Path) -> Path:
    return next(folder.glob("cxr-*"))


def mapped_bytes() -> int:
    """Bytes of mapped files that are resident in this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssFile"))


class TestContent:
    def test_instances_are_those_of_prepare(self, root: Path, tmp_path: Path) -> None:
        cache = build(root, tmp_path / "cache")
        for path in cache.index["path"]:
            expected = prepare(root / path, Modality.CXR, CONFIG)
            np.testing.assert_array_equal(cache.instances[cache.rows(path)], expected.instances)
        traits = json.loads(cache.index["traits"].iloc[0])
        assert traits == prepare(root / "0.png", Modality.CXR, CONFIG).seen.traits

    @pytest.mark.parametrize(
        "key", [3, [3, 0, 3], slice(2, 5), np.array([6, 1]), (slice(None), 4), (2, 3, 4)], ids=str
    )
    def test_rows_are_found_as_in_any_array(self, root: Path, tmp_path: Path, key: Any) -> None:
        rows = build(root, tmp_path / "cache").instances
        found = rows[key]
        np.testing.assert_array_equal(found, np.array(rows)[key])
        with pytest.raises((ValueError, TypeError)):
            rows[key] = 0

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
    def test_rows_that_were_read_do_not_stay_resident(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mib = 1 << 20
        monkeypatch.setattr(cache_module, "_RESIDENT_BYTES", 4 * mib)
        (tmp_path / "data").mkdir()
        names = [f"{i}.png" for i in range(40)]
        for i, name in enumerate(names):
            (tmp_path / "data" / name).write_bytes(image(i))
        config = CxrPreprocessing(size=1024)
        folder = tmp_path / "cache"
        rows = build_cache(names, tmp_path / "data", Modality.CXR, config, folder).instances
        assert rows.nbytes == 40 * mib
        before = mapped_bytes()
        order = np.random.default_rng(0).permutation(40)
        read = np.concatenate([rows[batch] for batch in np.split(order, 20)])
        assert mapped_bytes() - before < 12 * mib
        np.testing.assert_array_equal(read, np.array(rows)[order])

    def test_tables_follow_the_order_asked_for(self, root: Path, tmp_path: Path) -> None:
        cache = build(root, tmp_path / "cache")
        assert cache.index["path"].tolist() == PATHS[:8]
        assert cache.unreadable["path"].tolist() == PATHS[8:]
        backwards = build(root, tmp_path / "cache", PATHS[3::-1])
        assert backwards.index["path"].tolist() == PATHS[3::-1]

    def test_unreadable_files_say_why(self, root: Path, tmp_path: Path) -> None:
        unreadable = build(root, tmp_path / "cache").unreadable.set_index("path")
        assert "web page" in unreadable.loc["page.png", "reason"]
        assert "empty" in unreadable.loc["empty.png", "reason"]
        assert "no such file" in unreadable.loc["gone.png", "reason"]
        assert (unreadable["remedy"].str.len() > 5).all()

    def test_the_same_content_is_decoded_once(
        self, root: Path, tmp_path: Path, opened: list[str]
    ) -> None:
        cache = build(root, tmp_path / "cache")
        assert cache.rows("0.png") == cache.rows("sub/copy of 0.png")
        assert opened.count("0.png") + opened.count("copy of 0.png") == 1
        assert len(cache.instances) == 7

    def test_several_instances_per_file(self, tmp_path: Path) -> None:
        config = CoughPreprocessing(duration_s=0.2, max_windows=3)
        for name, duration_s in (("a.wav", 0.5), ("b.wav", 0.2), ("c.wav", 2.0)):
            (tmp_path / name).write_bytes(s.sound(s.tone(duration_s)))
        cache = build_cache(
            ["a.wav", "b.wav", "c.wav"], tmp_path, Modality.COUGH, config, tmp_path / "cache"
        )
        assert cache.instances.shape == (7, 3200)
        assert cache.instances.dtype == np.int16
        assert [cache.rows(p) for p in ("a.wav", "b.wav", "c.wav")] == [
            slice(0, 3),
            slice(3, 4),
            slice(4, 7),
        ]

    def test_nothing_readable_gives_an_empty_cache(self, root: Path, tmp_path: Path) -> None:
        cache = build(root, tmp_path / "cache", ["gone.png"])
        assert cache.instances.shape == (0, 32, 32)
        assert len(cache.index) == 0

    def test_unknown_path_is_a_key_error(self, root: Path, tmp_path: Path) -> None:
        cache = build(root, tmp_path / "cache")
        with pytest.raises(KeyError):
            cache.rows("page.png")

    def test_configurations_do_not_mix(self, root: Path, tmp_path: Path) -> None:
        build(root, tmp_path / "cache")
        other = build_cache(
            PATHS, root, Modality.CXR, CxrPreprocessing(size=48), tmp_path / "cache"
        )
        assert other.instances.shape == (7, 48, 48)
        build_cache(PATHS[:2], root, Modality.CT, CtPreprocessing(size=32), tmp_path / "cache")
        assert len(list((tmp_path / "cache").iterdir())) == 3

    def test_two_runs_write_the_same_bytes(self, root: Path, tmp_path: Path) -> None:
        for folder in ("one", "two"):
            build(root, tmp_path / folder)
        one, two = (home(tmp_path / f) for f in ("one", "two"))
        assert (one / "instances.bin").read_bytes() == (two / "instances.bin").read_bytes()

    def test_progress_counts_to_the_total(self, root: Path, tmp_path: Path) -> None:
        calls: list[tuple[int, int]] = []
        build(root, tmp_path / "cache", progress=lambda done, total: calls.append((done, total)))
        assert calls[0] == (0, len(PATHS))
        assert calls[-1] == (len(PATHS), len(PATHS))
        assert calls == sorted(calls)


class TestSecondRun:
    def test_no_file_is_opened(
        self, root: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # "empty.png" has content, if none; only what could not be hashed is tried again.
        first = build(root, tmp_path / "cache")
        opened.clear()
        monkeypatch.setattr(cache_module, "content_hash", lambda path: opened.append(path.name))
        second = build(root, tmp_path / "cache")
        assert opened == []
        assert second.index.equals(first.index)
        assert second.unreadable.equals(first.unreadable)
        np.testing.assert_array_equal(first.instances, second.instances)

    def test_a_touched_or_moved_file_is_hashed_but_not_decoded(
        self, root: Path, tmp_path: Path, opened: list[str]
    ) -> None:
        first = build(root, tmp_path / "cache")
        os.utime(root / "1.png", ns=(1, 1))
        (root / "2.png").rename(root / "moved.png")
        opened.clear()
        second = build(root, tmp_path / "cache", ["1.png", "moved.png", "page.png"])
        assert opened == []
        assert second.rows("1.png") == first.rows("1.png")
        assert second.rows("moved.png") == first.rows("2.png")

    def test_changed_content_is_decoded_again(self, root: Path, tmp_path: Path) -> None:
        build(root, tmp_path / "cache")
        (root / "1.png").write_bytes(image(99))
        (root / "page.png").write_bytes(image(98))
        (root / "3.png").unlink()
        cache = build(root, tmp_path / "cache")
        for path in ("1.png", "page.png"):
            expected = prepare(root / path, Modality.CXR, CONFIG).instances
            np.testing.assert_array_equal(cache.instances[cache.rows(path)], expected)
        assert "3.png" in set(cache.unreadable["path"])
        assert not set(cache.index["path"]) & set(cache.unreadable["path"])

    def test_a_file_that_appears_is_read(self, root: Path, tmp_path: Path) -> None:
        build(root, tmp_path / "cache")
        (root / "gone.png").write_bytes(image(50))
        assert "gone.png" in set(build(root, tmp_path / "cache").index["path"])

    def test_new_files_are_appended(self, root: Path, tmp_path: Path, opened: list[str]) -> None:
        first = build(root, tmp_path / "cache", PATHS[:3])
        opened.clear()
        second = build(root, tmp_path / "cache", PATHS[:5])
        assert sorted(opened) == ["3.png", "4.png"]
        np.testing.assert_array_equal(first.instances, second.instances[:3])

    def test_another_version_is_made_anew(
        self, root: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(root, tmp_path / "cache", PATHS[:3])
        opened.clear()
        monkeypatch.setattr(cache_module, "PREPROCESSING_VERSION", 999)
        assert len(build(root, tmp_path / "cache", PATHS[:3]).instances) == 3
        assert len(opened) == 3


KILLED = """
import os, signal, sys
from pathlib import Path
from pulmofuse.config import CxrPreprocessing
from pulmofuse.preprocessing import build_cache
from pulmofuse.schema import Modality
root, folder = Path(sys.argv[1]), Path(sys.argv[2])
def progress(done, total):
    if done >= 96:
        os.kill(os.getpid(), signal.SIGKILL)
paths = sorted(p.name for p in root.iterdir())
build_cache(paths, root, Modality.CXR, CxrPreprocessing(size=32), folder, progress)
"""


class TestResume:
    def test_a_killed_run_goes_on(self, tmp_path: Path, opened: list[str]) -> None:
        root, folder = tmp_path / "data", tmp_path / "cache"
        root.mkdir()
        for i in range(130):
            (root / f"{i:03}.png").write_bytes(image(i))
        paths = sorted(p.name for p in root.iterdir())
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(root), str(folder)], check=False, timeout=60
        )
        assert done.returncode == -signal.SIGKILL
        with (home(folder) / "instances.bin").open("ab") as stream:
            stream.write(b"\x07" * 700)  # half a row, as a kill in mid-append leaves it
        resumed = build(root, folder, paths)
        assert len(opened) == 130 - 64
        fresh = build(root, tmp_path / "fresh", paths)
        np.testing.assert_array_equal(resumed.instances, fresh.instances)
        assert resumed.index.equals(fresh.index)

    def test_lost_rows_are_made_again(self, root: Path, tmp_path: Path, opened: list[str]) -> None:
        first = build(root, tmp_path / "cache", PATHS[:5])
        expected = np.array(first.instances)
        del first
        os.truncate(home(tmp_path / "cache") / "instances.bin", 3 * 32 * 32 + 5)
        opened.clear()
        second = build(root, tmp_path / "cache", PATHS[:5])
        assert sorted(opened) == ["3.png", "4.png"]
        np.testing.assert_array_equal(second.instances, expected)

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": "x"}'])
    def test_a_damaged_description_starts_anew(
        self, content: str, root: Path, tmp_path: Path
    ) -> None:
        build(root, tmp_path / "cache")
        (home(tmp_path / "cache") / "cache.json").write_text(content)
        assert len(build(root, tmp_path / "cache").index) == 8

    def test_a_damaged_index_says_what_to_do(self, root: Path, tmp_path: Path) -> None:
        build(root, tmp_path / "cache")
        (home(tmp_path / "cache") / "index.parquet").write_bytes(b"PAR1 not really")
        with pytest.raises(StudyError, match="Delete the folder"):
            build(root, tmp_path / "cache")


class TestFaults:
    def test_a_second_process_is_turned_away(self, root: Path, tmp_path: Path) -> None:
        build(root, tmp_path / "cache", PATHS[:1])
        script = (
            "import fcntl, sys, time; f = open(sys.argv[1], 'a');"
            "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
        )
        lock = home(tmp_path / "cache") / ".lock"
        with subprocess.Popen(
            [sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE
        ) as other:
            try:
                assert other.stdout is not None
                assert other.stdout.readline() == b"held\n"
                with pytest.raises(StudyError, match="another process"):
                    build(root, tmp_path / "cache")
            finally:
                other.kill()
        time.sleep(0.05)
        assert len(build(root, tmp_path / "cache").index) == 8

    def test_a_folder_that_cannot_be_made(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StudyError, match="cannot be written"):
            build(root, tmp_path / "file" / "cache")

    def test_a_full_disk(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_handle: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(cache_module.os, "fsync", full)
            with pytest.raises(StudyError, match="No space left on device"):
                build(root, tmp_path / "cache")
        assert len(build(root, tmp_path / "cache").instances) == 7

    def test_the_cache_can_be_moved(self, root: Path, tmp_path: Path, opened: list[str]) -> None:
        build(root, tmp_path / "cache")
        opened.clear()
        shutil.move(tmp_path / "cache", tmp_path / "elsewhere")
        shutil.copytree(root, tmp_path / "copied data")
        cache = build(tmp_path / "copied data", tmp_path / "elsewhere")
        assert [name for name in opened if name != "gone.png"] == []
        assert len(cache.index) == 8
