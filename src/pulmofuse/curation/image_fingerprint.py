"""What two copies of one picture still share: a coarse spectrum, and a map of its fine detail."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from pulmofuse.io import Image

#: Side of the grid that every picture is shrunk to; vessels and rib edges are still seen at 64.
GRID = 64
#: Discrete cosine coefficients kept, those of the lowest frequencies (radius below 10).
N_COARSE = 75
#: One byte of layout, the coefficients, and 2 bits for each cell of the grid.
LENGTH = 1 + N_COARSE + GRID * GRID // 4

#: Lung window, wide enough for soft tissue: what lies outside it is air around, table or metal.
_HU_LOW, _HU_HIGH = -1000.0, 400.0
#: A volume is shown as four slabs in a square: a quarter of its slices averaged in each.
_SLABS = 4
_PICTURE, _VOLUME = 0, 1
#: Standard deviations of a coefficient that fill the signed byte.
_COARSE_RANGE = 4.0
#: Blur against aliasing, scale of the detail kept, and scale of its local contrast; grid cells.
_SMOOTH, _DETAIL, _LOCAL = 0.5, 1.5, 3.0
#: Share of the picture's own contrast below which a flat region is not amplified to noise.
_FLAT = 0.2
#: Keeps a flat picture from being divided by zero.
_NOTHING = 1e-9
#: Reconstruction values of a 4-level quantiser of a normal variable (Max 1960), boundaries 0, ±1.
_LEVELS = np.array([-1.51, -0.45, 0.45, 1.51], np.float32)
#: What a byte holds: its four cells (256, 4), and the means of the two on either side (256, 2).
_CELLS = _LEVELS[np.arange(256)[:, None] >> np.array([0, 2, 4, 6]) & 3]
_PAIRS = _CELLS.reshape(256, 2, 2).mean(axis=2)


def _low_frequencies() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Row and column indices (N_COARSE,) of the coefficients kept, by radius, constant left out."""
    k = np.arange(GRID)
    radius = np.hypot(k[:, None], k[None, :])
    order = np.lexsort((np.tile(k, GRID), radius.ravel()))[1 : N_COARSE + 1]
    return order // GRID, order % GRID


ROWS, COLUMNS = _low_frequencies()
#: Radius of each coefficient in half-periods per side; natural amplitude falls as its inverse
#: (Field, J. Opt. Soc. Am. A 4, 1987), so that the product has about equal variance everywhere.
RADIUS = np.hypot(ROWS, COLUMNS).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ImageCodes:
    """The fingerprints of n pictures side by side.

    Attributes:
        layout: uint8 (n,); pictures are compared with pictures, volumes with volumes.
        coarse: int8 (n, N_COARSE), whitened cosine coefficients.
        packed: uint8 (n, GRID * GRID / 4), four cells of detail in each byte.
    """

    layout: npt.NDArray[np.uint8]
    coarse: npt.NDArray[np.int8]
    packed: npt.NDArray[np.uint8]

    def detail(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Detail maps (len(rows), GRID, GRID) of some pictures, about standard normal."""
        return np.asarray(_CELLS[self.packed[rows]], np.float32).reshape(len(rows), GRID, GRID)

    def half_detail(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """The same at half the size, (len(rows), GRID / 2, GRID / 2), by the mean of four cells."""
        pairs = _PAIRS[self.packed[rows]].reshape(len(rows), GRID // 2, 2, GRID // 2)
        return np.asarray(pairs.mean(axis=2), np.float32)


def image_fingerprint(image: Image) -> bytes:
    """Fingerprint of one image or volume, `LENGTH` bytes.

    The picture is shrunk to a square grid, whatever its proportions. The low frequencies of the
    whole (75 whitened cosine coefficients) find candidates; the detail relative to its own
    surroundings, 2 bits per cell, decides: all chest X-rays share the former, none the latter.
    Both forget brightness and contrast. Of a volume four slabs are shown, each the mean of a
    quarter of the slices, because a resampled copy keeps slabs but not single slices.
    """
    grid, layout = _grid(image)
    spectrum = np.asarray(cv2.dct(grid), np.float32)[ROWS, COLUMNS] * RADIUS
    scale = max(float(np.sqrt(np.mean(spectrum**2))), _NOTHING)
    coarse = np.clip(np.round(spectrum * (127 / _COARSE_RANGE / scale)), -127, 127)
    level = _quantise(_local_detail(grid)).reshape(-1, 4)
    packed = level[:, 0] | level[:, 1] << 2 | level[:, 2] << 4 | level[:, 3] << 6
    return bytes([layout]) + coarse.astype(np.int8).tobytes() + packed.tobytes()


def unpack_images(fingerprints: list[bytes]) -> ImageCodes:
    """Lay fingerprints side by side.

    Raises:
        ValueError: one of them is not `LENGTH` bytes long.
    """
    if any(len(fingerprint) != LENGTH for fingerprint in fingerprints):
        raise ValueError(f"an image fingerprint has {LENGTH} bytes")
    table = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, LENGTH)
    return ImageCodes(
        table[:, 0], table[:, 1 : 1 + N_COARSE].view(np.int8), table[:, 1 + N_COARSE :]
    )


def _grid(image: Image) -> tuple[npt.NDArray[np.float32], int]:
    """The picture on the grid, float32 (GRID, GRID), and its layout byte."""
    if len(image.pixels) < _SLABS:
        return _shrink(image.pixels[0], image.hounsfield, GRID), _PICTURE
    edges = np.linspace(0, len(image.pixels), _SLABS + 1).round().astype(int)
    slabs = [
        _shrink(image.pixels[start:stop].mean(axis=0), image.hounsfield, GRID // 2)
        for start, stop in pairwise(edges)
    ]
    return np.vstack([np.hstack(slabs[:2]), np.hstack(slabs[2:])]), _VOLUME


def _shrink(
    pixels: npt.NDArray[np.float32], hounsfield: bool, side: int
) -> npt.NDArray[np.float32]:
    """Mean of the pixels under each cell, float32 (side, side)."""
    if hounsfield:
        pixels = np.clip(pixels, _HU_LOW, _HU_HIGH)
    shrunk = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.float32)


def _local_detail(grid: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Difference from the surroundings, in units of the contrast there; (GRID, GRID)."""
    smooth = _blur(grid, _SMOOTH)
    detail = smooth - _blur(smooth, _DETAIL)
    energy = detail * detail
    floor = _FLAT * float(np.sqrt(energy.mean()))
    normal = detail / (np.sqrt(_blur(energy, _LOCAL)) + max(floor, _NOTHING))
    return np.asarray(normal / max(float(normal.std()), _NOTHING), np.float32)


def _blur(grid: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    blurred = cv2.GaussianBlur(grid, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float32)


def _quantise(normal: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Levels 0 to 3 with boundaries at -1, 0 and 1 standard deviation."""
    return np.asarray(np.clip(np.floor(normal) + 2, 0, 3), np.uint8)
