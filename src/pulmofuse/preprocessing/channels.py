"""Recordings of different channels to one band and one noise floor.

A telephone carries 300 to 3,400 Hz (ITU-T G.712), a voice message all that one hears. Where the
channel goes with the class, a model that tells them apart looks better than it is, so everything
is brought to what the poorest channel carries. What this takes away, and what it cannot, is
measured in docs/decisions/0011-cough-channels.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pulmofuse.config import CoughPreprocessing

FloatArray = npt.NDArray[np.float32]

#: From full gain to -80 dB, centred on the edge. A file of 8 kHz, resampled, keeps its spectrum up
#: to 3,650 Hz (soxr HQ: .913 of Nyquist), so that an edge of 3,400 Hz lies inside what it carries.
TRANSITION_HZ = 200.0
STOPBAND_DB = 80.0

#: The same noise for every recording: one that hangs on the recording could tell of it.
_NOISE_SEED = 0x6E6F


def harmonise(sound: FloatArray, config: CoughPreprocessing) -> FloatArray:
    """A recording in the band and with the noise floor of the configuration; (samples,) -> same.

    Both are off by default, and the sound is then passed through untouched.

    Args:
        sound: (samples,) at `config.sample_rate_hz`.
        config: `bandwidth_hz`, `low_cut_hz` and `noise_floor_db`.
    """
    out = _in_band(sound, config)
    if config.noise_floor_db is None:
        return out
    noise = np.random.default_rng(_NOISE_SEED).standard_normal(len(sound), dtype=np.float32)
    rms = float(np.abs(out).max(initial=0.0)) * 10.0 ** (-config.noise_floor_db / 20.0)
    return np.asarray(out + np.float32(rms) * _in_band(noise, config), dtype=np.float32)


def _in_band(sound: FloatArray, config: CoughPreprocessing) -> FloatArray:
    """Filtered without shifting anything in time; untouched where no edge is set."""
    taps = band_filter(config)
    if taps is None:
        return sound
    # Imported where it is needed: it takes longer than reading a recording, and most need none.
    from scipy.signal import oaconvolve

    whole = oaconvolve(sound, taps, mode="full")
    half = len(taps) // 2
    return np.asarray(whole[half : half + len(sound)], dtype=np.float32)


def band_filter(config: CoughPreprocessing) -> npt.NDArray[np.float64] | None:
    """Symmetric filter (odd number of taps) of the band, None where no edge is set.

    Windowed sinc with a Kaiser window (Kaiser 1974; Oppenheim & Schafer, section 7.5).
    """
    nyquist_hz = config.sample_rate_hz / 2
    has_top = config.bandwidth_hz is not None and config.bandwidth_hz < nyquist_hz
    if not has_top and not config.low_cut_hz:
        return None
    beta = 0.1102 * (STOPBAND_DB - 8.7)
    width = 2.0 * np.pi * TRANSITION_HZ / config.sample_rate_hz
    half = int(np.ceil((STOPBAND_DB - 8.0) / (2.285 * width) / 2))
    steps = np.arange(-half, half + 1)
    window = np.kaiser(len(steps), beta)

    def low_pass(edge_hz: float) -> npt.NDArray[np.float64]:
        share = edge_hz / nyquist_hz
        taps = share * np.sinc(share * steps) * window
        return np.asarray(taps / taps.sum())

    everything = (steps == 0).astype(np.float64)
    top = low_pass(config.bandwidth_hz) if has_top and config.bandwidth_hz else everything
    return np.asarray(top - low_pass(config.low_cut_hz) if config.low_cut_hz else top)
