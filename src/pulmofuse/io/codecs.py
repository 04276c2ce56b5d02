"""Compressed pixel data of DICOM: what pydicom needs help with, and frames that lie.

pydicom decodes JPEG Baseline, JPEG 2000 (by Pillow), JPEG-LS (by pyjpegls), RLE and deflate. What
it leaves to a GPL library or to nobody is added here from permissive ones that are installed
anyway: JPEG with 12 bits and lossless JPEG by the ffmpeg inside PyAV, JPEG 2000 of several
channels with more than 8 bits and High-Throughput JPEG 2000 by OpenJPEG.

A frame's own header may declare other dimensions than the file (a decompression bomb, or pixel
data of another image); it is compared before any decoder sees the frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import COPY_AGAIN
from pulmofuse.io.headers import j2k_header, jpeg_header

_FFMPEG = (uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_OPENJPEG = (
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG = {uid.JPEGBaseline8Bit, *_FFMPEG, *_JPEG_LS}

#: What pydicom asks of a plug-in module.
DECODER_DEPENDENCIES = {
    **dict.fromkeys(_FFMPEG, ("av>=12",)),
    **dict.fromkeys(_OPENJPEG, ("pylibjpeg-openjpeg>=2.3",)),
}
_LABEL = "pulmofuse"
#: Above this, a blank image is the only thing that packs so well (JPEG-LS codes runs in bits) ...
_MAX_RATIO = 1000
#: ... and below this many bytes it does not matter.
_HARMLESS_BYTES = 1 << 26
#: RLE (PackBits) turns 2 bytes into 128 at most, and n bytes into n + n / 128 at worst.
_RLE_SLACK = 2


def is_available(_: str) -> bool:
    """Both libraries are dependencies of this package (part of pydicom's plug-in protocol)."""
    return True


def decode_jpeg_frame(frame: bytes, runner: Any) -> bytes:
    """Decode one JPEG frame of up to 16 bits, lossy or lossless, by ffmpeg.

    Args:
        frame: a whole JPEG stream.
        runner: pydicom's `DecodeRunner`, which is told the size of the words that come back.

    Raises:
        ValueError: the frame is not whole, or of a layout that DICOM does not know.
        av.FFmpegError: the frame is damaged.
    """
    import av

    header = jpeg_header("frame", frame)
    codec = av.CodecContext.create("mjpeg", "r")
    codec.options = {"err_detect": "explode"}
    codec.thread_count = 1
    pictures = [*codec.decode(av.Packet(frame)), *codec.decode(None)]
    if len(pictures) != 1:
        raise ValueError(f"{len(pictures)} pictures in one frame")
    pixels: npt.NDArray[Any] = pictures[0].to_ndarray()
    layout = pictures[0].format.name
    if layout == "gray16le":
        pixels = pixels >> (16 - header.bit_depth)  # ffmpeg uses the upper bits of the word
    elif layout == "bgr24":
        pixels = pixels[..., ::-1]
    elif layout not in {"gray", "rgb24"}:
        raise ValueError(f"pixel layout {layout}")
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    if header.channels == 3:
        runner.set_option("planar_configuration", 0)
    return np.ascontiguousarray(pixels).tobytes()


def decode_j2k_frame(frame: bytes, runner: Any) -> bytes:
    """Decode one JPEG 2000 frame by OpenJPEG; arguments and errors as `decode_jpeg_frame`."""
    from openjpeg.utils import decode

    pixels = np.asarray(decode(frame))
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    if pixels.ndim == 3:
        runner.set_option("planar_configuration", 0)
        if "YBR" in str(runner.photometric_interpretation):
            # The colour transform of JPEG 2000 is undone inside the decoder (PS3.5 8.2.4).
            runner.set_option("photometric_interpretation", "RGB")
    return np.ascontiguousarray(pixels).tobytes()


def check_frames(name: str, dataset: Any) -> None:
    """Refuse encapsulated frames whose own header does not fit the file's.

    Args:
        name: what errors call the file.
        dataset: a parsed DICOM file with PixelData.

    Raises:
        UnreadableFile: fewer frames than declared, other dimensions, or absurd packing.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    unpacked = n_frames * rows * columns * samples * int(dataset.BitsAllocated) // 8
    if unpacked > max(_HARMLESS_BYTES, _MAX_RATIO * len(dataset.PixelData)):
        raise UnreadableFile(
            name,
            f"{len(dataset.PixelData):,} bytes declare to unpack to {unpacked:,}",
            COPY_AGAIN,
        )
    extended = dataset.get("ExtendedOffsetTable")
    table = (extended, dataset.get("ExtendedOffsetTableLengths")) if extended else None
    found = 0
    for frame in generate_frames(
        dataset.PixelData, number_of_frames=n_frames, extended_offsets=table
    ):
        found += 1
        _check_frame(name, frame, syntax, (columns, rows, samples), unpacked // n_frames)
    if found < n_frames:
        raise UnreadableFile(name, f"holds {found:,} of {n_frames:,} frames", COPY_AGAIN)


def _check_frame(
    name: str, frame: bytes, syntax: Any, declared: tuple[int, int, int], n_bytes: int
) -> None:
    """Compare the header of one frame with (columns, rows, samples) and bytes unpacked."""
    if syntax == uid.RLELossless:
        if len(frame) > _RLE_SLACK * n_bytes + 64:
            raise UnreadableFile(name, "its RLE data are longer than its pixels", COPY_AGAIN)
        return
    if syntax in _JPEG:
        header = jpeg_header(name, frame)
    elif syntax in _OPENJPEG:
        header = j2k_header(name, frame)
    else:
        return
    if (header.width, header.height, header.channels) != declared:
        raise UnreadableFile(
            name,
            f"declares {declared[0]} x {declared[1]} x {declared[2]}, its pixel data"
            f" {header.width} x {header.height} x {header.channels}",
            COPY_AGAIN,
        )


def _register(uids: Iterable[Any], function: str) -> None:
    for syntax in uids:
        decoder = get_decoder(syntax)
        if _LABEL not in decoder.available_plugins:
            decoder.add_plugin(_LABEL, (__name__, function))


def install() -> None:
    """Make both decoders known to pydicom; calling it again changes nothing."""
    _register(_FFMPEG, "decode_jpeg_frame")
    _register(_OPENJPEG, "decode_j2k_frame")


def can_decode(syntax: Any) -> bool:
    """Whether a decoder for a transfer syntax is installed."""
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:  # pydicom knows none at all, e.g. for MPEG-4
        return False
