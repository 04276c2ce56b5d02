"""The spectral front end gives librosa's numbers, in float32 whatever the precision around it."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from pulmofuse.config import CoughPreprocessing
from pulmofuse.preprocessing import LogMel, Mfcc

CONFIGS = {
    "default": CoughPreprocessing(),
    "full window": CoughPreprocessing(win_length=512, hop_length=128, n_mels=40, n_mfcc=13),
    "8 kHz": CoughPreprocessing(
        sample_rate_hz=8000, f_max_hz=4000, n_fft=256, win_length=200, hop_length=80, f_min_hz=0
    ),
    "48 kHz": CoughPreprocessing(
        sample_rate_hz=48000,
        f_max_hz=20000,
        n_fft=2048,
        win_length=1200,
        hop_length=480,
        n_mels=128,
    ),
}


def sounds(rate: int) -> dict[str, np.ndarray]:
    """One second each, (samples,) float32."""
    rng = np.random.default_rng(3)
    t = np.arange(rate) / rate
    impulse = np.zeros(rate)
    impulse[rate // 3] = 1.0
    cough = rng.normal(0, 0.4, rate) * np.exp(-t * 12)
    every = {
        "noise": rng.normal(0, 0.2, rate),
        "chirp": 0.8 * np.sin(2 * np.pi * (100 + 0.4 * rate / 2 * t) * t),
        "quiet": rng.normal(0, 1e-4, rate),
        "impulse": impulse,
        "cough": cough,
    }
    return {name: sound.astype(np.float32) for name, sound in every.items()}


def reference(sound: np.ndarray, c: CoughPreprocessing) -> np.ndarray:
    """Log-mel of librosa, (n_mels, frames), computed from float64 samples."""
    mel = librosa.feature.melspectrogram(
        y=sound.astype(np.float64),
        sr=c.sample_rate_hz,
        n_fft=c.n_fft,
        hop_length=c.hop_length,
        win_length=c.win_length,
        n_mels=c.n_mels,
        fmin=c.f_min_hz,
        fmax=c.f_max_hz,
    )
    return librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=80.0)


@pytest.mark.parametrize("c", CONFIGS.values(), ids=CONFIGS)
def test_log_mel_is_that_of_librosa(c: CoughPreprocessing) -> None:
    clips = sounds(c.sample_rate_hz)
    batch = LogMel(c)(torch.from_numpy(np.stack(list(clips.values()))))
    for name, got in zip(clips, batch.numpy(), strict=True):
        expected = reference(clips[name], c)
        # 70 dB below the maximum, a 24-bit mantissa is good for a few thousandths of a decibel.
        tolerance = np.where(expected > expected.max() - 60, 1e-3, 5e-3)
        assert (np.abs(got - expected) < tolerance).all(), name


@pytest.mark.parametrize("c", CONFIGS.values(), ids=CONFIGS)
def test_mfcc_is_that_of_librosa(c: CoughPreprocessing) -> None:
    clips = sounds(c.sample_rate_hz)
    batch = Mfcc(c)(torch.from_numpy(np.stack(list(clips.values()))))
    for name, got in zip(clips, batch.numpy(), strict=True):
        expected = librosa.feature.mfcc(S=reference(clips[name], c), n_mfcc=c.n_mfcc)
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert error < 1e-3, name


def test_silence_is_finite() -> None:
    c = CoughPreprocessing()
    assert (LogMel(c)(torch.zeros(2, 16000)) == -100).all()
    assert torch.isfinite(Mfcc(c)(torch.zeros(2, 16000))).all()


@pytest.mark.parametrize("module", [LogMel, Mfcc])
def test_autocast_does_not_reach_the_front_end(module: type) -> None:
    front = module(CoughPreprocessing())
    sound = torch.from_numpy(sounds(16000)["cough"])[None]
    plain = front(sound)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = front(sound)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, rtol=0, atol=0)


def test_checkpoints_hold_no_tables() -> None:
    assert not Mfcc(CoughPreprocessing()).state_dict()
