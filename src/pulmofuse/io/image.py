"""Read one image file, whatever its format, into an array with its acquisition traits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import COPY_AGAIN, Content, load
from pulmofuse.io.decoded import Decoded

#: Below this no finding could be seen; it is an icon or a thumbnail.
MIN_SIDE = 32
#: Share of each side that counts as border in the traits (the audit asks what it gives away).
_BORDER = 0.05

_FORMATS = "PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, DICOM or NIfTI"


@dataclass(frozen=True, eq=False)
class Image:
    """One decoded image file.

    Attributes:
        pixels: float32 (slices, height, width); Hounsfield units, or [0, 1] of the stored range.
        hounsfield: which of the two.
        traits: JSON values. Always there: format, bytes, width, height, slices, channels,
            bit_depth, colour, hounsfield, mean, std, border_mean, border_std (of the outer 5 %,
            in the units of `pixels`). Where known: jpeg_quality, bits_per_pixel, compression,
            photometric, dicom_modality, manufacturer, pixel_spacing_mm, slice_thickness_mm,
            view (PA, AP, L, LLD, RLD, oblique), body_part, voi, padding_fraction,
            exif_orientation, tiff_compression; of a folder also those of `read_series`.
        levels: uint8 of the shape of `pixels`, which is its 255th part; None where the file
            stores anything else. What can be counted in 256 levels need not be sorted.
    """

    pixels: npt.NDArray[np.float32]
    hounsfield: bool
    traits: dict[str, Any]
    levels: npt.NDArray[np.uint8] | None = None


def read_image(source: Path | bytes, name: str | None = None) -> Image:
    """Read PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, DICOM or NIfTI, or a folder of slices.

    The content decides, not the suffix; docs/formats.md says what is read how.

    Args:
        source: a path, or the bytes of the file; a folder is read by `read_series`.
        name: what errors call the file; by default its path.

    Raises:
        UnreadableFile: missing, empty, cut, damaged, of another type, of absurd size, smaller
            than 32 pixels, blank, or with values that are not finite.
    """
    if isinstance(source, Path) and source.is_dir():
        from pulmofuse.io.series import read_series

        return read_series(source, name)
    content = load(source, name)
    return finish(content.name, content.kind.format, len(content.data), decode_image(content))


def finish(name: str, form: str, n_bytes: int, decoded: Decoded) -> Image:
    """Check what was decoded, and add the traits that every image has.

    Args:
        name: what errors call the file or series.
        form: its format, as `kinds` names it.
        n_bytes: its size.
        decoded: what the reader of the format gave.

    Raises:
        UnreadableFile: smaller than 32 pixels, or blank.
    """
    pixels, padding = decoded.pixels, decoded.padding
    _check(name, pixels)
    # A header may say "nan mm"; that is no trait, and JSON has no word for it.
    seen = {k: v for k, v in decoded.traits.items() if not isinstance(v, float) or math.isfinite(v)}
    traits = {
        "format": form,
        "bytes": n_bytes,
        "slices": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "hounsfield": decoded.hounsfield,
        **seen,
        **_statistics(pixels, padding),
    }
    return Image(pixels, decoded.hounsfield, traits, decoded.levels)


def decode_image(content: Content) -> Decoded:
    """Hand the content to the reader of its kind; readers import their library when first used.

    Raises:
        UnreadableFile: no image, or one that its reader refuses.
    """
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

    return read_raster(content)


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


def _statistics(
    pixels: npt.NDArray[np.float32], padding: npt.NDArray[np.bool_] | None
) -> dict[str, float]:
    """Mean and standard deviation of all pixels and of the outer 5 % on each side.

    Padding counts in neither, unless there is nothing else; its share is a trait of its own.
    """
    _, height, width = pixels.shape
    rows, columns = max(1, round(_BORDER * height)), max(1, round(_BORDER * width))
    mean, std = _moments([pixels], None if padding is None else [padding])
    edges = [_edges(plane, rows, columns) for plane in (pixels, padding) if plane is not None]
    border_mean, border_std = _moments(edges[0], edges[1] if padding is not None else None)
    found = {"mean": mean, "std": std, "border_mean": border_mean, "border_std": border_std}
    return found if padding is None else {**found, "padding_fraction": float(padding.mean())}


def _edges(volume: npt.NDArray[Any], rows: int, columns: int) -> list[npt.NDArray[Any]]:
    """Top, bottom, left and right border of all slices, each pixel once."""
    inner = volume[:, rows:-rows]
    return [volume[:, :rows], volume[:, -rows:], inner[..., :columns], inner[..., -columns:]]


def _moments(
    parts: list[npt.NDArray[np.float32]], padding: list[npt.NDArray[np.bool_]] | None
) -> tuple[float, float]:
    """Mean and population standard deviation over all parts, without the padded pixels."""
    seen = list(parts)
    if padding is not None:
        kept = [part[~mask] for part, mask in zip(parts, padding, strict=True)]
        seen = kept if any(part.size for part in kept) else seen
    # OpenCV sums in double precision without a copy of a whole volume in double precision.
    sums = [(part.size, *cv2.meanStdDev(part.reshape(1, -1))) for part in seen if part.size]
    total = sum(n for n, _, _ in sums)
    mean = sum(n * float(m[0, 0]) for n, m, _ in sums) / total
    square = sum(n * (float(s[0, 0]) ** 2 + (float(m[0, 0]) - mean) ** 2) for n, m, s in sums)
    return mean, math.sqrt(square / total)
