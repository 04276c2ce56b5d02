"""Atomic writing and content hashes."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.files import (
    atomic_path,
    content_hash,
    read_json,
    sha256_file,
    sha256_json,
    sha256_path,
    size_and_time,
    write_bytes,
    write_json,
    write_text,
)

SCALARS = st.none() | st.booleans() | st.integers() | st.text(string.printable, max_size=5)
JSON_VALUES = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


class TestAtomicPath:
    def test_makes_the_folder_and_the_file(self, tmp_path: Path) -> None:
        target = tmp_path / "a" / "b" / "report.html"
        with atomic_path(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.suffix == ".html"
            temporary.write_text("<p>")
            assert not target.exists()

        assert target.read_text() == "<p>"
        assert list(target.parent.iterdir()) == [target]

    @pytest.mark.parametrize("before", [None, "old"])
    def test_an_exception_leaves_everything_as_it_was(
        self, tmp_path: Path, before: str | None
    ) -> None:
        target = tmp_path / "metrics.json"
        if before is not None:
            target.write_text(before)
        names = sorted(tmp_path.iterdir())

        def interrupted() -> None:
            with atomic_path(target) as temporary:
                temporary.write_text("half of a li")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()

        assert sorted(tmp_path.iterdir()) == names
        assert before is None or target.read_text() == before

    def test_others_may_read_the_file(self, tmp_path: Path) -> None:
        write_text(tmp_path / "report.html", "<p>")

        assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) & 0o444 == 0o444

    @pytest.mark.parametrize("name", ["x" * 240 + ".json", "ä" * 120 + ".json", ".hidden", "plain"])
    def test_takes_any_name_the_file_system_takes(self, tmp_path: Path, name: str) -> None:
        write_text(tmp_path / name, "content")

        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_writer_may_replace_the_temporary_file_itself(self, tmp_path: Path) -> None:
        target = tmp_path / "weights.bin"
        with atomic_path(target) as temporary:
            other = tmp_path / "other"
            other.write_bytes(b"weights")
            other.replace(temporary)

        assert target.read_bytes() == b"weights"


class TestText:
    def test_is_utf8_with_the_given_line_ends(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a.txt", "Ä\n°\r\n")

        assert (tmp_path / "a.txt").read_bytes() == b"\xc3\x84\n\xc2\xb0\r\n"


class TestJson:
    @settings(max_examples=60, deadline=None)
    @given(value=JSON_VALUES)
    def test_what_was_written_is_read(self, tmp_path_factory: Any, value: object) -> None:
        path = tmp_path_factory.getbasetemp() / "value.json"
        write_json(path, value)

        assert read_json(path) == value

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), {"auc": [0.5, float("-inf")]}])
    def test_numbers_that_json_does_not_know_are_refused(
        self, tmp_path: Path, value: object
    ) -> None:
        path = tmp_path / "metrics.json"
        path.write_text("{}")
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(path, value)

        assert path.read_text() == "{}"
        assert list(tmp_path.iterdir()) == [path]

    def test_is_made_for_people_too(self, tmp_path: Path) -> None:
        write_json(tmp_path / "a.json", {"name": "Röntgen"})

        assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "name": "Röntgen"\n}\n'


class TestHash:
    @pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
    def test_of_a_file_is_the_hash_of_its_bytes(self, tmp_path: Path, size: int) -> None:
        content = bytes(range(256)) * (size // 256 + 1)
        write_bytes(tmp_path / "a.bin", content[:size])

        assert sha256_file(tmp_path / "a.bin") == hashlib.sha256(content[:size]).hexdigest()

    @settings(max_examples=60, deadline=None)
    @given(value=st.dictionaries(st.text(max_size=3), JSON_VALUES, max_size=4))
    def test_of_a_value_does_not_depend_on_the_order_of_keys(self, value: dict[str, Any]) -> None:
        assert sha256_json(dict(reversed(value.items()))) == sha256_json(value)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"a": 1}, {"a": 2}),
            ({"a": 1}, {"a": "1"}),
            ([1, 2], [2, 1]),
            ({"a": None}, {}),
            (0, False),
        ],
    )
    def test_of_different_values_differs(self, one: object, other: object) -> None:
        assert sha256_json(one) != sha256_json(other)

    def test_of_a_path_is_the_hash_of_its_text(self) -> None:
        assert sha256_json({"path": Path("ct/a.png")}) == sha256_json({"path": "ct/a.png"})

    @pytest.mark.parametrize("value", [object(), {"labels": {"a", "b"}}, b"bytes"])
    def test_of_what_has_no_stable_text_is_refused(self, value: object) -> None:
        with pytest.raises(TypeError, match="has no JSON form"):
            sha256_json(value)

    def test_of_json_is_the_hash_of_the_text_json_makes(self) -> None:
        value = {"b": [1, 2.5, None], "a": "x"}
        text = json.dumps(value, sort_keys=True)

        assert sha256_json(value) == hashlib.sha256(text.encode()).hexdigest()


class TestContent:
    def test_a_file_and_a_folder_have_a_hash_and_a_state(self, tmp_path: Path) -> None:
        for name, content in (("a", b"12"), ("b", b"345"), (".hidden", b"6")):
            (tmp_path / name).write_bytes(content)
            os.utime(tmp_path / name, ns=(7, 10 + len(content)))

        assert content_hash(tmp_path / "a") == hashlib.sha256(b"12").hexdigest()
        assert content_hash(tmp_path) == sha256_path(tmp_path)
        assert size_and_time(tmp_path / "a") == (2, 12)
        assert size_and_time(tmp_path) == (5, 13)

    def test_what_is_not_there_has_none(self, tmp_path: Path) -> None:
        assert content_hash(tmp_path / "absent") is None
        assert size_and_time(tmp_path / "absent") == (-1, -1)
        assert size_and_time(tmp_path / "a\0b") == (-1, -1)

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")

        assert content_hash(tmp_path / "pipe") is None
