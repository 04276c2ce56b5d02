"""Bookkeeping of a study's steps: what is done is not done again unless its inputs changed."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

import pulmofuse
from pulmofuse.errors import StudyError
from pulmofuse.files import exclusive, sha256_json, write_json

#: Packages whose versions decide what comes out.
_PACKAGES = ("torch", "lightning", "monai", "numpy", "scikit-learn", "opencv-python-headless")


def versions() -> dict[str, str]:
    """Versions of Pulmofuse, Python and the packages that decide what comes out."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"pulmofuse": pulmofuse.__version__, "python": platform.python_version(), **packages}


def table_hash(table: pd.DataFrame) -> str:
    """A hash of the cells of a table, in the order of its rows."""
    return sha256_json(table.astype(str).to_numpy().tolist())


def cells_key(table: pd.DataFrame) -> int:
    """A number that changes with the cells of a table, not with the order of its rows; fast."""
    return int(pd.util.hash_pandas_object(table, index=False).sum())


def rows_hash(records: pd.DataFrame, columns: list[str]) -> str:
    """A hash of some columns of the records (`record_id` among them), whatever their order."""
    return table_hash(records[columns].sort_values("record_id"))


class Reporter(Protocol):
    """Shows a person how far the work is."""

    def step(self, title: str) -> None:
        """A step begins."""
        ...

    def update(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of this step are done."""
        ...

    def finish(self, note: str) -> None:
        """The step is over; `note` says what came of it."""
        ...


class Silent:
    """A reporter for programs that show nothing."""

    def step(self, title: str) -> None:
        """Say nothing."""
        del title

    def update(self, done: int, total: int, note: str = "") -> None:
        """Say nothing."""
        del done, total, note

    def finish(self, note: str) -> None:
        """Say nothing."""
        del note


class Steps:
    """Runs the steps of a study in `out`, each at most once for the same inputs.

    A step is done when `out/steps/<name>.json` holds the hash of its inputs and its outputs exist.
    """

    def __init__(self, out: Path, reporter: Reporter) -> None:
        self._out = out
        self._folder = out / "steps"
        self._reporter = reporter
        self._names: list[str] = []

    def run(
        self,
        name: str,
        title: str,
        inputs: Any,
        outputs: Sequence[Path],
        work: Callable[[], str],
        workspace: Path | None = None,
    ) -> str:
        """Run `work` unless it is done.

        Args:
            name: file name of the record of this step.
            title: what the person reads.
            inputs: JSON value; everything that the outcome depends on.
            outputs: files that the step leaves.
            work: does it and returns a note for the person.
            workspace: folder with half-done work (checkpoints) that belongs to these very inputs
                and is deleted when they have changed.

        Returns:
            The hash of the inputs, for steps that build on this one.
        """
        self._names.append(name)
        self._reporter.step(title)
        key = sha256_json(inputs)
        record, started = self._folder / f"{name}.json", self._folder / f"{name}.started.json"
        done = _read(record)
        if done.get("key") == key and all(path.exists() for path in outputs):
            self._reporter.finish(f"{done['note']} (done before)")
            return key
        if workspace is not None and workspace.exists() and _read(started).get("key") != key:
            shutil.rmtree(workspace)
        write_json(started, {"key": key})
        begin = time.perf_counter()
        note = work()
        seconds = round(time.perf_counter() - begin, 2)
        write_json(
            record,
            {"key": key, "note": note, "seconds": seconds, "runs": int(done.get("runs", 0)) + 1},
        )
        self._reporter.finish(note)
        return key

    def seconds(self) -> dict[str, float]:
        """Seconds that each step of this run took when it was worked on, by name."""
        records = {name: _read(self._folder / f"{name}.json") for name in self._names}
        return {name: float(record["seconds"]) for name, record in records.items() if record}

    def runs(self, name: str) -> int:
        """How often a step has run to its end in this folder."""
        return int(_read(self._folder / f"{name}.json").get("runs", 0))


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the output folder of a study for this process.

    Raises:
        StudyError: another process works in this folder, or it cannot be written.
    """
    remedy = "wait for it, or choose another --out"
    with ExitStack() as held:
        try:
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(exclusive(out, "another process is working in this folder", remedy))
        except OSError as error:
            raise StudyError(
                out, f"cannot be written ({error.strerror})", "choose another --out"
            ) from None
        yield


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
