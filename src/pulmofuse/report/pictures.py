"""Pictures as text: what lets the report be one file that loads nothing."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np

#: Above this an SVG costs more than its PNG in a page (one panel of curves is about 40 kB).
_LARGEST_SVG_BYTES = 150_000
_JPEG_QUALITY = 82
#: Start-of-image marker and the first byte of the next one (ITU-T T.81, B.1.1).
_JPEG_START = b"\xff\xd8\xff"


def figure_uri(png: bytes, svg: bytes) -> str:
    """A figure as a data URI: the SVG where it is small, otherwise the PNG."""
    small = len(svg) <= _LARGEST_SVG_BYTES
    return _uri("image/svg+xml", svg) if small else _uri("image/png", png)


def thumbnail_uri(picture: Path, folder: Path, longest: int) -> str | None:
    """A picture file as a small JPEG data URI.

    Args:
        picture: PNG or JPEG.
        folder: the study folder; a picture outside it is not shown.
        longest: pixels of the longer side; smaller pictures keep their size.

    Returns:
        The URI, or null if there is no such picture or it cannot be read.
    """
    if not _inside(picture, folder):
        return None
    content = np.frombuffer(picture.read_bytes(), dtype=np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if pixels is None:
        return None
    scale = longest / max(pixels.shape[:2])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return _uri("image/jpeg", jpeg.tobytes())


def picture_uri(picture: Path, folder: Path, longest: int) -> str | None:
    """A picture as `thumbnail_uri` gives it; a JPEG that is small enough byte for byte.

    Encoding a small JPEG again would cost time and sharpness for nothing.
    """
    content = picture.read_bytes() if _inside(picture, folder) else b""
    if content.startswith(_JPEG_START):
        pixels = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        if pixels is not None and max(pixels.shape) <= longest:
            return _uri("image/jpeg", content)
    return thumbnail_uri(picture, folder, longest)


def _inside(picture: Path, folder: Path) -> bool:
    return picture.is_file() and picture.resolve().is_relative_to(folder.resolve())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
