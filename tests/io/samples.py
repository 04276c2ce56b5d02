"""Small files of every format, made on the fly, and ways to break them."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from typing import Any

import cv2
import nibabel as nib
import numpy as np
import pydicom
import soundfile
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

RATE = 16000


def picture(height: int = 48, width: int = 64, dtype: type = np.uint8) -> np.ndarray:
    """Smooth grey picture (height, width) that uses the whole range of its type."""
    noise = np.random.default_rng(5).normal(size=(height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    unit = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.rint(unit * np.iinfo(dtype).max).astype(dtype)


def encode(image: np.ndarray, suffix: str, *options: int) -> bytes:
    """An image as a file of OpenCV."""
    done, data = cv2.imencode(suffix, image, list(options))
    assert done
    return bytes(data)


def png(**kwargs: Any) -> bytes:
    return encode(picture(**kwargs), ".png")


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_png() -> bytes:
    """A valid small PNG that declares 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, body)
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b""))
    )


def nifti(volume: np.ndarray, affine: np.ndarray | None = None, *, packed: bool = False) -> bytes:
    """A volume with axes (x, y, z) as NIfTI-1."""
    data = nib.Nifti1Image(volume, np.eye(4) if affine is None else affine).to_bytes()
    return gzip.compress(data, mtime=0) if packed else data


def dicom(pixels: np.ndarray, modality: str = "CT", **tags: Any) -> bytes:
    """Grey pixels (height, width) or (frames, height, width) as uncompressed DICOM."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["pulmofuse"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = modality
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.SamplesPerPixel = 1
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.BitsAllocated = dataset.BitsStored = pixels.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def tone(duration_s: float = 0.5, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A 440 Hz tone with a little noise, (n, channels) in [-0.6, 0.6]."""
    n = round(duration_s * rate)
    noise = np.random.default_rng(5).normal(0, 0.01, size=(n, channels))
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(n) / rate)[:, None] + noise


def sound(
    samples: np.ndarray, form: str = "WAV", subtype: str | None = None, rate: int = RATE
) -> bytes:
    """Samples (n, channels) as a file of libsndfile."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=form, subtype=subtype)
    return stream.getvalue()


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]
