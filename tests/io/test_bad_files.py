"""Whatever a file holds, the reader gives one clear refusal and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_files

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import read_image, read_sound
from pulmofuse.io.content import MAX_FILE_BYTES
from tests.io import samples as s

JPEG = s.encode(s.picture(), ".jpg")
TIFF = s.encode(s.picture(), ".tiff")
BMP = s.encode(s.picture(), ".bmp")
DICOM = s.dicom(s.picture().astype(np.int16), RescaleSlope=1, RescaleIntercept=-1024)
VOLUME = np.random.default_rng(0).normal(size=(40, 48, 5)).astype(np.float32)
NIFTI = s.nifti(VOLUME)
NIFTI_GZ = s.nifti(VOLUME, packed=True)
WAV = s.sound(s.tone())
FLAC = s.sound(s.tone(), "FLAC")
OGG = s.sound(s.tone(3.0), "OGG")
MP3 = s.sound(s.tone(3.0), "MP3")
NAN_VOLUME = np.where(VOLUME > 2, np.float32(np.nan), VOLUME)
HTML = b"<!DOCTYPE html><html><body>404 not found</body></html>"

#: name, content, words of the reason
BAD_IMAGES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "empty"),
    ("one byte", b"\x89", "not an image"),
    ("png signature only", s.png()[:8], "PNG ends"),
    ("png cut in header", s.png()[:20], "PNG ends"),
    ("png cut in data", s.png()[:400], "PNG ends after 400 of"),
    ("png without its end", s.png()[:-12], "PNG ends"),
    ("png one byte short", s.png()[:-1], "PNG ends"),
    ("png flipped byte", s.patched(s.png(), 500, b"\0\1\2"), "PNG is damaged"),
    ("png of absurd size", s.huge_png(), "60,000 x 60,000"),
    ("jpeg signature only", JPEG[:3], "JPEG ends"),
    ("jpeg cut in tables", JPEG[:100], "JPEG ends"),
    ("jpeg cut in scan", JPEG[: len(JPEG) // 2], "JPEG ends"),
    ("jpeg without its end", JPEG[:-2], "JPEG ends"),
    ("tiff cut", TIFF[: len(TIFF) // 2], "TIFF ends"),
    ("tiff directory beyond", s.patched(TIFF, 4, b"\xff\xff\xff\x7f"), "TIFF ends"),
    ("bmp cut", BMP[:2000], "BMP ends"),
    ("bmp of absurd size", s.patched(BMP, 18, b"\xff\xff\xff\x0f" * 2), "BMP ends"),
    ("web page", HTML, "a web page"),
    ("plain text", "Größe: 3 mm\n".encode() * 50, "a plain text"),
    ("zip", b"PK\x03\x04" + bytes(60), "a ZIP archive"),
    ("pdf", b"%PDF-1.7\n" + bytes(60), "a PDF"),
    ("gzip of something else", __import__("gzip").compress(b"hello" * 100), "a gzip archive"),
    ("gif cut", b"GIF89a" + bytes(60), "GIF ends"),
    ("heic", b"\0\0\0\x20ftypheic" + bytes(60), "a HEIC"),
    ("zero bytes", bytes(1000), "nothing but zero bytes"),
    ("sound", WAV, "a WAV sound, not an image"),
    ("blank", s.encode(np.full((64, 64), 7, np.uint8), ".png"), "blank"),
    ("too small", s.encode(s.picture(31, 200), ".png"), "200 x 31"),
    ("nan tiff", s.encode(np.full((40, 40), np.nan, np.float32), ".tiff"), "NaN"),
    ("dicom cut in pixels", DICOM[:-100], "cannot be decoded"),
    ("dicom cut in header", DICOM[:200], "DICOM"),
    ("dicom magic only", DICOM[:132], "DICOM"),
    ("dicom absurd", s.dicom(s.picture(), NumberOfFrames=200_000), "no chest image has"),
    ("dicom blank", s.dicom(np.zeros((40, 40), np.uint8)), "blank"),
    ("nifti nan", s.nifti(NAN_VOLUME), "NaN"),
    ("nifti cut", NIFTI[:-7], "NIfTI ends"),
    ("nifti header only", NIFTI[:352], "NIfTI ends"),
    ("nifti packed and cut", NIFTI_GZ[: len(NIFTI_GZ) // 2], "NIfTI ends"),
    ("nifti absurd", s.patched(NIFTI, 42, b"\xff\x7f" * 3), "no chest image has"),
    ("nifti of time", s.nifti(np.zeros((40, 40, 3, 9), np.int16)), "not that of one volume"),
    ("nifti negative", s.patched(NIFTI, 42, b"\xff\xff"), "declares"),
    ("nifti of no type", s.patched(NIFTI, 70, b"\x99\x01"), "cannot be decoded"),
]

BAD_SOUNDS: list[tuple[str, bytes, str]] = [
    ("empty", b"", "empty"),
    ("png", s.png(), "a PNG image, not a sound"),
    ("web page", HTML, "a web page"),
    ("m4a cut", b"\0\0\0\x20ftypM4A " + bytes(20), "MP4 is damaged"),
    ("webm cut", b"\x1aE\xdf\xa3" + bytes(60), "WEBM ends"),
    ("wav magic only", WAV[:12], "no audio frames"),
    ("wav cut in header", WAV[:30], "WAV ends"),
    ("wav cut in data", WAV[:5000], "WAV ends after 5,000 of"),
    ("wav of absurd size", s.patched(WAV, 40, b"\0\0\0\x7e"), "WAV ends"),
    ("wav of absurd rate", s.patched(WAV, 24, b"\1\0\0\0"), "1 samples per second"),
    ("wav without frames", s.sound(np.zeros((0, 1))), "no audio frames"),
    ("wav too short", s.sound(s.tone(0.05)), "0.050 s"),
    ("wav silent", s.sound(np.zeros((8000, 1))), "silent"),
    ("wav constant", s.sound(np.full((8000, 1), 0.5)), "silent"),
    ("wav nan", s.sound(np.where(s.tone() > 0.5, np.nan, 0.1), "WAV", "FLOAT"), "NaN"),
    ("wav inf", s.sound(np.where(s.tone() > 0.5, np.inf, 0.1), "WAV", "FLOAT"), "NaN or inf"),
    ("flac magic only", FLAC[:4], "FLAC is damaged"),
    ("flac cut", FLAC[: len(FLAC) // 2], "FLAC"),
    ("flac of absurd size", s.patched(FLAC, 22, b"\xff\xff\xff\xff"), "no cough recording has"),
    ("ogg cut", OGG[: len(OGG) // 2], "OGG ends"),
    ("ogg one byte short", OGG[:-1], "OGG ends"),
    ("mp3 cut", MP3[: len(MP3) // 2], "MP3 ends"),
    ("mp3 tag only", b"ID3\4\0\0\0\0\0\x23" + bytes(200), "no audio frames"),
    ("mp3 one frame", MP3[:300], "no audio frames"),
]


def _refusal(
    read: Callable[..., Any], data: bytes, tmp_path: Path, *, as_file: bool, suffix: str
) -> UnreadableFile:
    name = f"patient-17{suffix}"
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnreadableFile) as caught:
        read(*((tmp_path / name,) if as_file else (data, name)))
    assert name in caught.value.what
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "bytes"])
@pytest.mark.parametrize(
    ("data", "reason"), [c[1:] for c in BAD_IMAGES], ids=[c[0] for c in BAD_IMAGES]
)
def test_a_bad_image_is_refused(data: bytes, reason: str, as_file: bool, tmp_path: Path) -> None:
    error = _refusal(read_image, data, tmp_path, as_file=as_file, suffix=".png")
    assert reason in error.why


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "bytes"])
@pytest.mark.parametrize(
    ("data", "reason"), [c[1:] for c in BAD_SOUNDS], ids=[c[0] for c in BAD_SOUNDS]
)
def test_a_bad_sound_is_refused(data: bytes, reason: str, as_file: bool, tmp_path: Path) -> None:
    error = _refusal(read_sound, data, tmp_path, as_file=as_file, suffix=".wav")
    assert reason in error.why


@pytest.mark.parametrize("read", [read_image, read_sound])
class TestPaths:
    def test_missing(self, read: Callable[..., Any], tmp_path: Path) -> None:
        with pytest.raises(UnreadableFile, match="no such file"):
            read(tmp_path / "nothing.png")

    def test_below_a_file(self, read: Callable[..., Any], tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"x")
        with pytest.raises(UnreadableFile, match="no such file"):
            read(tmp_path / "a" / "b.png")

    def test_folder(self, read: Callable[..., Any], tmp_path: Path) -> None:
        with pytest.raises(UnreadableFile, match="folder"):
            read(tmp_path)

    def test_pipe_does_not_hang(self, read: Callable[..., Any], tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(UnreadableFile, match="not a regular file"):
            read(tmp_path / "pipe.png")

    def test_name_with_a_null_byte(self, read: Callable[..., Any]) -> None:
        with pytest.raises(UnreadableFile):
            read(Path("a\0b.png"))

    def test_more_than_a_gibibyte(self, read: Callable[..., Any], tmp_path: Path) -> None:
        with (tmp_path / "huge.png").open("wb") as stream:
            stream.truncate(MAX_FILE_BYTES + 1)  # sparse: takes no room
        with pytest.raises(UnreadableFile, match="more than"):
            read(tmp_path / "huge.png")


#: Heads that lead into each decoder, so that random bytes get past the first look.
HEADS = [
    b"",
    *(data[:n] for data in (s.png(), JPEG, TIFF, BMP, WAV, FLAC, OGG, MP3) for n in (4, 16, 60)),
    *(data[:n] for data in (DICOM, NIFTI) for n in (132, 348, 420)),
]


@settings(max_examples=150, deadline=None)
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_unreadable_file(head: bytes, tail: bytes) -> None:
    for read in (read_image, read_sound):
        with pytest.raises(UnreadableFile):
            read(head + tail)


WHOLE = {"png": s.png(), "jpeg": JPEG, "tiff": TIFF, "bmp": BMP, "dicom": DICOM, "nifti": NIFTI}
WHOLE |= {"nifti.gz": NIFTI_GZ, "wav": WAV, "flac": FLAC, "ogg": OGG, "mp3": MP3}


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    where=st.floats(0, 1, exclude_max=True),
    near_the_start=st.booleans(),
    new=st.binary(min_size=1, max_size=8),
)
def test_a_damaged_file_is_read_or_refused(
    name: str, where: float, near_the_start: bool, new: bytes
) -> None:
    whole = WHOLE[name]
    offset = int(where * (min(400, len(whole)) if near_the_start else len(whole)))
    data = s.patched(whole, offset, new)[: len(whole)]
    is_sound = name in {"wav", "flac", "ogg", "mp3"}
    try:
        array = read_sound(data).samples if is_sound else read_image(data).pixels
    except UnreadableFile:
        return
    assert np.isfinite(array).all()


@pytest.mark.parametrize(
    "path", sorted(p for p in get_testdata_files() if Path(p).is_file()), ids=lambda p: Path(p).name
)
def test_pydicom_test_files_are_read_or_refused(path: str) -> None:
    try:
        image = read_image(Path(path))
    except UnreadableFile:
        return
    assert image.pixels.ndim == 3
    assert np.isfinite(image.pixels).all()
    if not image.hounsfield:
        assert image.pixels.min() >= 0
        assert image.pixels.max() <= 1


def test_decoders_write_nothing_to_standard_error(tmp_path: Path) -> None:
    broken = {
        "a.jpg": s.patched(JPEG, len(JPEG) // 2, b"\xff\xd0\x12\x34" * 4),
        "b.png": s.patched(s.png(), len(s.png()) // 2, b"\0\1"),
        "c.mp3": MP3[:300],
        "d.mp3": MP3[: len(MP3) // 2],
        "e.nii": s.patched(NIFTI, 70, b"\x99\x01"),
        "f.tiff": s.patched(TIFF, 12, b"\1\2\3\4\5\6"),
        "g.dcm": DICOM + bytes(64),
    }
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
    for path in get_testdata_files():
        if Path(path).is_file() and Path(path).suffix == ".dcm":
            (tmp_path / Path(path).name).symlink_to(path)
    script = (
        "import sys, os; from pathlib import Path; from pulmofuse.errors import UnreadableFile\n"
        "from pulmofuse.io import read_image, read_sound\n"
        "for p in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: (read_sound if p.suffix == '.mp3' else read_image)(p)\n"
        "    except UnreadableFile: pass\n"
        "os.write(2, b'mine')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b"mine"
