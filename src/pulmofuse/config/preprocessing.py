"""How files become instances, and how training instances are changed at random."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pulmofuse.config.base import Count, Fraction, Node, Positive


class ImagePreprocessing(Node):
    """What CT and chest X-ray share; all but the size is off (decision 12)."""

    size: Annotated[int, Field(ge=32, le=1024)] = 224
    crop: Literal["none", "lungs"] = "none"
    crop_margin: Fraction = 0.1
    histogram: Literal["none", "equalised", "clahe", "matched"] = "none"
    mask_letters: bool = False


class CtPreprocessing(ImagePreprocessing):
    """CT to uint8 slices: display window (Hounsfield data only), body crop, square resize."""

    window_level_hu: float = -600.0
    window_width_hu: Positive = 1500.0
    body_crop: bool = True
    max_slices: Count = 16


class CxrPreprocessing(ImagePreprocessing):
    """Chest X-ray to uint8: percentile normalisation, square resize."""

    low_percentile: Annotated[float, Field(ge=0.0, lt=50.0)] = 1.0
    high_percentile: Annotated[float, Field(gt=50.0, le=100.0)] = 99.0


class CoughPreprocessing(Node):
    """Cough recording to windows of mono sound, and the spectral front end of the models.

    A recording is trimmed of silence (`trim_db` below its peak) and cut into at most
    `max_windows` windows of `duration_s`; the last one is padded with zeros. `low_cut_hz`,
    `bandwidth_hz` and `noise_floor_db` bring recordings of different channels to one band and one
    floor first (docs/decisions/0011-cough-channels.md).
    """

    sample_rate_hz: Annotated[int, Field(ge=4000, le=48000)] = 16000
    duration_s: Positive = 4.0
    max_windows: Count = 3
    trim_db: Positive = 40.0
    bandwidth_hz: Positive | None = None
    low_cut_hz: Annotated[float, Field(ge=0.0)] = 0.0
    noise_floor_db: Positive | None = None
    n_fft: Count = 512
    win_length: Count = 400
    hop_length: Count = 160
    n_mels: Count = 64
    n_mfcc: Count = 20
    f_min_hz: Annotated[float, Field(ge=0.0)] = 50.0
    f_max_hz: Positive = 8000.0

    @model_validator(mode="after")
    def _band(self) -> CoughPreprocessing:
        if not self.f_min_hz < self.f_max_hz <= self.sample_rate_hz / 2:
            raise ValueError("need f_min_hz < f_max_hz <= sample_rate_hz / 2")
        # A mel band that the filter has emptied would show nothing but the filter's own leakage.
        if self.bandwidth_hz is not None and not self.f_max_hz <= self.bandwidth_hz:
            raise ValueError("f_max_hz must not exceed bandwidth_hz: nothing is left above it")
        if self.f_min_hz < self.low_cut_hz:
            raise ValueError("f_min_hz must not be below low_cut_hz: nothing is left there")
        # The short-time Fourier transform mirrors half a frame at either end of the window.
        if self.duration_s * self.sample_rate_hz <= self.n_fft:
            raise ValueError("duration_s must hold more samples than n_fft")
        if self.win_length > self.n_fft:
            raise ValueError("win_length must not exceed n_fft")
        if self.n_mfcc > self.n_mels:
            raise ValueError("n_mfcc must not exceed n_mels")
        if self.bandwidth_hz is not None and self.bandwidth_hz > self.sample_rate_hz / 2:
            raise ValueError("bandwidth_hz must not exceed sample_rate_hz / 2")
        return self


class ImageAugmentation(Node):
    """Random changes of training images; each is drawn per image."""

    rotate_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 10.0
    translate: Fraction = 0.08
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.12
    shear_deg: Annotated[float, Field(ge=0.0, le=45.0)] = 5.0
    flip_horizontal: bool = False
    brightness: Fraction = 0.15
    contrast: Fraction = 0.2
    gamma: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    noise: Fraction = 0.03
    cutout: Fraction = 0.25
    cutouts: Count = 1
    # Traits of acquisition, for sites that training never saw; all off.
    crop_scale: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    blur: Annotated[float, Field(ge=0.0, le=16.0)] = 0.0
    sharpen: Annotated[float, Field(ge=0.0, le=4.0)] = 0.0
    downscale: Annotated[float, Field(ge=1.0, le=16.0)] = 1.0
    jpeg: Fraction = 0.0
    style: Fraction = 0.0
    tone: Fraction = 0.0
    border: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0


class CoughAugmentation(Node):
    """Random changes of training sounds (waveform) and of their spectrograms (SpecAugment)."""

    time_shift: Fraction = 0.2
    gain_db: Annotated[float, Field(ge=0.0)] = 6.0
    noise_snr_db: tuple[float, float] | None = (15.0, 40.0)
    time_mask: Fraction = 0.15
    frequency_mask: Fraction = 0.15

    @model_validator(mode="after")
    def _ordered(self) -> CoughAugmentation:
        if self.noise_snr_db is not None and self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise ValueError("noise_snr_db must give the lower bound first")
        return self
