"""Log-mel spectrogram and MFCC as modules: a batch of sounds in, a batch of features out.

The same numbers as librosa (the reference in the tests) by one batched FFT; `pulmofuse.spectra`
defines them. They run in float32 under any autocast: bfloat16 keeps 8 bits of a power that spans
ten decades.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pulmofuse.config import CoughPreprocessing
from pulmofuse.spectra import FLOOR_POWER, TOP_DB, dct_basis, hann_window, mel_filters

#: Clips that a CPU transforms at a time: the frames of a batch of 32 leave its cache, and took 1.6
#: times as long as eight by eight.
_CPU_CLIPS = 8


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
        window = torch.from_numpy(hann_window(config.win_length))
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(config)), persistent=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """Log-mel spectrogram of each sound; float32 whatever the autocast."""
        pieces = torch.split(sounds, _CPU_CLIPS) if sounds.device.type == "cpu" else (sounds,)
        with torch.autocast(sounds.device.type, enabled=False):
            return torch.cat([self._decibel(piece) for piece in pieces])

    def _decibel(self, sounds: Tensor) -> Tensor:
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


class ConvolvedLogMel(LogMel):
    """`LogMel` by convolutions with sines and cosines, for runtimes that know no Fourier transform.

    Slower, and equal but for rounding: for files that are written for others.
    """

    waves: Tensor

    def __init__(self, config: CoughPreprocessing) -> None:
        super().__init__(config)
        before = (config.n_fft - config.win_length) // 2
        window = np.zeros(config.n_fft)
        window[before : before + config.win_length] = hann_window(config.win_length)
        # Transforms of the unit vectors, windowed: (n_fft, bins).
        transform = np.fft.rfft(np.eye(config.n_fft)) * window[:, None]
        waves = np.concatenate([transform.real, transform.imag], axis=1).T.astype(np.float32)
        self.register_buffer("waves", torch.from_numpy(waves[:, None].copy()), persistent=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """Log-mel spectrogram of each sound, all at once."""
        padded = functional.pad(sounds.float(), (self._n_fft // 2, self._n_fft // 2))
        spectrum = functional.conv1d(padded.unsqueeze(1), self.waves, stride=self._hop)
        real, imaginary = spectrum.split(self.waves.shape[0] // 2, dim=1)
        return power_to_db(self.filters @ (real.square() + imaginary.square()))


def power_to_db(power: Tensor) -> Tensor:
    """Power (batch, mels, frames) in dB re 1, floored at 1e-10 and 80 dB below each maximum."""
    decibel = 10.0 * torch.log10(power.clamp_min(FLOOR_POWER))
    return torch.maximum(decibel, decibel.flatten(1).amax(1).view(-1, 1, 1) - TOP_DB)


class Mfcc(nn.Module):
    """Mel-frequency cepstral coefficients, (batch, samples) -> (batch, n_mfcc, frames).

    Orthonormal DCT-II over the mel axis of `LogMel`; coefficient 0 is the level.
    """

    basis: Tensor

    def __init__(self, config: CoughPreprocessing) -> None:
        super().__init__()
        self.log_mel = LogMel(config)
        basis = torch.from_numpy(dct_basis(config.n_mfcc, config.n_mels))
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """Coefficients of each sound; float32 whatever the autocast."""
        with torch.autocast(sounds.device.type, enabled=False):
            coefficients: Tensor = self.basis.float() @ self.log_mel(sounds)
            return coefficients
