"""Sounds of phones and browsers, by ffmpeg: whole ones are read, cut ones refused."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import ffmpeg, read_sound
from tests.io import samples as s

#: container, codec, rate, channels, format trait, subtype trait
CASES = [
    ("webm", "libopus", 48000, 1, "webm", "opus"),
    ("matroska", "pcm_s16le", 16000, 1, "webm", "pcm_s16le"),
    ("matroska", "aac", 44100, 2, "webm", "aac"),
    ("ipod", "aac", 44100, 1, "mp4", "aac"),
    ("mp4", "aac", 48000, 2, "mp4", "aac"),
    ("3gp", "aac", 16000, 1, "mp4", "aac"),
    ("3gp", "libopencore_amrnb", 8000, 1, "mp4", "amrnb"),
    ("mov", "alac", 44100, 1, "mp4", "alac"),
    ("amr", "libopencore_amrnb", 8000, 1, "amr", "amrnb"),
    ("adts", "aac", 44100, 1, "aac", "aac"),
    ("asf", "wmav2", 44100, 2, "wma", "wmav2"),
]
IDS = [f"{container}-{codec}-{channels}" for container, codec, _, channels, _, _ in CASES]


def encoded(container: str, codec: str, rate: int, channels: int) -> bytes:
    bit_rate = 12200 if "amr" in codec else 96000
    return s.av_sound(s.tone(2.0, rate, channels), container, codec, rate, bit_rate)


def dominant_hz(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


@pytest.mark.parametrize(
    ("container", "codec", "rate", "channels", "form", "subtype"), CASES, ids=IDS
)
class TestFormats:
    def test_the_tone_comes_back(
        self, container: str, codec: str, rate: int, channels: int, form: str, subtype: str
    ) -> None:
        sound = read_sound(encoded(container, codec, rate, channels))
        assert sound.sample_rate_hz == rate
        assert sound.samples.dtype == np.float32
        assert len(sound.samples) == channels
        # Codecs add up to two frames of priming; no sample of the tone is lost.
        assert 1.98 <= sound.traits["duration_s"] <= 2.15
        for channel in sound.samples:
            middle = channel[rate // 2 : -rate // 2]
            assert dominant_hz(middle, rate) == pytest.approx(440, abs=2)
            assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
        traits = sound.traits
        assert (traits["format"], traits["subtype"]) == (form, subtype)
        assert (traits["sample_rate_hz"], traits["channels"]) == (rate, channels)

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.99])
    def test_cut_files_are_refused(
        self,
        container: str,
        codec: str,
        rate: int,
        channels: int,
        form: str,
        subtype: str,
        share: float,
    ) -> None:
        data = encoded(container, codec, rate, channels)
        with pytest.raises(UnreadableFile):
            read_sound(data[: int(share * len(data))])


class TestBrowsers:
    """MediaRecorder writes to a pipe: no duration, no sizes."""

    DATA = s.browser_webm(s.tone(3.0, 48000))

    def test_the_sample_is_what_it_should_be(self) -> None:
        assert b"\x18\x53\x80\x67\x01" + b"\xff" * 7 in self.DATA  # Segment of unknown size
        assert b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7 in self.DATA  # Cluster of unknown size
        assert b"\x44\x89" not in self.DATA[:400]  # no Duration

    def test_it_is_read(self) -> None:
        sound = read_sound(self.DATA)
        assert sound.samples.shape == (1, 3 * 48000)
        assert dominant_hz(sound.samples[0], 48000) == pytest.approx(440, abs=2)

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
    def test_what_was_written_before_it_broke_off_is_read(self, share: float) -> None:
        sound = read_sound(self.DATA[: int(share * len(self.DATA))])
        assert sound.traits["duration_s"] == pytest.approx(3 * share, abs=0.1)

    def test_nothing_but_the_head_is_refused(self) -> None:
        head = self.DATA[: self.DATA.index(b"\x1f\x43\xb6\x75") + 12]
        with pytest.raises(UnreadableFile, match="no audio frames"):
            read_sound(head)


def test_a_film_without_sound_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="no sound track"):
        read_sound(s.silent_film())


def test_decoding_stops_at_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    block = ffmpeg._block

    def counting(frame: object) -> np.ndarray:
        decoded.append(frame)
        return block(frame)

    monkeypatch.setattr(ffmpeg, "_block", counting)
    monkeypatch.setattr("pulmofuse.io.sound.MAX_SAMPLES", 10_000)
    data = s.browser_webm(s.tone(3.0, 48000))
    with pytest.raises(UnreadableFile, match="more than 10,000 samples"):
        read_sound(data)
    assert len(decoded) < 20


@pytest.mark.parametrize("form", ["AIFF", "AU", "CAF"])
class TestLibsndfile:
    def test_round_trip(self, form: str) -> None:
        stored = s.tone(1.0, channels=2)
        sound = read_sound(s.sound(stored, form, "PCM_16"))
        np.testing.assert_allclose(sound.samples.T, stored, atol=1 / 32768)
        assert sound.traits["format"] == form.lower()

    @pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
    def test_cut_files_are_refused(self, form: str, share: float) -> None:
        data = s.sound(s.tone(), form, "PCM_16")
        with pytest.raises(UnreadableFile):
            read_sound(data[: int(share * len(data))])


def test_opus_in_ogg() -> None:
    sound = read_sound(s.av_sound(s.tone(2.0, 48000), "ogg", "libopus", 48000))
    assert sound.samples.shape == (1, 96000)
    assert sound.traits["subtype"] == "opus"


def test_mp3_inside_wav() -> None:
    sound = read_sound(s.av_sound(s.tone(2.0, 44100), "wav", "libmp3lame", 44100))
    assert sound.traits["duration_s"] == pytest.approx(2.0, abs=0.1)


def test_silence_in_a_container_is_refused() -> None:
    data = s.av_sound(np.zeros((48000, 1)), "webm", "libopus", 48000)
    with pytest.raises(UnreadableFile, match="silent"):
        read_sound(data)


def test_ordinary_sounds_do_not_pay_for_ffmpeg(tmp_path: object) -> None:
    script = (
        "import sys; from pathlib import Path; from pulmofuse.io import read_sound\n"
        "read_sound(sys.stdin.buffer.read())\n"
        "print('av' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=s.sound(s.tone()), capture_output=True, check=True
    )
    assert re.fullmatch(rb"False\s*", done.stdout)
