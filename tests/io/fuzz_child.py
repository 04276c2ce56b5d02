"""One process that reads damaged files: a crash or a hang of a C library ends it and not pytest.

    python -m tests.io.fuzz_child SEED N FOLDER

Prints one JSON object: how many inputs were read and refused, the faults found, the slowest input
and the peak memory. FOLDER keeps the input that is being read, so that a crash can be looked at.
"""

from __future__ import annotations

import faulthandler
import gzip
import io
import json
import os
import random
import resource
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pydicom.data import get_testdata_files
from pydicom.uid import JPEGLosslessSV1

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import read_image, read_series, read_sound
from tests.io import samples as s

HANG_S = 10
MEMORY_BYTES = 1 << 30
LARGEST_SEED_BYTES = 45_000
SOUNDS = {"wav", "mp3", "flac", "ogg", "opus", "aiff"} | {
    "webm",
    "browser",
    "mp4",
    "aac",
    "amr",
    "wma",
}  # by libsndfile, by ffmpeg
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def seeds() -> dict[str, bytes]:
    """Whole files by name; the part before the first dash says their kind."""
    picture, wide = s.picture(), s.picture(dtype=np.uint16)
    page = Image.fromarray(picture)
    stored = (wide >> 4).astype(np.uint16)
    lossless = s.lossless_jpeg(stored, 12)
    volume = np.random.default_rng(0).normal(-300, 400, (36, 34, 5)).astype(np.int16)
    found = {
        "png-8": s.png(),
        "png-16": s.encode(wide, ".png"),
        "png-colour": s.encode(cv2.merge([picture] * 3), ".png"),
        "png-palette": _saved(page.convert("P"), "PNG"),
        "jpeg": s.encode(picture, ".jpg"),
        "jpeg-progressive": _saved(page, "JPEG", progressive=True),
        "jpeg-cmyk": _saved(page.convert("CMYK"), "JPEG"),
        "tiff": _saved(page, "TIFF"),
        "tiff-lzw": _saved(page, "TIFF", compression="tiff_lzw"),
        "tiff-jpeg": _saved(page, "TIFF", compression="jpeg"),
        "tiff-pages": _saved(
            page,
            "TIFF",
            save_all=True,
            append_images=[page],
        ),
        "bmp": s.encode(picture, ".bmp"),
        "gif": _saved(page, "GIF"),
        "webp": _saved(page, "WEBP"),
        "jp2": _saved(page, "JPEG2000"),
        "dicom-made": s.dicom(stored, RescaleSlope=1, RescaleIntercept=-1024, PixelPaddingValue=9),
        "dicom-frames": s.dicom(np.stack([stored] * 3), "XA", WindowCenter=2000, WindowWidth=900),
        "dicom-lossless": s.compressed_dicom([lossless], stored, JPEGLosslessSV1),
        "nifti": s.nifti(volume),
        "gz-nifti": s.nifti(volume),
        "wav": s.sound(s.tone()),
        "wav-float": s.sound(s.tone(), "WAV", "FLOAT"),
        "mp3": s.sound(s.tone(2.0), "MP3"),
        "flac": s.sound(s.tone(), "FLAC"),
        "ogg": s.sound(s.tone(2.0), "OGG"),
        "aiff": s.sound(s.tone(), "AIFF"),
        "opus": s.av_sound(s.tone(1.0, 48000), "ogg", "libopus", 48000),
        "webm": s.av_sound(s.tone(1.0, 48000), "webm", "libopus", 48000),
        "browser": s.browser_webm(s.tone(1.0, 48000)),
        "mp4": s.av_sound(s.tone(1.0, 44100), "ipod", "aac", 44100),
        "aac": s.av_sound(s.tone(1.0, 44100), "adts", "aac", 44100),
        "amr": s.av_sound(s.tone(1.0, 8000), "amr", "libopencore_amrnb", 8000, 12200),
        "wma": s.av_sound(s.tone(1.0, 44100, 2), "asf", "wmav2", 44100, 96000),
    }
    for path in map(Path, sorted(get_testdata_files("*.dcm"))):
        if path.is_file() and path.stat().st_size <= LARGEST_SEED_BYTES:
            found[f"dicom-{path.stem}"] = path.read_bytes()
    return found


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _place(data: bytearray, rng: random.Random) -> int:
    """Headers are where the decisions are: half of the damage falls there."""
    return rng.randrange(min(len(data), 1024) if rng.random() < 0.5 else len(data))


def flip_bits(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    for _bit in range(rng.choice([1, 1, 2, 5, 20])):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def truncate(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    del data[rng.randrange(1, len(data)) :]


def extreme(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    for _field in range(rng.choice([1, 1, 3])):
        value = rng.choice(EXTREMES)
        size = rng.choice([n for n in (1, 2, 4, 8) if value < 1 << (8 * n)])
        at = _place(data, rng) & ~1
        data[at : at + size] = value.to_bytes(size, rng.choice(["big", "little"]))


def splice(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    other = rng.choice(others)
    start = rng.randrange(len(other))
    at = _place(data, rng)
    kept = rng.choice([0, rng.randrange(1, 64)])
    data[at : at + kept] = other[start : start + rng.randrange(1, 256)]


def repeat(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    start = _place(data, rng)
    data[start:start] = data[start : start + rng.randrange(1, 512)] * rng.choice([1, 3])


def remove(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    start = _place(data, rng)
    del data[start : start + rng.randrange(1, 64)]


MUTATIONS: list[Callable[[bytearray, random.Random, list[bytes]], None]] = [
    flip_bits,
    flip_bits,
    truncate,
    extreme,
    extreme,
    splice,
    repeat,
    remove,
]


def mutate(name: str, whole: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.choice([1, 1, 2])):
        if data:
            rng.choice(MUTATIONS)(data, rng, others)
    if name.startswith("png") and rng.random() < 0.7:
        data = _with_sums(data)
    return gzip.compress(bytes(data), 1, mtime=0) if name.startswith("gz") else bytes(data)


def _with_sums(data: bytearray) -> bytearray:
    """Make the check sums of a PNG right, so that the damage gets past them."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return data


def read(name: str, data: bytes, folder: Path) -> str:
    """Read one input; the outcome, or a fault in words that begin with an exclamation mark."""
    sound = name.split("-", maxsplit=1)[0] in SOUNDS
    label = f"patient-17.{name}"
    (folder / "current").write_bytes(data)
    try:
        array, traits = _read(name, data, label, folder, sound=sound)
    except UnreadableFile as error:
        if label not in error.what and "slice" not in error.what:
            return f"! the error does not name the file: {error}"
        if not error.why or not error.remedy or "\n" in str(error):
            return f"! not one line with reason and remedy: {error!s}"
        return f"! {error}" if "memory" in error.why else "refused"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
        return f"! {type(error).__name__}: {error}"
    if array.dtype != np.float32 or not np.isfinite(array).all():
        return "! values that are not finite"
    try:
        json.dumps(traits, allow_nan=False)
    except ValueError:
        return f"! traits that JSON cannot hold: {traits}"
    return "read"


def _read(
    name: str, data: bytes, label: str, folder: Path, *, sound: bool
) -> tuple[np.ndarray, dict[str, object]]:
    if name == "dicom-series":
        (folder / "series" / "slice.dcm").write_bytes(data)
        image = read_series(folder / "series", label)
        return image.pixels, image.traits
    if sound:
        read_back = read_sound(data, label)
        return read_back.samples, read_back.traits
    image = read_image(data, label)
    return image.pixels, image.traits


def prepare_series(folder: Path) -> bytes:
    """Four slices in a folder; the fifth is the one that gets damaged."""
    (folder / "series").mkdir(parents=True, exist_ok=True)
    tags = {"SeriesInstanceUID": "1.2.3", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    tags |= {"RescaleSlope": 1, "RescaleIntercept": 0}
    for z in range(5):
        stored = np.roll(s.picture(), z, axis=0).astype(np.int16)
        data = s.dicom(stored, "CT", ImagePositionPatient=[0, 0, z], **tags)
        if z < 4:
            (folder / "series" / f"{z}.dcm").write_bytes(data)
    return data


def main(seed: int, n: int, folder: Path) -> None:
    # The decoders' standard error is diverted while they work (`pulmofuse.io.quiet`), and what is
    # written there is lost when the process dies: tracebacks need a descriptor of their own.
    stderr = os.dup(2)
    faulthandler.enable(stderr)
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    whole = seeds() | {"dicom-series": prepare_series(folder)}
    names, others = sorted(whole), list(whole.values())
    for name in names:  # imports and first calls are no finding
        read(name, whole[name], folder)
    base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY_BYTES,) * 2)
    outcomes: Counter[str] = Counter()
    faults, slowest = [], (0.0, "")
    for i in range(n):
        name = names[i % len(names)]
        rng = random.Random(f"{seed}/{i}")  # noqa: S311 - repeatable, not secret
        data = mutate(name, whole[name], rng, others)
        faulthandler.dump_traceback_later(HANG_S, exit=True, file=stderr)
        start = time.perf_counter()
        outcome = read(name, data, folder)
        slowest = max(slowest, (time.perf_counter() - start, f"{name}, input {i}"))
        faulthandler.cancel_dump_traceback_later()
        outcomes[outcome if outcome in {"read", "refused"} else "fault"] += 1
        if outcome.startswith("!"):
            faults.append(f"{name}, input {i}: {outcome[2:]}")
            (folder / f"fault-{i}").write_bytes(data)
    peak = _peak_bytes()
    result = {"outcomes": outcomes, "faults": faults, "slowest": slowest, "peak_bytes": peak}
    print(json.dumps(result), flush=True)  # noqa: T201 - this is how the parent hears of it


def _peak_bytes() -> int:
    """Highest resident memory of this process.

    `ru_maxrss` outlives exec: it would be that of the test run that started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
