"""Log-mel spectrogram and MFCC as modules: a batch of sounds in, a batch of features out.

The same numbers as librosa (the reference in the tests) by one batched FFT. They run in float32
under any autocast: bfloat16 keeps 8 bits of a power that spans ten decades.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct
from torch import Tensor, nn

from pulmofuse.config import CoughPreprocessing

#: Smallest power that has a logarithm, and the range kept below a clip's maximum, dB
#: (librosa.power_to_db).
_FLOOR_POWER = 1e-10
_TOP_DB = 80.0

# Slaney's Auditory Toolbox (1998): linear below 1 kHz, logarithmic above, 27 steps per factor 6.4.
_HZ_PER_MEL = 200.0 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27.0


def hz_to_mel(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Hertz to mel on Slaney's scale."""
    above = _BREAK_HZ / _HZ_PER_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, above)


def mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mel on Slaney's scale to hertz."""
    break_mel = _BREAK_HZ / _HZ_PER_MEL
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, break_mel) - break_mel))
    return np.where(mel < break_mel, mel * _HZ_PER_MEL, above)


def mel_filters(config: CoughPreprocessing) -> npt.NDArray[np.float32]:
    """Triangular mel filters of unit area (Slaney), (n_mels, 1 + n_fft // 2)."""
    bins_hz = np.fft.rfftfreq(config.n_fft, 1.0 / config.sample_rate_hz)
    low, high = hz_to_mel(np.array([config.f_min_hz, config.f_max_hz]))
    corners_hz = mel_to_hz(np.linspace(low, high, config.n_mels + 2))
    widths = np.diff(corners_hz)
    ramps = corners_hz[:, np.newaxis] - bins_hz
    rising = -ramps[:-2] / widths[:-1, np.newaxis]
    falling = ramps[2:] / widths[1:, np.newaxis]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    area = 2.0 / (corners_hz[2:] - corners_hz[:-2])
    return (triangles * area[:, np.newaxis]).astype(np.float32)


class LogMel(nn.Module):
    """Log-mel spectrogram, (batch, samples) -> (batch, n_mels, 1 + samples // hop_length), dB.

    Power of a Hann-windowed, centred short-time Fourier transform with zeros beyond both ends,
    through Slaney mel filters, in dB re 1, cut 80 dB below the maximum of each sound.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, config: CoughPreprocessing) -> None:
        super().__init__()
        self._n_fft, self._hop, self._win = config.n_fft, config.hop_length, config.win_length
        # The configuration makes them again, so checkpoints need not hold them.
        window = torch.hann_window(config.win_length, periodic=True)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(config)), persistent=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """Log-mel spectrogram of each sound; float32 whatever the autocast."""
        with torch.autocast(sounds.device.type, enabled=False):
            spectrum = torch.stft(
                sounds.float(),
                self._n_fft,
                hop_length=self._hop,
                win_length=self._win,
                window=self.window.float(),
                center=True,
                pad_mode="constant",
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()
            return power_to_db(self.filters.float() @ power)


def power_to_db(power: Tensor) -> Tensor:
    """Power (batch, mels, frames) in dB re 1, floored at 1e-10 and 80 dB below each maximum."""
    decibel = 10.0 * torch.log10(power.clamp_min(_FLOOR_POWER))
    return torch.maximum(decibel, decibel.flatten(1).amax(1).view(-1, 1, 1) - _TOP_DB)


class Mfcc(nn.Module):
    """Mel-frequency cepstral coefficients, (batch, samples) -> (batch, n_mfcc, frames).

    Orthonormal DCT-II over the mel axis of `LogMel`; coefficient 0 is the level.
    """

    basis: Tensor

    def __init__(self, config: CoughPreprocessing) -> None:
        super().__init__()
        self.log_mel = LogMel(config)
        basis = dct(np.eye(config.n_mels), type=2, norm="ortho", axis=0)[: config.n_mfcc]
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32)), persistent=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """Coefficients of each sound; float32 whatever the autocast."""
        with torch.autocast(sounds.device.type, enabled=False):
            coefficients: Tensor = self.basis.float() @ self.log_mel(sounds)
            return coefficients
