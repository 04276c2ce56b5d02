"""Ordinary images (PNG, JPEG, TIFF, BMP) to one grey plane, by OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import COPY_AGAIN, Content, check_pixels, decoding
from pulmofuse.io.headers import Header, bmp_header, jpeg_header, png_header, tiff_header
from pulmofuse.io.quiet import quiet_stderr

_HEADERS = {"png": png_header, "jpeg": jpeg_header, "tiff": tiff_header, "bmp": bmp_header}
#: Types whose full range is the range of the image.
_STORED_RANGES = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
#: Channels of one pixel that differ by more than this (of 1) are a colour, not JPEG rounding.
_COLOUR_STEP = 8 / 255
#: An annotation arrow covers a thousandth of an image; below it, colour is noise.
_COLOUR_SHARE = 1e-3


def read_raster(content: Content) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Decode an ordinary image.

    Returns:
        Pixels (1, height, width) in [0, 1] of the range of the stored type, and traits. An alpha
        channel is left out; colour goes to luma (ITU-R BT.601), which leaves equal channels as
        they are. A floating-point TIFF outside [0, 1] is scaled by its own extremes.

    Raises:
        UnreadableFile: cut, damaged, of absurd size, not finite, or not decodable.
    """
    form = content.kind.format
    with decoding(content.name, f"its {form.upper()} header is damaged"):
        header = _HEADERS[form](content.name, content.data)
    check_pixels(content.name, header.height, header.width)
    stored = _decode(content, header)
    grey, colour = _grey(stored)
    traits = {
        "channels": header.channels,
        "bit_depth": header.bit_depth,
        "colour": colour,
        "bits_per_pixel": 8.0 * len(content.data) / (header.height * header.width),
        **header.extra,
    }
    return _unit_range(content.name, grey)[np.newaxis], traits


def _decode(content: Content, header: Header) -> npt.NDArray[Any]:
    why = f"{content.kind.format.upper()} cannot be decoded"
    with decoding(content.name, why), quiet_stderr():
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        stored = cv2.imdecode(np.frombuffer(content.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.shape[:2] != (header.height, header.width):
        raise UnreadableFile(content.name, why, COPY_AGAIN)
    return np.asarray(stored)


def _grey(stored: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], bool]:
    """One plane (height, width) of the stored type, and whether the image is coloured."""
    if stored.ndim == 2:
        return stored, False
    if stored.shape[2] < 3:  # grey, or grey and alpha
        return np.ascontiguousarray(stored[..., 0]), False
    bgr = np.ascontiguousarray(stored[..., :3])
    if bgr.dtype not in _STORED_RANGES:
        bgr = bgr.astype(np.float32)
    planes = cv2.split(bgr)
    span = cv2.max(cv2.max(*planes[:2]), planes[2]).astype(np.float32)
    span -= cv2.min(cv2.min(*planes[:2]), planes[2])
    step = _COLOUR_STEP * _STORED_RANGES.get(bgr.dtype, 1.0)
    colour = bool((span > step).mean() > _COLOUR_SHARE)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)), colour


def _unit_range(name: str, plane: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Scale by the range of the stored type to [0, 1]."""
    if plane.dtype in _STORED_RANGES:
        return plane.astype(np.float32) / np.float32(_STORED_RANGES[plane.dtype])
    return scale_to_unit(name, plane)


def scale_to_unit(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Bring values whose type tells no range to [0, 1]: as they are if inside, else by extremes.

    Raises:
        UnreadableFile: a value is NaN or infinite.
    """
    check_finite(name, values)
    low, high = float(values.min()), float(values.max())
    if low >= 0.0 and high <= 1.0 and values.dtype.kind == "f":
        return values.astype(np.float32)
    span = (high - low) or 1.0
    return ((values.astype(np.float64) - low) / span).astype(np.float32)


def check_finite(name: str, values: npt.NDArray[Any]) -> None:
    """Refuse NaN and infinity: an average over them would poison everything after."""
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise UnreadableFile(
            name, f"{bad:,} of {values.size:,} values are NaN or infinite", "export it again"
        )
