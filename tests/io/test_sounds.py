"""Sounds come back as they were stored, with the traits of their recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import read_sound
from tests.io import samples as s


@pytest.mark.parametrize(
    ("form", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1 / 32768),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "FLOAT", 1e-7),
        ("FLAC", "PCM_16", 1 / 32768),
        ("OGG", "VORBIS", 0.1),
        ("MP3", "MPEG_LAYER_III", 0.15),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_round_trip(form: str, subtype: str, tolerance: float, channels: int) -> None:
    stored = s.tone(1.0, channels=channels)
    sound = read_sound(s.sound(stored, form, subtype))
    assert sound.samples.shape == (channels, len(stored))
    assert sound.samples.dtype == np.float32
    assert sound.sample_rate_hz == s.RATE
    np.testing.assert_allclose(sound.samples.T, stored, atol=tolerance)
    assert sound.traits["format"] == form.lower()
    assert sound.traits["subtype"] == subtype.lower()


def test_samples_beyond_full_scale_are_brought_back() -> None:
    stored = s.tone() * 5
    sound = read_sound(s.sound(stored, "WAV", "FLOAT"))
    assert np.abs(sound.samples).max() == pytest.approx(1.0)
    assert sound.traits["peak"] == pytest.approx(np.abs(stored).max(), rel=1e-6)


def test_a_streamed_wav_of_unknown_size_is_read() -> None:
    data = s.patched(s.sound(s.tone()), 40, b"\xff\xff\xff\xff")
    assert read_sound(data).samples.shape == (1, 8000)


class TestTraits:
    def test_duration_and_rate(self) -> None:
        traits = read_sound(s.sound(s.tone(0.75, 8000), rate=8000)).traits
        assert traits["duration_s"] == pytest.approx(0.75)
        assert traits["sample_rate_hz"] == 8000

    def test_clipping(self) -> None:
        stored = np.clip(s.tone() * 4, -1, 1)
        traits = read_sound(s.sound(stored)).traits
        assert traits["clipped_fraction"] == pytest.approx(
            (np.abs(stored) >= 0.999).mean(), abs=0.01
        )

    def test_silence(self) -> None:
        stored = np.concatenate([s.tone(0.5), np.zeros((24000, 1))])
        assert read_sound(s.sound(stored)).traits["silent_fraction"] == pytest.approx(
            0.75, abs=0.02
        )

    @pytest.mark.parametrize("limit_hz", [1000, 3000, 6000])
    def test_bandwidth(self, limit_hz: int) -> None:
        spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=32000))
        spectrum[np.fft.rfftfreq(32000, 1 / s.RATE) > limit_hz] = 0
        noise = np.fft.irfft(spectrum)
        stored = (0.5 * noise / np.abs(noise).max())[:, None]
        bandwidth = read_sound(s.sound(stored, "WAV", "FLOAT")).traits["bandwidth_hz"]
        assert bandwidth == pytest.approx(0.99 * limit_hz, rel=0.03)


@pytest.mark.data
class TestPublishedCoughs:
    @pytest.mark.parametrize(
        "name",
        [
            "098d66e5-bda6-4e99-b787-ab890046c44b.mp3",
            "a9ecaf03-40a5-4b43-aaf3-f076f84a69aa.mp3",
        ],
    )
    def test_the_two_broken_files_are_refused(self, name: str, data_root: Path) -> None:
        with pytest.raises(UnreadableFile, match="holds no audio frames"):
            read_sound(data_root / "covid19-cough" / "raw" / name)

    def test_the_others_are_read(self, data_root: Path) -> None:
        for path in sorted((data_root / "covid19-cough" / "raw").glob("*.mp3"))[:12]:
            sound = read_sound(path)
            assert (sound.sample_rate_hz, len(sound.samples)) in {(48000, 1), (8000, 2)}
            assert np.abs(sound.samples).max() <= 1
