"""What the benchmark of near-duplicates hides and searches: copies, and made-up collections."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import soundfile
import soxr

from pulmofuse.curation.fingerprints import image_fingerprint
from pulmofuse.curation.image_fingerprint import LENGTH
from pulmofuse.curation.sound_fingerprint import N_BANDS, N_STEPS
from pulmofuse.io import Image, read_image

RATES_HZ = (8000, 16_000, 22_050, 44_100, 48_000)
OPUS_RATES_HZ = (8000, 16_000, 48_000)
BLOCK = 1 << 14
SIDE = 96
ONSET = 4 + N_BANDS * N_STEPS // 2

Generator = np.random.Generator


# ---------------------------------------------------------------------------- transformed copies
def crop(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    """Up to 5 % cut off at each edge."""
    height, width = pixels.shape
    top, bottom, left, right = rng.uniform(0, 0.05, 4)
    rows = slice(int(top * height), height - int(bottom * height))
    return pixels[rows, int(left * width) : width - int(right * width)]


def crop_much(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    """Up to 30 % of each side cut off, of one at least 10 %; the cut is shared by both ends."""
    cut = np.zeros(2)
    while cut.max() < 0.1:
        cut = rng.uniform(0, 0.3, 2)
    low = rng.uniform(0, 1, 2) * cut
    high = 1 - cut + low
    (top, bottom), (left, right) = (
        (int(a * side), int(b * side)) for a, b, side in zip(low, high, pixels.shape, strict=True)
    )
    return pixels[top:bottom, left:right]


def resize(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    """Half to one and a half times the size, now and then of other proportions."""
    scale = rng.uniform(0.5, 1.5)
    stretch = rng.uniform(0.9, 1.1) if rng.random() < 0.3 else 1.0
    height, width = pixels.shape
    size = max(32, round(width * scale * stretch)), max(32, round(height * scale))
    ways = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
    return cv2.resize(pixels, size, interpolation=ways[rng.integers(len(ways))])


def brighten(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    """Other gamma, contrast and brightness, clipped."""
    curved = np.clip(pixels, 0, 1) ** rng.uniform(0.8, 1.25)
    return (curved - 0.5) * rng.uniform(0.8, 1.2) + 0.5 + rng.uniform(-0.15, 0.15)


def encode(pixels: np.ndarray, way: str, rng: Generator) -> bytes:
    """A file: JPEG of quality 40 to 95, or PNG of 8 or 16 bits."""
    clipped = np.clip(pixels, 0, 1)
    if way == "jpeg":
        options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))]
        return cv2.imencode(".jpg", np.round(clipped * 255).astype(np.uint8), options)[1].tobytes()
    deep = np.round(clipped * 65535).astype(np.uint16)
    grey = deep if way == "png16" else np.round(clipped * 255).astype(np.uint8)
    return cv2.imencode(".png", grey)[1].tobytes()


CHANGES = {"crop": crop, "resize": resize, "brightness": brighten}
KINDS = ("re-encoded", "resize", "crop", "brightness", "16 bit", *["combination"] * 5)
LARGE_KINDS = ("large crop", "large crop and more")


def image_copy(image: Image, kind: str, rng: Generator) -> bytes:
    """A transformed copy of an image as a file."""
    pixels = image.pixels[0]
    if kind.startswith("large crop"):
        pixels = crop_much(pixels, rng)
    if kind == "large crop and more":
        pixels = brighten(resize(pixels, rng), rng)
    if kind in CHANGES:
        pixels = CHANGES[kind](pixels, rng)
    elif kind == "combination":
        for change in CHANGES.values():
            if rng.random() < 0.7:
                pixels = change(pixels, rng)
    way = {"re-encoded": "jpeg", "16 bit": "png16"}.get(kind)
    return encode(pixels, way or ("jpeg", "png", "png16")[rng.integers(3)], rng)


def sound_copy(samples: np.ndarray, rate_hz: int, rng: Generator) -> bytes:
    """A copy trimmed, padded, resampled, louder, stereo or in another format; some of them."""
    if rng.random() < 0.7:
        start, stop = (int(x) for x in rng.uniform(0, 0.05, 2) * len(samples))
        samples = samples[start : len(samples) - stop]
    if rng.random() < 0.5:
        before, behind = (int(x) for x in rng.uniform(0, 1, 2) * rate_hz)
        samples = np.pad(samples, (before, behind))
    form = ("MP3", "OPUS", "VORBIS", "FLAC", "WAV")[rng.integers(5)]
    rates = OPUS_RATES_HZ if form == "OPUS" else RATES_HZ
    if rng.random() < 0.7 or rate_hz not in rates:
        to = rates[rng.integers(len(rates))]
        samples, rate_hz = soxr.resample(samples, rate_hz, to), to
    samples = np.clip(samples * 10 ** (rng.uniform(-12, 3) / 20), -1, 1)
    if rng.random() < 0.3:
        samples = np.stack([samples, samples], axis=1)
    stream = io.BytesIO()
    options = {
        "MP3": {"format": "MP3", "compression_level": float(rng.uniform(0.2, 0.9))},
        "OPUS": {"format": "OGG", "subtype": "OPUS"},
        "VORBIS": {"format": "OGG", "subtype": "VORBIS"},
    }
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    chosen = options.get(form, {"format": form})
    with soundfile.SoundFile(stream, "w", rate_hz, channels, **chosen) as file:
        # In blocks: libsndfile's Vorbis writer overflows its stack on a minute at once.
        for start in range(0, len(samples), BLOCK):
            file.write(samples[start : start + BLOCK])
    return stream.getvalue()


# --------------------------------------------------------------------------- made-up collections
def made_up_images(paths: Sequence[Path], count: int) -> np.ndarray:
    """Fingerprints (count, LENGTH) of bent X-rays with a trace of another; one in 200 is copied."""
    rng = np.random.default_rng(0)
    real = [
        cv2.resize(read_image(path).pixels[0], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for path in paths
    ]
    out = np.empty((count, LENGTH), np.uint8)
    last = real[0]
    for row in range(count):
        one, other = (bent(real[rng.integers(len(real))], rng) for _ in range(2))
        share = rng.uniform(0, 0.2)
        picture = (1 - share) * one + share * other
        if row % 200 == 199:
            picture = brighten(last, rng)
        last = picture.astype(np.float32)
        out[row] = np.frombuffer(image_fingerprint(Image(last[None], False, {})), np.uint8)
    return out


def bent(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """A picture, mirrored or not, bent smoothly by about 4 % of its side, never twice alike."""
    places = np.arange(SIDE, dtype=np.float32)
    shifts = [
        cv2.resize(rng.normal(0, 0.04 * SIDE, (5, 5)).astype(np.float32), (SIDE, SIDE),
                   interpolation=cv2.INTER_CUBIC)
        for _ in range(2)
    ]  # fmt: skip
    columns = (places if rng.random() < 0.5 else places[::-1]) + shifts[0]
    return cv2.remap(picture, columns, places[:, None] + shifts[1], cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


def made_up_sounds(prints: Sequence[bytes], count: int) -> np.ndarray:
    """Rows of number of onsets and fingerprint; each onset is one of the real prints, moved."""
    rng = np.random.default_rng(0)
    onsets = np.frombuffer(b"".join(prints), np.uint8).reshape(-1, ONSET)
    numbers = np.array([len(p) // ONSET for p in prints])
    levels = np.stack([onsets[:, 4:] & 15, onsets[:, 4:] >> 4], axis=-1)
    levels = levels.reshape(-1, N_STEPS, N_BANDS).astype(np.float32)
    out = np.zeros((count, 1 + 16 * ONSET), np.uint8)
    for row in range(count):
        n = int(rng.choice(numbers))
        mixed = [
            np.roll(levels[rng.integers(len(levels))], rng.integers((N_STEPS, N_BANDS)), (0, 1))
            + 0.3 * levels[rng.integers(len(levels))]
            for _ in range(n)
        ]
        whole = np.round(np.array(mixed) / 1.3).astype(np.uint8).reshape(n, -1, 2)
        times = rng.uniform(0, 0.5 * n, n).astype("<f4").view(np.uint8).reshape(n, 4)
        out[row, 0] = n
        out[row, 1 : 1 + n * ONSET] = np.hstack([times, whole[..., 0] | whole[..., 1] << 4]).ravel()
    return out
