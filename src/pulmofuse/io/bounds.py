"""Tighter bounds than a study needs on what one file may unpack to, for whoever reads strangers'.

A study reads its own files one after the other and may use what memory there is. A service reads
what anybody uploads, several at a time. The bounds hold within a `with` block of one thread, so
that no reader of a format has to hand them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Bounds", "bounded", "current_bounds"]


@dataclass(frozen=True)
class Bounds:
    """What a file may declare before anything is allocated for it.

    Attributes:
        pixels: of one plane.
        voxels: of all planes.
        samples: of all channels of a sound.
        announce: told the number of pixels or samples that are about to be allocated; it may wait
            until there is room.
    """

    pixels: int
    voxels: int
    samples: int
    announce: Callable[[int], None] | None = None


_CURRENT: ContextVar[Bounds | None] = ContextVar("pulmofuse_bounds", default=None)


@contextmanager
def bounded(bounds: Bounds) -> Iterator[None]:
    """Hold the readers of `pulmofuse.io` to these bounds inside the block."""
    token = _CURRENT.set(bounds)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_bounds() -> Bounds | None:
    """The bounds that hold here; None where only the readers' own do."""
    return _CURRENT.get()
