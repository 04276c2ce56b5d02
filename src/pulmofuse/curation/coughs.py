"""Find the coughs in a recording, and say what is odd about it.

Everything happens at 8 kHz, the bandwidth of a telephone call, whatever the file's rate: a channel
must not decide whether a cough is found. Ten milliseconds at a time, a small network looks at the
spectral shape, the level against its surroundings, the steepness of its rise and the periodicity
within half a second around it, and gives the probabilities of cough, speech and anything else.
A hysteresis comparator (as Orlandic et al. 2021, doi:10.1038/s41597-021-00937-4, have it on power)
makes coughs of them. Every feature is relative to the recording, so its level does not matter.

`benchmarks/cough_segmentation.py` learns the network and measures it; the choices and figures stand
in docs/decisions/0008-cough-segmentation.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.fft import irfft, rfft
from scipy.ndimage import maximum_filter1d, minimum_filter1d, uniform_filter1d

from pulmofuse.curation.remarks import Oddity, Remark
from pulmofuse.io import Sound

FloatArray: TypeAlias = NDArray[np.float32]

#: Rate of the analysis; frames of 40 ms hold two periods of a low voice, one every 10 ms.
RATE_HZ = 8000
_HOP = 80
FRAME_S = _HOP / RATE_HZ
_WINDOW = 320
_FFT = 512

#: A telephone passes 300 to 3,400 Hz (ITU-T G.712); a little more, where there is more.
_LOW_HZ, _HIGH_HZ = 100.0, 3800.0
_BANDS = 20
#: A frame this far below the loudest counts as this: digital silence has no spectral shape.
_FLOOR_DB = -70.0
#: Level is seen against the loudest and the quietest frame within this on both sides.
_SURROUNDINGS_S = 1.0
#: The rise of the level is measured over these.
_RISES_S = (0.02, 0.05)
#: Pitch of speaking adults and children.
_PITCH_HZ = (80.0, 500.0)
#: Around each frame the features are averaged over these frames, first and last.
_CONTEXT = ((-24, -13), (-12, -7), (-6, -3), (-2, -1), (0, 0), (1, 2), (3, 6), (7, 12), (13, 24))
#: Features are brought near to one by this many dB.
_SCALE_DB = 20.0

#: Classes of the network.
CLASSES = ("cough", "speech", "other")

# Chosen on the development half (docs/decisions/0008-cough-segmentation.md).
_SMOOTH_FRAMES = 5
_BEGIN_P, _GO_ON_P = 0.9, 0.5
_MIN_GAP_S = 0.08
_MIN_COUGH_S = 0.1
_NO_COUGH_P = 0.47
#: Where this share of the loud frames is speech, more must speak for a cough.
_SPEECH_SHARE = 0.4
_NO_COUGH_IN_SPEECH_P = 0.75
_LOUD_DB = 20.0
#: The second that is scored, and the loud part it needs: 0.3 s, the length of one cough.
_SCORE_FRAMES = 100
_LEAST_LOUD_FRAMES = 30

#: Trait `silent_fraction`: 20 ms blocks below -60 dB of full scale.
_BLANK_SHARE = 0.98
#: Trait `clipped_fraction`; the worst of 1,322 recordings of covid19-cough has 0.012.
_CLIPPED_SHARE = 0.01

#: Half a window of the usual analysis: the onset and the fading end belong to the cough.
_MARGIN_S = 0.05

_WEIGHTS = Path(__file__).with_name("coughs.safetensors")


def find_coughs(samples: FloatArray, sample_rate_hz: int) -> NDArray[np.float64]:
    """Where somebody coughs.

    Args:
        samples: (n,), one channel, any level.
        sample_rate_hz: of the samples.

    Returns:
        (k, 2) start and end in seconds, ascending, not overlapping; (0, 2) if there is none. Coughs
        of one bout that are less than 0.08 s apart are one.

    Raises:
        ValueError: the samples are not one channel.
    """
    if samples.ndim != 1:
        raise ValueError(f"one channel is needed, the samples have the shape {samples.shape}")
    p = _smooth(frame_probabilities(samples, sample_rate_hz)[:, 0])
    return coughs_of(p, len(samples) / sample_rate_hz)


def sound_remarks(sound: Sound) -> tuple[Remark, ...]:
    """What is odd about a recording that should hold coughs: silence, no cough, speech, clipping.

    A recording in which somebody talks and coughs is not odd.
    """
    silent = float(sound.traits["silent_fraction"])
    if silent >= _BLANK_SHARE:
        reason = f"silence nearly throughout ({silent:.0%} is below -60 dB of full scale)"
        return (Remark(Oddity.BLANK, reason, "record again, or leave it out"),)
    found = []
    clipped = float(sound.traits["clipped_fraction"])
    if clipped >= _CLIPPED_SHARE:
        reason = f"{clipped:.1%} of the samples are cut off at full scale"
        found.append(Remark(Oddity.CLIPPED, reason, "record with less gain, or keep it knowingly"))
    heard = listen(sound)
    talks = heard.speech >= _SPEECH_SHARE
    if heard.cough < (_NO_COUGH_IN_SPEECH_P if talks else _NO_COUGH_P):
        kind = Oddity.SPEECH if talks else Oddity.NO_COUGH
        what = "somebody talks, and no cough was found" if talks else "no cough was found"
        reason = f"{what} (cough score {heard.cough:.2f}, speech score {heard.speech:.2f})"
        found.append(Remark(kind, reason, "listen to it, and leave it out if nobody coughs"))
    return tuple(found)


def between_coughs(
    samples: FloatArray, sample_rate_hz: int, coughs: NDArray[np.float64]
) -> FloatArray:
    """The recording without its coughs: what a model must not be able to tell a disease from.

    Args:
        samples: (n,) or (channels, n); not changed.
        sample_rate_hz: of the samples.
        coughs: (k, 2) start and end in seconds, as `find_coughs` gives them.

    Returns:
        A copy of the samples, zero from 50 ms before each cough to 50 ms after it.
    """
    rest = samples.copy()
    for start_s, end_s in coughs:
        first = max(0, round((start_s - _MARGIN_S) * sample_rate_hz))
        rest[..., first : round((end_s + _MARGIN_S) * sample_rate_hz)] = 0.0
    return rest


@dataclass(frozen=True)
class Heard:
    """What a recording holds.

    Attributes:
        cough: mean probability of a cough in the loud frames of the second that has most of it,
            in [0, 1]; loud is within 20 dB of the loudest.
        speech: mean probability of speech in all loud frames, in [0, 1].
    """

    cough: float
    speech: float


def listen(sound: Sound) -> Heard:
    """Score the loudest channel; a passing likeness to a cough does not count for much."""
    power = _frame_power(sound.loudest, sound.sample_rate_hz)
    p = _classify(_context(_features(power)))
    level = _level_db(power)
    loud = level >= level.max() - _LOUD_DB
    length = min(_SCORE_FRAMES, len(loud))
    cough, count = (
        np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        for values in (p[:, 0] * loud, loud)
    )
    share = (cough[length:] - cough[:-length]) / np.maximum(
        count[length:] - count[:-length], _LEAST_LOUD_FRAMES
    )
    return Heard(float(share.max()), float(p[loud, 1].mean()))


def coughs_of(p: FloatArray, duration_s: float) -> NDArray[np.float64]:
    """Hysteresis comparator over smoothed cough probabilities (frames,); see `find_coughs`."""
    edges = np.flatnonzero(np.diff(np.r_[False, p >= _GO_ON_P, False]))
    runs = [run for run in edges.reshape(-1, 2) if p[run[0] : run[1]].max() >= _BEGIN_P]
    # A frame stands for the step around its centre.
    spans = (np.array(runs, dtype=np.float64).reshape(-1, 2) - 0.5) * FRAME_S
    spans = merge(np.clip(spans, 0.0, duration_s), _MIN_GAP_S)
    return spans[spans[:, 1] - spans[:, 0] >= _MIN_COUGH_S]


def merge(spans: NDArray[np.float64], gap_s: float) -> NDArray[np.float64]:
    """Join ascending spans (k, 2) that are closer than `gap_s`."""
    if not len(spans):
        return spans
    apart = spans[1:, 0] - spans[:-1, 1] >= gap_s
    return np.column_stack([spans[np.r_[True, apart], 0], spans[np.r_[apart, True], 1]])


def frame_probabilities(samples: FloatArray, sample_rate_hz: int) -> FloatArray:
    """Probabilities (frames, 3) of `CLASSES`, one frame each 10 ms, the first at time 0."""
    return _classify(frame_features(samples, sample_rate_hz))


def frame_features(samples: FloatArray, sample_rate_hz: int) -> FloatArray:
    """What the network sees, (frames, features): each frame with its surroundings."""
    return _context(_features(_frame_power(samples, sample_rate_hz)))


def frame_level_db(samples: FloatArray, sample_rate_hz: int) -> FloatArray:
    """Level (frames,) against the loudest frame, at least -70 dB."""
    return _level_db(_frame_power(samples, sample_rate_hz))


def _frame_power(samples: FloatArray, sample_rate_hz: int) -> FloatArray:
    """Power spectra (frames, bins) at 8 kHz, the loudest frame scaled to a sum of one."""
    mono = np.asarray(samples, dtype=np.float32)
    mono = mono - (mono.mean() if len(mono) else np.float32(0))
    peak = np.abs(mono).max(initial=0.0)
    # Scaled before anything is squared, so that very quiet recordings do not underflow.
    mono = mono / np.float32(peak) if peak > 0 else mono
    if sample_rate_hz != RATE_HZ and len(mono):
        mono = np.asarray(soxr.resample(mono, sample_rate_hz, RATE_HZ, quality="MQ"))
    half = _WINDOW // 2
    padded = np.pad(mono, (half, half + _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    spectrum = rfft(frames * np.hanning(_WINDOW).astype(np.float32), _FFT, axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    # The window's own periodicity needs all bins, the level only those of the voice band.
    loudest = power[:, _voice_band()].sum(axis=1).max()
    scaled: FloatArray = power / max(loudest, np.finfo(np.float32).tiny)
    return scaled


def _level_db(power: FloatArray) -> FloatArray:
    level = np.maximum(power[:, _voice_band()].sum(axis=1), 10 ** (_FLOOR_DB / 10))
    return np.asarray(10.0 * np.log10(level), dtype=np.float32)


def _features(power: FloatArray) -> FloatArray:
    """Features of each frame by itself and against its surroundings, (frames, 26)."""
    level = _level_db(power)
    floor = np.float32(10 ** (_FLOOR_DB / 10) / _BANDS)
    bands = 10.0 * np.log10(power @ _mel_bands() + floor)
    shape = bands - bands.mean(axis=1, keepdims=True)
    linear = 10.0 * np.log10(np.power(10.0, bands / 10.0).mean(axis=1))
    flatness = bands.mean(axis=1) - linear
    size = 2 * round(_SURROUNDINGS_S / FRAME_S) + 1
    below_loudest = level - maximum_filter1d(level, size, mode="nearest")
    above_quietest = level - minimum_filter1d(level, size, mode="nearest")
    rises = [_rise(level, round(seconds / FRAME_S)) for seconds in _RISES_S]
    in_db = np.column_stack([shape, flatness, below_loudest, above_quietest, *rises])
    return np.column_stack([in_db / _SCALE_DB, _periodicity(power)]).astype(np.float32)


def _rise(level: FloatArray, frames: int) -> FloatArray:
    """Level (n,) less that of some frames before; zero where there is none."""
    before = np.concatenate([np.repeat(level[:1], frames), level])[: len(level)]
    rise: FloatArray = level - before
    return rise


def _periodicity(power: FloatArray) -> FloatArray:
    """Largest normalised autocorrelation at the lags of a voice's pitch, (frames,), about 0 to 1.

    The window's own autocorrelation is divided out (Boersma 1993).
    """
    first, last = (round(RATE_HZ / hz) for hz in reversed(_PITCH_HZ))
    correlation = irfft(power, axis=1)[:, : last + 1] / _window_correlation()[: last + 1]
    total = np.maximum(correlation[:, 0], np.finfo(np.float32).tiny)
    periodicity: FloatArray = np.clip(correlation[:, first:].max(axis=1) / total, 0.0, 1.0)
    return periodicity


def _context(features: FloatArray) -> FloatArray:
    """Each frame with the means over its surroundings, (frames, features * 9)."""
    reach = _CONTEXT[-1][1]
    padded = np.pad(features, ((reach, reach), (0, 0)), mode="edge")
    n = len(features)
    total = np.concatenate([np.zeros_like(padded[:1], np.float64), padded.cumsum(0, np.float64)])
    parts = [
        (total[reach + b + 1 :][:n] - total[reach + a :][:n]) / (b - a + 1) for a, b in _CONTEXT
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _classify(seen: FloatArray) -> FloatArray:
    """One hidden layer (rectified) and a softmax, (frames, 3)."""
    w = _weights()
    hidden = np.maximum(seen @ w["hidden.weight"] + w["hidden.bias"], 0.0)
    logits = hidden @ w["out.weight"] + w["out.bias"]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    p: FloatArray = odds / odds.sum(axis=1, keepdims=True)
    return p


def _smooth(p: FloatArray) -> FloatArray:
    smooth: FloatArray = uniform_filter1d(p, _SMOOTH_FRAMES, mode="nearest")
    return smooth


@cache
def _weights() -> dict[str, FloatArray]:
    weights: dict[str, FloatArray] = load_file(_WEIGHTS)
    return weights


@cache
def _voice_band() -> slice:
    return slice(round(_LOW_HZ * _FFT / RATE_HZ), round(_HIGH_HZ * _FFT / RATE_HZ) + 1)


@cache
def _window_correlation() -> FloatArray:
    window = np.hanning(_WINDOW)
    correlation = irfft(np.square(np.abs(rfft(window, _FFT))))
    return np.asarray(correlation / correlation[0], dtype=np.float32)


@cache
def _mel_bands() -> FloatArray:
    """Triangles (bins, bands) evenly spaced in mel (O'Shaughnessy 1987), each summing to one."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (_LOW_HZ, _HIGH_HZ))
    edges = 700 * (10 ** (np.linspace(low, high, _BANDS + 2) / 2595) - 1)
    hz = np.arange(_FFT // 2 + 1)[:, None] * RATE_HZ / _FFT
    rise = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    triangles = np.clip(np.minimum(rise, fall), 0.0, None)
    return np.asarray(triangles / triangles.sum(axis=0), dtype=np.float32)
