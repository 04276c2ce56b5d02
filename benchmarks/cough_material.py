"""Sound that is no cough, and calls with an annotated cough stretch at a known place.

Speech comes from espeak-ng (formant synthesis), all other sound is synthesised here. The calls are
what `cough_segmentation.py` learns from and measures on; nothing of them is stored.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

Wave: TypeAlias = NDArray[np.float32]
Rng: TypeAlias = np.random.Generator

#: Languages and voice variants of espeak-ng. A voice is heard in one half only, so that the other
#: half measures speakers and languages that were never learned from.
VOICES = {
    "dev": (
        ("en-us", "de", "fr-fr", "pl", "uk", "tr", "id", "sv"),
        ("", "+m1", "+m3", "+m5", "+m7", "+f1", "+f3", "+klatt", "+klatt3", "+croak"),
    ),
    "test": (
        ("ru", "en-gb", "es", "it", "kk", "pt-br", "ko", "hi"),
        ("", "+m2", "+m4", "+m6", "+m8", "+f2", "+f4", "+f5", "+klatt2", "+klatt4"),
    ),
}
#: Numbers are read aloud in the language of the voice; these are said as well.
PHRASES = {
    "en": "please hold the line, your call is important to us, how are you feeling today",
    "ru": "здравствуйте, после сигнала покашляйте три раза, как вы себя чувствуете, спасибо",
    "de": "bitte husten Sie nach dem Signal, wie geht es Ihnen heute, vielen Dank",
    "fr": "bonjour, comment allez-vous, veuillez patienter, merci beaucoup",
    "es": "buenos días, cómo se encuentra, espere por favor, muchas gracias",
    "it": "buongiorno, come sta, attenda in linea per favore, grazie",
    "uk": "добрий день, як ви себе почуваєте, зачекайте будь ласка",
}
_WHISPER = "+whisper"
_ESPEAK_RATE_HZ = 22_050

#: Frames within this of the loudest count for the level of an event.
_ACTIVE_DB = -30.0


@lru_cache(maxsize=4096)
def _say(voice: str, text: str, pitch: int, speed: int) -> bytes:
    """WAV bytes of a sentence."""
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", "--", text]
    return subprocess.run(command, check=True, capture_output=True).stdout


def speech(rng: Rng, rate: int, half: str, variant: str | None = None) -> Wave:
    """A few spoken words, 1 to 8 s."""
    languages, variants = VOICES[half]
    language = str(rng.choice(languages))
    tail = str(rng.choice(variants)) if variant is None else variant
    words = PHRASES.get(language.split("-", maxsplit=1)[0], "").split(", ")
    numbers = " ".join(str(n) for n in rng.integers(0, 9999, rng.integers(1, 4)))
    text = ", ".join([*rng.permutation([w for w in words if w])[:2], numbers])
    wav = _say(language + tail, text, int(rng.integers(20, 80)), int(rng.integers(120, 220)))
    samples, _ = soundfile.read(io.BytesIO(wav), dtype="float32")
    longest = int(rng.uniform(1, 8) * _ESPEAK_RATE_HZ)
    return _resample(samples[:longest], _ESPEAK_RATE_HZ, rate)


def whisper(rng: Rng, rate: int, half: str) -> Wave:
    """Whispered words: noise through formants, as a cough is."""
    return speech(rng, rate, half, _WHISPER)


def noise(rng: Rng, rate: int, _half: str) -> Wave:
    """Stationary noise of a random colour."""
    pole = rng.uniform(-0.5, 0.98)
    return lfilter([1.0], [1.0, -pole], rng.standard_normal(_length(rng, rate, 1, 8)))


def hum(rng: Rng, rate: int, _half: str) -> Wave:
    """Mains hum with harmonics."""
    t = np.arange(_length(rng, rate, 1, 6)) / rate
    base = rng.choice([50.0, 60.0])
    return sum(
        rng.uniform() * np.sin(2 * np.pi * base * k * t + rng.uniform(0, 6)) for k in range(1, 12)
    )


def tones(rng: Rng, rate: int, _half: str) -> Wave:
    """Dialling (DTMF, ITU-T Q.23) or ringing and busy tones (425 Hz, ITU-T E.180)."""
    low, high = (697, 770, 852, 941), (1209, 1336, 1477)
    out = []
    for _ in range(rng.integers(1, 8)):
        on = np.arange(_length(rng, rate, 0.08, 0.8)) / rate
        if rng.uniform() < 0.6:
            beep = np.sin(2 * np.pi * rng.choice(low) * on) + np.sin(
                2 * np.pi * rng.choice(high) * on
            )
        else:
            beep = np.sin(2 * np.pi * rng.choice([425.0, 950.0, 1400.0, 440.0, 1000.0]) * on)
        out += [beep * rng.uniform(0.5, 1), np.zeros(_length(rng, rate, 0.05, 0.5))]
    return np.concatenate(out)


def clicks(rng: Rng, rate: int, _half: str) -> Wave:
    """Clicks of a line or a keyboard."""
    out = np.zeros(_length(rng, rate, 1, 5))
    for at in rng.integers(0, len(out), rng.integers(2, 30)):
        n = _length(rng, rate, 0.001, 0.01)
        click = rng.standard_normal(n) * np.exp(-np.linspace(0, 6, n)) * rng.uniform(0.1, 1)
        out[at : at + n] += click[: len(out) - at]
    return out


def knocks(rng: Rng, rate: int, _half: str) -> Wave:
    """Knocks, claps and things put down: steep, damped, without the flow of a cough."""
    out = np.zeros(_length(rng, rate, 1, 4))
    for at in rng.integers(0, len(out), rng.integers(1, 8)):
        n = _length(rng, rate, 0.05, 0.25)
        t = np.arange(n) / rate
        decay = rng.uniform(0.008, 0.04)
        body = sum(np.sin(2 * np.pi * rng.uniform(80, 2500) * t) for _ in range(4))
        hit = (body + rng.uniform(0, 3) * rng.standard_normal(n)) * np.exp(-t / decay)
        out[at : at + n] += (hit * rng.uniform(0.3, 1))[: len(out) - at]
    return out


def music(rng: Rng, rate: int, _half: str) -> Wave:
    """Music on hold: chords with harmonics, a melody, and in half of the pieces percussion."""
    n = _length(rng, rate, 3, 8)
    out, beat = np.zeros(n), int(rng.uniform(0.25, 0.6) * rate)
    decay, drums = rng.uniform(0.15, 1.5), rng.uniform() < 0.5
    for at in range(0, n, beat):
        t = np.arange(min(2 * beat, n - at)) / rate
        root = 110 * 2 ** (rng.integers(0, 24) / 12)
        for semitone in (0, 4, 7, 12)[: rng.integers(1, 5)]:
            pitch = root * 2 ** (semitone / 12)
            tone = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 5))
            out[at : at + len(t)] += tone * np.exp(-t / decay) * (1 - np.exp(-t / 0.01))
        if drums:
            hit = rng.standard_normal(len(t)) * np.exp(-t / rng.uniform(0.01, 0.05))
            out[at : at + len(t)] += hit * rng.uniform(0.3, 2)
    return out


def breathing(rng: Rng, rate: int, _half: str) -> Wave:
    """Breath: band noise that swells and falls over 0.5 to 1.5 s."""
    out = []
    for _ in range(rng.integers(1, 5)):
        n = _length(rng, rate, 0.5, 1.5)
        swell = np.sin(np.pi * np.linspace(0, 1, n)) ** rng.uniform(0.7, 3)
        low = rng.uniform(200, 900)
        band = butter(2, (low, rng.uniform(1800, 0.45 * rate)), "bandpass", fs=rate, output="sos")
        out += [
            sosfilt(band, rng.standard_normal(n)) * swell,
            np.zeros(_length(rng, rate, 0.1, 0.7)),
        ]
    return np.concatenate(out)


def throat(rng: Rng, rate: int, _half: str) -> Wave:
    """Throat clearing: a rough voice at 60 to 130 Hz with a soft onset."""
    out = []
    for _ in range(rng.integers(1, 4)):
        n = _length(rng, rate, 0.25, 0.8)
        swell = np.sin(np.pi * np.linspace(0, 1, n)) ** rng.uniform(0.5, 1.2)
        voice = _voice(rng, n, rate, rng.uniform(60, 130), jitter=0.15, breath=0.4)
        out += [voice * swell, np.zeros(_length(rng, rate, 0.05, 0.6))]
    return np.concatenate(out)


def laughter(rng: Rng, rate: int, _half: str) -> Wave:
    """Laughter: four to six vowels a second, each with a breathy start (Bachorowski 2001)."""
    out = []
    pitch = rng.uniform(150, 450)
    for _ in range(rng.integers(3, 10)):
        n = _length(rng, rate, 0.07, 0.14)
        swell = np.sin(np.pi * np.linspace(0, 1, n)) ** 0.7
        pitch *= rng.uniform(0.9, 1.05)
        out.append(_voice(rng, n, rate, pitch, jitter=0.02, breath=0.15) * swell)
        out.append(0.05 * rng.standard_normal(_length(rng, rate, 0.05, 0.12)))
    return np.concatenate(out)


def wind(rng: Rng, rate: int, _half: str) -> Wave:
    """Wind or hand on the microphone: low noise in gusts."""
    n = _length(rng, rate, 1, 5)
    gusts = np.interp(np.arange(n), np.linspace(0, n, 12), rng.uniform(0, 1, 12) ** 2)
    return lfilter([1.0], [1.0, -0.97], rng.standard_normal(n)) * gusts


def siren(rng: Rng, rate: int, _half: str) -> Wave:
    """A gliding tone with harmonics (alarm, crying child)."""
    t = np.arange(_length(rng, rate, 1, 5)) / rate
    pitch = rng.uniform(300, 900) * (1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.3, 3) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    return sum(np.sin(k * phase) * rng.uniform(0.2, 1) / k for k in range(1, 6))


def bark(rng: Rng, rate: int, _half: str) -> Wave:
    """A dog: a short harsh voice with a steep start."""
    out = []
    for _ in range(rng.integers(1, 5)):
        n = _length(rng, rate, 0.12, 0.3)
        t = np.linspace(0, 1, n)
        voice = _voice(rng, n, rate, rng.uniform(250, 700), jitter=0.08, breath=0.3)
        out += [
            voice * np.exp(-3 * t) * np.clip(t / 0.05, 0, 1),
            np.zeros(_length(rng, rate, 0.1, 0.8)),
        ]
    return np.concatenate(out)


Maker: TypeAlias = Callable[[Rng, int, str], Wave]
#: What no cough is, by kind, with the share of the calls' events.
KINDS: dict[str, tuple[Maker, float]] = {
    "speech": (speech, 0.40),
    "whisper": (whisper, 0.04),
    "noise": (noise, 0.06),
    "hum": (hum, 0.03),
    "tones": (tones, 0.06),
    "clicks": (clicks, 0.06),
    "knocks": (knocks, 0.06),
    "music": (music, 0.06),
    "breathing": (breathing, 0.08),
    "throat": (throat, 0.07),
    "wind": (wind, 0.04),
    "siren": (siren, 0.02),
    "laughter": (laughter, 0.01),
    "bark": (bark, 0.01),
}
#: Never learned from: what the method makes of sound that nobody thought of.
UNSEEN = ("siren", "laughter", "bark")


def clip(rng: Rng, kind: str, rate: int, half: str) -> Wave:
    """One event of a kind, in a room, at an RMS (of its loud parts) of 1."""
    sound = KINDS[kind][0](rng, rate, half).astype(np.float32)
    if rng.uniform() < 0.7 and kind not in {"noise", "hum", "tones"}:
        sound = _room(rng, sound, rate)
    return (sound / max(active_rms(sound, rate), 1e-9)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Call:
    """A long recording with one annotated stretch of coughs.

    Attributes:
        samples: float32 (n,).
        sample_rate_hz: of the samples.
        start_s, end_s: the annotated stretch.
        events: kind, start and end in seconds of everything else.
        name: file that the stretch comes from.
        channel: telegram or call-center.
    """

    samples: Wave
    sample_rate_hz: int
    start_s: float
    end_s: float
    events: tuple[tuple[str, float, float], ...]
    name: str
    channel: str


def make_call(cut: Wave, rate: int, half: str, name: str, channel: str) -> Call:
    """Put a published cut (padding already trimmed) into a new call; the name is the seed."""
    rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:12], 16))
    kinds = [k for k in KINDS if half == "test" or k not in UNSEEN]
    share = np.array([KINDS[k][1] for k in kinds])
    level = active_rms(cut, rate)
    parts: list[tuple[str, Wave]] = []
    for _ in range(int(rng.integers(3, 8))):
        kind = str(rng.choice(kinds, p=share / share.sum()))
        gain = level * 10 ** (np.clip(rng.normal(-2, 6), -14, 10) / 20)
        parts.append((kind, clip(rng, kind, rate, half) * np.float32(gain)))
    parts.insert(int(rng.integers(0, len(parts) + 1)), ("", cut))
    gaps = [_length(rng, rate, 0.15, 1.5) for _ in range(len(parts) + 1)]
    total = sum(gaps) + sum(len(part) for _, part in parts)
    samples = _floor_noise(rng, cut, rate, total)
    events, at = [], 0
    for gap, (kind, part) in zip(gaps, parts, strict=False):
        at += gap
        if kind:
            samples[at : at + len(part)] += part
            events.append((kind, at / rate, (at + len(part)) / rate))
        else:
            _splice(samples, cut, at, rate)
            start_s, end_s = at / rate, (at + len(part)) / rate
        at += len(part)
    hiss = level * 10 ** (rng.uniform(-50, -22) / 20)
    samples = samples + hiss * rng.standard_normal(total).astype(np.float32)
    return Call(_codec(rng, samples, rate), rate, start_s, end_s, tuple(events), name, channel)


def trim_padding(cut: Wave, rate: int) -> Wave:
    """Drop the padding of MP3 encoders at both ends: 10 ms below -80 dB of the peak."""
    frame = rate // 100
    peaks = np.abs(cut[: len(cut) // frame * frame]).reshape(-1, frame).max(axis=1)
    loud = np.flatnonzero(peaks > 1e-4 * peaks.max())
    return cut[loud[0] * frame : (loud[-1] + 1) * frame]


def active_rms(sound: Wave, rate: int) -> float:
    """RMS over the 20 ms frames that lie within 30 dB of the loudest."""
    power = frame_power(sound, rate)
    return float(np.sqrt(power[power >= power.max() * 10 ** (_ACTIVE_DB / 10)].mean()))


def frame_power(sound: Wave, rate: int, frame_s: float = 0.02) -> NDArray[np.float64]:
    """Mean square of each frame."""
    length = max(1, round(frame_s * rate))
    padded = np.pad(sound, (0, -len(sound) % length))
    return np.square(padded.reshape(-1, length), dtype=np.float64).mean(axis=1)


def _length(rng: Rng, rate: int, low_s: float, high_s: float) -> int:
    return max(2, int(rng.uniform(low_s, high_s) * rate))


def _resample(sound: Wave, source: int, target: int) -> Wave:
    return np.asarray(soxr.resample(sound, source, target), dtype=np.float32)


def _voice(rng: Rng, n: int, rate: int, pitch: float, *, jitter: float, breath: float) -> Wave:
    """A pulse train with jitter and breath through three formants (Klatt 1980)."""
    knots = np.arange(0, n + 100, 100)
    wobble = 1 + jitter * np.interp(np.arange(n), knots, rng.standard_normal(len(knots)))
    pulses = np.diff(np.floor(np.cumsum(pitch * wobble) / rate), prepend=0.0)
    source = pulses + breath * 0.1 * rng.standard_normal(n)
    out = np.zeros(n)
    for k, centre in enumerate(
        (rng.uniform(400, 800), rng.uniform(1000, 1900), rng.uniform(2200, 2900))
    ):
        radius = np.exp(-np.pi * 120 / rate)
        poles = [1.0, -2 * radius * np.cos(2 * np.pi * centre / rate), radius**2]
        out += lfilter([1 - radius], poles, source) / (1 + k)
    return out


def _room(rng: Rng, sound: Wave, rate: int) -> Wave:
    """Reverberation: decaying noise behind the direct sound."""
    t = np.arange(int(0.3 * rate)) / rate
    tail = rng.standard_normal(len(t)) * np.exp(-6.9 * t / rng.uniform(0.08, 0.5))
    impulse = tail * rng.uniform(0.02, 0.3) / np.sqrt(np.square(tail).sum())
    impulse[0] += 1.0
    return fftconvolve(sound, impulse)[: len(sound) + rate // 10].astype(np.float32)


def _floor_noise(rng: Rng, cut: Wave, rate: int, total: int) -> Wave:
    """Noise with level and spectrum of the cut's quietest tenth, so that no seam is heard."""
    size = 2 * (rate // 50)
    frames = np.lib.stride_tricks.sliding_window_view(cut, min(size, len(cut)))[:: size // 2]
    quiet = frames[np.argsort(np.square(frames).mean(axis=1))[: max(1, len(frames) // 10)]]
    shape = np.sqrt(np.square(np.abs(np.fft.rfft(quiet * np.hanning(quiet.shape[1])))).mean(axis=0))
    impulse = np.fft.fftshift(np.fft.irfft(shape)) * np.hanning(2 * (len(shape) - 1))
    white = rng.standard_normal(total).astype(np.float32)
    coloured = fftconvolve(white, impulse, mode="same")
    rms = np.sqrt(np.square(quiet).mean())
    return (coloured * rms / max(float(coloured.std()), 1e-12)).astype(np.float32)


def _splice(samples: Wave, cut: Wave, at: int, rate: int) -> None:
    """Replace a stretch by the cut, crossfaded over 10 ms at both ends."""
    n = min(rate // 100, len(cut) // 2)
    weight = np.ones(len(cut), np.float32)
    weight[:n], weight[-n:] = np.linspace(0, 1, n), np.linspace(1, 0, n)
    part = samples[at : at + len(cut)]
    part[:] = weight * cut + (1 - weight) * part


def _codec(rng: Rng, samples: Wave, rate: int) -> Wave:
    """The call through a codec of its channel, so that cut and new sound share its traces."""
    samples = samples * np.float32(min(1.0, 0.99 / max(float(np.abs(samples).max()), 1e-9)))
    choice = (("WAV", "GSM610"), ("WAV", "ULAW"), None) if rate == 8000 else (("OGG", "OPUS"), None)
    codec = choice[int(rng.integers(len(choice)))]
    if codec is None:
        return samples.astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=codec[0], subtype=codec[1])
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    return np.pad(decoded, (0, max(0, len(samples) - len(decoded))))[: len(samples)]
