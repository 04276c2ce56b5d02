"""What is odd about one file that can be read."""

from __future__ import annotations

from dataclasses import dataclass

from pulmofuse.schema import Oddity

__all__ = ["Oddity", "Remark"]


@dataclass(frozen=True)
class Remark:
    """One oddity of one file.

    Attributes:
        kind: which.
        reason: in plain words, without a full stop, e.g. "looks like a lateral view (score .98)".
        remedy: what the user can do, without a full stop.
    """

    kind: Oddity
    reason: str
    remedy: str
