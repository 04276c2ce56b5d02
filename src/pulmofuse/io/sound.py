"""Read one sound file into samples with its acquisition traits, by libsndfile or ffmpeg."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.bounds import current_bounds
from pulmofuse.io.content import COPY_AGAIN, Content, decoding, load
from pulmofuse.io.ffmpeg import DEMUXERS, decode_by_ffmpeg
from pulmofuse.io.quiet import quiet_stderr
from pulmofuse.io.sound_headers import check_complete

#: 17 minutes of mono at 48 kHz, which can be read within 1 GiB; a cough recording has seconds.
MAX_SAMPLES = 50_000_000
MIN_DURATION_S = 0.1
#: -80 dB of full scale, three steps of 16 bit: below it there is only the converter's noise.
_SILENT_PEAK = 1e-4
_CLIPPED = 0.999
_MIN_RATE_HZ, _MAX_RATE_HZ = 1000, 768_000
_BLOCK_FRAMES = 1 << 20
#: MP3 headers count whole frames of 1,152 samples, with or without the one that holds the count.
_MP3_SLACK_FRAMES = 2 * 1152
#: What libsndfile says of a codec that it does not know inside a container that it does.
_UNSUPPORTED_ENCODINGS = {1, 4}  # SF_ERR_UNRECOGNISED_FORMAT, SF_ERR_UNSUPPORTED_ENCODING

_FORMATS = "WAV, FLAC, OGG, MP3, AIFF, AU, CAF, WebM, M4A, MP4, 3GP, AAC, AMR or WMA"

_BY_LIBSNDFILE = {"wav", "flac", "ogg", "mp3", "aiff", "au", "caf"}

_ROLLOFF = 0.99
_SPECTRUM_SAMPLES = 2048
_SPECTRUM_BLOCKS = 2000
_LEVEL_S = 0.02
_SILENT_RMS = 1e-3  # -60 dB of full scale


@dataclass(frozen=True, eq=False)
class Sound:
    """One decoded sound file.

    Attributes:
        samples: float32 (channels, n) in [-1, 1].
        sample_rate_hz: samples per second and channel.
        traits: JSON values: format, subtype, bytes, sample_rate_hz, channels, duration_s,
            bits_per_second, peak (before any scaling), clipped_fraction, silent_fraction (20 ms
            blocks below -60 dB of full scale), bandwidth_hz (99 % of the power lies below), both
            of the loudest channel.
    """

    samples: npt.NDArray[np.float32]
    sample_rate_hz: int
    traits: dict[str, Any]

    @property
    def loudest(self) -> npt.NDArray[np.float32]:
        """The channel with the most power after pre-emphasis; float32 (n,).

        Two channels of a call are the two ends of the line, and the cough is in the louder one
        (docs/decisions/0008-cough-segmentation.md); of a stereo microphone either will do. The
        difference of neighbouring samples weighs mains hum and offsets down, which are no cough.
        """
        return _loudest(self.samples)


def read_sound(source: Path | bytes, name: str | None = None) -> Sound:
    """Read whatever libsndfile or ffmpeg reads; the content decides, not the suffix.

    docs/formats.md says what is read how. Floating-point samples beyond [-1, 1] are divided by
    their peak.

    Args:
        source: a path, or the bytes of the file.
        name: what errors call the file; by default its path.

    Raises:
        UnreadableFile: missing, empty, cut, damaged, of another type, of absurd size, without a
            sound track or audio frames, shorter than 0.1 s, silent, or with samples that are not
            finite.
    """
    content = load(source, name)
    if content.kind.family != "sound":
        raise UnreadableFile(
            content.name, f"this is {content.kind.label}, not a sound", f"give {_FORMATS}"
        )
    check_complete(content)
    samples, rate, subtype = _decode(content)
    return finish_sound(
        content.name, content.kind.format, len(content.data), samples, rate, subtype
    )


def finish_sound(
    name: str,
    form: str,
    n_bytes: int,
    samples: npt.NDArray[np.float32],
    rate: int,
    subtype: str,
) -> Sound:
    """Check samples (channels, n) that were not decoded here, and add the traits of every sound.

    Args:
        name: what errors call the recording.
        form: its format.
        n_bytes: its size.
        samples: floating-point samples; beyond [-1, 1] they are divided by their peak.
        rate: samples per second and channel.
        subtype: how the samples were stored.

    Raises:
        UnreadableFile: of absurd size or rate, shorter than 0.1 s, silent, or not finite.
    """
    _check(name, samples, rate)
    traits = _traits(form, n_bytes, samples, rate, subtype)
    return Sound(samples / np.float32(max(1.0, traits["peak"])), rate, traits)


def _decode(content: Content) -> tuple[npt.NDArray[np.float32], int, str]:
    """Samples (channels, n) as stored, sample rate in Hz, and codec."""
    if content.kind.format not in _BY_LIBSNDFILE:
        samples, rate, codec = decode_by_ffmpeg(content, _max_samples())
        check_declared(content.name, rate, *samples.shape)
        return samples, rate, codec
    label = content.kind.format.upper()
    # MP3 without one decodable frame fails at opening with a misleading message.
    why = f"{label} is damaged or holds no audio frames"
    with decoding(content.name, why), quiet_stderr():
        try:
            stream = soundfile.SoundFile(io.BytesIO(content.data))
        except soundfile.LibsndfileError as error:
            if error.code in _UNSUPPORTED_ENCODINGS and content.kind.format in DEMUXERS:
                return decode_by_ffmpeg(content, _max_samples())
            raise
        with stream:
            rate, subtype, declared = stream.samplerate, stream.subtype, stream.frames
            check_declared(content.name, rate, stream.channels, declared)
            # In blocks, so that a header that lies cannot make us allocate what it declares.
            blocks = []
            while len(block := stream.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
                blocks.append(block)
    n_frames = sum(len(block) for block in blocks)
    if not n_frames:
        raise UnreadableFile(content.name, f"{label} holds no audio frames", COPY_AGAIN)
    if n_frames < declared - (_MP3_SLACK_FRAMES if subtype.startswith("MPEG") else 0):
        raise UnreadableFile(
            content.name, f"{label} ends after {n_frames:,} of {declared:,} frames", COPY_AGAIN
        )
    return np.ascontiguousarray(np.concatenate(blocks).T), int(rate), str(subtype)


def _max_samples() -> int:
    bounds = current_bounds()
    return MAX_SAMPLES if bounds is None else min(MAX_SAMPLES, bounds.samples)


def check_declared(name: str, rate: int, channels: int, frames: int) -> None:
    """Refuse rates and sizes that no recording has."""
    if not _MIN_RATE_HZ <= rate <= _MAX_RATE_HZ:
        raise UnreadableFile(name, f"declares {rate:,} samples per second", COPY_AGAIN)
    if channels * frames > _max_samples():
        raise UnreadableFile(
            name,
            f"declares {frames:,} frames of {channels} channels, which no cough recording has",
            "cut the recording, or mend its header (write it again with `sox` or `ffmpeg`)",
        )
    bounds = current_bounds()
    if bounds is not None and bounds.announce is not None:
        bounds.announce(channels * frames)


def _check(name: str, samples: npt.NDArray[np.float32], rate: int) -> None:
    duration_s = samples.shape[1] / rate
    if duration_s < MIN_DURATION_S:
        raise UnreadableFile(
            name,
            f"lasts {duration_s:.3f} s, less than {MIN_DURATION_S} s",
            "give the whole recording",
        )
    bad = int(samples.size - np.isfinite(samples).sum())
    if bad:
        raise UnreadableFile(
            name, f"{bad:,} of {samples.size:,} samples are NaN or infinite", "export it again"
        )
    # A constant offset is no sound.
    spread = float((samples.max(axis=1) - samples.min(axis=1)).max()) / 2
    if spread < _SILENT_PEAK:
        raise UnreadableFile(name, "is silent", "record again, or leave it out")


def _traits(
    form: str, n_bytes: int, samples: npt.NDArray[np.float32], rate: int, subtype: str
) -> dict[str, Any]:
    channels, n_samples = samples.shape
    mono = _loudest(samples)
    peak = max(float(samples.max()), -float(samples.min()))
    n_clipped = np.count_nonzero(samples >= _CLIPPED) + np.count_nonzero(samples <= -_CLIPPED)
    return {
        "format": form,
        "subtype": subtype.lower(),
        "bytes": n_bytes,
        "sample_rate_hz": rate,
        "channels": channels,
        "duration_s": n_samples / rate,
        "bits_per_second": 8.0 * n_bytes * rate / n_samples,
        "peak": peak,
        "clipped_fraction": float(n_clipped / samples.size),
        "silent_fraction": _silent_fraction(mono, rate),
        "bandwidth_hz": _bandwidth_hz(mono, rate),
    }


def _loudest(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The channel (n,) of (channels, n) with the most power after pre-emphasis."""
    one = len(samples) == 1
    place = 0 if one else int(np.argmax(np.diff(samples, axis=1).var(axis=1)))
    out: npt.NDArray[np.float32] = samples[place]
    return out


def _silent_fraction(mono: npt.NDArray[np.float32], rate: int) -> float:
    """Share of 20 ms blocks whose RMS, offset removed, is below -60 dB of full scale."""
    length = max(1, round(_LEVEL_S * rate))
    blocks = (mono[: len(mono) // length * length] - mono.mean()).reshape(-1, length)
    rms = np.sqrt(np.einsum("ij,ij->i", blocks, blocks, dtype=np.float64) / length)
    return float((rms < _SILENT_RMS).mean())


def _bandwidth_hz(mono: npt.NDArray[np.float32], rate: int) -> float:
    """Frequency below which 99 % of the power lies (spectral roll-off of the mean spectrum)."""
    length = min(_SPECTRUM_SAMPLES, len(mono))
    n_blocks = len(mono) // length
    # Evenly spaced blocks are enough for an average, and bound the cost of a long recording.
    chosen = np.linspace(0, n_blocks - 1, min(n_blocks, _SPECTRUM_BLOCKS)).round().astype(int)
    blocks = mono[: n_blocks * length].reshape(n_blocks, length)[chosen] - mono.mean()
    power = np.square(np.abs(np.fft.rfft(blocks * np.hanning(length), axis=1))).sum(axis=0)
    cumulative = np.cumsum(power)
    if cumulative[-1] == 0.0:
        return 0.0
    return float(np.searchsorted(cumulative, _ROLLOFF * cumulative[-1]) * rate / length)
