"""Options of image preprocessing: off they change nothing, on they do what they promise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import stats

from pulmofuse.config import CtPreprocessing, CxrPreprocessing
from pulmofuse.preprocessing import prepare
from pulmofuse.preprocessing.images import resize_square
from pulmofuse.preprocessing.lungs import lung_box, lung_mask
from pulmofuse.preprocessing.standardise import (
    box_in_pixels,
    paint_letters,
    reference_greys,
    standardise_histogram,
)
from pulmofuse.schema import Modality
from tests.io import samples as s
from tests.preprocessing.test_lungs import SIGNS, _phantom

WHOLE = (slice(None), slice(None))
#: Names of options, and each of them alone.
OPTIONS = [
    {"crop": "lungs"},
    {"histogram": "equalised"},
    {"histogram": "matched"},
    {"histogram": "clahe"},
    {"mask_letters": True},
]


def config(modality: Modality, size: int = 96, **options: object) -> CtPreprocessing:
    kind = CtPreprocessing if modality is Modality.CT else CxrPreprocessing
    return kind(size=size, **options)


def smooth_picture(seed: int = 0, side: int = 96) -> np.ndarray:
    """Continuous grey levels in [0, 1], of a skewed distribution without plateaus."""
    rng = np.random.default_rng(seed)
    rough = cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), 3)
    ranks = (stats.rankdata(rough).reshape(rough.shape) - 0.5) / rough.size
    return (0.1 + 0.8 * (0.6 * ranks + 0.4 * ranks**2)).astype(np.float32)


def on_a_larger_film(modality: Modality, seed: int, sign: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A phantom and its lungs; an X-ray on a wider film (the air round a CT is cut before)."""
    image, lungs = _phantom(modality, seed, SIGNS[sign])
    if modality is Modality.CT:
        return image, lungs
    edges = ((20, 24), (36, 12))
    return np.pad(image, edges, mode="edge"), np.pad(lungs, edges)


class TestOff:
    @pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
    def test_the_path_is_the_plain_one_and_nothing_is_noted(self, modality: Modality) -> None:
        image, _ = _phantom(modality, 3, {})
        if modality is Modality.CXR:
            low, high = np.percentile(image / np.float32(255), [1, 99])
            plane = np.clip((image / np.float32(255) - low) / (high - low), 0, 1)
            expected = resize_square(plane.astype(np.float32), 96)
            settings = config(modality)
        else:
            expected = resize_square((image / np.float32(255)).astype(np.float32), 96)
            settings = config(modality, body_crop=False)
        prepared = prepare(s.encode(image, ".png"), modality, settings)
        np.testing.assert_array_equal(prepared.instances[0], expected)
        assert "lungs_found" not in prepared.seen.traits

    def test_the_margin_alone_changes_nothing(self) -> None:
        data = s.encode(_phantom(Modality.CXR, 3, {})[0], ".png")
        plain, other = (
            prepare(data, Modality.CXR, config(Modality.CXR, crop_margin=margin)).instances
            for margin in (0.1, 0.5)
        )
        np.testing.assert_array_equal(plain, other)


@pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_file_and_bytes_take_the_same_path(modality, options, tmp_path) -> None:
    data = s.encode(_phantom(modality, 1, {})[0], ".png")
    (tmp_path / "a.png").write_bytes(data)
    settings = config(modality, **options)
    left, right = (prepare(x, modality, settings) for x in (tmp_path / "a.png", data))
    np.testing.assert_array_equal(left.instances, right.instances)
    assert left.seen == right.seen


class TestCrop:
    @pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
    @pytest.mark.parametrize("sign", range(len(SIGNS)))
    def test_both_lungs_stay_in_the_picture_and_the_rest_goes(
        self, modality: Modality, sign: int
    ) -> None:
        kept, areas = [], []
        for seed in range(6):
            image, lungs = on_a_larger_film(modality, seed, sign)
            box = lung_box(image, modality)
            if box is None:
                continue
            part = box_in_pixels(box, image.shape, 0.1)
            middle = lungs.shape[1] // 2
            # Each side by itself: half of a pair would still be half of all pixels.
            kept += [
                half[part].sum() / half.sum()
                for half in (
                    np.where(np.arange(lungs.shape[1]) < middle, lungs, False),
                    np.where(np.arange(lungs.shape[1]) >= middle, lungs, False),
                )
            ]
            areas.append(image[part].size / image.size)
        assert len(areas) >= 5
        assert np.mean(kept) >= 0.98
        assert min(kept) >= 0.85
        assert np.mean(areas) <= 0.85

    @pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
    def test_the_box_is_that_of_the_mask_before_it_is_widened(self, modality: Modality) -> None:
        image, _ = _phantom(modality, 2, {})
        mask, found = lung_mask(image, modality)
        box = lung_box(image, modality)
        assert found
        assert box is not None
        inner = np.zeros_like(mask)
        inner[box_in_pixels(box, mask.shape, 0.0)] = True
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        wide = np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]) / len(mask)
        assert 0.02 < np.abs(wide - box).max() < 0.06

    def test_the_crop_gains_resolution(self) -> None:
        # Cut from the file and shrunk then; the other way round would enlarge a blurred picture.
        image, _ = on_a_larger_film(Modality.CXR, 0)
        large = cv2.resize(image, (600, 600), interpolation=cv2.INTER_LINEAR)
        box = lung_box(large, Modality.CXR)
        assert box is not None
        part = box_in_pixels(box, large.shape, 0.1)
        settings = config(Modality.CXR, 200, crop="lungs")
        got = prepare(s.encode(large, ".png"), Modality.CXR, settings)
        inner = large[part] / np.float32(255)
        low, high = np.percentile(inner, [1, 99])
        expected = resize_square(np.clip((inner - low) / (high - low), 0, 1), 200)
        np.testing.assert_allclose(got.instances[0].astype(int), expected.astype(int), atol=1)
        assert got.seen.traits["lungs_found"] == 1.0

    @pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
    def test_without_lungs_the_whole_image_stays_and_a_trait_says_so(
        self, modality: Modality
    ) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (96, 96)).astype(np.uint8)
        data = s.encode(noise, ".png")
        plain = prepare(data, modality, config(modality))
        cropped = prepare(data, modality, config(modality, crop="lungs"))
        np.testing.assert_array_equal(plain.instances, cropped.instances)
        assert cropped.seen.traits == plain.seen.traits | {"lungs_found": 0.0}

    @pytest.mark.parametrize(
        ("box", "margin", "rows", "columns"),
        [
            ((0.25, 0.75, 0.1, 0.9), 0.0, (25, 75), (20, 180)),
            ((0.25, 0.75, 0.1, 0.9), 0.1, (20, 80), (4, 196)),
            ((0.0, 1.0, 0.0, 1.0), 0.5, (0, 100), (0, 200)),
        ],
    )
    def test_margins_are_shares_of_the_box_and_end_at_the_image(
        self, box, margin, rows, columns
    ) -> None:
        got = box_in_pixels(box, (100, 200), margin)
        assert [(part.start, part.stop) for part in got] == [rows, columns]


class TestHistogram:
    def test_equalised_levels_are_uniform(self) -> None:
        out = standardise_histogram(smooth_picture(), "equalised", WHOLE)
        at = np.linspace(0.05, 0.95, 19)
        np.testing.assert_allclose(np.quantile(out, at), at, atol=0.01)

    def test_equalised_agrees_with_opencv(self) -> None:
        grey = np.rint(smooth_picture() * 255).astype(np.uint8)
        out = standardise_histogram(grey / np.float32(255), "equalised", WHOLE)
        np.testing.assert_allclose(out * 255, cv2.equalizeHist(grey), atol=4)

    def test_matched_levels_are_those_of_the_reference(self) -> None:
        out = standardise_histogram(smooth_picture(), "matched", WHOLE)
        at = np.linspace(0.05, 0.95, 19)
        normal = stats.norm(0.5, 0.5 / stats.norm.ppf(0.99))
        np.testing.assert_allclose(np.quantile(out, at), normal.ppf(at), atol=0.01)

    def test_the_reference_is_black_and_white_at_the_default_percentiles(self) -> None:
        defaults = CxrPreprocessing()
        ranks = np.array([defaults.low_percentile, 50.0, defaults.high_percentile]) / 100
        np.testing.assert_allclose(reference_greys(ranks), [0.0, 0.5, 1.0], atol=1e-9)

    @pytest.mark.parametrize("method", ["equalised", "matched"])
    def test_the_order_of_grey_levels_is_kept(self, method) -> None:
        picture = smooth_picture()
        out = standardise_histogram(picture, method, WHOLE)
        order = np.argsort(picture, axis=None)
        assert (np.diff(out.ravel()[order]) >= 0).all()

    @pytest.mark.parametrize("method", ["equalised", "matched"])
    def test_a_curve_of_the_maker_is_undone(self, method) -> None:
        picture = smooth_picture()
        left, right = (
            standardise_histogram(np.float32(x), method, WHOLE)
            for x in (picture, 0.9 * picture**0.6)
        )
        np.testing.assert_allclose(left, right, atol=0.02)

    @pytest.mark.parametrize("method", ["equalised", "matched"])
    def test_what_lies_outside_the_region_does_not_steer(self, method) -> None:
        picture = smooth_picture()
        framed = picture.copy()
        framed[:10], framed[-10:] = 1.0, 0.0
        region = (slice(10, -10), slice(None))
        left, right = (standardise_histogram(x, method, region) for x in (picture, framed))
        np.testing.assert_array_equal(left[region], right[region])
        assert not np.array_equal(left, right)

    def test_a_saturated_window_stays_flat(self) -> None:
        # Compression leaves a cut-off window two levels of white; nothing lies between them.
        picture = smooth_picture()
        picture[:40] = np.where(np.random.default_rng(1).random((40, 96)) < 0.5, 1.0, 254 / 255)
        out = standardise_histogram(picture, "equalised", WHOLE)
        assert np.ptp(out[:40]) <= 5 / 255

    def test_clahe_is_that_of_opencv(self) -> None:
        image, _ = _phantom(Modality.CXR, 0, {})
        out = standardise_histogram(image / np.float32(255), "clahe", WHOLE)
        expected = cv2.createCLAHE(2.0, (8, 8)).apply(image)
        np.testing.assert_array_equal(np.rint(out * 255), expected)

    @pytest.mark.parametrize("method", ["equalised", "matched"])
    def test_black_stays_black_and_white_white(self, method) -> None:
        for seed in range(20):
            # A sum of shares that rounding carries beyond 1 must not become less than nothing.
            picture = (smooth_picture(seed, 40 + seed) - 0.1) / 0.8
            out = standardise_histogram(np.clip(picture, 0.0, 1.0), method, WHOLE)
            ends = standardise_histogram(np.clip(picture * 3 - 1, 0.0, 1.0), method, WHOLE)
            assert np.isfinite(out).all()
            assert (ends.min(), ends.max()) == (0.0, 1.0)

    @pytest.mark.parametrize("method", ["equalised", "matched", "clahe"])
    @pytest.mark.parametrize("fill", [0.0, 0.4, 1.0])
    def test_a_blank_region_stays_in_the_unit_interval(self, method, fill) -> None:
        out = standardise_histogram(np.full((32, 32), fill, np.float32), method, WHOLE)
        assert np.isfinite(out).all()
        assert out.min() >= 0
        assert out.max() <= 1


class TestLetters:
    def test_text_is_painted_over_and_the_rest_is_untouched(self) -> None:
        clean = (255 * smooth_picture(side=400) ** 0.5).astype(np.uint8)
        clean = cv2.GaussianBlur(clean, (0, 0), 9)
        image = clean.copy()
        cv2.putText(image, "PORTABLE 0742", (40, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
        written = image != clean
        out = paint_letters(image.astype(np.float32), image)
        error = np.abs(out - clean)
        assert error[written].mean() < 0.2 * np.abs(image.astype(float) - clean)[written].mean()
        np.testing.assert_array_equal(out[120:], image[120:])

    def test_a_picture_without_text_is_the_very_same(self) -> None:
        image, _ = _phantom(Modality.CXR, 0, {})
        plane = image.astype(np.float32)
        assert paint_letters(plane, image) is plane

    @pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
    def test_in_an_instance(self, modality: Modality) -> None:
        image = cv2.GaussianBlur((255 * smooth_picture(side=400)).astype(np.uint8), (0, 0), 9)
        written = image.copy()
        cv2.putText(written, "PORTABLE 0742", (40, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
        whole = {"body_crop": False} if modality is Modality.CT else {}
        clean, plain, painted = (
            prepare(s.encode(x, ".png"), modality, config(modality, mask_letters=mask, **whole))
            .instances[0]
            .astype(int)
            for x, mask in ((image, False), (written, False), (written, True))
        )
        before, after = (np.abs(clean - x).sum() for x in (plain, painted))
        assert after < 0.4 * before
