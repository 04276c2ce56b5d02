"""Where slices lie in the patient, and how a volume is turned to the one view that we use.

DICOM's patient axes (PS3.3 C.7.6.2.1.1) run to the left (x), to the back (y) and to the head (z).
The view is the radiologist's: axial slices from the feet to the head, front of the body at the
top, the patient's right on the left; in these axes, a volume whose axes run along z, y and x.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_PLANES = {0: "sagittal", 1: "coronal", 2: "axial"}


def slice_normal(orientation: FloatArray) -> FloatArray:
    """Unit normal of a plane, turned so that its largest component is positive.

    Args:
        orientation: ImageOrientationPatient, (6,): where columns and rows run to.

    Raises:
        ValueError: the two directions are parallel, or not finite.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if not np.isfinite(length) or length < 1e-3:
        raise ValueError("ImageOrientationPatient spans no plane")
    normal = normal / length
    return np.asarray(normal * np.sign(normal[np.argmax(np.abs(normal))]))


def distances(positions: FloatArray, orientation: FloatArray) -> FloatArray:
    """How far along their normal slices lie, mm (n,).

    Args:
        positions: ImagePositionPatient, (n, 3).
        orientation: ImageOrientationPatient of all of them, (6,).
    """
    return np.asarray(positions @ slice_normal(orientation))


def acquired_plane(orientation: FloatArray) -> str:
    """The anatomical plane next to that of the slices: axial, coronal or sagittal."""
    return _PLANES[int(np.argmax(np.abs(slice_normal(orientation))))]


def to_axial(volume: npt.NDArray[Any], orientation: FloatArray) -> npt.NDArray[Any]:
    """Turn a volume to the radiologist's axial view, by whole axes and without resampling.

    Args:
        volume: (slices, rows, columns), slices ascending along `slice_normal`.
        orientation: ImageOrientationPatient of its slices, (6,).

    Returns:
        (axial slices, rows, columns): a view where possible.
    """
    axes = np.stack([slice_normal(orientation), orientation[3:], orientation[:3]])
    wanted = (2, 1, 0)  # z, y, x
    order = max(
        permutations(range(3)),
        key=lambda p: sum(abs(axes[a][w]) for a, w in zip(p, wanted, strict=True)),
    )
    turned = volume.transpose(order)
    flipped = [k for k, (a, w) in enumerate(zip(order, wanted, strict=True)) if axes[a][w] < 0]
    return np.flip(turned, tuple(flipped)) if flipped else turned
