"""NIfTI volumes (.nii, .nii.gz) to axial slices as a radiologist sees them."""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.bounds import current_bounds
from pulmofuse.io.content import COPY_AGAIN, Content, check_pixels, decoding
from pulmofuse.io.decoded import Decoded, check_finite, scale_to_unit
from pulmofuse.io.kinds import gunzip

# nibabel comments on odd headers on standard error; what matters is raised as an error.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

#: Air has -1,000 HU and lung -800: a volume that stays above this is not in Hounsfield units.
_HOUNSFIELD_MINIMUM = -200.0
#: 300 million voxels of 8 bytes do not fit; of the usual 2 bytes they do.
_MAX_UNPACKED_BYTES = 1 << 31
#: A CT packs to a half, one with the air masked to a tenth; zeros alone to a thousandth.
_MAX_RATIO, _HARMLESS_BYTES = 200, 1 << 26
_HEADER_BYTES = 544  # NIfTI-2 has 540 and 4 for the extension flag; NIfTI-1 has 348 and 4


@dataclass(frozen=True)
class _Layout:
    """What the header declares: the shape as stored and the size of the file in bytes."""

    version: int
    shape: tuple[int, ...]
    n_bytes: int
    bit_depth: int


def read_nifti(content: Content) -> Decoded:
    """Decode a NIfTI file.

    Returns:
        Pixels (slices, rows, columns): axial slices from the feet to the head, front of the body
        at the top, the patient's right on the left (radiological convention). Whether they are
        Hounsfield units: taken for such if a value lies below -200; otherwise [0, 1]. Traits.

    Raises:
        UnreadableFile: damaged, cut, absurd size, more than three dimensions, not finite.
    """
    packed = content.data[:2] == b"\x1f\x8b"
    head = gunzip(content.data, _HEADER_BYTES) if packed else content.data[:_HEADER_BYTES]
    with decoding(content.name, "its NIfTI header is damaged"):
        layout = _layout(content.name, head)
    if packed and layout.n_bytes > max(_HARMLESS_BYTES, _MAX_RATIO * len(content.data)):
        raise UnreadableFile(
            content.name,
            f"{len(content.data):,} bytes declare to unpack to {layout.n_bytes:,}",
            COPY_AGAIN,
        )
    data = gunzip(content.data, layout.n_bytes) if packed else content.data
    if len(data) < layout.n_bytes:
        raise UnreadableFile(
            content.name, f"NIfTI ends after {len(data):,} of {layout.n_bytes:,} bytes", COPY_AGAIN
        )
    with decoding(content.name, "its NIfTI volume cannot be decoded"):
        image_type = nib.Nifti1Image if layout.version == 1 else nib.Nifti2Image
        stored = _three_dimensional(image_type.from_bytes(data))
        image: Any = nib.as_closest_canonical(stored)  # type: ignore[no-untyped-call]
        volume = image.get_fdata(dtype=np.float32, caching="unchanged")
        zooms = [float(z) for z in image.header.get_zooms()[:3]]
    check_finite(content.name, volume)
    # Canonical axes run to the right, front and head; rows run to the back, columns to the left.
    pixels = np.ascontiguousarray(volume[::-1, ::-1, :].transpose(2, 1, 0))
    del data, stored, image, volume  # a large volume needs memory enough without its copies
    hounsfield = float(pixels.min()) < _HOUNSFIELD_MINIMUM
    traits = {
        "channels": 1,
        "bit_depth": layout.bit_depth,
        "colour": False,
        "compression": "gzip" if packed else "none",
        "pixel_spacing_mm": zooms[0],
        "slice_thickness_mm": zooms[2],
    }
    unit = pixels if hounsfield else scale_to_unit(content.name, pixels)
    return Decoded(unit, hounsfield, traits)


def _layout(name: str, head: bytes) -> _Layout:
    """Read the dimensions from the header (NIfTI-1: 348 bytes; NIfTI-2: 540 bytes)."""
    version = 1 if head[344:348] == b"n+1\0" else 2
    size = 348 if version == 1 else 540
    order = "<" if int.from_bytes(head[:4], "little") == size else ">"
    if version == 1:
        dim = struct.unpack(f"{order}8h", head[40:56])
        (bits,) = struct.unpack(f"{order}h", head[72:74])
        offset = int(struct.unpack(f"{order}f", head[108:112])[0])
    else:
        dim = struct.unpack(f"{order}8q", head[16:80])
        (bits,) = struct.unpack(f"{order}h", head[14:16])
        (offset,) = struct.unpack(f"{order}q", head[168:176])
    shape = tuple(dim[1 : 1 + dim[0]]) if 1 <= dim[0] <= 7 else ()
    if len(shape) < 2 or any(n != 1 for n in shape[3:]):
        raise UnreadableFile(
            name, f"NIfTI has the shape {shape}, not that of one volume", "give one 3-D volume"
        )
    check_pixels(name, *shape[:2], *shape[2:3])
    n_bytes = max(offset, size + 4) + int(np.prod(shape, dtype=object)) * bits // 8
    bounds = current_bounds()
    most = _MAX_UNPACKED_BYTES if bounds is None else 4 * bounds.voxels  # in single precision
    if n_bytes > min(most, _MAX_UNPACKED_BYTES):
        raise UnreadableFile(
            name, f"NIfTI unpacks to {n_bytes:,} bytes", "store it as 16-bit integers"
        )
    return _Layout(version, shape, n_bytes, bits)


def _three_dimensional(image: Any) -> Any:
    """Drop trailing axes of length one; give a single slice its third axis."""
    data, shape = image.dataobj, image.shape
    if len(shape) == 3:
        return image
    return type(image)(np.asarray(data).reshape((*shape[:2], *(shape[2:3] or (1,)))), image.affine)
