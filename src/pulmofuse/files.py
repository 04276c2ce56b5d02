"""Atomic writes and content hashes: a reader never sees half a file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulmofuse.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd

_CHUNK_BYTES = 1 << 20
_STEM_CHARACTERS = 40  # of the temporary name; file systems end names at 255 bytes


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` in one step.

    The temporary name keeps the suffix of `path`, because many writers choose their format by it.
    If the block raises, `path` stays as it was and the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.stem[:_STEM_CHARACTERS]}-"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # Windows refuses to flush a file that was opened for reading only.
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())
        # mkstemp makes files that only their owner can read; reports are meant to be shared.
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def exclusive(folder: Path, busy: str, remedy: str) -> Iterator[None]:
    """Hold a folder for this process; the lock ends with the process, however it ends.

    Args:
        folder: an existing folder; its `.lock` is what is locked.
        busy: what to say where another process holds it.
        remedy: what the user can do then.

    Raises:
        StudyError: another process holds the folder.
        OSError: the lock file cannot be written.
    """
    # POSIX only, so importing it with the module would break readers elsewhere.
    import fcntl

    with (folder / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(folder, busy, remedy) from None
        yield


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to `path` atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path` atomically; NaN is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index to `path` atomically."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index to `path` atomically."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_path(path: Path) -> str:
    """SHA-256 of a file's content; of a folder, over the names and contents of its files."""
    if not path.is_dir():
        return sha256_file(path)
    return sha256_json([[member.name, sha256_file(member)] for member in _members(path)])


def content_hash(path: Path) -> str | None:
    """What `sha256_path` gives; None where that cannot be read, of which decoding it says more."""
    try:
        # A pipe or a device would be waited for without end.
        return sha256_path(path) if path.is_file() or path.is_dir() else None
    except OSError:
        return None


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes and time of the last change (ns) of a file, or of the files of a folder.

    (-1, -1) where there is no such file, or where it may not be looked at.
    """
    try:
        members = _members(path) if path.is_dir() else [path]
        states = [member.stat() for member in members]
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return -1, -1
    return sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)


def _members(folder: Path) -> list[Path]:
    """The files of a folder by name, hidden ones left out."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def sha256_json(content: Any) -> str:
    """SHA-256 of a JSON-serialisable value (paths count as text), independent of key order.

    Raises:
        TypeError: a value has no JSON form. Its `repr` is no substitute: it may hold an address
            in memory or the order of a set, and a key made of it would differ from run to run.
    """
    text = json.dumps(content, sort_keys=True, default=_json_form)
    return hashlib.sha256(text.encode()).hexdigest()


def _json_form(value: object) -> str:
    """The JSON form of what `json` does not know by itself."""
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def read_json(path: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
