"""DICOM values mean what the standard says, whatever the compression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_files
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    MPEG4HP41,
    ExplicitVRLittleEndian,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import read_image
from tests.io import samples as s

TWELVE = s.picture(dtype=np.uint16) >> 4


def pydicom_file(name: str) -> Path:
    found = [Path(p) for p in get_testdata_files(f"**/{name}") if Path(p).is_file()]
    if not found:
        pytest.skip(f"{name} does not ship with this pydicom")
    return found[0]


class TestAgainstPydicom:
    @pytest.mark.parametrize("name", ["CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"])
    def test_hounsfield_units(self, name: str) -> None:
        dataset = pydicom.dcmread(pydicom_file(name))
        image = read_image(pydicom_file(name))
        expected = apply_modality_lut(dataset.pixel_array, dataset)
        padding = dataset.get("PixelPaddingValue")
        expected = np.where(dataset.pixel_array == padding, -1000, expected)
        assert image.hounsfield
        np.testing.assert_allclose(image.pixels[0], expected, atol=1e-3)

    @pytest.mark.parametrize(
        "name",
        [
            "MR_small.dcm",
            "MR_small_RLE.dcm",
            "MR_small_jp2klossless.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
            "MR_small_expb.dcm",
            "examples_overlay.dcm",
        ],
    )
    def test_windowed_images(self, name: str) -> None:
        dataset = pydicom.dcmread(pydicom_file(name))
        stored = dataset.pixel_array
        shown = apply_voi_lut(apply_modality_lut(stored, dataset), dataset)
        # The output range of pydicom's window is that of the stored type.
        signed = dataset.PixelRepresentation == 1
        low = -(2 ** (dataset.BitsStored - 1)) if signed else 0
        expected = (shown - low) / (2**dataset.BitsStored - 1)
        if "PixelPaddingValue" in dataset:
            expected = np.where(stored == dataset.PixelPaddingValue, 0, expected)
        image = read_image(pydicom_file(name))
        assert image.traits["voi"] == "window"
        np.testing.assert_allclose(image.pixels[0], np.clip(expected, 0, 1), atol=1e-4)

    def test_all_encodings_of_one_image_are_equal(self) -> None:
        names = ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"]
        names += ["MR_small_bigendian", "MR_small_implicit", "MR_small_padded"]
        reference = read_image(pydicom_file("MR_small.dcm"))
        for name in names:
            other = read_image(pydicom_file(f"{name}.dcm"))
            np.testing.assert_array_equal(other.pixels, reference.pixels, err_msg=name)

    def test_deflated(self) -> None:
        dataset = pydicom.dcmread(pydicom_file("image_dfl.dcm"))
        image = read_image(pydicom_file("image_dfl.dcm"))
        np.testing.assert_allclose(image.pixels[0], dataset.pixel_array / 255, atol=1e-6)


class TestCompression:
    @pytest.mark.parametrize("bits", [8, 12, 16])
    def test_lossless_jpeg(self, bits: int) -> None:
        stored = s.picture(dtype=np.uint16) >> (16 - bits)
        stored = stored.astype(np.uint8 if bits == 8 else np.uint16)
        data = s.compressed_dicom(
            [s.lossless_jpeg(stored, bits)],
            stored,
            JPEGLosslessSV1,
            BitsStored=bits,
            HighBit=bits - 1,
            RescaleSlope=1,
            RescaleIntercept=-1024,
        )
        image = read_image(data)
        np.testing.assert_array_equal(image.pixels[0], stored.astype(np.float32) - 1024)

    def test_lossless_jpeg_of_signed_values(self) -> None:
        stored = TWELVE.astype(np.int16) - 2048
        data = s.compressed_dicom(
            [s.lossless_jpeg(stored.view(np.uint16), 16)],
            stored,
            JPEGLosslessSV1,
            RescaleSlope=1,
            RescaleIntercept=0,
        )
        np.testing.assert_array_equal(read_image(data).pixels[0], stored)

    def test_frames_of_lossless_jpeg(self) -> None:
        stored = np.stack([TWELVE, TWELVE[::-1]])
        frames = [s.lossless_jpeg(frame, 12) for frame in stored]
        tags = {"BitsStored": 12, "HighBit": 11, "RescaleSlope": 1, "RescaleIntercept": 0}
        image = read_image(s.compressed_dicom(frames, stored, JPEGLosslessSV1, **tags))
        np.testing.assert_array_equal(image.pixels, stored)

    def test_jpeg_of_twelve_bits(self) -> None:
        image = read_image(pydicom_file("JPEG-lossy.dcm"))
        assert image.traits["bit_depth"] == 12
        # What GDCM and libjpeg give for these two pixels, according to pydicom's own tests.
        stored = image.pixels[0] / image.pixels[0, 420, 140] * 244
        assert stored[230, 120] == pytest.approx(95, abs=0.01)
        # The same image as JPEG 2000 of 3,308 bytes: coarse, but of the same scale.
        twin = pydicom.dcmread(pydicom_file("JPEG2000.dcm")).pixel_array
        assert np.corrcoef(stored.ravel(), twin.ravel())[0, 1] > 0.95
        assert stored.mean() == pytest.approx(twin.mean(), abs=1.0)

    @pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGExtended12Bit])
    def test_a_cut_frame_is_refused(self, syntax: str) -> None:
        frame = s.lossless_jpeg(TWELVE, 12)
        data = s.compressed_dicom([frame[: len(frame) // 2]], TWELVE, syntax)
        with pytest.raises(UnreadableFile, match="JPEG ends"):
            read_image(data)

    def test_a_frame_of_other_dimensions_is_refused(self) -> None:
        frame = s.lossless_jpeg(np.tile(TWELVE, (2, 2)), 12)
        with pytest.raises(UnreadableFile, match="128 x 96 x 1"):
            read_image(s.compressed_dicom([frame], TWELVE, JPEGLosslessSV1))

    def test_too_few_frames_are_refused(self) -> None:
        frames = [s.lossless_jpeg(TWELVE, 12)] * 2
        data = s.compressed_dicom(frames, np.stack([TWELVE] * 3), JPEGLosslessSV1)
        with pytest.raises(UnreadableFile):
            read_image(data)

    def test_unknown_compression_says_what_and_how_to_go_on(self) -> None:
        data = s.compressed_dicom([b"\0" * 64], TWELVE, MPEG4HP41)
        with pytest.raises(UnreadableFile, match=r"no decoder here .*MPEG-4.*without compression"):
            read_image(data)

    def test_rle_longer_than_its_pixels_is_refused(self) -> None:
        data = s.compressed_dicom([b"\0" * 100_000], TWELVE, RLELossless)
        with pytest.raises(UnreadableFile, match="RLE"):
            read_image(data)


def test_two_transfer_syntaxes_are_refused() -> None:
    data = s.dicom(s.picture())
    where = data.index(b"1.2.840.10008.1.2.1")
    with pytest.raises(UnreadableFile, match="no single transfer syntax"):
        read_image(s.patched(data, where + 7, b"\\"))


class TestBare:
    """Files of the time before DICOM had a file format: no preamble, no file meta."""

    def test_without_meta(self) -> None:
        stored = s.picture().astype(np.int16)
        whole = s.dicom(stored, RescaleSlope=1, RescaleIntercept=-1024)
        dataset = whole[whole.index(b"\x08\0\x16\0UI") :]
        image = read_image(dataset)
        np.testing.assert_array_equal(image.pixels[0], stored - 1024)
        assert image.traits["format"] == "dicom"


class TestWindow:
    VALUES = s.picture(dtype=np.uint16) >> 4

    @pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
    @pytest.mark.parametrize(("centre", "width"), [(2048, 1024), (500, 3000), (3000, 2)])
    def test_as_pydicom(self, function: str, centre: float, width: float) -> None:
        tags: dict[str, Any] = {"WindowCenter": centre, "WindowWidth": width}
        tags |= {"VOILUTFunction": function, "BitsStored": 12, "HighBit": 11}
        data = s.dicom(self.VALUES, "DX", **tags)
        dataset = pydicom.dcmread(__import__("io").BytesIO(data))
        expected = apply_voi_lut(self.VALUES.astype(np.float64), dataset) / 4095
        np.testing.assert_allclose(read_image(data).pixels[0], expected, atol=1e-4)

    @settings(max_examples=40, deadline=None)
    @given(
        centre=st.integers(-2000, 2000),
        width=st.integers(2, 4000),
        function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
        slope=st.sampled_from([1, 2, 0.5]),
        intercept=st.integers(-1024, 100),
    )
    def test_after_the_modality_lut(
        self, centre: int, width: int, function: str, slope: float, intercept: int
    ) -> None:
        stored = self.VALUES.astype(np.int16) - 2048
        tags = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": function}
        tags |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
        image = read_image(s.dicom(stored, "DX", **tags))
        x = stored * float(slope) + intercept
        if function == "SIGMOID":
            expected = 1 / (1 + np.exp(np.clip(-4 * (x - centre) / width, -80, 80)))
        elif function == "LINEAR_EXACT":
            expected = np.clip((x - centre) / width + 0.5, 0, 1)
        else:
            expected = np.clip((x - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
        if image.traits["voi"] == "window":
            np.testing.assert_allclose(image.pixels[0], expected, atol=1e-5)
        else:  # the window shows one grey only
            assert np.ptp(expected) < 1e-5

    def test_a_window_that_shows_nothing_is_ignored(self) -> None:
        data = s.dicom(self.VALUES, "CR", WindowCenter=50_000, WindowWidth=100)
        image = read_image(data)
        assert image.traits["voi"] == "ignored"
        np.testing.assert_allclose(image.pixels[0], self.VALUES / self.VALUES.max(), atol=1e-6)

    def test_a_width_of_zero_is_no_window(self) -> None:
        image = read_image(s.dicom(self.VALUES, "CR", WindowCenter=50, WindowWidth=0))
        assert image.traits["voi"] == "none"

    def test_voi_lut_goes_before_the_window(self) -> None:
        table = (np.linspace(0, 1, 4096) ** 2 * 1023).astype(np.uint16)
        item = s.sequence(LUTDescriptor=[4096, 0, 16], LUTData=table.tolist())
        item[0]["LUTDescriptor"].VR = "US"
        item[0]["LUTData"].VR = "US"
        data = s.dicom(self.VALUES, "DX", VOILUTSequence=item, WindowCenter=9, WindowWidth=2)
        image = read_image(data)
        assert image.traits["voi"] == "lut"
        np.testing.assert_allclose(image.pixels[0], table[self.VALUES] / table.max(), atol=1e-6)

    def test_modality_lut(self) -> None:
        table = np.arange(256)[::-1] * 4
        item = s.sequence(LUTDescriptor=[256, 0, 16], LUTData=table.tolist(), ModalityLUTType="US")
        item[0]["LUTDescriptor"].VR = "US"
        item[0]["LUTData"].VR = "US"
        image = read_image(s.dicom(s.picture(), "CR", ModalityLUTSequence=item))
        np.testing.assert_allclose(image.pixels[0], 1 - s.picture() / 255, atol=1e-6)

    def test_windows_of_single_frames(self) -> None:
        stored = np.stack([self.VALUES, self.VALUES])
        groups = []
        for centre in (1000, 3000):
            window = s.sequence(WindowCenter=centre, WindowWidth=1001)
            groups.append(s.sequence(FrameVOILUTSequence=window)[0])
        data = s.dicom(stored, "XA", PerFrameFunctionalGroupsSequence=pydicom.Sequence(groups))
        pixels = read_image(data).pixels
        for frame, centre in zip(pixels, (1000, 3000), strict=True):
            expected = np.clip((self.VALUES - (centre - 0.5)) / 1000 + 0.5, 0, 1)
            np.testing.assert_allclose(frame, expected, atol=1e-5)

    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    def test_eight_bits_keep_their_range(self, photometric: str) -> None:
        stored = s.picture() // 2
        tags = {"RescaleSlope": 1, "RescaleIntercept": 0, "PhotometricInterpretation": photometric}
        image = read_image(s.dicom(stored, "CR", **tags))
        unit = stored / 255
        expected = 1 - unit if photometric == "MONOCHROME1" else unit
        np.testing.assert_allclose(image.pixels[0], expected, atol=1e-6)


class TestPadding:
    def padded(self, value: int, dtype: type = np.int16) -> tuple[np.ndarray, np.ndarray]:
        stored = s.picture().astype(dtype) + 100
        outside = np.zeros(stored.shape, bool)
        outside[:, :10] = True
        stored[outside] = value
        return stored, outside

    def test_air_in_hounsfield_units(self) -> None:
        stored, outside = self.padded(-2000)
        tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "PixelPaddingValue": -2000}
        image = read_image(s.dicom(stored, **tags))
        assert (image.pixels[0][outside] == -1000).all()
        np.testing.assert_array_equal(image.pixels[0][~outside], stored[~outside] - 1024.0)

    def test_no_say_in_scaling_nor_in_statistics(self) -> None:
        stored, outside = self.padded(30_000)
        image = read_image(s.dicom(stored, "DX", PixelPaddingValue=30_000))
        plain = read_image(s.dicom(stored[:, 10:], "DX"))
        assert (image.pixels[0][outside] == 0).all()
        np.testing.assert_array_equal(image.pixels[0][:, 10:], plain.pixels[0])
        assert image.traits["mean"] == pytest.approx(plain.traits["mean"])
        assert image.traits["std"] == pytest.approx(plain.traits["std"])
        assert image.traits["padding_fraction"] == pytest.approx(outside.mean())

    def test_the_border_leaves_padding_out(self) -> None:
        stored, outside = self.padded(0, np.uint16)
        image = read_image(s.dicom(stored, "DX", PixelPaddingValue=0))
        edge = np.ones_like(outside)
        edge[2:-2, 3:-3] = False
        inside = image.pixels[0][edge & ~outside].astype(np.float64)
        assert image.traits["border_mean"] == pytest.approx(inside.mean())
        assert image.traits["border_std"] == pytest.approx(inside.std())

    def test_monochrome1_has_black_padding(self) -> None:
        stored, outside = self.padded(4095, np.uint16)
        tags = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 4095}
        image = read_image(s.dicom(stored, "DX", **tags))
        assert (image.pixels[0][outside] == 0).all()
        inside = stored[~outside].astype(float)
        expected = (inside.max() - inside) / np.ptp(inside)
        np.testing.assert_allclose(image.pixels[0][~outside], expected, atol=1e-6)

    def test_a_range(self) -> None:
        stored, outside = self.padded(5, np.uint16)
        stored[:, :5] = 9
        tags = {"PixelPaddingValue": 10, "PixelPaddingRangeLimit": 2}
        image = read_image(s.dicom(stored, "DX", **tags))
        assert image.traits["padding_fraction"] == pytest.approx(outside.mean())

    def test_a_value_with_the_wrong_sign_is_understood(self) -> None:
        stored, outside = self.padded(-2000)
        tags = {"RescaleSlope": 1, "RescaleIntercept": 0, "PixelPaddingValue": -2000}
        data = bytearray(s.dicom(stored, **tags))
        where = data.index(b"\x28\0\x20\x01SS")
        data[where + 4 : where + 6] = b"US"
        assert (read_image(bytes(data)).pixels[0][outside] == -1000).all()

    def test_nothing_but_padding_means_nothing(self) -> None:
        image = read_image(
            s.dicom(s.picture(), "DX", PixelPaddingValue=0, PixelPaddingRangeLimit=255)
        )
        assert "padding_fraction" not in image.traits


class TestTraits:
    @pytest.mark.parametrize(
        ("tags", "view"),
        [
            ({"ViewPosition": "PA"}, "PA"),
            ({"ViewPosition": "ap "}, "AP"),
            ({"ViewPosition": "LL"}, "L"),
            ({"ViewPosition": "LATERAL"}, "L"),
            ({"ViewPosition": "LAO"}, "oblique"),
            ({"ViewPosition": "YES", "SeriesDescription": "Chest AP"}, "AP"),
            ({"ViewCodeSequence": "272479007"}, "PA"),
            ({"ViewCodeSequence": "R-10206"}, "AP"),
            ({"ViewCodeSequence": "R-10236"}, "L"),
            ({"SeriesDescription": "W Chest P.A."}, "PA"),
            ({"SeriesDescription": "CHEST_LAT"}, "L"),
            ({"SeriesDescription": "Chest PA/LAT"}, None),
            ({"SeriesDescription": "Chest AP and lateral"}, None),
            ({"SeriesDescription": "PA hand"}, None),
            ({"SeriesDescription": "Chest with paddle"}, None),
            ({}, None),
        ],
    )
    def test_view(self, tags: dict[str, str], view: str | None) -> None:
        given_tags: dict[str, Any] = dict(tags)
        if "ViewCodeSequence" in tags:
            given_tags["ViewCodeSequence"] = s.sequence(CodeValue=tags["ViewCodeSequence"])
        assert read_image(s.dicom(s.picture(), "DX", **given_tags)).traits.get("view") == view

    def test_a_ct_has_no_view(self) -> None:
        assert "view" not in read_image(s.dicom(s.picture(), "CT", ViewPosition="PA")).traits

    @pytest.mark.parametrize(
        ("text", "part"), [("CHEST", "CHEST"), ("chest ", "CHEST"), ("J. Doe, b. 1/2/33", None)]
    )
    def test_body_part(self, text: str, part: str | None) -> None:
        image = read_image(s.dicom(s.picture(), "DX", BodyPartExamined=text))
        assert image.traits.get("body_part") == part

    def test_a_size_that_is_no_number_is_no_trait(self) -> None:
        data = s.dicom(s.picture(), "DX", SliceThickness="2.5", PixelSpacing=[0.5, 0.5])
        where = data.index(b"DS\x04\x002.5 ") + 4
        traits = read_image(s.patched(data, where, b"inf ")).traits
        assert "slice_thickness_mm" not in traits
        assert traits["pixel_spacing_mm"] == 0.5

    def test_overlays_are_ignored(self) -> None:
        with_overlay = TWELVE | np.uint16(1 << 15)
        tags = {"BitsStored": 12, "HighBit": 11, "RescaleSlope": 1, "RescaleIntercept": 0}
        image = read_image(s.dicom(with_overlay, **tags))
        np.testing.assert_array_equal(image.pixels[0], TWELVE)


def test_deflated_bombs_are_refused() -> None:
    import zlib

    plain = s.dicom(s.picture())
    start = 144 + int.from_bytes(plain[140:144], "little")
    dataset = plain[start:]
    where = plain.index(ExplicitVRLittleEndian.encode())
    head = bytearray(plain[:start])
    # One digit pair more in the UID: the element and the group grow by as much.
    new = b"1.2.840.10008.1.2.1.99"
    old_length = int.from_bytes(head[where - 2 : where], "little")
    head[where - 2 : where] = len(new).to_bytes(2, "little")
    head[where : where + old_length] = new
    head[140:144] = (len(head) - 144).to_bytes(4, "little")
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(dataset) + packer.flush()
    np.testing.assert_array_equal(read_image(bytes(head) + packed).pixels, read_image(plain).pixels)
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(dataset) + packer.compress(bytes(300 << 20)) + packer.flush()
    with pytest.raises(UnreadableFile, match="unpacks to more"):
        read_image(bytes(head) + bomb)
