"""Fingerprints: small, quick, and deaf to what a copy changes."""

import time

import cv2
import numpy as np
import pytest
import soxr

from pulmofuse.curation.fingerprints import image_fingerprint, sound_fingerprint
from pulmofuse.curation.image_fingerprint import LENGTH, unpack_images
from pulmofuse.curation.sound_fingerprint import MAX_ONSETS, unpack_sounds
from pulmofuse.io import Image
from tests.curation.copies import coughs, picture


def as_image(pixels: np.ndarray, hounsfield: bool = False) -> Image:
    stack = pixels if pixels.ndim == 3 else pixels[None]
    return Image(stack.astype(np.float32), hounsfield, {})


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the detail that is equal."""
    codes = unpack_images([image_fingerprint(as_image(p)) for p in (one, other)])
    maps = codes.detail(np.arange(2))
    return float((maps[0] == maps[1]).mean())


class TestImage:
    @pytest.mark.parametrize("shape", [(33, 700), (64, 64), (512, 512), (3, 40, 50), (9, 64, 48)])
    def test_has_one_length_whatever_the_shape(self, shape: tuple[int, ...]) -> None:
        pixels = np.random.default_rng(0).random(shape)
        assert len(image_fingerprint(as_image(pixels))) == LENGTH <= 1100

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda p: 0.5 * p + 0.2, id="contrast and brightness"),
            pytest.param(lambda p: np.round(p * 255) / 255, id="8 bit"),
            pytest.param(
                lambda p: cv2.resize(p, (128, 128), interpolation=cv2.INTER_AREA),
                id="half the size",
            ),
        ],
    )
    def test_forgets(self, change: object) -> None:
        original = picture(1)
        assert agreement(original, change(original)) > 0.9  # type: ignore[operator]

    def test_differs_between_pictures(self) -> None:
        # Four levels at random agree in about 29 % of the cells (.16, .34, .34, .16 squared).
        assert agreement(picture(1), picture(2)) < 0.4

    def test_hounsfield_units_beyond_the_window_do_not_count(self) -> None:
        body = picture(3) * 1400 - 1000
        metal = body.copy()
        body[100:104, 100:104], metal[100:104, 100:104] = 400, 30_000
        prints = [image_fingerprint(as_image(p, hounsfield=True)) for p in (body, metal)]
        assert prints[0] == prints[1]

    def test_every_part_of_a_volume_counts(self) -> None:
        slices = np.stack([picture(i, side=96) for i in range(8)])
        whole = image_fingerprint(as_image(slices))
        for place in range(8):
            changed = slices.copy()
            changed[place] = picture(100, side=96)
            assert image_fingerprint(as_image(changed)) != whole

    def test_a_flat_picture_has_one(self) -> None:
        assert len(image_fingerprint(as_image(np.full((64, 64), 0.5)))) == LENGTH

    def test_a_wrong_length_is_refused(self) -> None:
        with pytest.raises(ValueError, match="1100 bytes"):
            unpack_images([b"short"])


class TestSound:
    def test_stays_below_4_kb_however_long(self) -> None:
        minute = np.concatenate([coughs(seed) for seed in range(20)])
        prints = sound_fingerprint(minute, 16_000)
        assert len(prints) < 4096
        assert len(unpack_sounds([prints]).owner) == MAX_ONSETS

    def test_finds_every_cough(self) -> None:
        samples = np.zeros(4 * 16_000, np.float32)
        rng = np.random.default_rng(0)
        places_s = np.array([0.5, 1.3, 2.6])
        for place in places_s:
            start = int(place * 16_000)
            burst = rng.normal(0, 0.3, 4000) * np.exp(-np.arange(4000) / 1000)
            samples[start : start + 4000] += burst.astype(np.float32)
        found = unpack_sounds([sound_fingerprint(samples, 16_000)]).time_s
        for place in places_s:
            assert np.abs(found - place).min() < 0.03

    def test_gain_and_sample_rate_fall_out(self) -> None:
        original = coughs(1)
        copies = [original, original * np.float32(0.1), soxr.resample(original, 16_000, 44_100)]
        rates = (16_000, 16_000, 44_100)
        codes = unpack_sounds([sound_fingerprint(c, r) for c, r in zip(copies, rates, strict=True)])
        patches = codes.patches(slice(None))
        own, louder, finer = (patches[codes.owner == row] for row in range(3))
        for copy in (louder, finer):
            assert np.sort((own @ copy.T).max(axis=1))[len(own) // 2] > 0.99

    @pytest.mark.parametrize("n", [0, 1, 100, 16_000])
    def test_silence_has_no_onset(self, n: int) -> None:
        assert sound_fingerprint(np.zeros(n, np.float32), 16_000) == b""

    def test_a_wrong_length_is_refused(self) -> None:
        with pytest.raises(ValueError, match="each onset"):
            unpack_sounds([b"short"])


@pytest.mark.slow
def test_costs_little_beside_reading() -> None:
    """Wide bounds: the machine may be busy. The benchmark says what it really takes."""
    image, sound = as_image(picture(0, side=512)), coughs(0, seconds=5)
    for work, bound_s in (
        (lambda: image_fingerprint(image), 0.010),
        (lambda: sound_fingerprint(sound, 16_000), 0.050),
    ):
        best = np.inf
        for _ in range(5):
            begin = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - begin)
        assert best < bound_s
