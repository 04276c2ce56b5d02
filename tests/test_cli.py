"""The command line: quick help, clear errors, tables that fit."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pandas as pd
import pytest
from typer.testing import CliRunner

from pulmofuse import __version__, cli
from pulmofuse.cli import app

RUNNER = CliRunner()


@pytest.fixture
def bad_folder(tmp_path: Path) -> Path:
    """A folder of a hundred assorted files that are no images and no sounds."""
    for folder, suffix in (("ct", ".png"), ("cxr", ".jpg"), ("cough_audio", ".wav")):
        (tmp_path / folder / "normal").mkdir(parents=True)
        contents = [
            b"",
            b"\x00" * 1000,
            b"<html>no</html>",
            b"\x89PNG\r\n\x1a\n",
            b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x00\x00\x00\x00",
            b"\xff\xd8\xff\xe0cut",
            b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00\x01\x00\xff\xff\x00\x00\x00\x00",
            b"PK\x03\x04zip",
            b"ID3\x04 not a song",
            b"fLaC",
            b"OggS",
        ]
        for i in range(34):
            (tmp_path / folder / "normal" / f"{i}{suffix}").write_bytes(
                contents[i % len(contents)] + bytes([i]) * (i > 10)
            )
    return tmp_path


def test_help_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from pulmofuse.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print(sorted({'torch', 'pandas', 'cv2', 'lightning', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["--help"], ["study", "--help"], ["data", "--help"], []])
def test_help_names_the_commands(words: list[str]) -> None:
    result = RUNNER.invoke(app, words)
    assert result.exit_code in {0, 2}
    assert "Usage" in result.output


def test_version() -> None:
    assert RUNNER.invoke(app, ["--version"]).output.strip() == f"pulmofuse {__version__}"


def test_data_list_shows_every_source() -> None:
    output = RUNNER.invoke(app, ["data", "list"], env={"COLUMNS": "200"}).output
    for name in ("folder", "covid_ct", "darkcovidnet", "covid19_cough", "synthetic"):
        assert name in output


def test_a_folder_of_bad_files_ends_neither_scan_nor_check(
    bad_folder: Path, tmp_path: Path
) -> None:
    manifest, faults = tmp_path / "manifest.parquet", tmp_path / "faults.csv"
    root = ["--data-root", str(bad_folder)]
    scan = RUNNER.invoke(app, ["data", "scan", "folder:.", *root, "--out", str(manifest)])
    assert scan.exit_code == 0, scan.output
    assert len(pd.read_parquet(manifest)) == 0
    assert len(pd.read_csv(tmp_path / "manifest.excluded.csv")) == 102
    listed = ["data", "scan", "folder:.", *root, "--out", str(manifest), "--list-only"]
    assert RUNNER.invoke(app, listed).exit_code == 0
    check = RUNNER.invoke(app, ["data", "check", str(manifest), *root, "--out", str(faults)])
    assert check.exit_code == 0, check.output
    table = pd.read_csv(faults)
    assert len(table) == len(pd.read_parquet(manifest)) == 102
    assert table["reason"].str.len().min() > 5
    assert table["remedy"].notna().all()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["study", "absent.yaml"], "absent.yaml"),
        (["data", "scan", "covid_tc:."], "covid_ct"),
        (["data", "scan", "folder:nowhere"], "nowhere"),
        (["data", "scan", "my-hospital"], "SOURCE:ROOT"),
        (["data", "scan", ":my-hospital"], "SOURCE:ROOT"),
        (["data", "check", "absent.parquet"], "absent.parquet"),
        (["predict", "nowhere", "--ct", "x.png"], "bundle"),
        (["evaluate", "nowhere", "folder:."], "bundle"),
        (["demo", "--set", "ct.training.epoch=1"], "epochs"),
        (["demo", "--set", "nonsense"], "KEY=VALUE"),
        (["study", "."], "is a folder"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(
    words: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pulmofuse", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1
    assert named in lines[0]
    assert lines[0].startswith("error: ")


def _exit_of(
    monkeypatch: pytest.MonkeyPatch, words: list[str], error: BaseException | None = None
) -> object:
    """Exit code of the command line; `error` is raised within `data list`."""
    if error is not None:

        class Raising(dict[str, object]):
            def values(self) -> NoReturn:  # type: ignore[override]
                raise error

        monkeypatch.setattr("pulmofuse.sources.SOURCES", Raising())
    monkeypatch.setattr(sys, "argv", ["pulmofuse", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


def test_ctrl_c_says_that_the_run_can_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_of(monkeypatch, ["data", "list"], KeyboardInterrupt()) == 130
    assert "goes on from here" in capsys.readouterr().err


def test_a_full_disk_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "runs/x")
    assert _exit_of(monkeypatch, ["data", "list"], full) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: runs/x: No space left on device.")
    assert message.count("\n") == 1


def test_an_out_that_cannot_be_a_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert _exit_of(monkeypatch, ["demo", "--out", str(tmp_path / "file" / "out")]) == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error: ")]
    assert len(errors) == 1
    assert "Not a directory" in errors[0]


@pytest.mark.parametrize("error", [BrokenPipeError(), BrokenPipeError(errno.EPIPE, "Broken pipe")])
def test_a_reader_that_has_left_is_no_news(
    error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_of(monkeypatch, ["data", "list"], error) == 1
    assert capsys.readouterr().err == ""
