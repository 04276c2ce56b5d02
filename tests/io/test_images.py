"""Images come back as they were stored, in the range of the stored type."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import read_image
from pulmofuse.io.quiet import quiet_stderr
from tests.io import samples as s


class TestRaster:
    @pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp"])
    def test_lossless_formats_come_back_exactly(self, suffix: str) -> None:
        stored = s.picture()
        image = read_image(s.encode(stored, suffix))
        np.testing.assert_array_equal(image.pixels, stored[None].astype(np.float32) / 255)
        assert not image.hounsfield

    @pytest.mark.parametrize("suffix", [".png", ".tiff"])
    def test_sixteen_bits_are_scaled_by_sixteen_bits(self, suffix: str) -> None:
        stored = s.picture(dtype=np.uint16) // 16  # a 12-bit detector in 16-bit words
        image = read_image(s.encode(stored, suffix))
        np.testing.assert_allclose(image.pixels[0], stored / 65535, atol=1e-7)
        assert image.pixels.max() < 0.07
        assert image.traits["bit_depth"] == 16

    def test_jpeg_is_close(self) -> None:
        stored = s.picture()
        image = read_image(s.encode(stored, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 97))
        np.testing.assert_allclose(image.pixels[0], stored / 255, atol=0.03)

    @pytest.mark.parametrize("quality", [30, 50, 75, 90, 95])
    def test_jpeg_quality_is_seen(self, quality: int) -> None:
        data = s.encode(s.picture(), ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)
        assert read_image(data).traits["jpeg_quality"] == pytest.approx(quality, abs=1)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_equal_channels_are_grey(self, dtype: type) -> None:
        grey = s.picture(dtype=dtype)
        image = read_image(s.encode(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), ".png"))
        np.testing.assert_array_equal(
            image.pixels[0], grey.astype(np.float32) / np.iinfo(dtype).max
        )
        assert image.traits["colour"] is False
        assert image.traits["channels"] == 3

    def test_colour_goes_to_luma(self) -> None:
        bgr = np.zeros((40, 40, 3), np.uint8)
        bgr[:20, :, 2] = 200  # red
        bgr[20:, :, 1] = 200  # green
        image = read_image(s.encode(bgr, ".png"))
        assert image.pixels[0, 0, 0] * 255 == pytest.approx(0.299 * 200, abs=1)
        assert image.pixels[0, -1, 0] * 255 == pytest.approx(0.587 * 200, abs=1)
        assert image.traits["colour"] is True

    def test_alpha_is_left_out(self) -> None:
        grey = s.picture()
        alpha = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
        image = read_image(s.encode(np.dstack([grey, grey, grey, alpha]), ".png"))
        np.testing.assert_array_equal(image.pixels[0], grey.astype(np.float32) / 255)
        assert image.traits["channels"] == 4

    def test_content_decides_and_not_the_suffix(self, tmp_path: Path) -> None:
        path = tmp_path / "really.png"
        path.write_bytes(s.encode(s.picture(), ".bmp"))
        assert read_image(path).traits["format"] == "bmp"

    def test_file_and_bytes_are_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(s.png())
        left, right = read_image(path), read_image(s.png())
        np.testing.assert_array_equal(left.pixels, right.pixels)
        assert left.traits == right.traits

    def test_bytes_after_the_end_are_harmless(self) -> None:
        np.testing.assert_array_equal(
            read_image(s.png() + b"trailer").pixels, read_image(s.png()).pixels
        )

    def test_border_traits_are_those_of_the_outer_five_percent(self) -> None:
        stored = np.full((100, 200), 100, np.uint8)
        stored[5:-5, 10:-10] = 200
        traits = read_image(s.encode(stored, ".png")).traits
        assert traits["border_mean"] == pytest.approx(100 / 255)
        assert traits["border_std"] == pytest.approx(0, abs=1e-7)
        assert (traits["height"], traits["width"], traits["slices"]) == (100, 200, 1)
        assert traits["mean"] == pytest.approx(stored.mean() / 255)
        assert traits["std"] == pytest.approx(stored.std() / 255)


class TestDicom:
    def test_ct_is_in_hounsfield_units(self) -> None:
        stored = s.picture(dtype=np.uint8).astype(np.int16) * 10
        image = read_image(s.dicom(stored, RescaleSlope=2, RescaleIntercept=-1024))
        assert image.hounsfield
        np.testing.assert_array_equal(image.pixels[0], stored * 2.0 - 1024)

    def test_a_window_does_not_touch_hounsfield_units(self) -> None:
        stored = s.picture().astype(np.int16)
        data = s.dicom(
            stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=-950, WindowWidth=50
        )
        assert read_image(data).pixels.min() == -1024

    def test_ct_without_a_rescale_is_no_hounsfield(self) -> None:
        image = read_image(s.dicom(s.picture()))
        assert not image.hounsfield
        np.testing.assert_allclose(image.pixels[0], s.picture() / 255, atol=1e-6)

    def test_frames_become_slices(self) -> None:
        stored = np.stack([s.picture().astype(np.int16) + i for i in range(4)])
        image = read_image(s.dicom(stored, RescaleSlope=1, RescaleIntercept=0))
        np.testing.assert_array_equal(image.pixels, stored)
        assert image.traits["slices"] == 4

    def test_window_of_an_x_ray_is_applied(self) -> None:
        stored = s.picture().astype(np.uint16) * 16
        image = read_image(s.dicom(stored, "DX", WindowCenter=2048, WindowWidth=1024))
        assert image.pixels[0][stored <= 1536].max() == 0
        assert image.pixels[0][stored >= 2560].min() == 1
        inside = (stored > 1600) & (stored < 2500)
        np.testing.assert_allclose(
            image.pixels[0][inside], (stored[inside] - 1536) / 1024, atol=2e-3
        )

    def test_monochrome1_is_turned_after_the_window(self) -> None:
        stored = s.picture().astype(np.uint16) * 16
        tags = {"WindowCenter": 2048, "WindowWidth": 1024}
        plain = read_image(s.dicom(stored, "DX", **tags))
        turned = read_image(s.dicom(stored, "DX", PhotometricInterpretation="MONOCHROME1", **tags))
        np.testing.assert_allclose(turned.pixels, 1 - plain.pixels, atol=1e-6)

    def test_twelve_bits_in_sixteen_use_the_whole_range(self) -> None:
        image = read_image(s.dicom(s.picture().astype(np.uint16) * 16, "CR"))
        assert (image.pixels.min(), image.pixels.max()) == (0, 1)

    def test_traits_hold_nothing_of_the_patient(self) -> None:
        data = s.dicom(
            s.picture(), PatientName="Doe^Jane", PatientID="4711", InstitutionName="St Mary"
        )
        text = str(read_image(data).traits)
        assert not any(word in text for word in ("Doe", "4711", "Mary"))

    def test_no_pixels_says_what_it_is(self) -> None:
        with pytest.raises(UnreadableFile, match="no pixel data"):
            read_image(_without_pixels())


def _without_pixels() -> bytes:
    import io

    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(s.dicom(s.picture())))
    del dataset.PixelData
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


class TestNifti:
    @pytest.mark.parametrize("packed", [False, True])
    def test_radiological_orientation(self, packed: bool) -> None:
        volume = np.zeros((40, 48, 5), np.float32)  # axes to the right, front and head
        volume[-1, -1, 0] = 1.0  # right, front, lowest slice
        image = read_image(s.nifti(volume, packed=packed))
        assert image.pixels.shape == (5, 48, 40)
        assert image.pixels[0, 0, 0] == 1.0  # patient's right on the left, front at the top

    def test_stored_orientation_does_not_matter(self) -> None:
        volume = np.random.default_rng(1).normal(size=(40, 48, 5)).astype(np.float32)
        mirrored = np.diag([-1.0, -1.0, 1.0, 1.0])
        left = read_image(s.nifti(volume))
        right = read_image(s.nifti(volume[::-1, ::-1], mirrored))
        np.testing.assert_array_equal(left.pixels, right.pixels)

    def test_hounsfield_is_told_by_air(self) -> None:
        volume = np.full((40, 40, 3), -1000, np.int16)
        volume[10:30, 10:30] = 40
        image = read_image(s.nifti(volume))
        assert image.hounsfield
        assert (image.pixels.min(), image.pixels.max()) == (-1000, 40)

    def test_other_ranges_go_to_the_unit_interval(self) -> None:
        volume = np.full((40, 40, 3), 3, np.int16)
        volume[10:30, 10:30] = 300
        image = read_image(s.nifti(volume))
        assert not image.hounsfield
        assert (image.pixels.min(), image.pixels.max()) == (0, 1)

    def test_a_single_slice_is_a_volume_of_one(self) -> None:
        assert read_image(s.nifti(s.picture().astype(np.int16))).pixels.shape == (1, 64, 48)


class TestQuiet:
    def test_foreign_messages_are_passed_on(self, capfd: pytest.CaptureFixture[str]) -> None:
        with quiet_stderr():
            os.write(2, b"libpng error: CRC\n")
            os.write(2, b"epoch 3 of 9\n")
        assert capfd.readouterr().err == "epoch 3 of 9\n"

    def test_threads_share_one_diversion(self, capfd: pytest.CaptureFixture[str]) -> None:
        inside, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with quiet_stderr():
                inside.set()
                leave.wait(10)

        other = threading.Thread(target=hold)
        other.start()
        inside.wait(10)
        with quiet_stderr():
            pass
        os.write(2, b"Corrupt JPEG data: 3\n")  # the other one is still decoding
        leave.set()
        other.join()
        os.write(2, b"after\n")
        assert capfd.readouterr().err == "after\n"


@pytest.mark.data
def test_published_images_are_read(data_root: Path) -> None:
    folders = (
        "covid-ct/Images-processed/CT_COVID",
        "covid-ct/Images-processed/CT_NonCOVID",
        "covid-chestxray-dataset/images",
    )
    for folder in folders:
        for path in sorted((data_root / folder).iterdir())[:8]:
            image = read_image(path)
            assert image.pixels.shape[0] == 1
            assert 0 <= image.pixels.min() < image.pixels.max() <= 1
