"""Cough recordings to windows of mono int16 sound."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import soxr

from pulmofuse.config import CoughPreprocessing
from pulmofuse.errors import UnreadableFile
from pulmofuse.io import Sound
from pulmofuse.preprocessing.channels import harmonise
from pulmofuse.preprocessing.tensors import SOUND_SCALE

FloatArray = npt.NDArray[np.float32]

#: Frames of the loudness that decides where a recording begins and ends (librosa's defaults).
_TRIM_FRAME = 2048
_TRIM_HOP = 512
#: Power below which a frame counts as this (librosa's amin of 1e-5, squared).
_TRIM_FLOOR = 1e-10
#: A last window with less sound than this share would be almost all padding.
_MIN_TAIL = 0.25


def prepare_cough(sound: Sound, config: CoughPreprocessing, name: str) -> npt.NDArray[np.int16]:
    """A recording to int16 (n, samples), n <= max_windows, peak at full scale.

    The loudest channel, offset removed, resampled (soxr HQ), brought to the band and the noise
    floor of the configuration, trimmed of silence at both ends, scaled to its peak, cut into
    windows.

    Raises:
        UnreadableFile: it is silent.
    """
    # Of a call, the mean of both ends tells COVID-19 better than the end that coughs: it lets a
    # model hear who was called. That is no cough (docs/decisions/0008-cough-segmentation.md).
    mono = sound.loudest
    mono = (mono - mono.mean()).astype(np.float32)
    resampled = soxr.resample(mono, sound.sample_rate_hz, config.sample_rate_hz, quality="HQ")
    harmonised = harmonise(np.asarray(resampled, dtype=np.float32), config)
    trimmed = trim_silence(harmonised, config.trim_db)
    peak = float(np.abs(trimmed).max(initial=0.0))
    if peak <= 1.0 / SOUND_SCALE:
        raise UnreadableFile(
            name, "is silent once it is resampled", "record again, or leave it out"
        )
    scaled = np.rint(trimmed * (SOUND_SCALE / peak)).astype(np.int16)
    return cut_windows(scaled, window_samples(config), config.max_windows)


def window_samples(config: CoughPreprocessing) -> int:
    """Samples of one window."""
    return round(config.duration_s * config.sample_rate_hz)


def trim_silence(sound: FloatArray, trim_db: float) -> FloatArray:
    """Drop both ends where the frame RMS lies `trim_db` or more below its maximum.

    The same rule as `librosa.effects.trim` with its default frames, without its import time.

    Args:
        sound: (samples,).
        trim_db: positive, dB.
    """
    half = _TRIM_FRAME // 2
    # In float64: a cumulative sum of squares loses quiet frames after loud ones in float32.
    power = np.concatenate([[0.0], np.cumsum(np.square(np.pad(sound, half), dtype=np.float64))])
    starts = np.arange(0, len(sound) + 1, _TRIM_HOP)
    starts = starts[starts + _TRIM_FRAME < len(power)]
    mean_square = (power[starts + _TRIM_FRAME] - power[starts]) / _TRIM_FRAME
    level_db = 10.0 * np.log10(np.maximum(mean_square, _TRIM_FLOOR))
    reference_db = 10.0 * math.log10(max(float(mean_square.max()), _TRIM_FLOOR))
    loud = np.flatnonzero(level_db - reference_db > -trim_db)
    first, last = int(loud[0]) * _TRIM_HOP, (int(loud[-1]) + 1) * _TRIM_HOP
    return sound[first : min(last, len(sound))]


def cut_windows(
    sound: npt.NDArray[np.int16], length: int, max_windows: int
) -> npt.NDArray[np.int16]:
    """Cut (samples,) into (n, length) windows, 1 <= n <= max_windows.

    A recording that fits is cut end to end and its last window padded with zeros (a tail of less
    than a quarter window is dropped); a longer one gives windows that are evenly spread over it.
    """
    n_samples = len(sound)
    if n_samples > max_windows * length:
        last = n_samples - length
        starts = np.linspace(0, last, max_windows).round().astype(int)
    else:
        n_full, tail = divmod(n_samples, length)
        n_windows = n_full + (tail >= _MIN_TAIL * length or n_full == 0)
        starts = np.arange(n_windows) * length
    windows = np.zeros((len(starts), length), dtype=np.int16)
    for window, start in zip(windows, starts, strict=True):
        part = sound[start : start + length]
        window[: len(part)] = part
    return windows
