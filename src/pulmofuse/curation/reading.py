"""Read every file of a manifest once, and keep what was seen.

Nothing of the pixels or samples is kept but a fingerprint, so that a table of 200,000 files fits
into memory. With a store, a file is known by its path, size and time of change, and a run that was
killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from pulmofuse.curation.inspection import (
    INSPECTION_VERSION,
    inspect_image,
    inspect_sound,
    remarks_from_json,
    seen_row,
)
from pulmofuse.curation.remarks import mark_shared_files
from pulmofuse.errors import UnreadableFile
from pulmofuse.files import content_hash, size_and_time, write_parquet
from pulmofuse.io import read_image, read_sound
from pulmofuse.io.content import MAX_FILE_BYTES
from pulmofuse.schema import Exclusion, Modality, Oddity, exclusions_frame, iterate

_KEY = ["path", "modality"]
_SEEN = ["sha256", "traits", "fingerprint", "remarks"]
_CELLS = [*_SEEN, "reason", "remedy"]
_COLUMNS = [*_KEY, *_CELLS, "size", "mtime_ns"]
#: Files read side by side; progress is told, and interrupts are heard, between two batches. The
#: first has so many files; then each as many as take about so long, because threads that wait for
#: the last file of a batch do nothing.
_BATCH_FILES, _BATCH_S = 32, 0.5
_LEAST_BATCH, _MOST_BATCH = 8, 512
#: Files of one part of the store: a killed run loses at most as many.
_PART_FILES = 1024
_MAX_THREADS = 4

Progress = Callable[[int, int, str], None]


def read_files(
    manifest: pd.DataFrame,
    data_root: Path,
    store: Path | None,
    progress: Progress,
    seen_before: Path | None = None,
) -> pd.DataFrame:
    """Read the files of a manifest.

    Args:
        manifest: with the columns path and modality; a row that stands twice counts once.
        data_root: folder that the paths are relative to.
        store: folder that keeps what was seen for the next run; made if absent.
        progress: told (files done, files in all, path).
        seen_before: another run's store, which is only read.

    Returns:
        One row per file in the order of the manifest: path, modality, sha256 (null where it could
        not be opened), traits and remarks (JSON text), fingerprint (bytes), reason and remedy
        (null where it can be read), size, mtime_ns.
    """
    wanted = manifest[_KEY].drop_duplicates()
    states = [size_and_time(data_root / path) for path in wanted["path"]]
    wanted = wanted.assign(size=[s[0] for s in states], mtime_ns=[s[1] for s in states])
    known = _known([*_parts(seen_before), *_parts(store)], wanted)
    todo = wanted[~pd.MultiIndex.from_frame(wanted[_KEY]).isin(known.index)]
    tables = [known.reset_index()]
    done, n_parts, fresh = len(wanted) - len(todo), len(_parts(store)), list[dict[str, Any]]()
    progress(done, len(wanted), "")
    rows, start, size = list(iterate(todo)), 0, _BATCH_FILES
    n_threads = min(_MAX_THREADS, os.cpu_count() or 1)
    # Each file has a thread already; those of BLAS, waiting for one another, cost twice the time.
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        while start < len(rows):
            size = min(size, _PART_FILES - len(fresh))
            batch, began = rows[start : start + size], time.perf_counter()
            fresh += pool.map(lambda row: _read(data_root, row), batch)
            start += len(batch)
            size = _next_size(size, time.perf_counter() - began)
            if len(fresh) >= _PART_FILES or start == len(rows):
                tables.append(pd.DataFrame(fresh, columns=_COLUMNS))
                n_parts += 1
                _write(store, n_parts, tables[-1])
                fresh = []
            progress(done + start, len(wanted), str(batch[-1]["path"]))
    found = pd.concat([t for t in tables if len(t)] or tables, ignore_index=True)
    table = wanted[_KEY].merge(found, on=_KEY, how="left", validate="1:1")[_COLUMNS]
    for column in _CELLS:
        # What was stored comes back with nulls of another kind than what was just read.
        table[column] = table[column].astype(object).where(table[column].notna(), None)
    return table


def _next_size(size: int, seconds: float) -> int:
    """Files of the next batch, after one of `size` files took `seconds`; it doubles at most."""
    fitting = round(size * _BATCH_S / max(seconds, _BATCH_S / 2))
    return min(max(fitting, _LEAST_BATCH), _MOST_BATCH)


def unreadable_files(files: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Exclusions for the files that cannot be read, columns of `schema.Exclusion`."""
    sources = manifest.drop_duplicates(_KEY)[[*_KEY, "source"]]
    bad = files[files["reason"].notna()].merge(sources, on=_KEY)
    return exclusions_frame(
        Exclusion(row["path"], row["modality"], row["source"], "read", row["reason"], row["remedy"])
        for row in iterate(bad)
    )


def seen_records(records: pd.DataFrame, files: pd.DataFrame) -> pd.DataFrame:
    """Records whose file can be read, with what was seen of it.

    Args:
        records: a manifest.
        files: of `read_files`.

    Returns:
        The rows of `records` with traits, sha256, fingerprint and remarks of their files; a file
        that stands under two modalities has a remark.
    """
    seen = files.loc[files["reason"].isna(), [*_KEY, *_SEEN]]
    joined = records.drop(columns="traits").merge(seen, on=_KEY)
    return mark_shared_files(joined)


def remark_rows(records: pd.DataFrame, excluding: Sequence[Oddity] = ()) -> pd.DataFrame:
    """One row per remark: path, modality, source, kind, reason, remedy, excluded (bool).

    Args:
        records: path, modality, source, remarks (JSON text, or null).
        excluding: kinds for which a file is left out.
    """
    columns = ["path", "modality", "source", "kind", "reason", "remedy", "excluded"]
    odd = records[records["remarks"].notna() & (records["remarks"] != "[]")]
    rows = [
        (row["path"], row["modality"], row["source"], remark.kind.value, remark.reason,
         remark.remedy, remark.kind in excluding)
        for row in iterate(odd[["path", "modality", "source", "remarks"]])
        for remark in remarks_from_json(row["remarks"])
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).astype({"excluded": bool})


def _read(data_root: Path, row: dict[str, Any]) -> dict[str, Any]:
    """The row of one file."""
    file, path, modality = data_root / row["path"], row["path"], Modality(row["modality"])
    data = _content(file, row["size"])
    digest = content_hash(file) if data is None else hashlib.sha256(data).hexdigest()
    source = file if data is None else data
    out = {**row, "sha256": digest}
    try:
        if modality is Modality.COUGH:
            return out | seen_row(inspect_sound(read_sound(source, path)))
        return out | seen_row(inspect_image(read_image(source, path), modality))
    except UnreadableFile as error:
        return out | {"reason": error.why, "remedy": error.remedy}


def _content(file: Path, size: int) -> bytes | None:
    """A file read once, for its hash and its decoder.

    None for a folder, and for what cannot be read or is too large, of which `io` says more.
    """
    if not 0 < size <= MAX_FILE_BYTES:
        return None
    try:
        return file.read_bytes()
    except OSError:
        return None


def _home(store: Path) -> Path:
    return store / f"v{INSPECTION_VERSION}"


def _parts(store: Path | None) -> list[Path]:
    return sorted(_home(store).glob("*.parquet")) if store is not None else []


def _known(parts: list[Path], wanted: pd.DataFrame) -> pd.DataFrame:
    """Rows of stores, by path and modality, of files that have not changed since."""
    tables = []
    for part in parts:
        # A damaged part costs a second reading of its files, and nothing else.
        with suppress(OSError, ValueError):
            tables.append(pd.read_parquet(part, columns=_COLUMNS))
    if not tables:
        return pd.DataFrame(columns=_COLUMNS).set_index(_KEY)
    stored = pd.concat(tables, ignore_index=True).drop_duplicates(_KEY, keep="last")
    # A missing file has size -1 and is looked for again; so is one that could not be opened.
    current = stored.merge(wanted, on=[*_KEY, "size", "mtime_ns"])
    return current[current["sha256"].notna()].set_index(_KEY)


def _write(store: Path | None, number: int, table: pd.DataFrame) -> None:
    if store is not None:
        write_parquet(_home(store) / f"{number:06d}.parquet", table)
