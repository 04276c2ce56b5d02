"""Augmentation changes what it should, per instance, and nothing when it is off."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pulmofuse.config import CoughAugmentation, ImageAugmentation
from pulmofuse.preprocessing import CoughAugment, ImageAugment, SpecAugment

IMAGE_OFF = {
    "rotate_deg": 0.0,
    "translate": 0.0,
    "scale": 0.0,
    "shear_deg": 0.0,
    "flip_horizontal": False,
    "brightness": 0.0,
    "contrast": 0.0,
    "gamma": 0.0,
    "noise": 0.0,
    "cutout": 0.0,
}
COUGH_OFF = {
    "time_shift": 0.0,
    "gain_db": 0.0,
    "noise_snr_db": None,
    "time_mask": 0.0,
    "frequency_mask": 0.0,
}


def image_only(**on: object) -> ImageAugment:
    return ImageAugment(ImageAugmentation(**{**IMAGE_OFF, **on}))


def cough_only(**on: object) -> CoughAugmentation:
    return CoughAugmentation(**{**COUGH_OFF, **on})


@pytest.fixture
def images() -> Tensor:
    return torch.rand(8, 1, 40, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def sounds() -> Tensor:
    return torch.randn(8, 4000, generator=torch.Generator().manual_seed(1)) * 0.2


@pytest.fixture
def spectrograms() -> Tensor:
    return torch.randn(8, 64, 101, generator=torch.Generator().manual_seed(1)) * 10 - 40


class TestAll:
    @pytest.mark.parametrize(
        ("module", "fixture"),
        [
            (image_only(), "images"),
            (CoughAugment(cough_only()), "sounds"),
            (SpecAugment(cough_only()), "spectrograms"),
            (ImageAugment(ImageAugmentation()).eval(), "images"),
            (CoughAugment(CoughAugmentation()).eval(), "sounds"),
            (SpecAugment(CoughAugmentation()).eval(), "spectrograms"),
        ],
    )
    def test_off_is_the_identity(
        self, module: nn.Module, fixture: str, request: pytest.FixtureRequest
    ) -> None:
        batch = request.getfixturevalue(fixture)
        assert torch.equal(module(batch), batch)

    @pytest.mark.parametrize(
        ("module", "fixture"),
        [
            (ImageAugment(ImageAugmentation(flip_horizontal=True)), "images"),
            (CoughAugment(CoughAugmentation()), "sounds"),
            (SpecAugment(CoughAugmentation()), "spectrograms"),
        ],
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_on_keeps_shape_type_and_input(
        self, module: nn.Module, fixture: str, dtype: torch.dtype, request: pytest.FixtureRequest
    ) -> None:
        batch = request.getfixturevalue(fixture).to(dtype)
        kept = batch.clone()
        torch.manual_seed(3)
        first = module(batch)
        assert torch.equal(batch, kept)
        assert (first.shape, first.dtype) == (batch.shape, dtype)
        assert torch.isfinite(first).all()
        torch.manual_seed(3)
        assert torch.equal(module(batch), first)
        assert not torch.equal(module(batch), first)

    def test_each_instance_has_its_own_draw(self) -> None:
        same = torch.rand(1, 1, 32, 32).expand(6, -1, -1, -1)
        out = ImageAugment(ImageAugmentation(noise=0, cutout=0))(same)
        distances = torch.cdist(out.flatten(1), out.flatten(1)) + torch.eye(6)
        assert distances.min() > 1e-3


class TestImages:
    @settings(max_examples=30, deadline=None)
    @given(
        rotate=st.floats(0, 180),
        scale=st.floats(0, 0.9),
        brightness=st.floats(0, 1),
        contrast=st.floats(0, 1),
        gamma=st.floats(0, 0.9),
        noise=st.floats(0, 1),
        cutout=st.floats(0, 1),
    )
    def test_values_stay_in_the_unit_interval(self, rotate: float, **rest: float) -> None:
        module = ImageAugment(ImageAugmentation(rotate_deg=rotate, **rest))
        out = module(torch.rand(3, 1, 20, 24))
        assert torch.isfinite(out).all()
        assert out.min() >= 0
        assert out.max() <= 1

    def test_flip_mirrors_about_half(self) -> None:
        picture = torch.rand(1, 1, 16, 16)
        out = image_only(flip_horizontal=True)(picture.expand(200, -1, -1, -1))
        mirrored = [torch.allclose(o, picture[0].flip(-1), atol=1e-5) for o in out]
        straight = [torch.allclose(o, picture[0], atol=1e-5) for o in out]
        assert all(a != b for a, b in zip(mirrored, straight, strict=True))
        assert 60 < sum(mirrored) < 140

    def test_rotation_keeps_distances_in_a_picture_that_is_not_square(self) -> None:
        picture = torch.zeros(20, 1, 60, 120)
        picture[:, :, 29:31, 74:76] = 1.0  # 15 pixels to the right of the centre
        out = image_only(rotate_deg=90.0)(picture)[:, 0]
        rows, columns = torch.arange(60) + 0.5 - 30, torch.arange(120) + 0.5 - 60
        mass = out.sum((1, 2))
        y = (out.sum(2) * rows).sum(1) / mass
        x = (out.sum(1) * columns).sum(1) / mass
        torch.testing.assert_close(torch.hypot(x, y), torch.full((20,), 15.0), rtol=0, atol=0.3)
        assert torch.atan2(y, x).std() > 0.3

    def test_translation_is_bounded(self) -> None:
        picture = torch.zeros(50, 1, 40, 40)
        picture[:, :, 20, 20] = 1.0
        out = image_only(translate=0.1)(picture)[:, 0]
        columns = (out.sum(1) * torch.arange(40)).sum(1) / out.sum((1, 2))
        assert (columns - 20).abs().max() <= 4.0 + 1e-3
        assert (columns - 20).abs().max() > 1.5

    def test_brightness_shifts_every_pixel_alike(self) -> None:
        out = image_only(brightness=0.2)(torch.full((100, 1, 8, 8), 0.5))
        assert out.std(dim=(1, 2, 3)).max() < 1e-6
        assert out.min() >= 0.3
        assert out.max() <= 0.7
        assert out.mean(dim=(1, 2, 3)).std() > 0.05

    def test_contrast_keeps_the_mean(self, images: Tensor) -> None:
        small = 0.4 + 0.2 * images
        out = image_only(contrast=0.5)(small)
        torch.testing.assert_close(out.mean(dim=(1, 2, 3)), small.mean(dim=(1, 2, 3)))
        ratio = out.std(dim=(1, 2, 3)) / small.std(dim=(1, 2, 3))
        assert ratio.min() >= 0.5
        assert ratio.max() <= 1.5
        assert ratio.std() > 0.05

    def test_cutout_fills_one_rectangle(self) -> None:
        picture = torch.rand(30, 1, 50, 50)
        out = image_only(cutout=0.4)(picture)
        changed = (out != picture)[:, 0]
        rows, columns = changed.any(2).sum(1), changed.any(1).sum(1)
        assert torch.equal(changed.sum((1, 2)), rows * columns)
        assert max(rows.max(), columns.max()) <= 21
        assert (rows * columns).float().mean() > 10


class TestCough:
    def test_shift_is_circular_and_bounded(self, sounds: Tensor) -> None:
        out = CoughAugment(cough_only(time_shift=0.1))(sounds)
        for before, after in zip(sounds, out, strict=True):
            shifts = [k for k in range(-400, 401) if torch.equal(before.roll(k), after)]
            assert len(shifts) == 1

    def test_gain_is_one_factor_within_its_range(self, sounds: Tensor) -> None:
        ratio = CoughAugment(cough_only(gain_db=6.0))(sounds) / sounds
        assert ratio.std(dim=1).max() < 1e-5
        db = 20 * torch.log10(ratio.mean(dim=1))
        assert db.abs().max() <= 6.0 + 1e-3
        assert db.std() > 1

    @pytest.mark.parametrize("snr_db", [0.0, 10.0, 30.0])
    def test_noise_has_the_asked_ratio(self, sounds: Tensor, snr_db: float) -> None:
        noise = CoughAugment(cough_only(noise_snr_db=(snr_db, snr_db)))(sounds) - sounds
        got = 10 * torch.log10(sounds.square().mean(1) / noise.square().mean(1))
        torch.testing.assert_close(got, torch.full_like(got, snr_db), rtol=0, atol=0.5)

    def test_silence_stays_silent(self) -> None:
        out = CoughAugment(CoughAugmentation())(torch.zeros(3, 1000))
        assert (out == 0).all()


class TestSpec:
    @pytest.mark.parametrize(
        ("setting", "axis", "length"), [("time_mask", 2, 101), ("frequency_mask", 1, 64)]
    )
    def test_one_band_becomes_the_mean(
        self, spectrograms: Tensor, setting: str, axis: int, length: int
    ) -> None:
        out = SpecAugment(cough_only(**{setting: 0.3}))(spectrograms)
        means = spectrograms.mean(dim=(1, 2))
        for before, after, mean in zip(spectrograms, out, means, strict=True):
            lines = (before != after).all(dim=2 - axis)
            masked = lines.nonzero().flatten()
            assert len(masked) <= math.ceil(0.3 * length)
            if len(masked):
                assert masked[-1] - masked[0] + 1 == len(masked)
                assert (after[before != after] == mean).all()
        assert not torch.equal(out, spectrograms)


def test_the_affine_map_is_as_exact_under_autocast() -> None:
    augment = ImageAugment(ImageAugmentation(brightness=0, contrast=0, gamma=0, noise=0, cutout=0))
    images = torch.rand(4, 1, 64, 64)
    torch.manual_seed(3)
    expected = augment.train()(images)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        found = augment(images)
    torch.testing.assert_close(found, expected)
