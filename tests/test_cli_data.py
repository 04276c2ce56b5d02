"""The commands that look at data: what they say of missing files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pulmofuse.cli import app
from pulmofuse.errors import SourceError
from tests.sources.trees import touch

RUNNER = CliRunner()
WIDE = {"COLUMNS": "200"}


def coswara(root: Path, n_people: int) -> Path:
    """Coswara's table of so many people, and no recording."""
    header = "id,a,covid_status,record_date,g,l_c,l_s,asthma,cld"
    people = [f"p{i},28,healthy,2020-04-23,male,India,Kerala,," for i in range(n_people)]
    (root / "combined_data.csv").write_text("\n".join([header, *people]) + "\n", encoding="utf-8")
    return root


def scan(root: Path, data: str, *words: str) -> tuple[str, BaseException | None]:
    """Output and error of `data scan`."""
    found = RUNNER.invoke(
        app, ["data", "scan", data, "--data-root", str(root), "--list-only", *words], env=WIDE
    )
    return found.output, found.exception


class TestMissingFiles:
    def test_all_of_them_are_one_error_and_one_list(self, tmp_path: Path) -> None:
        root, out = coswara(tmp_path, 30), tmp_path / "m.parquet"
        output, error = scan(root, "coswara:.", "--out", str(out))
        assert isinstance(error, SourceError)
        assert "none of the 60 files that it should hold is there" in error.why
        assert "extract_data.py" in error.remedy
        assert output.count("not on disk") == 1
        listed = pd.read_csv(tmp_path / "m.excluded.csv")
        assert len(listed) == 60
        assert "p7/cough-heavy.wav" in set(listed["path"])

    def test_some_of_them_are_counted_with_how_to_get_them(self, tmp_path: Path) -> None:
        touch(coswara(tmp_path, 30), "20200501/p3/cough-heavy.wav")
        output, error = scan(tmp_path, "coswara:.")
        assert error is None
        assert "59 of 60 files are missing; to get them:" in output
        assert "cat YYYYMMDD/*.tar.gz.* | tar -xz (59 files)" in output

    def test_none_of_them_is_no_word(self, tmp_path: Path) -> None:
        touch(tmp_path, "cxr/normal/a.png", "cxr/covid19/b.png")
        output, error = scan(tmp_path, "folder:.")
        assert error is None
        assert "missing" not in output

    def test_an_empty_folder_says_what_belongs_there(self, tmp_path: Path) -> None:
        (tmp_path / "cxr").mkdir()
        _, error = scan(tmp_path, "folder:.")
        assert isinstance(error, SourceError)
        assert error.why == "holds no usable file"
        assert "ROOT/ct/<label>/" in error.remedy


@pytest.mark.data
@pytest.mark.parametrize("name", ["covid-ct", "covid19-cough", "darkcovidnet"])
def test_the_real_sets_are_there_as_a_whole_or_say_what_is_not(data_root: Path, name: str) -> None:
    _, error = scan(data_root, f"{name.replace('-', '_')}:{name}")
    assert error is None


def test_one_picture_under_two_modalities_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(size=(96, 80)), (0, 0), 4)
    picture = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    for folder in ("ct/normal", "cxr/normal"):
        (tmp_path / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / "a.png"), picture)
    words = ["--data-root", str(tmp_path), "--out", str(tmp_path / "m.csv")]
    found = RUNNER.invoke(app, ["data", "scan", "folder:.", *words], env=WIDE)
    assert found.exit_code == 0, found.output
    odd = pd.read_csv(tmp_path / "m.odd.csv")
    told = odd[odd["reason"].str.contains("is the same file as")]
    assert sorted(told["path"]) == ["ct/normal/a.png", "cxr/normal/a.png"]
    assert set(told["kind"]) == {"wrong_modality"}
