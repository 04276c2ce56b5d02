"""Damaged files of every kind: one clear refusal, never a crash, a hang or a lost machine."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from tests.io import samples as s
from tests.io.fuzz_child import HANG_S, MEMORY_BYTES

N_INPUTS = 2800
#: Interpreter, libraries and seeds; the limit itself holds from there on.
START_BYTES = 1 << 30
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.io.fuzz_child"]
    done = subprocess.run(
        [*command, "1", str(N_INPUTS), str(tmp_path)],
        capture_output=True,
        check=False,
        text=True,
        timeout=600,
        cwd=REPOSITORY,
    )
    died = f"exit {done.returncode} on {tmp_path / 'current'}: {done.stderr[-3000:]}"
    assert done.returncode == 0, died
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert sum(found["outcomes"].values()) == N_INPUTS
    # Mutations that break nothing, or break everything, would test nothing.
    assert min(found["outcomes"]["read"], found["outcomes"]["refused"]) > N_INPUTS // 10
    assert found["slowest"][0] < HANG_S
    assert found["peak_bytes"] < START_BYTES + MEMORY_BYTES


def _png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        s.png_chunk(*chunk) for chunk in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )


def _packed_nifti(shape: tuple[int, ...]) -> bytes:
    head = bytearray(s.nifti(np.zeros((40, 40, 3), np.int16))[:352])
    head[40:56] = np.array([3, *shape, 1, 1, 1, 1], np.int16).tobytes()
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed:
        packed.write(bytes(head))
        for _ in range(100):
            packed.write(bytes(1 << 20))
    return stream.getvalue()


def _tiff(width: int, height: int) -> bytes:
    data = bytearray(s.encode(s.picture(), ".tiff"))
    (start,) = struct.unpack_from("<I", data, 4)
    (n_tags,) = struct.unpack_from("<H", data, start)
    for i in range(n_tags):
        at = start + 2 + 12 * i
        (tag,) = struct.unpack_from("<H", data, at)
        if tag in {256, 257}:
            struct.pack_into("<HII", data, at + 2, 4, 1, width if tag == 256 else height)
    return bytes(data)


def _jpeg(width: int, height: int) -> bytes:
    data = bytearray(s.encode(s.picture(), ".jpg"))
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def _j2k_frame(size: int) -> bytes:
    siz = struct.pack(">HHIIIIIIIIH", 41, 0, size, size, 0, 0, size, size, 0, 0, 1)
    return b"\xff\x4f\xff\x51" + siz + b"\x07\x01\x01" + bytes(64) + b"\xff\xd9"


def _jp2_frame(box_length: int) -> bytes:
    """JPEG 2000 in JP2 whose first box after the signature declares this length."""
    out = io.BytesIO()
    Image.fromarray(TILE).save(out, "JPEG2000")
    return s.patched(out.getvalue(), 12, struct.pack(">I", box_length))


TILE = s.picture()
BOMBS: dict[str, bytes] = {
    "png of 50,000 x 50,000": _png(50_000, 50_000),
    "png of 2^31 x 1": _png(2**31 - 1, 1),
    "jpeg of 65,535 x 65,535": _jpeg(65_535, 65_535),
    "jpeg of a thousand scans": _jpeg(7000, 7000)[:-2] + b"\xff\xda\0\2" * 1000 + b"\xff\xd9",
    "tiff of 2^20 x 2^20": _tiff(1 << 20, 1 << 20),
    "nifti of terabytes": _packed_nifti((32767, 32767, 32767)),
    "nifti of 100 MiB of zeros": _packed_nifti((512, 512, 200)),
    "dicom of 65,535 x 65,535": s.dicom(TILE, Rows=65_535, Columns=65_535),
    "dicom of 2^31 frames": s.dicom(TILE, NumberOfFrames=2**31 - 1),
    "dicom rle of 10,000 frames": s.compressed_dicom(
        [struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 64] * 3,
        TILE,
        RLELossless,
        NumberOfFrames=10_000,
        Rows=512,
        Columns=512,
    ),
    "dicom j2k of another size": s.compressed_dicom([_j2k_frame(60_000)], TILE, JPEG2000Lossless),
    "dicom jp2 box of no length": s.compressed_dicom([_jp2_frame(0)], TILE, JPEG2000Lossless),
    "jp2 of a million boxes": _jp2_frame(0)[:12] + b"\0\0\0\x08free" * 1_000_000
    + _jp2_frame(0)[12:],
    "dicom jpeg of another size": s.compressed_dicom(
        [_jpeg(65_535, 65_535)], TILE, JPEGLosslessSV1
    ),
    "gif of 65,535 x 65,535": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0)
    + bytes(6) + b"\x2c" + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\2\1\0\0\x3b",
    "jpeg 2000 of 2^31 tiles": b"\xff\x4f\xff\x51"
    + struct.pack(">HHIIIIIIIIH", 41, 0, 5000, 5000, 0, 0, 1, 1, 0, 0, 1)
    + b"\x07\x01\x01" + bytes(64) + b"\xff\xd9",
    "zip called webm": b"PK\x03\x04" + bytes(4096),
    "flac of 2^36 frames": s.patched(s.sound(s.tone(), "FLAC"), 21, b"\xff" * 5),
    "wav of 4 GiB": s.patched(s.sound(s.tone()), 40, b"\xfe\xff\xff\x7e"),
}  # fmt: skip

BOMB_SCRIPT = """
import resource, sys, time
from pathlib import Path
import av, cv2, nibabel, numpy
from pulmofuse.errors import UnreadableFile
from pulmofuse.io import read_image, read_sound
from tests.io import samples as s
for read, data in ((read_image, s.png()), (read_image, s.dicom(s.picture())),
                   (read_sound, s.sound(s.tone()))):
    read(data)
base = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
# Twice the files themselves, and a little to work with: nothing that a header declares fits in.
resource.setrlimit(resource.RLIMIT_AS, (base + (100 << 20),) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.perf_counter()
    for read in (read_image, read_sound):
        try:
            read(path)
            print('READ', path.name)
        except UnreadableFile as error:
            if 'memory' in error.why or path.name not in error.what:
                print('FAULT', error)
    if time.perf_counter() - start > 2:
        print('SLOW', path.name)
"""


def test_decompression_bombs_are_refused_by_their_headers(tmp_path: Path) -> None:
    for name, data in BOMBS.items():
        (tmp_path / name.replace(" ", "_")).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", BOMB_SCRIPT, str(tmp_path)],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        cwd=REPOSITORY,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]
