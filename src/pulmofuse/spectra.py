"""What log-mel spectrograms and MFCC are: windows, filters and bases, and their numbers in numpy.

Models compute the same by `preprocessing.LogMel` and `preprocessing.Mfcc`, batched and on any
device. This is for a few files without a model: a script, a table of features, a classical
baseline. It imports neither torch nor scipy, which take longer than the features of a file.

    sound = read_sound(path)
    mono = soxr.resample(sound.loudest, sound.sample_rate_hz, config.sample_rate_hz)
    coefficients = mfcc(mono, config)
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pulmofuse.config import CoughPreprocessing

FloatArray = npt.NDArray[np.float32]

#: Smallest power that has a logarithm, and the range kept below a clip's maximum, dB
#: (librosa.power_to_db).
FLOOR_POWER = 1e-10
TOP_DB = 80.0

# Slaney's Auditory Toolbox (1998): linear below 1 kHz, logarithmic above, 27 steps per factor 6.4.
_HZ_PER_MEL = 200.0 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27.0


def hz_to_mel(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Hertz to mel on Slaney's scale."""
    above = _BREAK_HZ / _HZ_PER_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, above)


def mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mel on Slaney's scale to hertz."""
    break_mel = _BREAK_HZ / _HZ_PER_MEL
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, break_mel) - break_mel))
    return np.where(mel < break_mel, mel * _HZ_PER_MEL, above)


def mel_filters(config: CoughPreprocessing) -> FloatArray:
    """Triangular mel filters of unit area (Slaney), (n_mels, 1 + n_fft // 2)."""
    bins_hz = np.fft.rfftfreq(config.n_fft, 1.0 / config.sample_rate_hz)
    low, high = hz_to_mel(np.array([config.f_min_hz, config.f_max_hz]))
    corners_hz = mel_to_hz(np.linspace(low, high, config.n_mels + 2))
    widths = np.diff(corners_hz)
    ramps = corners_hz[:, np.newaxis] - bins_hz
    rising = -ramps[:-2] / widths[:-1, np.newaxis]
    falling = ramps[2:] / widths[1:, np.newaxis]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    area = 2.0 / (corners_hz[2:] - corners_hz[:-2])
    return (triangles * area[:, np.newaxis]).astype(np.float32)


def hann_window(length: int) -> FloatArray:
    """Periodic Hann window, (length,)."""
    phase = 2.0 * np.pi * np.arange(length) / length
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def dct_basis(n: int, length: int) -> FloatArray:
    """The first n rows of the orthonormal DCT-II of vectors of a length, (n, length)."""
    steps = np.arange(length) + 0.5
    basis = np.cos(np.pi / length * np.arange(n)[:, np.newaxis] * steps)
    basis *= math.sqrt(2.0 / length)
    basis[0] = 1.0 / math.sqrt(length)
    return basis.astype(np.float32)


def log_mel(sounds: FloatArray, config: CoughPreprocessing) -> FloatArray:
    """Log-mel spectrogram, as `preprocessing.LogMel` gives it.

    Args:
        sounds: (..., samples) at the sample rate of `config`.
        config: frames, filters and band.

    Returns:
        (..., n_mels, 1 + samples // hop_length), dB re 1, cut 80 dB below each maximum.
    """
    before = (config.n_fft - config.win_length) // 2
    window = np.zeros(config.n_fft, np.float32)
    window[before : before + config.win_length] = hann_window(config.win_length)
    half = config.n_fft // 2
    padded = np.pad(sounds, [(0, 0)] * (sounds.ndim - 1) + [(half, half)])
    every = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft, axis=-1)
    spectrum = np.fft.rfft(every[..., :: config.hop_length, :] * window, axis=-1)
    power = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32)
    mel = mel_filters(config) @ power.swapaxes(-1, -2)
    decibel = 10.0 * np.log10(np.maximum(mel, np.float32(FLOOR_POWER)))
    floor = decibel.max(axis=(-1, -2), keepdims=True) - TOP_DB
    out: FloatArray = np.maximum(decibel, floor).astype(np.float32)
    return out


def mfcc(sounds: FloatArray, config: CoughPreprocessing) -> FloatArray:
    """Mel-frequency cepstral coefficients, as `preprocessing.Mfcc` gives them.

    Args:
        sounds: (..., samples) at the sample rate of `config`.
        config: frames, filters, band and number of coefficients.

    Returns:
        (..., n_mfcc, 1 + samples // hop_length); coefficient 0 is the level.
    """
    out: FloatArray = dct_basis(config.n_mfcc, config.n_mels) @ log_mel(sounds, config)
    return out
