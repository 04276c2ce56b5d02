"""Errors are one line, and they survive the way home from a worker process."""

from __future__ import annotations

import copy
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from pulmofuse import errors
from pulmofuse.errors import PulmofuseError, UnreadableFile

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PulmofuseError)
]


@pytest.mark.parametrize(
    ("what", "why", "remedy", "text"),
    [
        ("a.png", "it is empty", "copy it again", "a.png: it is empty. Copy it again."),
        (Path("b/c.wav"), "cut off", "`make demo`", "b/c.wav: cut off. `make demo`."),
        ("x", "ends with a stop.", "and so does this.", "x: ends with a stop. And so does this."),
        ("x", "broken\n  in two", "mend\tit", "x: broken in two. Mend it."),
    ],
)
def test_text_is_one_line_of_what_why_and_remedy(
    what: str | Path, why: str, remedy: str, text: str
) -> None:
    assert str(UnreadableFile(what, why, remedy)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_its_parts_in_a_copy(kind: type[PulmofuseError]) -> None:
    twin = copy.copy(kind("scan.dcm", "cut after 12 bytes", "copy it again"))

    assert type(twin) is kind
    assert (twin.what, twin.why, twin.remedy) == ("scan.dcm", "cut after 12 bytes", "copy it again")
    assert str(twin) == "scan.dcm: cut after 12 bytes. Copy it again."


def _fail(path: str) -> None:
    raise UnreadableFile(path, "it is empty", "copy it again")


def test_error_comes_home_from_a_worker_process() -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(UnreadableFile, match=r"a\.png: it is emp"):
        pool.submit(_fail, "a.png").result(timeout=60)
