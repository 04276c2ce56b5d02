"""What is wrong with a folder of slices that can be read all the same, in words for a remark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pulmofuse.errors import UnreadableFile

#: A reason and a remedy, both without a full stop; it stands in the trait `flaws`, as JSON.
Flaw = list[str]

#: Files or gaps named in one sentence; the others are counted.
_NAMED = 3


@contextmanager
def naming(label: str, path: Path) -> Iterator[None]:
    """Make the fault of one file a fault of its series that names the file."""
    try:
        yield
    except UnreadableFile as error:
        raise UnreadableFile(label, f"its file {path.name}: {error.why}", error.remedy) from error


#: Remedy where a folder holds more than one volume.
ONE_FOLDER = "put each series into a folder of its own"


def left_out(files: Sequence[tuple[str, str]]) -> list[Flaw]:
    """Files that should be slices and are not part of the volume.

    Args:
        files: name and what it is, such as ("IM3.dcm", "nothing but zero bytes").
    """
    if not files:
        return []
    named = [f"{name} ({why})" for name, why in files]
    reason = f"{_count(len(files), 'file')} left out of the volume: {_list(named)}"
    return [[reason, "copy them again from the original, or delete them if they are no slices"]]


def gaps(found: Sequence[tuple[int, str]]) -> list[Flaw]:
    """Slices that are missing between others.

    Args:
        found: how many are missing, and where, such as (2, "between IM3 and IM7").
    """
    missing = sum(n for n, _ in found)
    if not missing:
        return []
    named = [f"{n} {where}" for n, where in found]
    reason = f"{_count(missing, 'slice')} missing: {_list(named)}"
    return [[reason, "copy the missing slices into the folder, or leave the volume out"]]


def copies(found: Sequence[tuple[str, str]]) -> list[Flaw]:
    """Slices that are there more than once, of which one was read.

    Args:
        found: name of a copy, and of the slice that it repeats.
    """
    if not found:
        return []
    named = [f"{copy} repeats {original}" for copy, original in found]
    reason = f"{_count(len(found), 'file')} with the place and content of another: {_list(named)}"
    return [[reason, "delete the copies"]]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _list(named: Sequence[str]) -> str:
    more = len(named) - _NAMED
    return ", ".join(named[:_NAMED]) + (f" and {more} more" if more > 0 else "")
