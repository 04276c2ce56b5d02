"""A step is done once for the same inputs, and again when they change."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from pulmofuse.errors import StudyError
from pulmofuse.pipeline import Silent, Steps, locked


class Work:
    """Counts its calls and writes its output."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.output.write_text("done")
        return "did it"


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "output.txt")


def _run(out: Path, work: Work, inputs: object, workspace: Path | None = None) -> str:
    return Steps(out, Silent()).run("step", "A step", inputs, [work.output], work, workspace)


def test_the_same_inputs_are_worked_on_once(tmp_path: Path, work: Work) -> None:
    first = _run(tmp_path, work, {"a": 1})
    assert _run(tmp_path, work, {"a": 1}) == first
    assert work.calls == 1


def test_other_inputs_or_a_lost_output_are_worked_on_again(tmp_path: Path, work: Work) -> None:
    _run(tmp_path, work, {"a": 1})
    _run(tmp_path, work, {"a": 2})
    work.output.unlink()
    _run(tmp_path, work, {"a": 2})
    assert work.calls == 3
    assert Steps(tmp_path, Silent()).runs("step") == 3


def test_half_done_work_is_kept_for_the_same_inputs_and_deleted_for_others(
    tmp_path: Path, work: Work
) -> None:
    workspace = tmp_path / "checkpoints"

    def stopped() -> str:
        workspace.mkdir(exist_ok=True)
        (workspace / "epoch-3").touch()
        raise KeyboardInterrupt

    steps = Steps(tmp_path, Silent())
    with pytest.raises(KeyboardInterrupt):
        steps.run("step", "A step", 1, [work.output], stopped, workspace)
    _run(tmp_path, work, 1, workspace)
    assert (workspace / "epoch-3").exists()
    _run(tmp_path, work, 2, workspace)
    assert not workspace.exists()


def test_a_damaged_record_means_doing_it_again(tmp_path: Path, work: Work) -> None:
    _run(tmp_path, work, 1)
    (tmp_path / "steps" / "step.json").write_text("{")
    _run(tmp_path, work, 1)
    assert work.calls == 2


def _hold(out: Path, ready: object, leave: object) -> None:
    with locked(out):
        ready.set()  # type: ignore[attr-defined]
        leave.wait(30)  # type: ignore[attr-defined]


def test_two_processes_do_not_share_an_output_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, leave))
    other.start()
    assert ready.wait(60)
    with pytest.raises(StudyError, match="another process"), locked(tmp_path):
        pass
    leave.set()
    other.join(30)
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be written"), locked(tmp_path / "file" / "out"):
        pass
