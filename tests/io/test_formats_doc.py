"""docs/formats.md says what becomes of every test file that ships with pydicom."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pydicom
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> object:
    spec = importlib.util.spec_from_file_location(
        "formats_table", REPOSITORY / "scripts" / "formats_table.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes(script: object) -> None:
    page = (REPOSITORY / "docs" / "formats.md").read_text(encoding="utf-8")
    if f"of pydicom {pydicom.__version__}:" not in page:
        pytest.skip(f"the page was written with another pydicom than {pydicom.__version__}")
    assert script.with_table(page) == page  # type: ignore[attr-defined]


def test_every_refusal_has_a_reason() -> None:
    page = (REPOSITORY / "docs" / "formats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (read|refused) \| (.*) \|$", page, flags=re.MULTILINE)
    assert len(rows) > 80
    assert all(detail.strip() for _, _, detail in rows)
