"""Directories of TIFF tags: those of TIFF files, and of the EXIF blocks inside other formats."""

from __future__ import annotations

import struct

_FORMATS = {1: "B", 3: "H", 4: "I"}
_ORIENTATION = 274
#: A directory with more entries is no directory (TIFF 6.0 knows some hundred tags).
_MAX_ENTRIES = 4096


def byte_order(data: bytes) -> str:
    """The sign that `struct` wants: "<" after "II", else ">"."""
    return "<" if data[:2] == b"II" else ">"


def directory(data: bytes, start: int) -> tuple[dict[int, list[int]], int]:
    """Integer tags of one image file directory (TIFF 6.0, section 2), and where the next one is.

    Raises:
        EOFError: the directory or one of its values lies beyond the end.
    """
    order = byte_order(data)
    if start + 2 > len(data):
        raise EOFError
    (n_tags,) = struct.unpack_from(f"{order}H", data, start)
    end = start + 2 + 12 * n_tags
    if end > len(data) or n_tags > _MAX_ENTRIES:
        raise EOFError
    tags = {}
    for i in range(n_tags):
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, start + 2 + 12 * i)
        if kind in _FORMATS:
            tags[tag] = _values(data, order, start + 10 + 12 * i, _FORMATS[kind], count)
    (following,) = struct.unpack_from(f"{order}I", data, end) if end + 4 <= len(data) else (0,)
    return tags, following


def _values(data: bytes, order: str, where: int, kind: str, count: int) -> list[int]:
    """Values of one entry; four bytes or less stand in the entry itself."""
    size = struct.calcsize(kind) * count
    if size > 4:
        (where,) = struct.unpack_from(f"{order}I", data, where)
    if where + size > len(data):
        raise EOFError
    return list(struct.unpack_from(f"{order}{count}{kind}", data, where))


def exif_orientation(block: bytes) -> int | None:
    """How an image is to be turned (EXIF 2.32, tag 274): 1 to 8; None if the block does not say.

    A damaged block is taken for one that does not say: the image itself is whole.
    """
    try:
        (start,) = struct.unpack_from(f"{byte_order(block)}I", block, 4)
        tags, _ = directory(block, start)
    except (EOFError, struct.error):
        return None
    return orientation_tag(tags)


def orientation_tag(tags: dict[int, list[int]]) -> int | None:
    """The orientation among the tags of a directory, if it is a valid one."""
    values = tags.get(_ORIENTATION)
    return values[0] if values and 1 <= values[0] <= 8 else None
