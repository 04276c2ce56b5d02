"""What a file really is, told by its first bytes and never by its suffix."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

_TEXT_SAMPLE_BYTES = 4096
_NIFTI_HEADER_BYTES = 352


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        format: short name, as it stands in traits.
        label: with its article, as it stands in an error.
        family: "image", "sound" or "other".
    """

    format: str
    label: str
    family: str = "other"


PNG = Kind("png", "a PNG image", "image")
JPEG = Kind("jpeg", "a JPEG image", "image")
TIFF = Kind("tiff", "a TIFF image", "image")
BMP = Kind("bmp", "a BMP image", "image")
DICOM = Kind("dicom", "a DICOM file", "image")
NIFTI = Kind("nifti", "a NIfTI volume", "image")
WAV = Kind("wav", "a WAV sound", "sound")
FLAC = Kind("flac", "a FLAC sound", "sound")
OGG = Kind("ogg", "an OGG sound", "sound")
MP3 = Kind("mp3", "an MP3 sound", "sound")
AAC = Kind("aac", "an AAC sound", "sound")
UNKNOWN = Kind("unknown", "of a type that its first bytes do not tell")

_GZIP = Kind("gzip", "a gzip archive")
_ZEROS = Kind("zeros", "nothing but zero bytes")
_HTML = Kind("html", "a web page (HTML)")
_XML = Kind("xml", "an XML text")
_TEXT = Kind("text", "a plain text")
_JPEG_2000 = Kind("jpeg2000", "a JPEG 2000 image", "image")
#: Brands of still images, which share a container with MP4 (ISO 23008-12).
_STILL_BRANDS = (b"heic", b"heix", b"heif", b"mif1", b"msf1", b"avif", b"avis")
#: Value representations that the first elements of a data set may have (PS3.5 6.2).
_EARLY_VR = {b"UL", b"UI", b"CS", b"LO", b"SH", b"DA", b"TM", b"OB"}

#: (offset, magic bytes, kind); the first match wins.
_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (128, b"DICM", DICOM),  # first: the 128 bytes before it may pretend to be a TIFF (PS3.10 7.1)
    (0, b"\x89PNG\r\n\x1a\n", PNG),
    (0, b"\xff\xd8\xff", JPEG),
    (0, b"II*\0", TIFF),
    (0, b"MM\0*", TIFF),
    (0, b"II+\0", Kind("bigtiff", "a BigTIFF image")),
    (0, b"MM\0+", Kind("bigtiff", "a BigTIFF image")),
    (344, b"n+1\0", NIFTI),
    (4, b"n+2\0", NIFTI),
    (344, b"ni1\0", Kind("nifti-pair", "the header of a NIfTI pair (.hdr and .img)")),
    (0, b"fLaC", FLAC),
    (0, b"OggS", OGG),
    (0, b"ID3", MP3),
    (0, b"GIF8", Kind("gif", "a GIF image", "image")),
    (0, b"\0\0\0\x0cjP  ", _JPEG_2000),
    (0, b"\xff\x4f\xff\x51", _JPEG_2000),
    (0, b"%PDF", Kind("pdf", "a PDF document")),
    (0, b"PK\x03\x04", Kind("zip", "a ZIP archive (or an Office document)")),
    (0, b"PK\x05\x06", Kind("zip", "an empty ZIP archive")),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("7z", "a 7-Zip archive")),
    (0, b"Rar!", Kind("rar", "a RAR archive")),
    (257, b"ustar", Kind("tar", "a TAR archive")),
    (0, b"\x1aE\xdf\xa3", Kind("webm", "a WebM or Matroska recording", "sound")),
    *((8, brand, Kind("heif", "a HEIC or AVIF image")) for brand in _STILL_BRANDS),
    (4, b"ftyp", Kind("mp4", "an MP4, M4A or 3GP recording", "sound")),
    (0, b"#!AMR", Kind("amr", "an AMR sound", "sound")),
    (0, bytes.fromhex("3026b2758e66cf11"), Kind("wma", "a WMA sound", "sound")),
    (0, b"FORM", Kind("aiff", "an AIFF sound", "sound")),
    (0, b".snd", Kind("au", "an AU sound", "sound")),
    (0, b"caff", Kind("caf", "a CAF sound", "sound")),
    (0, b"\x93NUMPY", Kind("npy", "a NumPy array")),
    (0, b"PAR1", Kind("parquet", "a Parquet table")),
    (0, b"\x89HDF", Kind("hdf5", "an HDF5 file")),
    (0, b"SQLite format 3", Kind("sqlite", "an SQLite data base")),
)

#: RIFF is a container: bytes 8 to 12 say of what.
_RIFF: dict[bytes, Kind] = {
    b"WAVE": WAV,
    b"WEBP": Kind("webp", "a WebP image", "image"),
    b"AVI ": Kind("avi", "an AVI film"),
}


def look(data: bytes) -> Kind:
    """The kind of a file from its content; `UNKNOWN` where nothing fits."""
    if data[:4] in {b"RIFF", b"RF64", b"RIFX"} and data[8:12] in _RIFF:
        return _RIFF[data[8:12]]
    for offset, magic, kind in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return kind
    return _by_structure(data) or _text_kind(data[:_TEXT_SAMPLE_BYTES])


def _by_structure(data: bytes) -> Kind | None:
    """The kind where a magic number alone is too short to be trusted."""
    if data[:2] == b"BM" and data[14:18] in _BMP_HEADER_SIZES:
        return BMP
    if data[:2] == b"\x1f\x8b":
        inner = gunzip(data, _NIFTI_HEADER_BYTES)
        return NIFTI if inner[344:348] == b"n+1\0" or inner[4:8] == b"n+2\0" else _GZIP
    if _is_bare_dicom(data):
        return DICOM
    if _is_mpeg_frame(data):
        return MP3
    if data[:2] in {b"\xff\xf1", b"\xff\xf9"}:  # ADTS, after MPEG layers 1 to 3 (ISO 13818-7)
        return AAC
    return None


#: The sizes that a BMP information header can have (OS/2 1.x, Windows 3.x to 5.x).
_BMP_HEADER_SIZES = {n.to_bytes(4, "little") for n in (12, 40, 52, 56, 64, 108, 124)}


def gunzip(data: bytes, n_bytes: int) -> bytes:
    """At most the first `n_bytes` of a gzip stream; fewer where the stream is damaged or cut.

    Bounded, so that a small file cannot unpack into all the memory there is.
    """
    out = bytearray()
    rest = data
    try:
        while rest and len(out) < n_bytes:
            member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            out += member.decompress(rest, n_bytes - len(out))
            if not member.eof:
                break
            rest = member.unused_data
    except zlib.error:
        return bytes(out)
    return bytes(out)


def _is_bare_dicom(data: bytes) -> bool:
    """Whether the data begin with an element of group 2 or 8, as before DICOM had a file format."""
    group, element = data[:2], int.from_bytes(data[2:4], "little")
    if group not in {b"\2\0", b"\x08\0"} or element > 0x0100 or len(data) < 132:
        return False
    # Implicit VR: a length in its place, and the first elements are short and even.
    length = int.from_bytes(data[4:8], "little")
    return data[4:6] in _EARLY_VR or (0 < length <= 64 and length % 2 == 0)


def _is_mpeg_frame(data: bytes) -> bool:
    """Whether the data begin with a valid MPEG audio layer III frame header (ISO 11172-3)."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return False
    version, layer = data[1] >> 3 & 3, data[1] >> 1 & 3
    bitrate, sample_rate = data[2] >> 4, data[2] >> 2 & 3
    return version != 1 and layer == 1 and bitrate not in {0, 15} and sample_rate != 3


def _text_kind(sample: bytes) -> Kind:
    """Tell web page, XML and plain text from bytes of no known kind."""
    if not sample.strip(b"\0"):
        return _ZEROS
    # A character may be cut at the end of the sample.
    try:
        text = sample.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(sample) - 3:
            return UNKNOWN
        text = sample[: error.start].decode("utf-8")
    if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text):
        return UNKNOWN
    head = text.lstrip("\ufeff \t\r\n").lower()
    if head.startswith(("<!doctype html", "<html", "<head", "<body")):
        return _HTML
    return _XML if head.startswith("<?xml") else _TEXT
