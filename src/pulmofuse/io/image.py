"""Read one image file, whatever its format, into an array with its acquisition traits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import COPY_AGAIN, Content, load

#: Below this no finding could be seen; it is an icon or a thumbnail.
MIN_SIDE = 32
#: Share of each side that counts as border in the traits (the audit asks what it gives away).
_BORDER = 0.05

_FORMATS = "PNG, JPEG, TIFF, BMP, DICOM or NIfTI"


@dataclass(frozen=True, eq=False)
class Image:
    """One decoded image file.

    Attributes:
        pixels: float32 (slices, height, width); Hounsfield units, or [0, 1] of the stored range.
        hounsfield: which of the two.
        traits: JSON values. Always there: format, bytes, width, height, slices, channels,
            bit_depth, colour, hounsfield, mean, std, border_mean, border_std (of the outer 5 %,
            in the units of `pixels`). Where known: jpeg_quality, bits_per_pixel, compression,
            photometric, dicom_modality, manufacturer, pixel_spacing_mm, slice_thickness_mm.
    """

    pixels: npt.NDArray[np.float32]
    hounsfield: bool
    traits: dict[str, Any]


def read_image(source: Path | bytes, name: str | None = None) -> Image:
    """Read PNG, JPEG, TIFF, BMP, DICOM or NIfTI; the content decides, not the suffix.

    Args:
        source: a path, or the bytes of the file.
        name: what errors call the file; by default its path.

    Raises:
        UnreadableFile: missing, empty, cut, damaged, of another type, of absurd size, smaller
            than 32 pixels, blank, or with values that are not finite.
    """
    content = load(source, name)
    pixels, hounsfield, traits = _decode(content)
    _check(content.name, pixels)
    common = {
        "format": content.kind.format,
        "bytes": len(content.data),
        "slices": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "hounsfield": hounsfield,
    }
    return Image(pixels, hounsfield, {**common, **traits, **_statistics(pixels)})


def _decode(content: Content) -> tuple[npt.NDArray[np.float32], bool, dict[str, Any]]:
    """Hand the content to the reader of its kind; readers import their library when first used."""
    if content.kind.family != "image":
        raise UnreadableFile(
            content.name, f"this is {content.kind.label}, not an image", f"give {_FORMATS}"
        )
    if content.kind.format == "dicom":
        from pulmofuse.io.dicom import read_dicom

        return read_dicom(content)
    if content.kind.format == "nifti":
        from pulmofuse.io.nifti import read_nifti

        return read_nifti(content)
    from pulmofuse.io.raster import read_raster

    pixels, traits = read_raster(content)
    return pixels, False, traits


def _check(name: str, pixels: npt.NDArray[np.float32]) -> None:
    _, height, width = pixels.shape
    if min(height, width) < MIN_SIDE:
        raise UnreadableFile(
            name,
            f"has only {width} x {height} pixels; {MIN_SIDE} on each side are the least",
            "give the original instead of a thumbnail",
        )
    if float(pixels.min()) == float(pixels.max()):
        raise UnreadableFile(name, "is blank: every pixel has the same value", COPY_AGAIN)


def _statistics(pixels: npt.NDArray[np.float32]) -> dict[str, float]:
    """Mean and standard deviation of all pixels and of the outer 5 % on each side."""
    _, height, width = pixels.shape
    rows, columns = max(1, round(_BORDER * height)), max(1, round(_BORDER * width))
    inner = pixels[:, rows : height - rows]
    border = np.concatenate(
        [
            pixels[:, :rows].ravel(),
            pixels[:, height - rows :].ravel(),
            inner[..., :columns].ravel(),
            inner[..., width - columns :].ravel(),
        ]
    )
    return {
        "mean": float(pixels.mean(dtype=np.float64)),
        "std": float(pixels.std(dtype=np.float64)),
        "border_mean": float(border.mean(dtype=np.float64)),
        "border_std": float(border.std(dtype=np.float64)),
    }
