"""Every file decoded once: instances on disk, memory-mapped, found again by content.

A folder per modality and preprocessing configuration holds

    instances.bin         rows of one shape and type, appended, never rewritten
    index.parquet         readable paths: path, start, stop, sha256, traits, fingerprint, remarks,
                          size, mtime_ns
    unreadable.parquet    the others: path, reason, remedy, sha256, size, mtime_ns
    cache.json            format, modality, configuration, shape and type, rows that are committed

A file is known by (path, size, mtime_ns) without being opened, and by the SHA-256 of its content
when it was moved or touched. Both tables are replaced in one step after their rows are safely in
`instances.bin`; rows that a killed run appended after the last such step are cut off by the next
run. Rows are in the order of the input whatever the number of threads, so that two machines that
prepare the same list hold the same bytes.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from pulmofuse.curation.inspection import INSPECTION_VERSION, seen_row
from pulmofuse.errors import StudyError, UnreadableFile
from pulmofuse.files import (
    atomic_path,
    content_hash,
    exclusive,
    sha256_json,
    size_and_time,
    write_json,
)
from pulmofuse.preprocessing.prepare import (
    PREPROCESSING_VERSION,
    Prepared,
    PreprocessingConfig,
    instance_dtype,
    instance_shape,
    prepare,
)
from pulmofuse.schema import Modality

#: Layout of the folder; with PREPROCESSING_VERSION it decides whether a cache can be used.
_FORMAT_VERSION = 2
#: Files that are decoded side by side, then written in order. Decoding holds back standard error,
#: so progress is reported between two such batches, when it can be seen.
_BATCH_FILES = 16
#: A killed run loses at most so many files, or one in twenty of those in the cache if that is more:
#: each flush writes the whole table anew, so a fixed number would cost quadratic time.
_FLUSH_FILES, _FLUSH_SHARE = 64, 20
_MAX_THREADS = 4
#: Rows copied out of a cache before their pages are let go; smaller caches stay mapped.
_RESIDENT_BYTES = 256 << 20

_SEEN_COLUMNS = ["traits", "fingerprint", "remarks"]
_INDEX_COLUMNS = ["path", "start", "stop", "sha256", *_SEEN_COLUMNS, "size", "mtime_ns"]
_UNREADABLE_COLUMNS = ["path", "reason", "remedy", "sha256", "size", "mtime_ns"]
_INSTANCES, _INDEX, _UNREADABLE, _JSON = (
    "instances.bin",
    "index.parquet",
    "unreadable.parquet",
    "cache.json",
)


class Cache:
    """Instances of a list of files, memory-mapped and read-only.

    Attributes:
        instances: (rows, *instance_shape); rows of files that were not asked for may be among
            them, so go by `index`.
        index: one row per readable path in the order asked for: path, start, stop, sha256,
            traits and remarks (JSON text), fingerprint (bytes), size, mtime_ns.
        unreadable: the others: path, reason, remedy, sha256 (null where it could not be opened),
            size, mtime_ns.
    """

    def __init__(
        self, instances: npt.NDArray[Any], index: pd.DataFrame, unreadable: pd.DataFrame
    ) -> None:
        self.instances = instances
        self.index = index
        self.unreadable = unreadable
        self._rows = {
            path: slice(start, stop)
            for path, start, stop in zip(index["path"], index["start"], index["stop"], strict=True)
        }

    def rows(self, path: str) -> slice:
        """Where in `instances` the instances of a path stand.

        Raises:
            KeyError: the path is unreadable or was not asked for.
        """
        return self._rows[path]


@dataclass(frozen=True)
class _Stamp:
    """What the file system says of a file without opening it; -1 where there is no such file."""

    size: int
    mtime_ns: int


@dataclass
class _State:
    """The tables of a cache folder in memory, by path, and by content for reuse."""

    index: dict[str, dict[str, Any]] = field(default_factory=dict)
    unreadable: dict[str, dict[str, Any]] = field(default_factory=dict)
    n_rows: int = 0
    by_content: dict[str, dict[str, Any]] = field(default_factory=dict)

    def known(self, path: str, stamp: _Stamp) -> bool:
        """Whether the path was seen with this stamp and need not be opened."""
        row = self.index.get(path) or self.unreadable.get(path)
        if row is None or (row["size"], row["mtime_ns"]) != (stamp.size, stamp.mtime_ns):
            return False
        # Without a content hash it could not be opened; permissions may have changed since.
        return row["sha256"] is not None or stamp.size < 0

    def put(self, row: dict[str, Any]) -> None:
        """Take in one row of either table; a path stands in one of them only."""
        table, other = (
            (self.index, self.unreadable) if "start" in row else (self.unreadable, self.index)
        )
        table[row["path"]] = row
        other.pop(row["path"], None)
        if row["sha256"] is not None:
            self.by_content[row["sha256"]] = row


def build_cache(
    paths: Sequence[str],
    data_root: Path,
    modality: Modality,
    config: PreprocessingConfig,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Cache:
    """Decode what is not yet in the cache and return all of it, memory-mapped.

    Args:
        paths: POSIX paths relative to `data_root`; a path named twice counts once.
        data_root: where the paths begin.
        modality: what was recorded.
        config: the preprocessing of that modality.
        folder: holds one folder per modality and configuration.
        progress: called with (done, total) now and then, and at the end.

    Raises:
        StudyError: another process fills the same cache, or the folder cannot be written.
    """
    wanted = list(dict.fromkeys(paths))
    home = folder / f"{modality.value}-{sha256_json(config.model_dump(mode='json'))[:16]}"
    builder = _Builder(home, data_root, modality, config)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with exclusive(home, _BUSY, _BUSY_REMEDY):
            state = builder.open()
            builder.fill(state, wanted, progress or (lambda _done, _total: None))
            return builder.view(state, wanted)
    except OSError as error:
        raise StudyError(
            home,
            f"the cache cannot be written ({error.strerror or error})",
            "free some space, change the permissions, or choose another folder",
        ) from error


_BUSY = "another process is filling this cache"
_BUSY_REMEDY = "wait until it has ended, or choose another folder"


@dataclass(frozen=True)
class _Builder:
    """What stays the same while one cache folder is filled."""

    home: Path
    data_root: Path
    modality: Modality
    config: PreprocessingConfig

    @property
    def _shape(self) -> tuple[int, ...]:
        return instance_shape(self.modality, self.config)

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self._shape)) * instance_dtype(self.modality).itemsize

    def _description(self, n_rows: int) -> dict[str, Any]:
        return {
            "format_version": _FORMAT_VERSION,
            "preprocessing_version": PREPROCESSING_VERSION,
            "inspection_version": INSPECTION_VERSION,
            "modality": self.modality.value,
            "config": self.config.model_dump(mode="json"),
            "instance_shape": list(self._shape),
            "dtype": instance_dtype(self.modality).name,
            "rows": n_rows,
        }

    def open(self) -> _State:
        """Read the tables, start anew where they are of another version, cut off loose rows."""
        state = _State()
        committed = self._committed_rows()
        binary = self.home / _INSTANCES
        if committed is None:
            for name in (_INDEX, _UNREADABLE, _INSTANCES):
                (self.home / name).unlink(missing_ok=True)
            binary.touch()
            write_json(self.home / _JSON, self._description(0))
            return state
        binary.touch()
        whole_rows = binary.stat().st_size // self._row_bytes
        for row in self._read(_UNREADABLE) + self._read(_INDEX):
            # A row beyond the end was lost with the disk; its file is decoded again.
            if row.get("stop", 0) <= whole_rows:
                state.put(row)
        last = max((row["stop"] for row in state.index.values()), default=0)
        state.n_rows = min(max(committed, last), whole_rows)
        os.truncate(binary, state.n_rows * self._row_bytes)
        return state

    def _committed_rows(self) -> int | None:
        """Rows that `cache.json` vouches for; None where there is no usable cache."""
        try:
            found = json.loads((self.home / _JSON).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(found, dict) or not isinstance(found.get("rows"), int):
            return None
        n_rows: int = found["rows"]
        return n_rows if found == self._description(n_rows) else None

    def _read(self, name: str) -> list[dict[str, Any]]:
        path = self.home / name
        if not path.exists():
            return []
        try:
            frame = pd.read_parquet(path)
        except ValueError as error:  # pyarrow's errors derive from it
            raise StudyError(
                path, f"is damaged ({error})", "delete the folder; it will be made again"
            ) from None
        frame = frame.astype(object).where(frame.notna(), None)
        return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]

    def fill(self, state: _State, wanted: list[str], progress: Callable[[int, int], None]) -> None:
        """Bring every wanted path into the state and onto the disk."""
        stamps = {path: _Stamp(*size_and_time(self.data_root / path)) for path in wanted}
        todo = [path for path in wanted if not state.known(path, stamps[path])]
        done, total, unsaved = len(wanted) - len(todo), len(wanted), 0
        progress(done, total)
        n_threads = min(_MAX_THREADS, os.cpu_count() or 1)
        with (
            # Each file has a thread already; those of BLAS would only wait for one another.
            threadpool_limits(limits=1, user_api="blas"),
            ThreadPoolExecutor(n_threads) as pool,
            (self.home / _INSTANCES).open("ab") as stream,
        ):
            for first in range(0, len(todo), _BATCH_FILES):
                batch = todo[first : first + _BATCH_FILES]
                for row, instances in self._decode(state, pool, batch, stamps):
                    if instances is not None:
                        row |= {"start": state.n_rows, "stop": state.n_rows + len(instances)}
                        stream.write(instances.tobytes())
                        state.n_rows += len(instances)
                    state.put(row)
                done, unsaved = done + len(batch), unsaved + len(batch)
                if unsaved >= max(_FLUSH_FILES, len(state.index) // _FLUSH_SHARE) or done == total:
                    stream.flush()
                    os.fsync(stream.fileno())
                    self._save(state)
                    unsaved = 0
                progress(done, total)

    def _decode(
        self, state: _State, pool: ThreadPoolExecutor, batch: list[str], stamps: dict[str, _Stamp]
    ) -> Iterator[tuple[dict[str, Any], npt.NDArray[Any] | None]]:
        """Rows of a batch in its order, with instances where they are new."""
        hashes = list(pool.map(content_hash, [self.data_root / path for path in batch]))
        # The first path of each new content is decoded, the others share its rows.
        first: dict[str, str] = {}
        for path, digest in zip(batch, hashes, strict=True):
            if digest is not None and digest not in state.by_content:
                first.setdefault(digest, path)
        to_decode = [
            path
            for path, digest in zip(batch, hashes, strict=True)
            if digest is None or first.get(digest) == path
        ]
        decoded = dict(zip(to_decode, pool.map(self._prepare, to_decode), strict=True))
        for path, digest in zip(batch, hashes, strict=True):
            stamp = stamps[path]
            row = {"path": path, "sha256": digest, "size": stamp.size, "mtime_ns": stamp.mtime_ns}
            outcome = decoded.get(path)
            if outcome is None:
                yield state.by_content[str(digest)] | row, None
            elif isinstance(outcome, UnreadableFile):
                yield row | {"reason": outcome.why, "remedy": outcome.remedy}, None
            else:
                yield row | seen_row(outcome.seen), outcome.instances

    def _prepare(self, path: str) -> Prepared | UnreadableFile:
        try:
            return prepare(self.data_root / path, self.modality, self.config, path)
        except UnreadableFile as error:
            return error

    def _save(self, state: _State) -> None:
        """Replace both tables, then vouch for the rows; the instances must be on the disk."""
        for name, rows, columns in (
            (_INDEX, state.index, _INDEX_COLUMNS),
            (_UNREADABLE, state.unreadable, _UNREADABLE_COLUMNS),
        ):
            with atomic_path(self.home / name) as temporary:
                _table(rows.values(), columns).to_parquet(temporary, index=False)
        write_json(self.home / _JSON, self._description(state.n_rows))

    def view(self, state: _State, wanted: list[str]) -> Cache:
        """The wanted paths as a memory-mapped cache."""
        shape, dtype = (state.n_rows, *self._shape), instance_dtype(self.modality)
        instances: npt.NDArray[Any] = (
            _MappedRows(self.home / _INSTANCES, dtype=dtype, mode="r", shape=shape)
            if state.n_rows
            else np.empty(shape, dtype=dtype)
        )
        readable = [state.index[path] for path in wanted if path in state.index]
        unreadable = [state.unreadable[path] for path in wanted if path in state.unreadable]
        return Cache(
            instances, _table(readable, _INDEX_COLUMNS), _table(unreadable, _UNREADABLE_COLUMNS)
        )


class _MappedRows(np.memmap[Any, np.dtype[Any]]):
    """Memory-mapped rows that do not stay resident once they have been copied out.

    What was read of a map counts as memory of the process until somebody else needs the memory:
    an epoch over a cache of 20 GiB then looks like a process of 20 GiB, and is killed where memory
    is counted (containers, batch systems). The pages stay in the system's cache of files.
    """

    _read_bytes = 0

    def __getitem__(self, key: Any) -> Any:
        """As any array: a view of a slice, a copy of a list of rows."""
        found = super().__getitem__(key)
        if not isinstance(found, _MappedRows) or np.may_share_memory(found, self):
            return found
        self._read_bytes += found.nbytes
        mapped = self.base
        if self._read_bytes > _RESIDENT_BYTES and isinstance(mapped, mmap.mmap):
            self._read_bytes = 0
            if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
                mapped.madvise(mmap.MADV_DONTNEED)
        return found.view(np.ndarray)


def _table(rows: Any, columns: list[str]) -> pd.DataFrame:
    """Rows as a table whose integers stay integers, also when there are none."""
    frame = pd.DataFrame(list(rows), columns=columns)
    integers = [c for c in columns if c in {"start", "stop", "size", "mtime_ns"}]
    return frame.astype(dict.fromkeys(integers, np.int64))
