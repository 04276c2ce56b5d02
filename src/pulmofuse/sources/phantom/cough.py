"""A synthesised cough recording.

A cough has an explosive phase, an intermediate phase of noisy flow and, in most people, a voiced
phase (Korpas 1996). Noise and a pulse train pass through formant resonators (Klatt 1980); breath
and room noise lie below. Length, decay, periodicity, spectrum and distance to the room are near
those of the development half of covid19-cough (docs/decisions/0008-cough-segmentation.md).
Signs: COVID-19 a dry cough (short bursts, more energy above 4 kHz), pneumonia a wet one (crackles,
rattling at 25-45 Hz), tuberculosis long bouts of many bursts, chronic disease a wheeze after the
cough. They are a vocabulary for testing software, not a clinical claim.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, lfilter, sosfilt

from pulmofuse.schema import Label
from pulmofuse.sources.phantom.canvas import Signs

Wave: TypeAlias = NDArray[np.float64]

SAMPLE_RATE_HZ = 16_000
_DURATION_S = 2.75
_FORMANTS_HZ = (620.0, 1480.0, 2550.0, 3600.0)  # an open, neutral vocal tract
_BANDWIDTHS_HZ = (180.0, 240.0, 320.0, 420.0)

# Chosen so that the statistics of decision 8 come near those of real coughs.
_BURST_S = (0.42, 0.60)
#: Time constant of the explosive phase; it is over after some 50 ms (Korpas 1996).
_BLAST_S = (0.018, 0.040)
#: Flow of the intermediate phase against the explosive one, -11 to -5 dB.
_FLOW = (0.24, 0.45)
#: Share of the coughs with a voiced phase, its loudness, and what is left of it in the others.
_VOICED_SHARE, _VOICE, _UNVOICED = 0.7, (0.15, 0.45), 0.03
#: Poles that dull the noise of the flow and the pulses of the voice.
_FLOW_POLE, _VOICE_POLE = 0.7, 0.8
#: Room noise before the coarse microphone doubles it, dB below the loudest sample.
_ROOM_DB = (-60.0, -46.0)


def draw_cough(
    rng: np.random.Generator, signs: Signs, *, female: bool, coarse: bool
) -> NDArray[np.int16]:
    """Synthesise one recording.

    Args:
        rng: source of all chance.
        signs: strength of the sign of each disease, 0 to 1.
        female: shorter vocal tract and higher voice.
        coarse: a cheaper microphone in a noisier room.

    Returns:
        int16 (samples,), mono at `SAMPLE_RATE_HZ`.
    """
    n = int(_DURATION_S * SAMPLE_RATE_HZ)
    sound = np.zeros(n)
    end = 0
    for start, length in _bout(rng, signs):
        burst = _burst(rng, length, signs, female=female)
        stop = min(n, start + burst.size)
        sound[start:stop] += burst[: stop - start] * rng.uniform(0.65, 1.0)
        end = max(end, stop)
    sound /= max(float(np.abs(sound).max()), 1e-9)
    sound += _crackles(rng, n, end, signs.get(Label.PNEUMONIA, 0.0))
    sound += _wheeze(rng, n, end, signs.get(Label.CHRONIC_LUNG_DISEASE, 0.0))
    sound += _room(rng, n, coarse=coarse)
    tilt = rng.normal(0, 0.10) + (0.12 if coarse else 0.0)
    sound = lfilter([1.0, -tilt], [1.0], sound)
    peak = max(float(np.abs(sound).max()), 1e-9)
    scaled = np.round(sound / peak * rng.uniform(0.35, 0.95) * 32767)
    return np.asarray(scaled, np.int16)


def _bout(rng: np.random.Generator, signs: Signs) -> list[tuple[int, int]]:
    """Start and length of each burst, in samples."""
    longer = signs.get(Label.TUBERCULOSIS, 0.0)
    shorter = 1 - 0.45 * signs.get(Label.COVID19, 0.0)
    bursts = int(rng.integers(2, 4)) + round(4 * longer)
    gap_s = rng.uniform(0.10, 0.22) * (1 - 0.5 * longer)
    at_s = rng.uniform(0.10, 0.35)
    out: list[tuple[int, int]] = []
    for _ in range(bursts):
        length_s = rng.uniform(*_BURST_S) * shorter * (1 - 0.25 * longer)
        if at_s + length_s > _DURATION_S - 0.1:
            break
        out.append((int(at_s * SAMPLE_RATE_HZ), int(length_s * SAMPLE_RATE_HZ)))
        at_s += length_s + gap_s * rng.uniform(0.7, 1.3)
    return out


def _burst(rng: np.random.Generator, n: int, signs: Signs, *, female: bool) -> Wave:
    """One cough of n samples: explosive, intermediate and, in most, voiced phase."""
    dry = signs.get(Label.COVID19, 0.0)
    wet = signs.get(Label.PNEUMONIA, 0.0)
    t = np.arange(n) / SAMPLE_RATE_HZ
    length_s = n / SAMPLE_RATE_HZ
    tract = rng.uniform(0.94, 1.06) * (1.14 if female else 1.0)
    blast = np.exp(-t / rng.uniform(*_BLAST_S))
    flow = rng.uniform(*_FLOW) * np.exp(-t / (length_s * rng.uniform(0.35, 0.60)))
    envelope = (1 - np.exp(-t / 0.004)) * (blast + flow)
    noise = _through_tract(_dulled(rng.standard_normal(n), _FLOW_POLE), tract)
    hiss = sosfilt(_HISS, rng.standard_normal(n)) * envelope * (0.10 + 1.1 * dry)
    phase = 2 * np.pi * (rng.uniform(25, 45) * t + rng.uniform())
    rattle = 1 - 0.85 * wet * (0.5 + 0.5 * np.sin(phase))
    low = sosfilt(_RATTLE, rng.standard_normal(n)) * np.exp(-t / length_s) * 1.2 * wet
    low *= 0.5 + 0.5 * np.sin(phase)
    voice = _voice(rng, t / length_s, tract, female=female)
    fade = np.clip((length_s - t) / 0.03, 0, 1)
    return np.asarray((noise * envelope * rattle + voice + hiss + low) * fade)


def _voice(rng: np.random.Generator, share: Wave, tract: float, *, female: bool) -> Wave:
    """The voiced phase of a cough; `share` of it (0 to 1) has passed at each sample."""
    pitch_hz = rng.uniform(190, 310) if female else rng.uniform(110, 200)
    glide = pitch_hz * (1.1 - 0.3 * share) * (1 + 0.02 * rng.standard_normal())
    pulses = np.diff(np.floor(np.cumsum(glide) / SAMPLE_RATE_HZ), prepend=0.0)
    breath = 0.02 * rng.standard_normal(share.size)
    centre, width = rng.uniform(0.5, 0.7), rng.uniform(0.14, 0.22)
    swell = np.exp(-0.5 * ((share - centre) / width) ** 2)
    loudness = rng.uniform(*_VOICE) if rng.uniform() < _VOICED_SHARE else _UNVOICED
    return _through_tract(_dulled(pulses + breath, _VOICE_POLE), tract) * swell * loudness


def _dulled(source: Wave, pole: float) -> Wave:
    """A source with less energy at high frequencies: one pole at `pole`, 0 to 1."""
    return np.asarray(lfilter([1.0 - pole], [1.0, -pole], source))


def _through_tract(source: Wave, tract: float) -> Wave:
    """Pass a source through the formants; `tract` scales their frequencies. RMS 0.3."""
    out = np.zeros_like(source)
    for k, (centre, bandwidth) in enumerate(zip(_FORMANTS_HZ, _BANDWIDTHS_HZ, strict=True)):
        radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE_HZ)
        angle = 2 * np.pi * centre * tract / SAMPLE_RATE_HZ
        poles = [1.0, -2 * radius * np.cos(angle), radius**2]
        resonance = lfilter([1 - radius], poles, source)
        out += resonance / (1 + 0.5 * k)
    return np.asarray(0.3 * out / max(float(np.sqrt(np.mean(out**2))), 1e-9))


def _crackles(rng: np.random.Generator, n: int, end: int, strength: float) -> Wave:
    """Short decaying clicks during and after the cough."""
    out = np.zeros(n)
    length = int(0.012 * SAMPLE_RATE_HZ)
    t = np.arange(length) / SAMPLE_RATE_HZ
    for start in rng.integers(0, max(1, min(n - length, end + SAMPLE_RATE_HZ // 2)), 45):
        frequency_hz = rng.uniform(250, 800)
        click = np.sin(2 * np.pi * frequency_hz * t) * np.exp(-t / 0.003)
        out[start : start + length] += click * rng.uniform(0.20, 0.60)
    return strength * out


def _wheeze(rng: np.random.Generator, n: int, end: int, strength: float) -> Wave:
    """A wavering tone with two harmonics, mostly after the cough."""
    t = np.arange(n) / SAMPLE_RATE_HZ
    wander = rng.uniform(0.02, 0.06) * np.sin(2 * np.pi * rng.uniform(1.0, 2.5) * t)
    phase = 2 * np.pi * np.cumsum(rng.uniform(330, 700) * (1 + wander)) / SAMPLE_RATE_HZ
    tone = np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.25 * np.sin(3 * phase)
    start_s = max(0.2, end / SAMPLE_RATE_HZ - 0.6)
    swell = np.clip((t - start_s) / 0.15, 0, 1) * np.clip((_DURATION_S - 0.1 - t) / 0.2, 0, 1)
    return np.asarray(0.16 * strength * tone * swell)


def _room(rng: np.random.Generator, n: int, *, coarse: bool) -> Wave:
    """Breath and room noise."""
    loudness = 10 ** (rng.uniform(*_ROOM_DB) / 20) * (2.0 if coarse else 1.0)
    t = np.arange(n) / SAMPLE_RATE_HZ
    breath = 0.6 + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.6) * t + rng.uniform()))
    pink = lfilter([1.0], [1.0, -0.85], rng.standard_normal(n)) * 0.5
    hum = 0.4 * np.sin(2 * np.pi * 50 * t) * rng.uniform()
    return np.asarray(loudness * (pink * breath + hum))


# Steep: what leaked into the telephone band drowned the cough there, and it was taken for noise.
_HISS = butter(4, (4200, 7500), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
_RATTLE = butter(2, (180, 850), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
