"""Ordinary images of the less ordinary kinds; Pillow, another decoder, is the reference."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import read_image
from tests.io import samples as s

PICTURE = s.picture()
COLOUR = np.dstack([PICTURE, PICTURE // 2, 255 - PICTURE])


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def luma(data: bytes) -> np.ndarray:
    """Grey levels in [0, 1] as Pillow decodes, turns and converts (ITU-R BT.601 too)."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB").convert("L")) / 255


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(
        ("form", "options"),
        [
            ("JPEG", {"quality": 97}),
            ("PNG", {}),
            ("WEBP", {"lossless": True}),
        ],
    )
    def test_exif(self, form: str, options: dict[str, Any], orientation: int) -> None:
        tags = Image.Exif()
        tags[274] = orientation
        data = saved(Image.fromarray(PICTURE), form, exif=tags, **options)
        image = read_image(data)
        assert image.traits["exif_orientation"] == orientation
        np.testing.assert_allclose(image.pixels[0], luma(data), atol=3 / 255)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_tiff(self, orientation: int) -> None:
        data = saved(Image.fromarray(PICTURE), "TIFF", tiffinfo={274: orientation})
        np.testing.assert_allclose(read_image(data).pixels[0], luma(data), atol=1e-6)

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_an_impossible_orientation_is_none(self, value: int) -> None:
        block = b"Exif\0\0" + s.exif(value)
        jpeg = s.encode(PICTURE, ".jpg")
        segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
        image = read_image(jpeg[:2] + segment + jpeg[2:])
        assert "exif_orientation" not in image.traits
        np.testing.assert_array_equal(image.pixels, read_image(jpeg).pixels)

    @pytest.mark.parametrize("cut", [4, 8, 10, 16])
    def test_a_damaged_block_is_passed_over(self, cut: int) -> None:
        block = b"Exif\0\0" + s.exif(6)[:cut]
        jpeg = s.encode(PICTURE, ".jpg")
        segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
        assert read_image(jpeg[:2] + segment + jpeg[2:]).pixels.shape == (1, 48, 64)

    def test_no_orientation_no_trait(self) -> None:
        assert "exif_orientation" not in read_image(s.png()).traits


class TestTiffPages:
    def test_equal_pages_are_slices(self) -> None:
        pages = [np.roll(PICTURE, i, axis=0) for i in range(4)]
        first, *others = map(Image.fromarray, pages)
        image = read_image(saved(first, "TIFF", save_all=True, append_images=others))
        np.testing.assert_array_equal(image.pixels, np.stack(pages).astype(np.float32) / 255)
        assert image.traits["slices"] == 4

    def test_pages_of_different_sizes_are_refused(self) -> None:
        other = Image.fromarray(s.picture(height=60))
        data = saved(Image.fromarray(PICTURE), "TIFF", save_all=True, append_images=[other])
        with pytest.raises(UnreadableFile, match=r"2 pages of different sizes \(64 x 48, 64 x 60"):
            read_image(data)

    def test_a_thumbnail_is_no_page(self) -> None:
        small = Image.fromarray(s.picture(40, 40))
        data = bytearray(
            saved(Image.fromarray(PICTURE), "TIFF", save_all=True, append_images=[small])
        )
        (first,) = struct.unpack_from("<I", data, 4)
        pointer = first + 2 + 12 * struct.unpack_from("<H", data, first)[0]
        (second,) = struct.unpack_from("<I", data, pointer)
        (n_tags,) = struct.unpack_from("<H", data, second)
        entries = data[second + 2 : second + 2 + 12 * n_tags]
        # The directory of the small page, once more at the end, with NewSubfileType 1.
        struct.pack_into("<I", data, pointer, len(data))
        moved = struct.pack("<HHHII", n_tags + 1, 254, 4, 1, 1) + entries
        image = read_image(bytes(data + moved + bytes(4)))
        np.testing.assert_array_equal(image.pixels[0], PICTURE.astype(np.float32) / 255)

    def test_a_chain_without_end_is_refused(self) -> None:
        data = bytearray(saved(Image.fromarray(PICTURE), "TIFF"))
        (start,) = struct.unpack_from("<I", data, 4)
        (n_tags,) = struct.unpack_from("<H", data, start)
        struct.pack_into("<I", data, start + 2 + 12 * n_tags, start)
        with pytest.raises(UnreadableFile, match="pages"):
            read_image(bytes(data))

    @pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
    def test_compressions(self, compression: str) -> None:
        image = read_image(saved(Image.fromarray(PICTURE), "TIFF", compression=compression))
        np.testing.assert_array_equal(image.pixels[0], PICTURE.astype(np.float32) / 255)
        assert isinstance(image.traits["tiff_compression"], int)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_white_is_zero(self, dtype: type) -> None:
        stored = s.picture(dtype=dtype)
        data = bytearray(saved(Image.fromarray(stored), "TIFF"))
        where = data.index(struct.pack("<HHIH", 262, 3, 1, 1))
        data[where + 8] = 0
        full = np.iinfo(dtype).max
        np.testing.assert_allclose(read_image(bytes(data)).pixels[0], 1 - stored / full, atol=1e-6)

    def test_huge_tiles_are_refused(self) -> None:
        data = bytearray(saved(Image.fromarray(PICTURE), "TIFF"))
        # The tags of rows per strip and resolution become those of a tile of 2^15 x 2^15.
        (start,) = struct.unpack_from("<I", data, 4)
        tags = {struct.unpack_from("<H", data, start + 2 + 12 * i)[0]: i for i in range(9)}
        for tag, new in ((278, 322), (279, 323)):
            at = start + 2 + 12 * tags[tag]
            struct.pack_into("<HHII", data, at, new, 4, 1, 1 << 15)
        with pytest.raises(UnreadableFile, match="tiles"):
            read_image(bytes(data))


class TestColours:
    def test_palette(self) -> None:
        image = read_image(data := saved(Image.fromarray(COLOUR).quantize(200), "PNG"))
        np.testing.assert_allclose(image.pixels[0], luma(data), atol=1.5 / 255)
        assert image.traits["colour"] is True
        assert image.traits["bit_depth"] == 8

    def test_grey_palette(self) -> None:
        image = read_image(saved(Image.fromarray(PICTURE).convert("P"), "PNG"))
        np.testing.assert_array_equal(image.pixels[0], PICTURE.astype(np.float32) / 255)
        assert image.traits["colour"] is False

    def test_one_bit(self) -> None:
        image = read_image(saved(Image.fromarray(PICTURE).convert("1"), "PNG"))
        assert set(np.unique(image.pixels)) == {0.0, 1.0}
        assert image.traits["bit_depth"] == 1

    def test_cmyk_jpeg(self) -> None:
        data = saved(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=97)
        image = read_image(data)
        np.testing.assert_allclose(image.pixels[0], luma(data), atol=3 / 255)
        assert image.traits["channels"] == 4

    def test_sixteen_bit_colour(self) -> None:
        stored = cv2.merge([s.picture(dtype=np.uint16)] * 3)
        image = read_image(s.encode(stored, ".png"))
        np.testing.assert_array_equal(image.pixels[0], stored[..., 0].astype(np.float32) / 65535)


class TestOtherFormats:
    @pytest.mark.parametrize(
        ("form", "options"),
        [("GIF", {}), ("WEBP", {"lossless": True}), ("JPEG2000", {}), ("BMP", {})],
    )
    def test_grey(self, form: str, options: dict[str, Any]) -> None:
        image = read_image(saved(Image.fromarray(PICTURE), form, **options))
        np.testing.assert_array_equal(image.pixels[0], PICTURE.astype(np.float32) / 255)
        assert image.traits["format"] == form.lower()

    def test_lossy_webp(self) -> None:
        data = saved(Image.fromarray(PICTURE), "WEBP", quality=95)
        np.testing.assert_allclose(read_image(data).pixels[0], luma(data), atol=3 / 255)

    @pytest.mark.parametrize("form", ["GIF", "WEBP"])
    def test_films_are_refused(self, form: str) -> None:
        frames = [Image.fromarray(np.roll(PICTURE, i, axis=0)) for i in range(3)]
        data = saved(frames[0], form, save_all=True, append_images=frames[1:])
        with pytest.raises(UnreadableFile, match="not one"):
            read_image(data)

    @pytest.mark.parametrize("form", ["GIF", "WEBP", "JPEG2000"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
    def test_cut_files_are_refused(self, form: str, share: float) -> None:
        data = saved(Image.fromarray(PICTURE), form)
        with pytest.raises(UnreadableFile, match="ends after"):
            read_image(data[: int(share * len(data))])

    def test_bare_jpeg_2000(self) -> None:
        data = saved(Image.fromarray(PICTURE), "JPEG2000", no_jp2=True)
        image = read_image(data)
        np.testing.assert_array_equal(image.pixels[0], PICTURE.astype(np.float32) / 255)
