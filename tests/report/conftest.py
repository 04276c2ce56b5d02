"""Study folders made by `builder.make_study`, reported once per test session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pulmofuse.report import write_report
from tests.report.builder import THREE, make_study


@pytest.fixture(scope="session")
def two_class_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, simulated patients; reported."""
    folder = make_study(tmp_path_factory.mktemp("two"))
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def three_class_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, paired patients of a synthetic cohort whose truth is known; reported."""
    folder = make_study(tmp_path_factory.mktemp("three"), THREE, simulated=False, truth=True)
    write_report(folder)
    return folder


@pytest.fixture
def study_copy(two_class_study: Path, tmp_path: Path) -> Path:
    """The two-class study without its report, to be changed by a test."""
    folder = tmp_path / "study"
    made = shutil.ignore_patterns("figures", "report.html", "model_card.md")
    shutil.copytree(two_class_study, folder, ignore=made)
    return folder
