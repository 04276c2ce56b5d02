"""Drawing tools that the CT and the X-ray phantom share.

Coordinates: x runs from -1 (left edge of the image, the patient's right) to 1, y from -1 (top) to
1. All planes are float32 of shape (size, size).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from pulmofuse.schema import Label

Plane: TypeAlias = NDArray[np.float32]
Points: TypeAlias = NDArray[np.float64]

#: How strongly the sign of each disease shows, 0 (not at all) to 1.
Signs: TypeAlias = Mapping[Label, float]

_SUBPIXEL_BITS = 4  # cv2 draws at 1/16 of a pixel


def coordinates(
    size: int, angle_deg: float, scale: float, shift: tuple[float, float]
) -> tuple[Plane, Plane]:
    """Body coordinates x and y of every pixel, for a body that is turned, scaled and shifted."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    x, y = np.meshgrid(axis - shift[0], axis - shift[1])
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return ((c * x + s * y) / scale).astype(np.float32), ((c * y - s * x) / scale).astype(
        np.float32
    )


def to_pixels(
    points: Points, size: int, angle_deg: float, scale: float, shift: tuple[float, float]
) -> Points:
    """Pixel positions of body points (..., 2); the inverse of `coordinates`."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    turn = np.array([[c, s], [-s, c]]) * scale
    return np.asarray((points @ turn + np.array(shift) + 1) * size / 2 - 0.5)


def inside(distance: NDArray[np.floating[Any]], edge: float = 0.02) -> Plane:
    """1 where a signed distance is positive, 0 where negative, a ramp of width `edge` between."""
    return np.asarray(np.clip(distance / edge + 0.5, 0, 1), np.float32)


def ellipse(x: Plane, y: Plane, centre: tuple[float, float], axes: tuple[float, float]) -> Plane:
    """Approximate signed distance to an ellipse, positive inside."""
    radius = np.hypot((x - centre[0]) / axes[0], (y - centre[1]) / axes[1])
    return np.asarray((1 - radius) * min(axes), np.float32)


def texture(rng: np.random.Generator, size: int, sigma: float) -> Plane:
    """Smooth noise of mean 0 and standard deviation 1; `sigma` is its grain as a share of size.

    Coarse noise is drawn on a coarse grid, which is the same to the eye and much faster.
    """
    shrink = max(1, int(sigma * size / 2))
    small = max(8, -(-size // shrink))
    noise = rng.standard_normal((small, small), dtype=np.float32)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), max(0.4, sigma * small)), np.float32)
    noise = (noise - noise.mean()) / max(float(noise.std()), 1e-6)
    if small != size:
        noise = np.asarray(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC))
    return np.asarray(noise, np.float32)


def blob(
    x: Plane,
    y: Plane,
    centre: tuple[float, float],
    radii: tuple[float, float],
    angle: float = 0.0,
) -> Plane:
    """A Gaussian spot of height 1 with radii (one standard deviation) along and across `angle`."""
    c, s = np.cos(angle), np.sin(angle)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    along, across = (c * dx + s * dy) / radii[0], (c * dy - s * dx) / radii[1]
    return np.asarray(np.exp(-0.5 * (along * along + across * across)), np.float32)


def stroke(
    canvas: NDArray[np.uint8], pixels: Points, thickness: float, value: int, *, closed: bool = False
) -> None:
    """Draw an anti-aliased line through pixel points (n, 2) into an 8-bit canvas, in place."""
    fixed = np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    width = max(1, round(thickness))
    cv2.polylines(canvas, [fixed], closed, value, width, cv2.LINE_AA, _SUBPIXEL_BITS)


def fill(canvas: NDArray[np.uint8], pixels: Points, value: int) -> None:
    """Fill a polygon of pixel points (n, 2) in an 8-bit canvas, in place."""
    fixed = np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], value, cv2.LINE_AA, _SUBPIXEL_BITS)


def smooth_closed(points: Points, rounds: int = 3) -> Points:
    """Round a closed polygon by corner cutting (Chaikin 1974)."""
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1)
        points = points.reshape(-1, 2)
    return points


def vessel_tree(
    rng: np.random.Generator,
    root: tuple[float, float],
    directions: tuple[float, float],
    branches: int,
    reach: float,
) -> tuple[Points, Points]:
    """A tree of lung vessels.

    Args:
        rng: source of all chance.
        root: the hilum, in body coordinates.
        directions: from which to which angle (radians) the main branches fan out.
        branches: number of main branches.
        reach: length of a main branch, in body coordinates.

    Returns:
        body points (stretches, 5, 2) and the width of each stretch (stretches,), 1 at the root.
    """
    lines: list[Points] = []
    widths: list[float] = []
    angles = np.linspace(*directions, branches) + rng.normal(0, 0.12, branches)
    ends = [(np.array(root), angle, 1.0, reach * rng.uniform(0.7, 1.2)) for angle in angles]
    while ends:
        start, angle, width, length = ends.pop()
        steps = rng.normal(0, 0.16, 4).cumsum() + angle
        line = start + np.cumsum(
            np.stack([np.cos(steps), np.sin(steps)], axis=1) * (length / 8), axis=0
        )
        lines.append(np.vstack([start, line]))
        widths.append(width)
        if width > 0.3:
            for turn in (-1, 1):
                bend = angle + turn * rng.uniform(0.2, 0.6)
                ends.append((line[-1], bend, width * 0.62, length * rng.uniform(0.6, 0.85)))
    return np.array(lines), np.array(widths)


def to_grey(plane: Plane) -> NDArray[np.uint8]:
    """8-bit image of a plane in [0, 1]; what is outside is cut."""
    return np.round(np.clip(plane, 0, 1) * 255).astype(np.uint8)
