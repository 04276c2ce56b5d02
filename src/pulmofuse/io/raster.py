"""Ordinary images (PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000) to grey planes, by OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import COPY_AGAIN, Content, check_pixels, decoding
from pulmofuse.io.decoded import Decoded, scale_to_unit
from pulmofuse.io.headers import (
    Header,
    bmp_header,
    gif_header,
    j2k_header,
    jpeg_header,
    png_header,
    webp_header,
)
from pulmofuse.io.quiet import quiet_stderr
from pulmofuse.io.tiff import tiff_header

_HEADERS = {
    "png": png_header,
    "jpeg": jpeg_header,
    "tiff": tiff_header,
    "bmp": bmp_header,
    "gif": gif_header,
    "webp": webp_header,
    "jpeg2000": j2k_header,
}
#: Types whose full range is the range of the image.
_STORED_RANGES = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
#: Channels of one pixel that differ by more than this (of 1) are a colour, not JPEG rounding.
_COLOUR_STEP = 8 / 255
#: An annotation arrow covers a thousandth of an image; below it, colour is noise.
_COLOUR_SHARE = 1e-3
#: EXIF orientation: whether rows and columns change places, then which axes are turned round.
_TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


def read_raster(content: Content) -> Decoded:
    """Decode an ordinary image; the pages of a TIFF, if equal in size, are slices.

    Pixels come in [0, 1] of the range of the stored type. An alpha channel is left out; colour
    goes to luma (ITU-R BT.601), which leaves equal channels as they are. A floating-point TIFF
    outside [0, 1] is scaled by its own extremes. The image is turned as its EXIF orientation says.

    Raises:
        UnreadableFile: cut, damaged, of absurd size, not finite, or not decodable.
    """
    form = content.kind.format
    with decoding(content.name, f"its {form.upper()} header is damaged"):
        header = _HEADERS[form](content.name, content.data)
    check_pixels(content.name, header.height, header.width, len(header.pages))
    greys = [_grey(stored) for stored in _decode(content, header)]
    colour = any(coloured for _, coloured in greys)
    volume = greys[0][0][np.newaxis] if len(greys) == 1 else np.stack([grey for grey, _ in greys])
    n_pixels = header.height * header.width * len(header.pages)
    traits = {
        "channels": header.channels,
        "bit_depth": header.bit_depth,
        "colour": colour,
        "bits_per_pixel": 8.0 * len(content.data) / n_pixels,
        **header.extra,
    }
    if header.orientation is not None:
        traits["exif_orientation"] = header.orientation
        # OpenCV turns TIFF by itself, and nothing else when asked for unchanged pixels.
        if form != "tiff":
            volume = _turned(volume, header.orientation)
    levels = volume if volume.dtype == np.uint8 else None
    return Decoded(_unit_range(content.name, volume), False, traits, levels=levels)


def _decode(content: Content, header: Header) -> list[npt.NDArray[Any]]:
    """The pages as OpenCV gives them: (height, width) or (height, width, channels)."""
    why = f"{content.kind.format.upper()} cannot be decoded"
    buffer = np.frombuffer(content.data, np.uint8)
    with decoding(content.name, why), quiet_stderr():
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        if header.pages == (0,):
            found = [cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)]
        else:
            _, every = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
            found = [every[page] for page in header.pages]
    size = (header.height, header.width)
    if content.kind.format == "tiff" and _TURNS.get(header.orientation or 1, (False,))[0]:
        size = size[::-1]
    pages = [np.asarray(stored) for stored in found if stored is not None]
    alike = all(page.shape[:2] == size and page.dtype == pages[0].dtype for page in pages)
    if len(pages) < len(found) or not alike:
        raise UnreadableFile(content.name, why, COPY_AGAIN)
    # OpenCV turns white-is-zero round in 8 bits only.
    if header.white_is_zero and pages[0].dtype == np.uint16:
        pages = [np.invert(page) for page in pages]
    return pages


def _grey(stored: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], bool]:
    """One plane (height, width) of the stored type, and whether the image is coloured."""
    if stored.ndim == 2:
        return stored, False
    if stored.shape[2] < 3:  # grey, or grey and alpha
        return np.ascontiguousarray(stored[..., 0]), False
    bgr = np.ascontiguousarray(stored[..., :3])
    if bgr.dtype not in _STORED_RANGES:
        bgr = bgr.astype(np.float32)
    blue, green, red = cv2.split(bgr)
    span = cv2.subtract(cv2.max(cv2.max(blue, green), red), cv2.min(cv2.min(blue, green), red))
    step = _COLOUR_STEP * _STORED_RANGES.get(bgr.dtype, 1.0)
    colour = int(np.count_nonzero(span > step)) > _COLOUR_SHARE * span.size
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)), colour


def _turned(volume: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Planes (n, height, width) as they are to be displayed (EXIF 2.32, tag 274)."""
    transposed, flipped = _TURNS.get(orientation, (False, ()))
    planes = volume.transpose(0, 2, 1) if transposed else volume
    return np.ascontiguousarray(np.flip(planes, tuple(axis + 1 for axis in flipped)))


def _unit_range(name: str, volume: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Scale by the range of the stored type to [0, 1]."""
    if volume.dtype in _STORED_RANGES:
        unit = volume.astype(np.float32)
        unit /= np.float32(_STORED_RANGES[volume.dtype])
        return unit
    return scale_to_unit(name, volume)
