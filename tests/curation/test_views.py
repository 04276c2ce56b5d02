"""What a picture shows, and what is odd about it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from pulmofuse.curation.burnt_in import text_lines
from pulmofuse.curation.views import (
    FEATURES,
    View,
    classify_view,
    image_remarks,
    shrink,
    view_features,
    view_model,
)
from pulmofuse.errors import WeightsError
from pulmofuse.io import Image, read_image
from pulmofuse.schema import Label, Modality, Oddity
from pulmofuse.sources.phantom import draw_ct, draw_cxr

DRAW = {Modality.CT: draw_ct, Modality.CXR: draw_cxr}
#: Oddities that keep a file out by default.
EXCLUDING = {Oddity.BLANK, Oddity.NOT_RADIOLOGY, Oddity.WRONG_MODALITY, Oddity.LATERAL}


def phantom(modality: Modality, seed: int, size: int = 192) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    signs = {Label.PNEUMONIA: float(seed % 3) / 2}
    return DRAW[modality](rng, size, signs, female=seed % 2 == 0, coarse=seed % 4 == 0)


def image(grey: NDArray[np.uint8], **traits: object) -> Image:
    plane = grey.astype(np.float32) / np.float32(255)
    return Image(plane[np.newaxis], False, {"bit_depth": 8, **traits})


def kinds(of: Image, modality: Modality) -> set[Oddity]:
    return {remark.kind for remark in image_remarks(of, modality)}


def drawing(name: str) -> NDArray[np.uint8]:
    """Pictures that are no radiographs."""
    side = 256
    y, x = np.mgrid[:side, :side]
    page = np.full((side, side), 255, np.uint8)
    if name == "chart":
        cv2.line(page, (30, 230), (240, 230), 0, 2)
        cv2.line(page, (30, 20), (30, 230), 0, 2)
        for i, height in enumerate((60, 120, 90, 170, 40)):
            cv2.rectangle(page, (50 + 38 * i, 230 - height), (75 + 38 * i, 230), 90, -1)
    elif name == "text":
        for line in range(14):
            words = "the quick brown fox jumps over it"
            cv2.putText(page, words, (6, 18 + 17 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 0, 1)
    elif name == "chessboard":
        page = ((x // 32 + y // 32) % 2 * 255).astype(np.uint8)
    elif name == "gradient":
        page = x.astype(np.uint8)
    elif name == "noise":
        page = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    elif name == "face":
        cv2.circle(page, (128, 128), 100, 200, -1)
        cv2.circle(page, (128, 128), 100, 0, 3)
        for eye in (90, 166):
            cv2.circle(page, (eye, 100), 12, 0, -1)
        cv2.ellipse(page, (128, 150), (50, 35), 0, 0, 180, 0, 4)
    return page


class TestClassifyView:
    @pytest.mark.parametrize(
        ("modality", "view"), [(Modality.CT, View.AXIAL), (Modality.CXR, View.FRONTAL)]
    )
    @pytest.mark.parametrize("size", [48, 192, 300])
    def test_tells_phantoms(self, modality: Modality, view: View, size: int) -> None:
        for seed in range(8):
            p = classify_view(phantom(modality, seed, size).astype(np.float32) / 255)

            assert max(p, key=lambda v: p[v]) is view
            assert sum(p.values()) == pytest.approx(1)

    def test_range_and_offset_do_not_matter(self) -> None:
        plane = phantom(Modality.CXR, 1).astype(np.float32) / 255

        dim = classify_view(0.2 + 0.05 * plane)

        assert dim == pytest.approx(classify_view(plane), abs=1e-3)

    def test_pixel_size_hardly_matters(self) -> None:
        plane = phantom(Modality.CXR, 1, 256).astype(np.float32) / 255

        large = cv2.resize(plane, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)

        assert np.abs(view_features(large) - view_features(plane)).mean() < 0.02

    @pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
    def test_takes_a_blank_plane(self, value: float) -> None:
        p = classify_view(np.full((40, 50), value, np.float32))

        assert sum(p.values()) == pytest.approx(1)

    @pytest.mark.parametrize("shape", [(32, 32), (33, 900), (900, 33)])
    def test_takes_any_shape(self, shape: tuple[int, int]) -> None:
        plane = np.random.default_rng(0).random(shape, dtype=np.float32)

        assert view_features(plane).shape == (FEATURES,)


class TestImageRemarks:
    @pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
    def test_phantoms_stay(self, modality: Modality) -> None:
        for seed in range(12):
            for size in (64, 192):
                found = kinds(image(phantom(modality, seed, size)), modality)

                assert not found & EXCLUDING, (seed, size)
                assert Oddity.BURNT_IN_TEXT not in found, (seed, size)

    @pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
    def test_the_other_modality_is_named(self, modality: Modality) -> None:
        other = Modality.CXR if modality is Modality.CT else Modality.CT
        for seed in range(8):
            assert Oddity.WRONG_MODALITY in kinds(image(phantom(other, seed)), modality)

    @pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
    @pytest.mark.parametrize("name", ["chart", "text", "chessboard", "gradient", "noise", "face"])
    def test_drawings_are_found(self, name: str, modality: Modality) -> None:
        assert Oddity.NOT_RADIOLOGY in kinds(image(drawing(name)), modality)

    def test_an_almost_empty_image_is_blank(self) -> None:
        grey = np.full((200, 200), 17, np.uint8)
        grey[3:8, 3:8] = 255  # a mark in the corner

        assert kinds(image(grey), Modality.CXR) == {Oddity.BLANK}

    def test_faint_noise_alone_is_blank(self) -> None:
        rng = np.random.default_rng(0)
        grey = rng.integers(100, 104, (200, 200), dtype=np.uint8)

        assert kinds(image(grey), Modality.CT) == {Oddity.BLANK}

    def test_twelve_bits_in_sixteen_are_not_blank(self) -> None:
        plane = phantom(Modality.CXR, 3).astype(np.float32) / 255 / 16
        found = kinds(Image(plane[np.newaxis], False, {"bit_depth": 16}), Modality.CXR)

        assert not found & EXCLUDING

    def test_a_clipped_radiograph_is_remarked(self) -> None:
        grey = phantom(Modality.CXR, 2)
        burnt = np.clip(grey.astype(float) * 3, 0, 255).astype(np.uint8)

        assert Oddity.CLIPPED in kinds(image(burnt), Modality.CXR)
        assert Oddity.CLIPPED not in kinds(image(grey), Modality.CXR)

    def test_black_around_the_body_is_not_clipped(self) -> None:
        grey = cv2.copyMakeBorder(phantom(Modality.CXR, 2), *[40] * 4, cv2.BORDER_CONSTANT)

        assert Oddity.CLIPPED not in kinds(image(grey), Modality.CXR)

    @pytest.mark.parametrize("share", [0.008, 0.012, 0.03])
    def test_content_that_lies_between_the_counted_rows_counts(self, share: float) -> None:
        # Fewer rows than all are looked at first; what they miss must not make an image blank.
        rng = np.random.default_rng(0)
        grey = np.full((400, 100), 128, np.uint8)
        rows = np.arange(400)[np.arange(400) % 4 != 0][: round(400 * share)]
        grey[rows] = rng.integers(0, 2, (len(rows), 100), dtype=np.uint8) * 255

        # Half of the drawn pixels are black, half are white: each end needs 0.5 % to count.
        assert (Oddity.BLANK in kinds(image(grey), Modality.CXR)) is (share / 2 < 0.005)

    @pytest.mark.parametrize("size", [48, 192, 300])
    def test_a_grid_that_is_at_hand_changes_nothing(self, size: int) -> None:
        for seed in range(6):
            of = image(phantom(Modality.CXR, seed, size))

            found = image_remarks(of, Modality.CT, shrink(of.pixels[0]))

            assert found == image_remarks(of, Modality.CT)
            assert found

    def test_burnt_in_text_is_remarked_with_a_remedy(self) -> None:
        grey = phantom(Modality.CXR, 2, 512)
        cv2.putText(grey, "DOE JANE 1970", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2)

        remark = next(r for r in image_remarks(image(grey), Modality.CXR))

        assert remark.kind is Oddity.BURNT_IN_TEXT
        assert "DOE" not in remark.reason
        assert "name" in remark.remedy

    def test_hounsfield_units_are_ct(self) -> None:
        volume = np.random.default_rng(0).normal(0, 300, (5, 64, 64)).astype(np.float32)
        of = Image(volume, True, {"bit_depth": 16})

        assert kinds(of, Modality.CT) == set()
        assert Oddity.WRONG_MODALITY in kinds(of, Modality.CXR)

    @pytest.mark.parametrize(
        ("stated", "modality", "odd"),
        [
            ("CT", Modality.CT, False),
            ("CT", Modality.CXR, True),
            ("DX", Modality.CT, True),
            ("MR", Modality.CT, True),
            ("DX", Modality.CXR, False),
            ("SC", Modality.CXR, False),  # says nothing, and the pixels look right
        ],
    )
    def test_the_header_counts(self, stated: str, modality: Modality, *, odd: bool) -> None:
        of = image(phantom(modality, 5), dicom_modality=stated)

        assert (Oddity.WRONG_MODALITY in kinds(of, modality)) is odd

    @pytest.mark.parametrize(("view", "odd"), [("L", True), ("PA", False), ("LLD", False)])
    def test_the_stated_view_counts(self, view: str, *, odd: bool) -> None:
        of = image(phantom(Modality.CXR, 5), dicom_modality="DX", view=view)

        assert (Oddity.LATERAL in kinds(of, Modality.CXR)) is odd

    def test_a_negative_does_not_crash(self) -> None:
        for seed in range(5):
            assert image_remarks(image(255 - phantom(Modality.CXR, seed)), Modality.CXR) is not None


class TestTextLines:
    @pytest.mark.parametrize("ink", [0, 255])
    @pytest.mark.parametrize("scale", [0.35, 0.6, 1.2])
    def test_finds_a_line_and_its_place(self, scale: float, ink: int) -> None:
        grey = np.full((400, 500), 128, np.uint8)
        cv2.putText(grey, "2020 03 17 ABC", (60, 200), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1)

        (x, y, width, height), *_ = text_lines(grey)

        assert x >= 55
        assert y <= 200 <= y + height + 2
        assert width > 3 * height

    @pytest.mark.parametrize("text", ["L", "R", "A", "AP"])
    def test_a_side_marker_is_no_text(self, text: str) -> None:
        grey = phantom(Modality.CXR, 1, 400)
        cv2.putText(grey, text, (330, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2)

        assert text_lines(grey) == ()

    def test_boxes_are_in_the_pixels_of_a_large_image(self) -> None:
        grey = np.zeros((2000, 1600), np.uint8)
        cv2.putText(grey, "PORTABLE", (400, 1000), cv2.FONT_HERSHEY_SIMPLEX, 2.0, 255, 5)

        x, y, width, height = text_lines(grey)[0]

        assert 380 <= x <= 440
        assert x + width <= 800
        assert 930 <= y < y + height <= 1020

    def test_a_line_is_found_among_texture(self) -> None:
        rng = np.random.default_rng(0)
        grey = np.full((512, 512), 90, np.uint8)
        for x, y in rng.integers(8, 500, (300, 2)).tolist():
            cv2.circle(grey, (x, y), int(rng.integers(1, 4)), 210, -1)
        grey[240:290] = 90
        cv2.putText(grey, "PORTABLE", (150, 275), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2)

        lines = text_lines(grey)

        assert any(140 <= x <= 160 and 250 <= y <= 280 and w > 60 for x, y, w, _ in lines)

    @pytest.mark.parametrize("shape", [(32, 32), (32, 700)])
    def test_takes_small_images(self, shape: tuple[int, int]) -> None:
        assert text_lines(np.zeros(shape, np.uint8)) == ()


class TestWeights:
    def test_are_small(self) -> None:
        model = view_model()

        assert model.w1.shape[0] == FEATURES
        assert model.w1.nbytes / 2 + model.w2.nbytes / 2 < 200_000
        assert 0.5 <= model.threshold < 1

    def test_absent_weights_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="Install Pulmofuse again"):
            view_model(tmp_path / "views.safetensors")

    def test_weights_of_another_shape_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "views.safetensors"
        zeros = {name: np.zeros((3, 4), np.float32) for name in ("w1", "w2")}
        zeros |= {name: np.zeros(4, np.float32) for name in ("b1", "b2")}
        save_file(zeros, path, metadata={"views": '{"threshold": 0.5}'})

        with pytest.raises(WeightsError, match="do not fit"):
            view_model(path)


@pytest.mark.data
class TestRealImages:
    """Every fifteenth image; train_views.py measures the held-out ones alone."""

    @pytest.mark.parametrize(
        ("folder", "modality"),
        [
            ("darkcovidnet/X-Ray Image DataSet/No_findings", Modality.CXR),
            ("darkcovidnet/X-Ray Image DataSet/Pneumonia", Modality.CXR),
            ("covid-ct/Images-processed/CT_COVID", Modality.CT),
            ("covid-ct/Images-processed/CT_NonCOVID", Modality.CT),
        ],
    )
    def test_few_are_flagged_and_the_other_folder_flags_all(
        self, data_root: Path, folder: str, modality: Modality
    ) -> None:
        paths = sorted((data_root / folder).iterdir())[::15]
        other = Modality.CXR if modality is Modality.CT else Modality.CT
        images = [read_image(path) for path in paths]

        at_home = [bool(kinds(i, modality) & EXCLUDING) for i in images]
        away = [bool(kinds(i, other) & EXCLUDING) for i in images]

        assert len(images) >= 20
        assert sum(at_home) <= 1
        assert np.mean(away) >= 0.95
