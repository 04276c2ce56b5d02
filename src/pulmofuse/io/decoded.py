"""What a reader of one image format hands on: pixels, their unit, and what was seen on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pulmofuse.errors import UnreadableFile

#: Hounsfield units of air: what lies outside the field of view of a scanner.
AIR_HU = -1000.0


@dataclass(frozen=True, eq=False)
class Decoded:
    """One decoded image.

    Attributes:
        pixels: float32 (slices, height, width); Hounsfield units, or [0, 1].
        hounsfield: which of the two.
        traits: JSON values of this format.
        padding: bool, same shape, true where the file says that there is no image (DICOM pixel
            padding); None where all is image.
        levels: uint8, same shape, what was stored, where `pixels` is its 255th part; else None.
    """

    pixels: npt.NDArray[np.float32]
    hounsfield: bool
    traits: dict[str, Any]
    padding: npt.NDArray[np.bool_] | None = None
    levels: npt.NDArray[np.uint8] | None = None


def scale_to_unit(
    name: str, values: npt.NDArray[Any], padding: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float32]:
    """Bring values whose type tells no range to [0, 1]: as they are if inside, else by extremes.

    Padding has no say in the extremes, and comes out as 0.

    Raises:
        UnreadableFile: a value is NaN or infinite.
    """
    check_finite(name, values)
    seen = values if padding is None else values[~padding]
    low, high = float(seen.min()), float(seen.max())
    if low >= 0.0 and high <= 1.0 and values.dtype.kind == "f":
        unit = values.astype(np.float32)
    else:
        span = (high - low) or 1.0
        unit = np.empty(values.shape, np.float32)
        # Plane by plane: a volume in double precision would need as much memory again, twice.
        for plane, out in zip(values, unit, strict=True):
            out[...] = (plane.astype(np.float64) - low) / span
    if padding is not None:
        unit[padding] = 0.0
    return unit


def check_finite(name: str, values: npt.NDArray[Any]) -> None:
    """Refuse NaN and infinity: an average over them would poison everything after."""
    if values.dtype.kind not in "fc":
        return
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise UnreadableFile(
            name, f"{bad:,} of {values.size:,} values are NaN or infinite", "export it again"
        )
