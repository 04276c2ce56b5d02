"""Headers of PNG, JPEG, TIFF and BMP: what they declare, and whether the file is all there.

Decoders are lenient: many return the upper half of a half-copied image over grey. So completeness
is checked here first, from the structure of the file, together with the declared size.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import COPY_AGAIN

_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
#: Sum of the example luminance table of ITU-T T.81 Annex K, which libjpeg scales by its quality.
_ANNEX_K_LUMINANCE_SUM = 3688
#: JPEG markers that stand alone, without a length.
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}
_START_OF_SCAN = 0xDA
#: Start-of-frame markers: C0 to CF without DHT (C4), JPG (C8) and DAC (CC).
_FRAME_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_FORMATS = {1: "B", 3: "H", 4: "I"}


@dataclass(frozen=True)
class Header:
    """What an ordinary image declares: sizes in pixels, channels as stored, bits per channel."""

    width: int
    height: int
    channels: int
    bit_depth: int
    extra: dict[str, Any] = field(default_factory=dict)


def _cut(name: str, what: str, n_bytes: int, needed: int | None = None) -> UnreadableFile:
    promise = f" of {needed:,}" if needed else ""
    return UnreadableFile(name, f"{what} ends after {n_bytes:,}{promise} bytes", COPY_AGAIN)


def png_header(name: str, data: bytes) -> Header:
    """Walk the chunks of a PNG to IEND and check the sums of the critical ones (ISO 15948)."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise _cut(name, "PNG", len(data))
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    position, kind = 8, b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise _cut(name, "PNG", len(data))
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(data):
            raise _cut(name, "PNG", len(data), end + 4)
        critical = not kind[0] & 0x20
        if critical and zlib.crc32(data[position + 4 : end]) != int.from_bytes(
            data[end : end + 4], "big"
        ):
            raise UnreadableFile(
                name, f"PNG is damaged near byte {position:,} (check sum)", COPY_AGAIN
            )
        position = end + 4
    return Header(width, height, _PNG_CHANNELS.get(colour, 1), bits)


def jpeg_header(name: str, data: bytes) -> Header:
    """Read the frame header and quantisation of a JPEG; it must have its end marker (T.81)."""
    frame, quality, scan_start = None, None, len(data)
    for marker, body, start in _jpeg_segments(name, data):
        if marker in _FRAME_MARKERS:
            frame = struct.unpack(">BHHB", body[:6])
        elif marker == 0xDB and quality is None:
            quality = _jpeg_quality(body)
        scan_start = start
    # Inside scans FF is always followed by 00 or a restart marker: FF D9 can only be the end.
    if frame is None or data.find(b"\xff\xd9", scan_start) < 0:
        raise _cut(name, "JPEG", len(data))
    bits, height, width, channels = frame
    extra = {} if quality is None else {"jpeg_quality": quality}
    return Header(width, height, channels, bits, extra)


def _jpeg_segments(name: str, data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, body and start of each segment up to and with the first start of scan."""
    position, marker = 2, 0
    while marker != _START_OF_SCAN:
        while data[position : position + 2] == b"\xff\xff":  # fill bytes
            position += 1
        if position + 4 > len(data):
            raise _cut(name, "JPEG", len(data))
        if data[position] != 0xFF:
            raise UnreadableFile(name, f"JPEG is damaged near byte {position:,}", COPY_AGAIN)
        marker = data[position + 1]
        if marker in _BARE_MARKERS:
            position += 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if len(body) != length - 2:
            raise _cut(name, "JPEG", len(data))
        yield marker, body, position
        position += 2 + length


def _jpeg_quality(table: bytes) -> int | None:
    """Quality setting of libjpeg (1 to 100) from the first quantisation table, to a point or so."""
    if len(table) < 65 or table[0] >> 4:
        return None
    scale = 100.0 * sum(table[1:65]) / _ANNEX_K_LUMINANCE_SUM
    quality = (200.0 - scale) / 2 if scale <= 100 else 5000.0 / scale
    return max(1, min(100, round(quality)))


def bmp_header(name: str, data: bytes) -> Header:
    """Read a BMP header and check that uncompressed pixels are all there."""
    if len(data) < 54:
        raise _cut(name, "BMP", len(data))
    offset = int.from_bytes(data[10:14], "little")
    if int.from_bytes(data[14:18], "little") == 12:
        width, height, _, bits = struct.unpack("<HHHH", data[18:26])
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack("<iiHHI", data[18:34])
    width, height = abs(width), abs(height)  # a negative height means rows from the top
    needed = offset + (width * bits + 31) // 32 * 4 * height
    if compression in {0, 3} and len(data) < needed:
        raise _cut(name, "BMP", len(data), needed)
    return Header(width, height, max(1, bits // 8), min(bits, 8))


def tiff_header(name: str, data: bytes) -> Header:
    """Read the first directory of a TIFF and check that its strips or tiles are all there."""
    order = "<" if data[:2] == b"II" else ">"
    tags = _tiff_tags(name, data, order)
    width, height = (tags.get(tag, [0])[0] for tag in (256, 257))
    bits = tags.get(258, [1])
    channels = tags.get(277, [1])[0]
    for offsets, counts in ((273, 279), (324, 325)):
        pairs = zip(tags.get(offsets, []), tags.get(counts, []), strict=False)
        needed = max((start + count for start, count in pairs), default=0)
        if needed > len(data):
            raise _cut(name, "TIFF", len(data), needed)
    return Header(width, height, channels, bits[0], {"tiff_compression": tags.get(259, [1])[0]})


def _tiff_tags(name: str, data: bytes, order: str) -> dict[int, list[int]]:
    """Integer tags of the first image file directory (TIFF 6.0, section 2)."""
    (start,) = struct.unpack(f"{order}I", data[4:8])
    if start + 2 > len(data):
        raise _cut(name, "TIFF", len(data), start + 2)
    (n_tags,) = struct.unpack(f"{order}H", data[start : start + 2])
    if start + 2 + 12 * n_tags > len(data):
        raise _cut(name, "TIFF", len(data), start + 2 + 12 * n_tags)
    tags: dict[int, list[int]] = {}
    for i in range(n_tags):
        entry = data[start + 2 + 12 * i : start + 14 + 12 * i]
        tag, kind, count = struct.unpack(f"{order}HHI", entry[:8])
        if kind not in _TIFF_FORMATS:
            continue
        size = struct.calcsize(_TIFF_FORMATS[kind]) * count
        if size <= 4:
            values = entry[8 : 8 + size]
        else:
            (where,) = struct.unpack(f"{order}I", entry[8:])
            values = data[where : where + size]
        if len(values) != size:
            raise _cut(name, "TIFF", len(data))
        tags[tag] = list(struct.unpack(f"{order}{count}{_TIFF_FORMATS[kind]}", values))
    return tags
