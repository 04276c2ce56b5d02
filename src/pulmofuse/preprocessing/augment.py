"""Random changes of training instances, one draw per instance, batched.

All draws come from torch's global generator, so `torch.manual_seed` fixes them. In evaluation mode
and where a setting is zero, a module or a step passes its input through untouched.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from pulmofuse.config import CoughAugmentation, ImageAugmentation
from pulmofuse.preprocessing.acquisition import mask_borders, vary_acquisition


def _uniform(like: Tensor, low: float, high: float) -> Tensor:
    """One draw per instance, shaped to broadcast over `like`: (n, 1, ...)."""
    shape = (like.shape[0],) + (1,) * (like.ndim - 1)
    return torch.empty(shape, device=like.device, dtype=like.dtype).uniform_(low, high)


class ImageAugment(nn.Module):
    """Affine map, mirroring, traits of acquisition, intensity, noise, cutouts and borders.

    Of images (n, 1, h, w) in [0, 1].
    """

    def __init__(self, config: ImageAugmentation) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: Tensor) -> Tensor:
        """Changed images of the same shape and type, in [0, 1]."""
        if not self.training:
            return images
        c = self.config
        out = vary_acquisition(self._affine(images), c)
        if c.contrast:
            mean = out.mean(dim=(1, 2, 3), keepdim=True)
            out = mean + (out - mean) * (1.0 + _uniform(out, -c.contrast, c.contrast))
        if c.brightness:
            out = out + _uniform(out, -c.brightness, c.brightness)
        if c.gamma:
            out = out.clamp(0.0, 1.0) ** (1.0 + _uniform(out, -c.gamma, c.gamma))
        if c.noise:
            out = out + torch.randn_like(out) * _uniform(out, 0.0, c.noise)
        if c.cutout:
            for _ in range(c.cutouts):
                out = _cutout(out, c.cutout)
        if c.border:
            out = mask_borders(out, c.border)
        return out if out is images else out.clamp(0.0, 1.0)

    def _affine(self, images: Tensor) -> Tensor:
        """Rotation, shift, scale and shear about the centre; what comes from outside is black."""
        c = self.config
        if not (c.rotate_deg or c.translate or c.scale or c.shear_deg or c.flip_horizontal):
            return images
        n, _, height, width = images.shape
        angle, shear, scale, x, y, mirror = (
            _uniform(images, low, high).float().view(n)
            for low, high in (
                (-math.radians(c.rotate_deg), math.radians(c.rotate_deg)),
                (-math.radians(c.shear_deg), math.radians(c.shear_deg)),
                (1.0 - c.scale, 1.0 + c.scale),
                # The grid runs from -1 to 1: a shift by a share of the side is twice that share.
                (-2.0 * c.translate, 2.0 * c.translate),
                (-2.0 * c.translate, 2.0 * c.translate),
                (-1.0, 1.0),
            )
        )
        sign = torch.where((mirror < 0) & c.flip_horizontal, -1.0, 1.0)
        cosine, sine, aspect = angle.cos() / scale, angle.sin() / scale, height / width
        skew = shear.tan()
        # Grid coordinates are relative to the sides; `aspect` keeps a rotation of a picture that
        # is not square a rotation.
        first = torch.stack([sign * cosine, sign * (skew * cosine - sine) * aspect, x], dim=1)
        second = torch.stack([sine / aspect, skew * sine + cosine, y], dim=1)
        theta = torch.stack([first, second], dim=1).to(images.dtype)
        # Under bf16 autocast the grid would be made of bf16 numbers, up to .7 pixels off at 224.
        with torch.autocast(images.device.type, enabled=False):
            grid = affine_grid(theta, list(images.shape), align_corners=False)
            return grid_sample(images, grid, mode="bilinear", align_corners=False)


def _cutout(images: Tensor, share: float) -> Tensor:
    """Fill one rectangle per image, of sides up to `share` of the image's, with its mean."""
    n, _, height, width = images.shape
    rows = _span_mask(n, height, share, images)[:, None, :, None]
    columns = _span_mask(n, width, share, images)[:, None, None, :]
    return torch.where(rows & columns, images.mean(dim=(1, 2, 3), keepdim=True), images)


def _span_mask(n: int, length: int, share: float, like: Tensor) -> Tensor:
    """One random span per instance of at most `share` of the length: bool (n, length)."""
    draws = torch.rand(n, 2, device=like.device)
    span = draws[:, :1] * share * length
    start = draws[:, 1:] * (length - span)
    position = torch.arange(length, device=like.device) + 0.5
    return (position >= start) & (position < start + span)


class CoughAugment(nn.Module):
    """Circular time shift, gain and white noise of sounds (n, samples)."""

    def __init__(self, config: CoughAugmentation) -> None:
        super().__init__()
        self.config = config

    def forward(self, sounds: Tensor) -> Tensor:
        """Changed sounds of the same shape and type; a gain may carry them beyond [-1, 1]."""
        if not self.training:
            return sounds
        c, out = self.config, sounds
        if c.time_shift:
            n_samples = out.shape[1]
            shift = (_uniform(out, -c.time_shift, c.time_shift).float() * n_samples).long()
            positions = torch.arange(n_samples, device=out.device)
            out = out.gather(1, (positions - shift) % n_samples)
        if c.gain_db:
            out = out * 10.0 ** (_uniform(out, -c.gain_db, c.gain_db) / 20.0)
        if c.noise_snr_db is not None:
            snr_db = _uniform(out, *c.noise_snr_db)
            rms = out.square().mean(dim=1, keepdim=True).sqrt()
            out = out + torch.randn_like(out) * rms * 10.0 ** (-snr_db / 20.0)
        return out


class SpecAugment(nn.Module):
    """One time mask and one frequency mask per spectrogram (n, mels, frames).

    Masked values become the mean of their spectrogram (Park et al. 2019, SpecAugment).
    """

    def __init__(self, config: CoughAugmentation) -> None:
        super().__init__()
        self.config = config

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Masked spectrograms of the same shape and type."""
        if not self.training:
            return spectrograms
        n, mels, frames = spectrograms.shape
        out = spectrograms
        mean = spectrograms.mean(dim=(1, 2), keepdim=True)
        if self.config.time_mask:
            mask = _span_mask(n, frames, self.config.time_mask, out)[:, None, :]
            out = torch.where(mask, mean, out)
        if self.config.frequency_mask:
            mask = _span_mask(n, mels, self.config.frequency_mask, out)[:, :, None]
            out = torch.where(mask, mean, out)
        return out
