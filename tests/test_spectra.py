"""Spectra in numpy: librosa's and scipy's definitions, and the numbers of the models' front end."""

from __future__ import annotations

import subprocess
import sys

import librosa
import numpy as np
import pytest
import scipy
import torch

from pulmofuse import spectra
from pulmofuse.config import CoughPreprocessing
from pulmofuse.preprocessing import LogMel, Mfcc

CONFIGS = {
    "default": CoughPreprocessing(),
    "odd padding": CoughPreprocessing(win_length=401, hop_length=128, n_mels=40, n_mfcc=13),
    "8 kHz": CoughPreprocessing(
        sample_rate_hz=8000, f_max_hz=4000, n_fft=256, win_length=200, hop_length=80, f_min_hz=0
    ),
}


@pytest.mark.parametrize("c", CONFIGS.values(), ids=CONFIGS)
def test_mel_filters_are_those_of_librosa(c: CoughPreprocessing) -> None:
    expected = librosa.filters.mel(
        sr=c.sample_rate_hz, n_fft=c.n_fft, n_mels=c.n_mels, fmin=c.f_min_hz, fmax=c.f_max_hz
    )
    np.testing.assert_allclose(spectra.mel_filters(c), expected, rtol=1e-5, atol=1e-9)


def test_the_mel_scale_is_slaneys() -> None:
    hz = np.array([0.0, 440.0, 1000.0, 6400.0, 20000.0])
    np.testing.assert_allclose(spectra.hz_to_mel(hz), librosa.hz_to_mel(hz))
    np.testing.assert_allclose(spectra.mel_to_hz(librosa.hz_to_mel(hz)), hz, atol=1e-9)


@pytest.mark.parametrize("length", [5, 400, 401])
def test_window_and_basis_are_those_of_scipy(length: int) -> None:
    hann = scipy.signal.get_window("hann", length, fftbins=True)
    np.testing.assert_allclose(spectra.hann_window(length), hann, atol=1e-7)
    dct = scipy.fft.dct(np.eye(length), type=2, norm="ortho", axis=0)
    np.testing.assert_allclose(spectra.dct_basis(5, length), dct[:5], atol=1e-7)


@pytest.mark.parametrize("c", CONFIGS.values(), ids=CONFIGS)
def test_numbers_are_those_of_the_front_end(c: CoughPreprocessing) -> None:
    rng = np.random.default_rng(3)
    rate = c.sample_rate_hz
    decay = np.exp(-np.arange(rate) / rate * 6)
    batch = (rng.normal(0, [[0.4], [0.01], [0.0]], (3, rate)) * decay).astype(np.float32)
    tensor = torch.from_numpy(batch)
    got = spectra.log_mel(batch, c)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, LogMel(c)(tensor).numpy(), rtol=0, atol=1e-3)
    np.testing.assert_array_equal(spectra.log_mel(batch[1], c), got[1])
    np.testing.assert_allclose(spectra.mfcc(batch, c), Mfcc(c)(tensor).numpy(), rtol=0, atol=3e-3)


def test_a_table_of_features_does_not_wait_for_torch() -> None:
    code = (
        "import sys, pulmofuse.spectra, pulmofuse.io;"
        "print([m for m in ('torch', 'scipy', 'librosa', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
