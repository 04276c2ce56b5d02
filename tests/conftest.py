"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Root of the real data sets, or skip."""
    root = Path(os.environ.get("PULMOFUSE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (root / "covid-ct").is_dir():
        pytest.skip(f"the real data sets are not at {root}; set PULMOFUSE_DATA")
    return root
