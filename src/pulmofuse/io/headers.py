"""Headers of ordinary images: what they declare, and whether the file is all there.

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
from pulmofuse.io.exif import exif_orientation

_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
#: Sum of the example luminance table of ITU-T T.81 Annex K, which libjpeg scales by its quality.
_ANNEX_K_LUMINANCE_SUM = 3688
#: JPEG markers that stand alone, without a length.
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}
#: How a JP2 begins; a length of 1 says that the length follows in 8 bytes; a box has 8 at least.
_JP2, _LONG_BOX, _LEAST_BOX = b"\0\0\0\x0cjP  ", 1, 8
#: Files have about ten; millions of empty ones would take minutes.
_MOST_BOXES = 1000
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
#: A progressive JPEG goes over all pixels in each scan, usually ten; a hostile one in thousands.
_MAX_SCANNED_PIXELS = 1_000_000_000
#: ITU-T T.800 allows 65,535; each costs memory before the first pixel.
_MAX_TILES = 65_535
#: Start-of-frame markers: C0 to CF without DHT (C4), JPG (C8) and DAC (CC); F7 is JPEG-LS.
_FRAME_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


@dataclass(frozen=True)
class Header:
    """What an ordinary image declares.

    Attributes:
        width, height: pixels, as stored.
        channels, bit_depth: as stored; bits per channel.
        pages: which images of the file are meant (several in TIFF).
        orientation: how it is to be turned for display (EXIF tag 274, 1 to 8), None if not said.
        white_is_zero: the lowest value is the brightest (TIFF).
        extra: traits of this format.
    """

    width: int
    height: int
    channels: int
    bit_depth: int
    pages: tuple[int, ...] = (0,)
    orientation: int | None = None
    white_is_zero: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def cut(name: str, what: str, n_bytes: int, needed: int | None = None) -> UnreadableFile:
    """The refusal of a file that ends too early."""
    promise = f" of {needed:,}" if needed else ""
    return UnreadableFile(name, f"{what} ends after {n_bytes:,}{promise} bytes", COPY_AGAIN)


def png_header(name: str, data: bytes) -> Header:
    """Walk the chunks of a PNG to IEND and check the sums of the critical ones (ISO 15948)."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise cut(name, "PNG", len(data))
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    position, kind, orientation = 8, b"", None
    while kind != b"IEND":
        if position + 12 > len(data):
            raise cut(name, "PNG", len(data))
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(data):
            raise cut(name, "PNG", len(data), end + 4)
        critical = not kind[0] & 0x20
        if critical and zlib.crc32(data[position + 4 : end]) != int.from_bytes(
            data[end : end + 4], "big"
        ):
            raise UnreadableFile(
                name, f"PNG is damaged near byte {position:,} (check sum)", COPY_AGAIN
            )
        if kind == b"eXIf":
            orientation = exif_orientation(data[position + 8 : end])
        position = end + 4
    return Header(width, height, _PNG_CHANNELS.get(colour, 1), bits, orientation=orientation)


def jpeg_header(name: str, data: bytes) -> Header:
    """Read the frame header and quantisation of a JPEG; it must have its end marker (T.81)."""
    frame, quality, orientation, scan_start = None, None, None, len(data)
    for marker, body, start in _jpeg_segments(name, data):
        if marker in _FRAME_MARKERS:
            frame = struct.unpack(">BHHB", body[:6])
        elif marker == 0xDB and quality is None:
            quality = _jpeg_quality(body)
        elif marker == _APP1 and body[:6] == b"Exif\0\0" and orientation is None:
            orientation = exif_orientation(body[6:])
        scan_start = start
    # Inside scans FF is always followed by 00 or a restart marker: FF D9 can only be the end.
    if frame is None or data.find(b"\xff\xd9", scan_start) < 0:
        raise cut(name, "JPEG", len(data))
    bits, height, width, channels = frame
    if data.count(b"\xff\xda", scan_start) * height * width > _MAX_SCANNED_PIXELS:
        raise UnreadableFile(name, "JPEG declares more scans than any encoder writes", COPY_AGAIN)
    extra = {} if quality is None else {"jpeg_quality": quality}
    return Header(width, height, channels, bits, orientation=orientation, extra=extra)


def _jpeg_segments(name: str, data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, body and start of each segment up to and with the first start of scan."""
    position, marker = 2, 0
    while marker != _START_OF_SCAN:
        while data[position : position + 2] == b"\xff\xff":  # fill bytes
            position += 1
        if position + 4 > len(data):
            raise cut(name, "JPEG", len(data))
        if data[position] != 0xFF:
            raise UnreadableFile(name, f"JPEG is damaged near byte {position:,}", COPY_AGAIN)
        marker = data[position + 1]
        if marker in _BARE_MARKERS:
            position += 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if len(body) != length - 2:
            raise cut(name, "JPEG", len(data))
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
        raise cut(name, "BMP", len(data))
    offset = int.from_bytes(data[10:14], "little")
    if int.from_bytes(data[14:18], "little") == 12:
        width, height, _, bits = struct.unpack("<HHHH", data[18:26])
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack("<iiHHI", data[18:34])
    width, height = abs(width), abs(height)  # a negative height means rows from the top
    needed = offset + (width * bits + 31) // 32 * 4 * height
    if compression in {0, 3} and len(data) < needed:
        raise cut(name, "BMP", len(data), needed)
    return Header(width, height, max(1, bits // 8), min(bits, 8))


def gif_header(name: str, data: bytes) -> Header:
    """Walk the blocks of a GIF to its trailer (GIF89a, section 12); a film is refused."""
    if len(data) < 13:
        raise cut(name, "GIF", len(data))
    width, height = struct.unpack("<HH", data[6:10])
    position, n_images = 13 + _gif_palette(data[10]), 0
    while data[position : position + 1] != b"\x3b":
        block = data[position : position + 10]
        if block[:1] == b"\x21":
            position += 2
        elif block[:1] == b"\x2c" and len(block) == 10:
            n_images += 1
            position += 11 + _gif_palette(block[9])
        else:
            raise cut(name, "GIF", len(data))
        while (size := data[position : position + 1]) not in {b"", b"\0"}:
            position += 1 + size[0]
        position += 1
    if n_images != 1:
        raise UnreadableFile(name, f"GIF holds {n_images} images, not one", "give a single image")
    return Header(width, height, 3, 8)


def _gif_palette(flags: int) -> int:
    """Bytes of the colour table that follows (GIF89a, section 18)."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def webp_header(name: str, data: bytes) -> Header:
    """Read the size from the chunks of a WebP (RFC 9649); a film is refused."""
    size = 8 + int.from_bytes(data[4:8], "little")
    if len(data) < max(size, 30):
        raise cut(name, "WebP", len(data), size)
    position, found, orientation = 12, None, None
    while position + 8 <= size:
        kind, length = data[position : position + 4], struct.unpack_from("<I", data, position + 4)
        body = data[position + 8 : position + 8 + length[0]]
        if kind == b"ANMF":
            raise UnreadableFile(name, "WebP holds a film, not one image", "give a single image")
        if kind == b"EXIF":
            orientation = exif_orientation(body.removeprefix(b"Exif\0\0"))
        found = found or _webp_size(kind, body)
        position += 8 + length[0] + length[0] % 2
    if found is None:
        raise cut(name, "WebP", len(data))
    return Header(*found, 3, 8, orientation=orientation)


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    """Width and height from a lossy or a lossless bit stream (RFC 9649 2.5 and 2.6)."""
    if kind == b"VP8 " and len(body) >= 10:
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and len(body) >= 5:
        (bits,) = struct.unpack_from("<I", body, 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _check_boxes(name: str, data: bytes) -> None:
    """Refuse a JP2 whose boxes do not lead to the code stream (ITU-T T.800 I.4).

    Decoders go from box to box; one without a length would hold them for ever.
    """
    position, n_boxes = 0, 0
    while data.startswith(_JP2) and data[position + 4 : position + 8] != b"jp2c":
        n_boxes += 1
        (length,) = struct.unpack(">I", data[position : position + 4].rjust(4, b"\0"))
        if length == _LONG_BOX:
            length = int.from_bytes(data[position + 8 : position + 16], "big")
        bad = length < _LEAST_BOX or position + length >= len(data)
        if bad or n_boxes > _MOST_BOXES:
            raise UnreadableFile(name, f"JPEG 2000 is damaged near byte {position:,}", COPY_AGAIN)
        position += length


def j2k_header(name: str, data: bytes) -> Header:
    """Read the SIZ segment of a JPEG 2000 code stream, bare or in JP2 (ITU-T T.800 A.5.1)."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(data) < start + 43:
        raise cut(name, "JPEG 2000", len(data))
    _check_boxes(name, data)
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", data, start + 8)
    (channels,) = struct.unpack_from(">H", data, start + 40)
    width, height = right - left, bottom - top
    n_tiles = width * height / max(1, tile_width * tile_height)
    if n_tiles > _MAX_TILES or channels > 4:
        raise UnreadableFile(
            name, f"JPEG 2000 declares {n_tiles:,.0f} tiles, {channels} channels", COPY_AGAIN
        )
    # Writers may leave out the end marker in DICOM's padding, never in a file of its own.
    if data.rfind(b"\xff\xd9", -64) < 0 and start:
        raise cut(name, "JPEG 2000", len(data))
    return Header(width, height, channels, (data[start + 42] & 0x7F) + 1)
