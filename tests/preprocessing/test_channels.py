"""Channels: a telephone call and a voice message end with the same band and the same floor."""

from __future__ import annotations

import numpy as np
import pytest

from pulmofuse.config import CoughPreprocessing
from pulmofuse.preprocessing import prepare
from pulmofuse.preprocessing.channels import STOPBAND_DB, TRANSITION_HZ, band_filter, harmonise
from pulmofuse.schema import Modality
from tests.io import samples as s

BAND = CoughPreprocessing(
    duration_s=1.0, bandwidth_hz=3400, low_cut_hz=300, f_min_hz=300, f_max_hz=3400
)
HALF = TRANSITION_HZ / 2


def noise(rate: int, seed: int = 0) -> np.ndarray:
    """Two seconds of white noise, as loud at every frequency as the rate carries."""
    return np.random.default_rng(seed).normal(0, 0.1, (2 * rate, 1)).astype(np.float32)


def spectrum_db(rate: int, config: CoughPreprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, and the mean spectrum of the noise's windows with 0 dB inside the band."""
    windows = prepare(s.sound(noise(rate), "WAV", "FLOAT", rate), Modality.COUGH, config).instances
    blocks = windows.reshape(-1, 1000).astype(float) * np.blackman(1000)
    power = np.square(np.abs(np.fft.rfft(blocks, axis=1))).mean(axis=0)
    hz = np.fft.rfftfreq(1000, 1 / config.sample_rate_hz)
    return hz, 10 * np.log10(power / power[(hz > 1000) & (hz < 2000)].mean())


class TestBand:
    @pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
    def test_nothing_is_left_outside_and_all_inside(self, rate: int) -> None:
        hz, level = spectrum_db(rate, BAND)
        # 64 Hz is what the window of the measurement smears.
        outside = (hz > 3400 + HALF + 64) | (hz < 300 - HALF - 64)
        inside = (hz < 3400 - HALF - 64) & (hz > 300 + HALF + 64)
        assert level[outside].max() < -60  # rounding to 16 bit lies at about -75
        assert np.abs(level[inside]).max() < 4  # 32 blocks of noise

    def test_a_call_and_a_message_carry_the_same(self) -> None:
        hz, call = spectrum_db(8000, BAND)
        _, message = spectrum_db(48000, BAND)
        plain = CoughPreprocessing(duration_s=1.0)
        _, plain_call = spectrum_db(8000, plain)
        _, plain_message = spectrum_db(48000, plain)
        top = (hz > 4000) & (hz < 7000)
        assert (plain_message - plain_call)[top].mean() > 40
        assert np.abs(np.maximum(message, -60) - np.maximum(call, -60)).max() < 5

    def test_the_filter_does_what_it_says(self) -> None:
        taps = band_filter(BAND)
        assert taps is not None
        hz = np.fft.rfftfreq(1 << 16, 1 / BAND.sample_rate_hz)
        gain = 20 * np.log10(np.abs(np.fft.rfft(taps, 1 << 16)) + 1e-12)
        assert np.abs(gain[(hz > 300 + HALF) & (hz < 3400 - HALF)]).max() < 0.01
        # What the two edges leave may add up: 6 dB.
        assert gain[(hz < 300 - HALF) | (hz > 3400 + HALF)].max() < -STOPBAND_DB + 6
        for edge in (300, 3400):
            assert gain[np.abs(hz - edge).argmin()] == pytest.approx(-6.0, abs=0.1)
        np.testing.assert_array_equal(taps, taps[::-1])

    def test_nothing_moves_in_time(self) -> None:
        click = np.zeros(4000, np.float32)
        click[1234] = 1.0
        assert np.abs(harmonise(click, BAND)).argmax() == 1234

    def test_a_band_as_wide_as_the_rate_needs_no_filter(self) -> None:
        assert band_filter(CoughPreprocessing(bandwidth_hz=8000)) is None


class TestFloor:
    CONFIG = CoughPreprocessing(noise_floor_db=40)

    def test_silence_is_filled_and_the_cough_is_not_changed(self) -> None:
        sound = np.zeros(16000, np.float32)
        sound[4000:8000] = 0.5 * np.sin(np.arange(4000) / 3)
        filled = harmonise(sound, self.CONFIG)
        rms = filled[8000:].std()
        assert 20 * np.log10(rms / np.abs(sound).max()) == pytest.approx(-40, abs=0.2)
        assert np.abs(filled - sound).max() < 0.05 * 0.5

    def test_noise_lies_in_the_band(self) -> None:
        config = BAND.model_copy(update={"noise_floor_db": 20.0})
        sound = np.zeros(32000, np.float32)
        sound[0] = 1.0
        power = np.square(np.abs(np.fft.rfft(harmonise(sound, config)[8000:24000])))
        hz = np.fft.rfftfreq(16000, 1 / 16000)
        assert (
            power[(hz > 3600) | (hz < 100)].mean() < 1e-4 * power[(hz > 500) & (hz < 3200)].mean()
        )

    def test_it_is_the_same_every_time(self) -> None:
        sound = noise(16000)[:, 0]
        np.testing.assert_array_equal(harmonise(sound, self.CONFIG), harmonise(sound, self.CONFIG))


def test_by_default_the_sound_is_passed_through_untouched() -> None:
    sound = noise(16000)[:, 0]
    assert harmonise(sound, CoughPreprocessing()) is sound
