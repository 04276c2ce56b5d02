"""What two copies of one recording still share: the pattern of sound around each onset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import soxr

#: Telephone bandwidth: a copy that went through a call keeps nothing above it.
RATE_HZ = 8000
_LOW_HZ, _HIGH_HZ = 150.0, 3400.0
N_BANDS = 16
_WINDOW, _HOP = (
    512,
    64,
)  # 64 ms and 8 ms: fine enough to find an onset again within half a patch step
#: A patch has 24 steps of two hops (384 ms), a sixth of it before the onset: one cough's burst.
N_STEPS, _STEP = 24, 2
_BEFORE = 4
#: Onsets kept, the strongest; the cap holds a fingerprint below 4 KB however long the recording.
MAX_ONSETS = 16
#: Hops between two onsets; coughs of one fit come about 300 ms apart (and echo within 100).
_APART = 16
#: Loudness range kept below the loudest hop; noise that a codec adds lies lower.
_RANGE_DB = 50.0
#: Power added before the logarithm: 16-bit rounding of one sample, far below any recording.
_NOTHING = 1e-9
#: Hops over which a rise in level counts as an onset.
_RISE = 4
_PATCH_BYTES = N_BANDS * N_STEPS // 2
_ENTRY = 4 + _PATCH_BYTES
_LEVELS = 16
#: Standard deviations that fill the 16 levels.
_PATCH_RANGE = 2.5


@dataclass(frozen=True, eq=False)
class SoundCodes:
    """The onsets of n recordings one after the other.

    Attributes:
        owner: int64 (onsets,), row of the recording that each onset belongs to; the strongest
            onset of a recording comes first.
        time_s: float32 (onsets,), seconds from the start of the recording.
        packed: uint8 (onsets, bytes), two levels in each byte.
    """

    owner: npt.NDArray[np.int64]
    time_s: npt.NDArray[np.float32]
    packed: npt.NDArray[np.uint8]

    def patches(self, onsets: npt.NDArray[np.intp] | slice) -> npt.NDArray[np.float32]:
        """Patches (len(onsets), N_BANDS * N_STEPS) with zero mean and unit length."""
        bytes_ = self.packed[onsets]
        levels = np.stack([bytes_ & 15, bytes_ >> 4], axis=-1).reshape(len(bytes_), -1)
        centred = levels.astype(np.float32)
        centred -= centred.mean(axis=1, keepdims=True)
        length = np.sqrt((centred * centred).sum(axis=1, keepdims=True))
        return np.asarray(centred / np.maximum(length, np.finfo(np.float32).tiny), np.float32)


def sound_fingerprint(samples: npt.NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """Fingerprint of one recording: up to `MAX_ONSETS` onsets, each with the spectrogram around it.

    Gain falls out, because a patch is relative to its mean; so do bandwidth above 3.4 kHz, and
    silence or cuts at the ends, because each onset is its own clock.

    Args:
        samples: float32 (n,), one channel.
        sample_rate_hz: samples per second.
    """
    spectrogram = _log_spectrogram(samples, sample_rate_hz)
    onsets = _onsets(spectrogram)
    if not len(onsets):
        return b""
    times = (onsets * (_HOP / RATE_HZ)).astype("<f4")
    packed = _pack(_patches(spectrogram, onsets))
    return b"".join(
        time.tobytes() + patch.tobytes() for time, patch in zip(times, packed, strict=True)
    )


def unpack_sounds(fingerprints: list[bytes]) -> SoundCodes:
    """Lay fingerprints side by side.

    Raises:
        ValueError: the length of one of them is not that of whole onsets.
    """
    if any(len(fingerprint) % _ENTRY for fingerprint in fingerprints):
        raise ValueError(f"a sound fingerprint has {_ENTRY} bytes for each onset")
    table = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, _ENTRY)
    counts = [len(fingerprint) // _ENTRY for fingerprint in fingerprints]
    times = np.ascontiguousarray(table[:, :4]).view("<f4").ravel().astype(np.float32)
    return SoundCodes(np.repeat(np.arange(len(fingerprints)), counts), times, table[:, 4:])


def _bands() -> npt.NDArray[np.float32]:
    """Triangles (N_BANDS, bins) at equal distances in mel (O'Shaughnessy 1987)."""
    low, high = 1127 * np.log1p(np.array([_LOW_HZ, _HIGH_HZ]) / 700)
    mel = np.linspace(low, high, N_BANDS + 2)
    edges = 700 * np.expm1(mel / 1127)
    bins = np.fft.rfftfreq(_WINDOW, 1 / RATE_HZ)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    out: npt.NDArray[np.float32] = np.maximum(0, np.minimum(rise, fall)).astype(np.float32)
    return out


_FILTERS = _bands()
_TAPER = np.hanning(_WINDOW).astype(np.float32)


def _log_spectrogram(
    samples: npt.NDArray[np.float32], sample_rate_hz: int
) -> npt.NDArray[np.float32]:
    """Band levels (hops, N_BANDS) in dB above the floor, from 0 to `_RANGE_DB`."""
    if sample_rate_hz != RATE_HZ:
        samples = soxr.resample(samples, sample_rate_hz, RATE_HZ, quality="LQ")
    padded = np.pad(samples, _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    spectrum = scipy.fft.rfft(frames * _TAPER, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    level = 10 * np.log10(power @ _FILTERS.T + _NOTHING)
    floor = max(float(level.max()) - _RANGE_DB, 10 * np.log10(_NOTHING))
    above = np.maximum(level - floor, 0)
    return np.asarray(above, np.float32)


def _onsets(spectrogram: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Hops (k,) where the level rises most, k at most `MAX_ONSETS`, the strongest first."""
    ahead = np.pad(spectrogram, ((_RISE, _RISE), (0, 0)))
    rise = np.maximum(ahead[2 * _RISE :] - ahead[: -2 * _RISE], 0).sum(axis=1)
    strength = np.convolve(rise, np.hanning(2 * _RISE + 1), mode="same")
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(strength, _APART), 2 * _APART + 1)
    peaks = np.flatnonzero((strength == windows.max(axis=1)) & (strength > 0))
    return peaks[np.argsort(-strength[peaks], kind="stable")[:MAX_ONSETS]]


def _patches(
    spectrogram: npt.NDArray[np.float32], onsets: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """The spectrogram around each onset, (onsets, N_STEPS * N_BANDS)."""
    before = _BEFORE * _STEP
    padded = np.pad(spectrogram, ((before, N_STEPS * _STEP), (0, 0)))
    hops = onsets[:, None] + np.arange(N_STEPS * _STEP)
    windows = padded[hops].reshape(len(onsets), N_STEPS, _STEP, N_BANDS)
    return np.asarray(windows.mean(axis=2), np.float32).reshape(len(onsets), -1)


def _pack(patches: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Sixteen levels over ±2.5 standard deviations, two to a byte; (onsets, _PATCH_BYTES)."""
    spread = np.maximum(patches.std(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    normal = (patches - patches.mean(axis=1, keepdims=True)) / spread
    scaled = (normal + _PATCH_RANGE) * (_LEVELS / (2 * _PATCH_RANGE))
    levels = np.clip(np.floor(scaled), 0, _LEVELS - 1).astype(np.uint8).reshape(len(patches), -1, 2)
    packed: npt.NDArray[np.uint8] = levels[..., 0] | levels[..., 1] << 4
    return packed
