"""DICOM files: checked, parsed, decoded. What the values mean is the matter of `display`."""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import codecs
from pulmofuse.io.content import COPY_AGAIN, Content, check_pixels, decoding
from pulmofuse.io.decoded import Decoded, check_finite
from pulmofuse.io.dicom_traits import dicom_traits
from pulmofuse.io.display import Shown, functional, show, to_unit
from pulmofuse.io.orientation import distances
from pulmofuse.io.quiet import quiet_stderr

# Research files break the standard in a hundred harmless ways; what matters is raised as an error.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
codecs.install()

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_DECOMPRESS = "write it without compression first, e.g. `gdcmconv --raw IN OUT`"
#: Whole data sets are deflated for reports and screenshots; 16,000 x 8,000 pixels of 16 bits ...
_MAX_INFLATED_BYTES = 1 << 28
#: ... and a drawing on black packs to a fiftieth. Small ones do no harm.
_MAX_INFLATION, _SMALL_BYTES = 200, 1 << 22
#: The file meta group follows the preamble and the magic; its first element tells its length.
_META_START, _GROUP_LENGTH = 132, b"\x02\0\0\0UL\x04\0"
#: What an image can have (PS3.3 C.7.6.3.1): grey or colour; bit, byte or word.
_SAMPLES, _BITS = {1, 3, 4}, {1, 8, 16, 32, 64}


def read_dicom(content: Content) -> Decoded:
    """Decode a DICOM file of one or more frames; frames with positions are put in order.

    Returns:
        Pixels (frames, height, width) in Hounsfield units or [0, 1]; see `display`.

    Raises:
        UnreadableFile: not parsable, no pixel data, absurd size, a compression that no installed
            decoder knows, cut pixel data, or values that are not finite.
    """
    dataset = parse(content)
    shown = decode(content.name, dataset)
    with decoding(content.name, "DICOM does not say how its values are to be shown"):
        pixels = to_unit(content.name, shown)
        traits = dicom_traits(dataset, transfer_syntax(dataset)) | {"voi": shown.voi}
        order = _frame_order(dataset, len(pixels))
    check_finite(content.name, pixels)
    padding = shown.padding
    if order is not None:
        pixels, padding = pixels[order], None if padding is None else padding[order]
    return Decoded(pixels, shown.hounsfield, traits, padding)


def parse(content: Content) -> Dataset:
    """Parse a DICOM file and refuse what is no image, or of absurd size.

    Raises:
        UnreadableFile: not parsable, no pixel data, absurd size.
    """
    dataset = _parse(content, header_only=False)
    with decoding(content.name, "DICOM is damaged"):
        _check(content.name, dataset)
    return dataset


def parse_header(content: Content) -> Dataset:
    """Parse what stands before the pixel data of a DICOM file.

    Raises:
        UnreadableFile: not parsable.
    """
    return _parse(content, header_only=True)


def _parse(content: Content, *, header_only: bool) -> Dataset:
    _check_deflated(content)
    bare = content.data[_META_START - 4 : _META_START] != b"DICM"
    with decoding(content.name, "DICOM is damaged"):
        dataset = pydicom.dcmread(
            io.BytesIO(content.data), stop_before_pixels=header_only, force=bare
        )
        if dataset.file_meta.get("TransferSyntaxUID") is None:
            # Without file meta the data set is never compressed, and pydicom has seen its order.
            implicit, little = dataset.original_encoding
            plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
        if not isinstance(dataset.file_meta.TransferSyntaxUID, UID):
            raise UnreadableFile(content.name, "DICOM names no single transfer syntax", COPY_AGAIN)
    return dataset


def decode(name: str, dataset: Dataset, *, trust_window: bool = False) -> Shown:
    """Decode the pixel data of a parsed file and apply its look-up tables.

    Args:
        name: what errors call the file.
        dataset: from `parse`.
        trust_window: see `display.show`.

    Raises:
        UnreadableFile: cut, damaged, or a compression that no installed decoder knows.
    """
    syntax, remedy = transfer_syntax(dataset), COPY_AGAIN
    why = f"its pixel data ({syntax}) cannot be decoded: cut or damaged"
    if not codecs.can_decode(dataset.file_meta.TransferSyntaxUID):
        why, remedy = f"there is no decoder here for its pixel data ({syntax})", _DECOMPRESS
    with decoding(name, why, remedy), quiet_stderr():
        if "PixelData" in dataset:
            codecs.check_frames(name, dataset)
        stored: npt.NDArray[Any] = pixel_array(dataset)
    with decoding(name, "DICOM does not say how its values are to be shown"):
        return show(dataset, stored, trust_window=trust_window)


def transfer_syntax(dataset: Dataset) -> str:
    """Name of the compression, e.g. "JPEG Baseline (Process 1)"."""
    return str(dataset.file_meta.TransferSyntaxUID.name)


def _check(name: str, dataset: Dataset) -> None:
    """Refuse a file without pixel data or of absurd size before anything is decoded."""
    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        what = dataset.get("Modality") or "no image"
        raise UnreadableFile(
            name, f"DICOM holds no pixel data ({what})", "leave it out; it is not an image"
        )
    missing = [k for k in ("Rows", "Columns", "BitsAllocated") if dataset.get(k) is None]
    if missing:
        raise UnreadableFile(name, f"DICOM does not tell its {', '.join(missing)}", COPY_AGAIN)
    check_pixels(
        name, int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    )
    samples, bits = int(dataset.get("SamplesPerPixel") or 1), int(dataset.BitsAllocated)
    if samples not in _SAMPLES or bits not in _BITS:
        raise UnreadableFile(
            name, f"DICOM declares {samples} samples of {bits} bits per pixel", COPY_AGAIN
        )


def _check_deflated(content: Content) -> None:
    """Refuse a deflated data set that unpacks beyond what a deflated image has."""
    data = content.data
    head = data[: _META_START + 1024]
    if DeflatedExplicitVRLittleEndian.encode() not in head:
        return
    if data[_META_START : _META_START + 8] != _GROUP_LENGTH:
        raise UnreadableFile(content.name, "deflated DICOM without a group length", COPY_AGAIN)
    start = _META_START + 12 + int.from_bytes(data[_META_START + 8 : _META_START + 12], "little")
    with decoding(content.name, "deflated DICOM is damaged"):
        unpacker = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        most = min(_MAX_INFLATED_BYTES, max(_SMALL_BYTES, _MAX_INFLATION * len(data)))
        unpacker.decompress(data[start:], most)
    if unpacker.unconsumed_tail:
        raise UnreadableFile(
            content.name,
            f"deflated DICOM of {len(data):,} bytes unpacks to more than {most:,}",
            "write it without compression",
        )


def _frame_order(dataset: Dataset, n_frames: int) -> npt.NDArray[np.intp] | None:
    """Order of the frames of an enhanced file from feet to head; None to leave them as they are."""
    if n_frames == 1:
        return None
    places = functional(dataset, "PlanePositionSequence")
    turns = functional(dataset, "PlaneOrientationSequence")
    if len(places) != n_frames or len({str(t.get("ImageOrientationPatient")) for t in turns}) != 1:
        return None
    positions = np.array([p.ImagePositionPatient for p in places], dtype=np.float64)
    orientation = np.array(turns[0].ImageOrientationPatient, dtype=np.float64)
    return np.argsort(distances(positions, orientation), kind="stable")
