"""The benchmark of unseen sites does again what came of other settings, and nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark with two variants of a study file of its own, without its training."""
    spec = importlib.util.spec_from_file_location(
        "unseen_sites", REPOSITORY / "benchmarks" / "unseen_sites.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    study = tmp_path / "study.yaml"
    study.write_text("name: first\n")
    monkeypatch.setattr(module, "STUDY", study)
    monkeypatch.setattr(module, "VARIANTS", {"plain": {}, "long": {"ct.training.epochs": "9"}})
    arguments = ["--data-root", str(tmp_path), "--out", str(tmp_path), "--seeds", "1,2"]
    monkeypatch.setattr(sys, "argv", ["unseen_sites.py", *arguments])
    return module


@pytest.fixture
def done(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Variant and seed of each run, in their order."""
    runs: list[tuple[str, int]] = []

    def run(name: str, seed: int, data_root: Path, out: Path) -> list[dict[str, object]]:
        runs.append((name, seed))
        return [{"modality": "ct", "val_none": float(len(runs))}]

    monkeypatch.setattr(benchmark, "run", run)
    return runs


def test_a_finished_line_is_not_computed_again(
    benchmark: ModuleType, done: list[tuple[str, int]]
) -> None:
    benchmark.main()
    assert done == [("plain", 1), ("long", 1), ("plain", 2), ("long", 2)]
    benchmark.main()
    assert len(done) == 4


def test_other_settings_of_a_variant_are_computed_and_the_stale_lines_not_shown(
    benchmark: ModuleType, done: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.main()
    benchmark.VARIANTS["long"]["ct.training.epochs"] = "12"
    capsys.readouterr()
    benchmark.main()
    assert done[4:] == [("long", 1), ("long", 2)]
    shown = capsys.readouterr().out
    # Runs 1 and 3 were the plain ones, 5 and 6 the new long ones.
    assert "2.0" in shown
    assert "5.5" in shown
    assert "3.0" not in shown


def test_another_study_file_is_another_result(
    benchmark: ModuleType, done: list[tuple[str, int]]
) -> None:
    benchmark.main()
    benchmark.STUDY.write_text("name: second\n")
    benchmark.main()
    assert len(done) == 8
