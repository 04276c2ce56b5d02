"""Small files of every format, made on the fly, and ways to break them."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from typing import Any

import av
import cv2
import nibabel as nib
import numpy as np
import pydicom
import pydicom.encaps
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


def av_sound(
    samples: np.ndarray, container: str, codec: str, rate: int = RATE, bit_rate: int = 64000
) -> bytes:
    """Samples (n, channels) as a file of ffmpeg."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        track = file.add_stream(codec, rate=rate)
        track.layout = "mono" if samples.shape[1] == 1 else "stereo"
        track.bit_rate = bit_rate
        planar = np.ascontiguousarray(samples.T.astype(np.float32))
        frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=track.layout.name)
        frame.sample_rate = rate
        for packet in [*track.encode(frame), *track.encode(None)]:
            file.mux(packet)
    return stream.getvalue()


class _Pipe(io.RawIOBase):
    """Somewhere to write to that cannot go back, as a browser's recorder has it."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += bytes(data)
        return len(data)


def browser_webm(samples: np.ndarray, rate: int = 48000) -> bytes:
    """What MediaRecorder gives: Opus in WebM without duration, all sizes unknown."""
    pipe = _Pipe()
    with av.open(pipe, "w", format="webm", options={"live": "1"}) as file:
        track = file.add_stream("libopus", rate=rate)
        track.layout = "mono"
        planar = np.ascontiguousarray(samples.T.astype(np.float32))
        frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in [*track.encode(frame), *track.encode(None)]:
            file.mux(packet)
    # Chrome leaves the sizes of clusters unknown, too; a size takes as many bytes as its first one
    # has leading zeros, plus one (RFC 8794).
    parts = bytes(pipe.written).split(cluster := b"\x1f\x43\xb6\x75")
    unknown = b"\x01" + b"\xff" * 7
    return cluster.join([parts[0], *(unknown + p[9 - p[0].bit_length() :] for p in parts[1:])])


def silent_film() -> bytes:
    """A WebM with pictures and without a sound track."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as file:
        track = file.add_stream("mjpeg", rate=10)
        track.width, track.height, track.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(picture(), format="gray").reformat(format="yuvj420p")
            for packet in track.encode(frame):
                file.mux(packet)
        for packet in track.encode(None):
            file.mux(packet)
    return stream.getvalue()


def lossless_jpeg(pixels: np.ndarray, bits: int) -> bytes:
    """Grey pixels (height, width) as lossless JPEG, process 14 selection value 1 (T.81, annex H).

    All 17 categories of differences have codes of five bits: small to write, and quite legal.
    """
    height, width = pixels.shape
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (bits - 1)
    differences = ((values - predicted + 32768) & 0xFFFF) - 32768
    stream = []
    for difference in differences.ravel().tolist():
        size = abs(difference).bit_length()
        stream.append(f"{size:05b}")
        if 0 < size < 16:
            code = difference if difference > 0 else difference + (1 << size) - 1
            stream.append(f"{code:0{size}b}")
    text = "".join(stream)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    return b"".join(
        [
            b"\xff\xd8",
            b"\xff\xc3" + struct.pack(">HBHHBBBB", 11, bits, height, width, 1, 1, 0x11, 0),
            b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table,
            b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0),
            scan,
            b"\xff\xd9",
        ]
    )


def compressed_dicom(frames: list[bytes], pixels: np.ndarray, syntax: str, **tags: Any) -> bytes:
    """DICOM with encoded frames; `pixels` give dimensions and type as in `dicom`."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(pixels, **tags)))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def sequence(**tags: Any) -> pydicom.Sequence:
    """A sequence of one item."""
    item = pydicom.Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return pydicom.Sequence([item])


def exif(orientation: int) -> bytes:
    """An EXIF block with nothing but an orientation."""
    entry = struct.pack("<HHIHH", 274, 3, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
