"""Whether a sound file is all there, from the structure of its container.

Decoders shorten silently: a recording that was copied in half comes out as a shorter one. So the
sizes that the container declares are compared with what is there, before anything is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import COPY_AGAIN, Content

#: Sizes that a program which writes to a pipe leaves in a WAV or AU header.
_UNKNOWN_SIZES = {0, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF}
#: Speech frames of AMR by their type (RFC 4867, 5.3), narrow band and wide band.
_AMR_FRAME_BYTES = {
    b"#!AMR\n": (12, 13, 15, 17, 19, 20, 26, 31, 5, 0, 0, 0, 0, 0, 0, 0),
    b"#!AMR-WB\n": (17, 23, 32, 36, 40, 46, 50, 58, 60, 5, 0, 0, 0, 0, 0, 0),
}
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
#: Identifiers of EBML elements (RFC 8794, RFC 9559).
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"


@dataclass(frozen=True)
class _Chunks:
    """How a file of chunks is laid out: where the first one is, how a chunk head is written."""

    label: str
    start: int
    head: str  # of `struct`: kind and size
    audio: bytes
    needed: frozenset[bytes]
    pad: int


def check_complete(content: Content) -> None:
    """Refuse a file whose container declares more than is there.

    Raises:
        UnreadableFile: cut, or without audio.
    """
    if (check := _CHECKS.get(content.kind.format)) is not None:
        check(content)


def _cut(content: Content, needed: int) -> UnreadableFile:
    label, n_bytes = content.kind.format.upper(), len(content.data)
    return UnreadableFile(
        content.name, f"{label} ends after {n_bytes:,} of {needed:,} bytes", COPY_AGAIN
    )


def _walk(content: Content, layout: _Chunks) -> None:
    """Walk the chunks up to the audio: each needed one must be all there."""
    data, position, head = content.data, layout.start, struct.calcsize(layout.head)
    while position + head <= len(data):
        kind, size = struct.unpack_from(layout.head, data, position)
        if kind == layout.audio and (size in _UNKNOWN_SIZES or size < 0 or data[:4] == b"RF64"):
            return
        end = position + head + size
        if kind in layout.needed and not 0 <= size <= len(data) - position - head:
            raise _cut(content, end)
        if kind == layout.audio:
            return
        if size < 0:
            break
        position = end + size % layout.pad
    raise UnreadableFile(content.name, f"{layout.label} holds no audio frames", COPY_AGAIN)


def _check_wav(content: Content) -> None:
    order = ">" if content.data[:4] == b"RIFX" else "<"
    needed = frozenset({b"data", b"fmt "})
    _walk(content, _Chunks("WAV", 12, f"{order}4sI", b"data", needed, 2))


def _check_aiff(content: Content) -> None:
    needed = frozenset({b"COMM", b"SSND"})
    _walk(content, _Chunks("AIFF", 12, ">4sI", b"SSND", needed, 2))


def _check_caf(content: Content) -> None:
    needed = frozenset({b"desc", b"data"})
    _walk(content, _Chunks("CAF", 8, ">4sq", b"data", needed, 1))


def _check_au(content: Content) -> None:
    if len(content.data) < 24:
        raise _cut(content, 24)
    offset, size = struct.unpack_from(">II", content.data, 4)
    if size not in _UNKNOWN_SIZES and offset + size > len(content.data):
        raise _cut(content, offset + size)


def _check_ogg(content: Content) -> None:
    """Walk the pages of an OGG (RFC 3533): the last one must be all there."""
    data, position = content.data, 0
    while data[position : position + 4] == b"OggS":
        n_segments = data[position + 26] if position + 26 < len(data) else 0
        table = data[position + 27 : position + 27 + n_segments]
        end = position + 27 + n_segments + sum(table)
        if position + 27 > len(data) or len(table) < n_segments or end > len(data):
            raise UnreadableFile(
                content.name, f"OGG ends after {len(data):,} bytes inside a page", COPY_AGAIN
            )
        position = end


def _check_aac(content: Content) -> None:
    """Walk the ADTS frames (ISO 13818-7, 6.2): the last one must be all there."""
    data, position = content.data, 0
    while position + 7 <= len(data) and data[position] == 0xFF and data[position + 1] >> 4 == 0xF:
        size = (data[position + 3] & 3) << 11 | data[position + 4] << 3 | data[position + 5] >> 5
        if size < 7:
            raise UnreadableFile(content.name, f"AAC is damaged near byte {position:,}", COPY_AGAIN)
        position += size
        if position > len(data):
            raise _cut(content, position)


def _check_amr(content: Content) -> None:
    """Walk the frames of an AMR file of one channel (RFC 4867, 5)."""
    data = content.data
    magic = next((m for m in _AMR_FRAME_BYTES if data.startswith(m)), None)
    if magic is None:
        return
    sizes, position = _AMR_FRAME_BYTES[magic], len(magic)
    while position < len(data):
        position += 1 + sizes[data[position] >> 3 & 0xF]
    if position > len(data):
        raise _cut(content, position)


def _check_webm(content: Content) -> None:
    """The segment of a Matroska file must be all there, if it declares its size at all.

    A browser that records writes to a pipe: sizes of segment and clusters are unknown, and there
    is no duration. When such a file is cut nothing in it says so, but for the last block, which
    may be torn: some 20 ms. What can be decoded is what there is.
    """
    data, position = content.data, 0
    while data[position : position + 4] == _EBML or data[position : position + 1] == b"\xec":
        step = 4 if data[position : position + 4] == _EBML else 1
        size, width = _ebml_size(data, position + step)
        position += step + width + (size or 0)
    if data[position : position + 4] != _SEGMENT:
        raise _cut(content, position + 4)
    size, width = _ebml_size(data, position + 4)
    if size is not None and position + 4 + width + size > len(data):
        raise _cut(content, position + 4 + width + size)


def _ebml_size(data: bytes, position: int) -> tuple[int | None, int]:
    """A data size of variable width (RFC 8794, 6), None where unknown; and its width in bytes."""
    first = data[position] if position < len(data) else 0
    if first == 0:
        return 0, 8
    width = 9 - first.bit_length()
    raw = int.from_bytes(data[position : position + width], "big")
    ones = (1 << 7 * width) - 1
    return (None if raw & ones == ones else raw & ones), width


def _check_mp4(content: Content) -> None:
    """Walk the boxes of an MP4 (ISO 14496-12, 4.2): each must be all there."""
    data, position = content.data, 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if size == 1 and position + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, position + 8)
        if size == 0:  # to the end of the file
            return
        if size < 8:
            raise UnreadableFile(content.name, f"MP4 is damaged near byte {position:,}", COPY_AGAIN)
        if position + size > len(data) and kind in {b"mdat", b"moov", b"moof"}:
            raise _cut(content, position + size)
        position += size


def _check_wma(content: Content) -> None:
    """Walk the objects of an ASF file (ASF specification, 2.1): header and data must be there."""
    data, position = content.data, 0
    while position + 24 <= len(data):
        guid = data[position : position + 16]
        (size,) = struct.unpack_from("<Q", data, position + 16)
        if guid == _ASF_DATA and size == 0:  # a broadcast, of unknown length
            return
        if size < 24:
            raise UnreadableFile(content.name, f"WMA is damaged near byte {position:,}", COPY_AGAIN)
        position += size
        if position > len(data):
            raise _cut(content, position)


_CHECKS: dict[str, Callable[[Content], None]] = {
    "wav": _check_wav,
    "aiff": _check_aiff,
    "caf": _check_caf,
    "au": _check_au,
    "ogg": _check_ogg,
    "aac": _check_aac,
    "amr": _check_amr,
    "webm": _check_webm,
    "mp4": _check_mp4,
    "wma": _check_wma,
}
