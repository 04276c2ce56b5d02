"""Made-up pictures and recordings to copy: 1/f noise with something in common, bursts of noise."""

import cv2
import numpy as np


def picture(seed: int, side: int = 256) -> np.ndarray:
    """Float32 (side, side) in [0, 1]; all have the same bright oval, as all chests look alike."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    radius[0, 0] = np.inf
    phases = np.exp(2j * np.pi * rng.random(radius.shape))
    noise = np.fft.irfft2(phases / radius**1.3, (side, side))
    place = np.linspace(-1, 1, side)
    oval = np.exp(-3 * (place[:, None] ** 2 + 2 * place[None, :] ** 2))
    mixed = noise / noise.std() + 2 * oval
    return ((mixed - mixed.min()) / np.ptp(mixed)).astype(np.float32)


def coughs(seed: int, seconds: float = 3, rate_hz: int = 16_000) -> np.ndarray:
    """Float32 (n,) with about two bursts a second, each of noise with a colour of its own."""
    rng = np.random.default_rng(seed)
    out = rng.normal(0, 1e-4, int(seconds * rate_hz))
    for start_s in np.sort(rng.uniform(0.1, seconds - 0.4, max(2, int(2 * seconds)))):
        n = int(rng.uniform(0.1, 0.3) * rate_hz)
        spectrum = np.fft.rfft(rng.normal(size=n))
        hz = np.fft.rfftfreq(n, 1 / rate_hz)
        spectrum *= sum(
            np.exp(-(((hz - rng.uniform(200, 3000)) / rng.uniform(100, 500)) ** 2))
            for _ in range(3)
        )
        burst = np.fft.irfft(spectrum, n) * np.exp(-np.arange(n) / (0.3 * n))
        start = int(start_s * rate_hz)
        out[start : start + n] += rng.uniform(0.3, 1) * burst / np.abs(burst).max()
    return np.asarray(0.5 * out / np.abs(out).max(), np.float32)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """What JPEG makes of a picture."""
    grey = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32) / 255
