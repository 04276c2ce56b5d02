"""Random traits of acquisition: each varies what it says, per image, and nothing else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pulmofuse.config import ImageAugmentation
from pulmofuse.preprocessing import ImageAugment
from pulmofuse.preprocessing import acquisition as a
from tests.preprocessing.test_augment import IMAGE_OFF, image_only

#: Each option alone, strong enough to be seen.
OPTIONS = {
    "crop_scale": 0.3,
    "blur": 3.0,
    "sharpen": 2.0,
    "downscale": 4.0,
    "jpeg": 1.0,
    "style": 1.0,
    "tone": 1.0,
    "border": 0.3,
}


@pytest.fixture
def images() -> Tensor:
    """Smooth pictures with noise, (8, 1, 100, 120), each of its own brightness."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(8, 1, 5, 6, generator=generator)
    smooth = interpolate(coarse, (100, 120), mode="bicubic", align_corners=False)
    noise = 0.05 * torch.randn(8, 1, 100, 120, generator=generator)
    level = torch.linspace(0.5, 1.0, 8).view(8, 1, 1, 1)
    return (level * (smooth + noise)).clamp(0, 1)


def seeded(module: ImageAugment, images: Tensor, seed: int = 5) -> Tensor:
    torch.manual_seed(seed)
    return module(images)


def test_off_draws_nothing(images: Tensor) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert a.vary_acquisition(images, ImageAugmentation()) is images
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("option", OPTIONS)
class TestEach:
    def module(self, option: str) -> ImageAugment:
        return image_only(**{option: OPTIONS[option]})

    def test_changes_images_within_the_unit_interval(self, option: str, images: Tensor) -> None:
        kept = images.clone()
        out = seeded(self.module(option), images)
        assert torch.equal(images, kept)
        assert (out.shape, out.dtype) == (images.shape, images.dtype)
        assert out.min() >= 0
        assert out.max() <= 1
        assert ((out - images).abs().amax(dim=(1, 2, 3)) > 1e-3).sum() >= 4

    def test_is_drawn_from_the_seed(self, option: str, images: Tensor) -> None:
        module = self.module(option)
        assert torch.equal(seeded(module, images), seeded(module, images))
        assert not torch.equal(seeded(module, images), seeded(module, images, 6))

    def test_does_nothing_in_evaluation(self, option: str, images: Tensor) -> None:
        assert self.module(option).eval()(images) is images

    def test_each_image_has_its_own_draw(self, option: str, images: Tensor) -> None:
        if option == "style":
            pytest.skip("equal images have equal styles")
        out = seeded(self.module(option), images[:1].expand(8, -1, -1, -1)).flatten(1)
        assert (torch.cdist(out, out) > 1e-3).sum() >= 32

    def test_an_image_does_not_know_the_others(self, option: str, images: Tensor) -> None:
        other = images.clone()
        other[1:] = images[1:].flip(0) ** 2
        left, right = (seeded(self.module(option), x) for x in (images, other))
        if option == "style":
            assert not torch.equal(left[0], right[0])
        else:
            torch.testing.assert_close(left[0], right[0], rtol=0, atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_autocast_does_not_coarsen_it(
        self, option: str, images: Tensor, dtype: torch.dtype
    ) -> None:
        module = self.module(option)
        plain = seeded(module, images.to(dtype))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(seeded(module, images.to(dtype)), plain)
        assert plain.dtype == dtype

    def test_a_blank_image_stays_blank(self, option: str) -> None:
        if option in {"border", "style", "tone"}:
            pytest.skip("changes levels by intention")
        blank = torch.full((4, 1, 24, 24), 0.5)
        torch.testing.assert_close(seeded(self.module(option), blank), blank, rtol=0, atol=0.01)


class TestCrop:
    def test_shows_a_part_of_at_least_the_asked_area(self) -> None:
        # Grey levels are positions, so the output says which part it shows.
        ramp = torch.linspace(0, 1, 100).expand(64, 1, 100, 100)
        width, height = (
            span.amax(dim=(1, 2, 3)) - span.amin(dim=(1, 2, 3))
            for span in (
                seeded(image_only(crop_scale=0.25), ramp),
                seeded(image_only(crop_scale=0.25), ramp.mT.contiguous()),
            )
        )
        area = width * height
        assert area.min() > 0.23
        assert area.max() <= 1.0
        assert area.std() > 0.1

    def test_the_whole_image_is_one_of_the_crops(self, images: Tensor) -> None:
        out = seeded(image_only(crop_scale=0.999), images)
        assert (out - images).abs().mean() < 0.2


class TestSharpness:
    def test_blur_is_that_of_opencv(self, images: Tensor) -> None:
        sigma = torch.tensor([0.3, 0.8, 1.3, 2.0, 2.5, 3.0, 3.5, 4.0])
        # Pixels at 224: a sigma is scaled to the side.
        out = a._gaussian_blur(images, sigma, 4.0)
        for image, got, at_224 in zip(images[:, 0], out[:, 0], sigma.tolist(), strict=True):
            x, y = at_224 * 120 / 224, at_224 * 100 / 224
            expected = cv2.GaussianBlur(
                image.numpy(), (31, 31), sigmaX=x, sigmaY=y, borderType=cv2.BORDER_REPLICATE
            )
            np.testing.assert_allclose(got.numpy(), expected, atol=5e-3)

    @pytest.mark.parametrize(("option", "sign"), [("blur", -1), ("downscale", -1), ("sharpen", 1)])
    def test_edges_become_softer_or_harder(self, option: str, sign: int) -> None:
        edge = torch.full((16, 1, 160, 160), 0.3)
        edge[..., 80:] = 0.6
        if option == "sharpen":
            edge[..., 79:81] = torch.tensor([0.4, 0.5])
        out = seeded(image_only(**{option: OPTIONS[option]}), edge)
        steepest = [x.diff(dim=3).abs().amax(dim=(1, 2, 3)) for x in (edge, out)]
        change = sign * (steepest[1] - steepest[0])
        assert change.min() >= -1e-5
        assert change.mean() > 0.01

    def test_downscale_is_what_a_smaller_file_shows(self, images: Tensor) -> None:
        torch.manual_seed(2)
        out = a.random_downscale(images, 4.0)
        torch.manual_seed(2)
        factors = torch.empty(8).uniform_(0, np.log(4.0)).exp()
        for image, got, factor in zip(images[:, 0], out[:, 0], factors.tolist(), strict=True):
            size = (round(120 / factor), round(100 / factor))
            small = cv2.resize(image.numpy(), size, interpolation=cv2.INTER_AREA)
            large = cv2.resize(small, (120, 100), interpolation=cv2.INTER_LINEAR)
            # Cells of a fraction of a pixel are weighed by OpenCV and rounded by torch.
            assert np.abs(large - got.numpy()).mean() < 0.02


class TestTone:
    @pytest.mark.parametrize("strength", [0.3, 0.7, 1.0])
    def test_the_order_of_grey_levels_is_kept(self, strength: float) -> None:
        ramp = torch.linspace(0, 1, 400).view(1, 1, 20, 20).expand(50, -1, -1, -1)
        out = seeded(image_only(tone=strength), ramp).flatten(1)
        assert (out.diff(dim=1) >= -1e-6).all()
        torch.testing.assert_close(out[:, 0], torch.zeros(50), rtol=0, atol=1e-5)
        torch.testing.assert_close(out[:, -1], torch.ones(50), rtol=0, atol=1e-5)
        assert out.std(dim=0).max() > 0.1 * strength

    def test_more_strength_bends_more(self) -> None:
        ramp = torch.linspace(0, 1, 400).view(1, 1, 20, 20).expand(50, -1, -1, -1)
        bends = [
            (seeded(image_only(tone=strength), ramp) - ramp).abs().mean()
            for strength in (0.2, 0.5, 1.0)
        ]
        assert bends[0] < bends[1] < bends[2]


class TestStyle:
    def test_low_amplitudes_are_blended_and_all_else_stays(self) -> None:
        generator = torch.Generator().manual_seed(3)
        images = 0.35 + 0.3 * torch.rand(6, 1, 64, 80, generator=generator)  # far from any clamp
        out = seeded(image_only(style=1.0), images)
        before, after = torch.fft.rfft2(images)[:, 0], torch.fft.rfft2(out)[:, 0]
        low = torch.zeros(64, 41, dtype=torch.bool)
        reach = max(1, round(a._STYLE_BAND * 64))
        low[: reach + 1, : reach + 1] = low[-reach:, : reach + 1] = True
        torch.testing.assert_close(after[:, ~low], before[:, ~low], rtol=0, atol=5e-3)
        same_phase = (after[:, low] * before[:, low].conj()).real > 0
        assert same_phase.all()
        # Between its own and that of one other image of the batch, by one weight for all.
        own = before.abs()[:, low]
        moved = after.abs()[:, low] - own
        ways = own[None] - own[:, None]  # (image, partner, frequency)
        weight = (moved[:, None] * ways).sum(2) / ways.square().sum(2).clamp(min=1e-9)
        error = (moved[:, None] - weight[..., None] * ways).abs().amax(dim=2)
        best = error.argmin(dim=1)
        assert error.amin(dim=1).max() < 5e-3 * own.max()
        chosen = weight.gather(1, best[:, None])
        assert ((chosen >= -1e-3) & (chosen <= 1 + 1e-3)).all()

    def test_the_share_is_kept(self) -> None:
        images = 0.35 + 0.3 * torch.rand(400, 1, 12, 12)
        changed = (seeded(image_only(style=0.4), images) - images).abs().amax(dim=(1, 2, 3)) > 1e-4
        assert 0.3 < changed.float().mean() < 0.5

    def test_one_image_alone_stays_as_it_is(self, images: Tensor) -> None:
        out = seeded(image_only(style=1.0), images[:1])
        torch.testing.assert_close(out, images[:1], rtol=0, atol=1e-5)


class TestJpeg:
    @pytest.mark.parametrize("quality", [20, 50, 80])
    def test_it_is_jpeg(
        self, quality: int, images: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(a, "_JPEG_QUALITY", (quality, quality + 1e-6))
        grey = (images * 255).round() / 255
        out = seeded(image_only(jpeg=1.0), grey)
        for image, got in zip(grey[:, 0], out[:, 0], strict=True):
            pixels = (image.numpy() * 255).round().astype(np.uint8)
            code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            expected = cv2.imdecode(code, cv2.IMREAD_GRAYSCALE).astype(float)
            lost = np.abs(expected - pixels).mean()
            # The codec rounds to bytes and to whole steps, and uses an integer transform.
            assert np.abs(got.numpy() * 255 - expected).mean() < 0.25 * lost

    def test_the_share_is_kept(self) -> None:
        images = torch.rand(400, 1, 16, 16)
        changed = (seeded(image_only(jpeg=0.3), images) != images).flatten(1).any(dim=1)
        assert 0.2 < changed.float().mean() < 0.4


class TestBorder:
    def test_the_middle_is_never_covered(self, images: Tensor) -> None:
        for seed in range(10):
            out = seeded(image_only(border=0.25), images, seed)
            middle = (..., slice(25, 75), slice(30, 90))
            assert torch.equal(out[middle], images[middle])

    def test_covers_are_mean_black_white_or_noise(self) -> None:
        images = 0.3 + 0.4 * torch.rand(300, 1, 20, 20)
        out = seeded(image_only(border=0.45), images)
        kinds = set()
        for before, after in zip(images, out, strict=True):
            cover = after[after != before]
            if not len(cover):
                kinds.add("none")
            elif cover.std(unbiased=False) > 1e-6:
                kinds.add("noise")
            else:
                level = cover[0]
                kinds.add("mean" if 0 < level < 1 else f"{level:.0f}")
                if 0 < level < 1:
                    assert level == pytest.approx(float(before.mean()), abs=1e-5)
        assert kinds == {"none", "noise", "mean", "0", "1"}


class TestCutouts:
    def test_several_rectangles(self) -> None:
        images = torch.rand(60, 1, 50, 50)
        covered = [
            (seeded(image_only(cutout=0.3, cutouts=n), images) != images).float().mean()
            for n in (1, 4)
        ]
        assert 2.5 < covered[1] / covered[0] < 4.0

    def test_one_is_what_it_was(self, images: Tensor) -> None:
        settings = {**IMAGE_OFF, "cutout": 0.3}
        assert torch.equal(
            seeded(ImageAugment(ImageAugmentation(**settings)), images),
            seeded(ImageAugment(ImageAugmentation(**settings, cutouts=1)), images),
        )
