"""Rules of the repository that no linter holds, and the script behind `make env`."""

from __future__ import annotations

import ast
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src").rglob("*.py"))

PICKLERS = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}


def _pickling(tree: ast.AST) -> Iterator[str]:
    """Calls that read or write pickles (docs/decisions/0003-no-pickle.md)."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if (
            (call.split(".")[0] in PICKLERS)
            or call.endswith((".to_pickle", "read_pickle"))
            or call == "torch.save"
            or (call == "torch.load" and options.get("weights_only") != "True")
            or options.get("allow_pickle", "False") != "False"
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"


class TestNoPickle:
    @pytest.mark.parametrize("path", MODULES, ids=[p.relative_to(ROOT).as_posix() for p in MODULES])
    def test_is_read_or_written(self, path: Path) -> None:
        assert list(_pickling(ast.parse(path.read_text("utf-8")))) == []

    @pytest.mark.parametrize(
        "code",
        [
            "pickle.load(stream)",
            "joblib.dump(model, path)",
            "torch.save(state, path)",
            "torch.load(path)",
            "torch.load(path, weights_only=False)",
            "np.load(path, allow_pickle=True)",
            "frame.to_pickle(path)",
        ],
    )
    def test_rule_finds_what_it_forbids(self, code: str) -> None:
        assert list(_pickling(ast.parse(code)))

    def test_restricted_loading_stands_in_one_place(self) -> None:
        users = [path.name for path in MODULES if "torch.load(" in path.read_text("utf-8")]

        assert users == ["weights.py"]


@pytest.mark.skipif(os.name != "posix", reason="the script is for a POSIX shell")
class TestEnvironmentScript:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
        """Run the script on a stand-in for Python, in a folder of its own."""
        home = tmp_path / "with space"
        (home / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "env.sh", home / "scripts")

        def run(stand_in: str) -> subprocess.CompletedProcess[str]:
            python = home / "python"
            python.write_text(f"#!/bin/sh\n{stand_in}\n")
            python.chmod(python.stat().st_mode | stat.S_IXUSR)
            environment = {**os.environ, "PYTHON": str(python)}
            return subprocess.run(
                ["sh", str(home / "scripts" / "env.sh")],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

        return run

    def test_names_the_version_that_is_too_old(
        self, run: Callable[[str], subprocess.CompletedProcess[str]]
    ) -> None:
        done = run('case "$2" in *version_info*) exit 1;; *platform*) echo 3.9.18;; esac')

        assert done.returncode == 1
        assert "Python 3.11 or later is needed" in done.stderr
        assert "is 3.9.18" in done.stderr

    def test_says_that_there_is_no_python(
        self, run: Callable[[str], subprocess.CompletedProcess[str]]
    ) -> None:
        done = run("exit 127")

        assert done.returncode == 1
        assert "no Python found" in done.stderr

    def test_names_the_package_with_ensurepip(
        self, run: Callable[[str], subprocess.CompletedProcess[str]]
    ) -> None:
        done = run('case "$2" in *ensurepip*) exit 1;; *platform*) echo 3.12.4;; esac')

        assert done.returncode == 1
        assert "sudo apt install python3.12-venv" in done.stderr

    def test_shows_the_end_of_the_log_if_pip_fails(
        self, tmp_path: Path, run: Callable[[str], subprocess.CompletedProcess[str]]
    ) -> None:
        done = run(
            'case "$*" in\n'
            '  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python;;\n'
            '  "-m pip"*) echo "No space left on device"; exit 1;;\n'
            "  *platform*) echo 3.12.4;;\n"
            "esac"
        )

        assert done.returncode == 1
        assert re.search(r"^1/3 .*3\.12\.4$", done.stdout, re.MULTILINE)
        assert "No space left on device" in done.stderr
        assert "pip could not install torch" in done.stderr
        assert not (tmp_path / "with space" / ".venv" / ".ready").exists()

    def test_says_three_lines_and_leaves_a_stamp_if_all_is_well(
        self, tmp_path: Path, run: Callable[[str], subprocess.CompletedProcess[str]]
    ) -> None:
        done = run(
            'case "$*" in\n'
            '  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python;;\n'
            '  "-m pip"*) echo "WARNING: Location of file is not on PATH" >&2;;\n'
            "  *platform*) echo 3.12.4;;\n"
            "esac"
        )

        assert (done.returncode, done.stderr) == (0, "")
        assert [line[:3] for line in done.stdout.splitlines()] == ["1/3", "2/3", "3/3", "Rea"]
        assert (tmp_path / "with space" / ".venv" / ".ready").exists()
