"""A drawn frontal chest X-ray (PA view).

The picture is a sum of absorbances, as an X-ray is: soft tissue of the trunk, less the air of the
lungs, plus heart, spine, ribs, clavicles, shoulder blades and vessels; then the signs of disease,
scatter, quantum noise and the tone curve of the detector. Bright is dense. Proportions follow
ordinary adult films (cardiothoracic ratio below one half, right dome of the diaphragm higher).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pulmofuse.schema import Label
from pulmofuse.sources.phantom.canvas import (
    Plane,
    Points,
    Signs,
    blob,
    coordinates,
    ellipse,
    fill,
    inside,
    smooth_closed,
    stroke,
    texture,
    to_grey,
    to_pixels,
    vessel_tree,
)

_RIGHT, _LEFT = -1, 1  # the patient's right lung is on the left of the image

#: Outline of the patient's left lung in body coordinates, from the apex along the chest wall.
#: The right lung is its mirror image without the heart's bay.
_APEX_TO_ANGLE = (
    (0.20, -0.74),
    (0.36, -0.78),
    (0.50, -0.64),
    (0.62, -0.36),
    (0.68, -0.05),
    (0.71, 0.25),
    (0.72, 0.52),
)
_DOME = ((0.56, 0.36), (0.36, 0.28), (0.16, 0.38))
_HEART_BAY = ((0.36, 0.20), (0.27, 0.02), (0.17, -0.10), (0.19, -0.26), (0.12, -0.40))
_MIDLINE = ((0.17, 0.20), (0.19, 0.02), (0.13, -0.15), (0.12, -0.40))


@dataclass(frozen=True, eq=False)
class _Chest:
    """One chest; `lungs` holds the mask (0..1) of the right and the left lung.

    `bottom` is the height of the diaphragm, for the zones of the signs.
    """

    size: int
    pose: tuple[float, float, tuple[float, float]]
    x: Plane
    y: Plane
    lungs: dict[int, Plane]
    bottom: float

    def pixels(self, points: Points) -> Points:
        """Pixel positions of body points (..., 2)."""
        return to_pixels(points, self.size, *self.pose)

    @property
    def both(self) -> Plane:
        return np.maximum(self.lungs[_RIGHT], self.lungs[_LEFT])


def draw_cxr(
    rng: np.random.Generator, size: int, signs: Signs, *, female: bool, coarse: bool
) -> NDArray[np.uint8]:
    """Draw one frontal chest X-ray.

    Args:
        rng: source of all chance.
        size: height and width in pixels.
        signs: strength of the sign of each disease, 0 to 1.
        female: smaller chest and breast shadows.
        coarse: a detector with more noise and less sharpness.

    Returns:
        uint8 (size, size).
    """
    chest, film = _trunk(rng, size, signs.get(Label.CHRONIC_LUNG_DISEASE, 0.0), female=female)
    film += _mediastinum(rng, chest)
    film += _skeleton(rng, chest)
    film += _air(rng, chest, signs)
    blur = rng.uniform(0.45, 0.8) + (0.3 if coarse else 0.0)
    film = np.asarray(cv2.GaussianBlur(film, (0, 0), blur * size / 192), np.float32)
    scatter = cv2.resize(film, (24, 24), interpolation=cv2.INTER_AREA)
    scatter = cv2.GaussianBlur(scatter, (0, 0), 3)
    film = 0.88 * film + 0.12 * cv2.resize(scatter, (size, size), interpolation=cv2.INTER_CUBIC)
    film += (rng.uniform(0.010, 0.022) + 0.010 * coarse) * texture(rng, size, 0.003)
    return _expose(rng, chest, film)


def _expose(rng: np.random.Generator, chest: _Chest, film: Plane) -> NDArray[np.uint8]:
    """Tone curve, collimator edges and the side marker."""
    low, high = np.percentile(film[::4, ::4], (3, 97))
    grey = np.clip((film - low) / (high - low) * rng.uniform(0.80, 0.98), 0, 1.05)
    grey = np.clip(grey + rng.uniform(0.0, 0.06), 0, 1) ** rng.uniform(0.85, 1.2)
    size = chest.size
    if rng.uniform() < 0.4:
        left, right = (int(rng.uniform(0, 0.05) * size) for _ in range(2))
        grey[:, :left] = 0
        grey[:, size - right :] = 0
    image = to_grey(grey.astype(np.float32))
    if rng.uniform() < 0.7:
        place = (int(rng.uniform(0.04, 0.10) * size), int(rng.uniform(0.08, 0.20) * size))
        scale = size / 192 * rng.uniform(0.40, 0.55)
        cv2.putText(image, "R", place, cv2.FONT_HERSHEY_SIMPLEX, scale, 235, 1, cv2.LINE_AA)
    return image


def _trunk(
    rng: np.random.Generator, size: int, chronic: float, *, female: bool
) -> tuple[_Chest, Plane]:
    """Soft tissue of neck, shoulders and trunk, and where the lungs are."""
    scale = rng.uniform(1.02, 1.16) * (0.96 if female else 1.0)
    pose = (rng.normal(0, 1.8), scale, (rng.normal(0, 0.025), rng.normal(0.02, 0.035)))
    x, y = coordinates(size, *pose)
    heights = np.array([-1.6, -1.05, -0.93, -0.84, -0.72, -0.55, 0.0, 0.6, 1.6])
    widths = np.array([0.22, 0.23, 0.30, 0.58, 0.86, 0.97, 0.88, 0.86, 0.90])
    widths[3:] += rng.normal(0, 0.03)
    width = np.interp(y, heights, widths).astype(np.float32)
    depth = np.sqrt(np.clip(1 - (x / width) ** 2, 0, 1))
    film = (0.25 * (depth > 0) + 0.42 * depth).astype(np.float32)
    film += np.float32(0.22) * inside(y - np.float32(0.45), 0.5) * depth  # the abdomen is thicker
    drop = rng.normal(0, 0.05) + 0.10 * chronic
    flat = 1 - 0.65 * chronic
    lungs = {
        side: _lung(rng, size, pose, side, drop + (0.04 if side == _LEFT else 0.0), flat, chronic)
        for side in (_RIGHT, _LEFT)
    }
    chest = _Chest(size, pose, x, y, lungs, 0.33 + drop)
    if female:
        for side in (_RIGHT, _LEFT):
            place = (side * rng.uniform(0.40, 0.50), rng.uniform(0.25, 0.42))
            radii = (rng.uniform(0.19, 0.25), rng.uniform(0.15, 0.21))
            film += rng.uniform(0.04, 0.13) * inside(ellipse(x, y, place, radii), 0.05)
    return chest, film


def _lung(
    rng: np.random.Generator,
    size: int,
    pose: tuple[float, float, tuple[float, float]],
    side: int,
    drop: float,
    flat: float,
    chronic: float,
) -> Plane:
    """Mask of one lung, 0..1."""
    medial = _HEART_BAY if side == _LEFT else _MIDLINE
    dome = [(px, 0.46 - (0.46 - py) * flat) for px, py in _DOME]
    outline = np.array([*_APEX_TO_ANGLE, *dome, *medial])
    outline[:, 0] *= 1 - 0.04 * chronic * (outline[:, 0] < 0.3)
    outline += rng.normal(0, 0.010, outline.shape)
    outline[:, 1] += drop * np.clip((outline[:, 1] + 0.4) / 0.8, 0, 1)
    outline[:, 0] *= side
    canvas = np.zeros((size, size), np.uint8)
    fill(canvas, to_pixels(smooth_closed(outline), size, *pose), 255)
    mask = canvas.astype(np.float32) / 255
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.9 * size / 192), np.float32)


def _mediastinum(rng: np.random.Generator, chest: _Chest) -> Plane:
    """Heart, aortic knob, spine and trachea: absorbance to add."""
    x, y = chest.x, chest.y
    size = rng.uniform(0.92, 1.10)
    heart = ellipse(x, y, (0.10, 0.20), (0.27 * size, 0.26 * size))
    out = 0.17 * inside(heart, 0.16)
    out += 0.10 * inside(ellipse(x, y, (0.10, -0.24), (0.10, 0.11)), 0.06)
    out += 0.10 * inside(0.14 - np.abs(x), 0.10) * inside(y + 0.75, 0.2)
    spacing = rng.uniform(0.135, 0.155)
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * (y + rng.uniform(0, spacing)) / spacing)
    out += inside(0.075 - np.abs(x), 0.03) * (0.055 + 0.045 * discs)
    lean = x - 0.02 * np.clip(y + 0.4, -1, 0)
    out -= 0.13 * inside(0.032 - np.abs(lean), 0.03) * inside(-0.27 - y, 0.08)
    stomach = ellipse(x, y, (0.36, chest.bottom + 0.28), (0.15, 0.08))
    out -= rng.uniform(0, 0.14) * inside(stomach, 0.08)
    return out.astype(np.float32)


def _skeleton(rng: np.random.Generator, chest: _Chest) -> Plane:
    """Ribs, clavicles, shoulder blades and upper arms: absorbance to add."""
    size = chest.size
    out = np.zeros((size, size), np.float32)
    u = np.linspace(0, 1, 14)
    step = rng.uniform(0.118, 0.132)
    slope = rng.uniform(0.18, 0.30)
    contrast = rng.uniform(1.3, 1.9)
    wall_x, wall_y = np.array(_APEX_TO_ANGLE).T
    for side in (_RIGHT, _LEFT):
        for rib in range(10):
            top = -0.80 + step * rib
            wall = float(np.interp(top + slope, wall_y, wall_x))
            across = 0.06 + (wall + 0.02 - 0.06) * np.sin(u * np.pi / 2) ** 0.9
            posterior = np.stack(
                [side * across, top - 0.05 * np.sin(np.pi * u) + slope * u**2.2], 1
            )
            _add_tube(out, chest, posterior, 0.052, 0.060 * contrast)
            if rib < 7:
                front = np.stack(
                    [side * (wall - (wall - 0.22) * u), posterior[-1, 1] + 0.02 + 0.20 * u**0.8], 1
                )
                _add_tube(out, chest, front, 0.058, 0.028 * contrast)
        lift = rng.normal(0, 0.02)
        clavicle = np.array(
            [
                (0.07, -0.54),
                (0.20, -0.60 + lift),
                (0.38, -0.64 + lift),
                (0.58, -0.74),
                (0.74, -0.76),
            ]
        )
        _add_tube(out, chest, clavicle * [side, 1], 0.062, 0.10 * contrast)
        canvas = np.zeros((size, size), np.uint8)
        blade = np.array([(0.60, -0.72), (0.80, -0.66), (0.74, -0.30), (0.66, 0.02), (0.60, -0.30)])
        fill(canvas, chest.pixels(smooth_closed(blade * [side, 1], 2)), 255)
        out += np.float32(0.05 * contrast / 255) * canvas
        shoulder = ellipse(chest.x, chest.y, (side * 0.92, -0.62), (0.12, 0.13))
        out += np.float32(0.12) * inside(shoulder, 0.04)
    return out


def _add_tube(out: Plane, chest: _Chest, points: Points, width: float, absorbance: float) -> None:
    """Add a bone seen as a tube: its edges absorb more than its middle. In place."""
    canvas = np.zeros((chest.size, chest.size), np.uint8)
    pixels = chest.pixels(points)
    stroke(canvas, pixels, width * chest.size / 2, 255)
    stroke(canvas, pixels, 0.45 * width * chest.size / 2, 165)
    out += np.float32(absorbance / 255) * canvas


def _air(rng: np.random.Generator, chest: _Chest, signs: Signs) -> Plane:
    """What the lungs take away (air) and give back (vessels, signs): absorbance to add."""
    chronic = signs.get(Label.CHRONIC_LUNG_DISEASE, 0.0)
    out = np.zeros((chest.size, chest.size), np.float32)
    aeration = rng.uniform(0.40, 0.48) + 0.06 * chronic
    for side, mask in chest.lungs.items():
        solid = (mask > 0.5).astype(np.uint8)
        to_edge = cv2.distanceTransform(solid, cv2.DIST_L2, 3) * (2 / chest.size)
        thickness = 0.62 + 0.38 * (1 - np.exp(-to_edge / 0.09))
        content = (0.22 - 0.08 * chronic) * _vessels(rng, chest, side)
        content += rng.uniform(0.010, 0.020) * texture(rng, chest.size, 0.02)
        content -= aeration * thickness * (1 + rng.normal(0, 0.03))
        out += mask * content
    for label, draw in _SIGNS.items():
        if strength := signs.get(label, 0.0):
            out += draw(rng, chest, strength) * chest.both
    out += rng.uniform(0, 0.04) * texture(rng, chest.size, 0.12)
    return out


def _vessels(rng: np.random.Generator, chest: _Chest, side: int) -> Plane:
    """Branching vessels of one lung and its hilum, 0..1."""
    canvas = np.zeros((chest.size, chest.size), np.uint8)
    root = (side * 0.17, 0.0)
    fan = (-1.3, 1.35) if side == _LEFT else (np.pi + 1.3, np.pi - 1.35)
    lines, widths = vessel_tree(rng, root, fan, 7, 0.52)
    for pixels, width in zip(chest.pixels(lines), widths, strict=True):
        thickness = (0.004 + 0.026 * width**1.6) * chest.size / 2
        stroke(canvas, pixels, thickness, int(35 + 175 * width))
    vessels = cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 0.9 * chest.size / 192)
    hilum = blob(chest.x, chest.y, (side * 0.18, 0.02), (0.07, 0.11))
    return np.asarray(np.clip(vessels + 0.45 * hilum, 0, 1), np.float32)


def _haze(rng: np.random.Generator, chest: _Chest, strength: float) -> Plane:
    """COVID-19: peripheral haze in the mid and lower zones of both lungs."""
    haze = np.zeros((chest.size, chest.size), np.float32)
    for side in (_RIGHT, _LEFT):
        for _ in range(rng.integers(2, 5)):
            y = rng.uniform(-0.20, chest.bottom + 0.02)
            wall = float(np.interp(y, (-0.36, 0.0, 0.5), (0.62, 0.685, 0.72)))
            centre = (side * (wall - rng.uniform(0.05, 0.16)), y)
            radii = rng.uniform(0.07, 0.11), rng.uniform(0.10, 0.17)
            haze = np.maximum(haze, blob(chest.x, chest.y, centre, radii, rng.normal(0, 0.3)))
    grain = 1 + 0.22 * texture(rng, chest.size, 0.025)
    return np.asarray(0.34 * strength * np.clip((haze - 0.15) / 0.6, 0, 1) * grain, np.float32)


def _lobe(rng: np.random.Generator, chest: _Chest, strength: float) -> Plane:
    """Pneumonia: one zone of one lung filled, sharp where a fissure bounds it."""
    side = int(rng.choice([_RIGHT, _LEFT]))
    top, low = [(-0.68, -0.16), (-0.18, 0.14), (0.02, 0.50)][rng.integers(3)]
    tilt = side * rng.uniform(-0.25, 0.25)
    warp = 0.05 * texture(rng, chest.size, 0.05) + 0.025 * texture(rng, chest.size, 0.02)
    line = chest.y - tilt * (chest.x - side * 0.4)
    upper = inside((line - top + warp).astype(np.float32), 0.14)
    lower = inside((low - line + 0.1 * warp).astype(np.float32), 0.02)
    from_middle = np.abs(chest.x - side * rng.uniform(0.36, 0.50))
    reach = inside((rng.uniform(0.16, 0.26) - from_middle + warp).astype(np.float32), 0.16)
    canvas = np.zeros((chest.size, chest.size), np.uint8)
    angle = float(np.arctan2((top + low) / 2, side * 0.28))
    fan = (angle - 0.4, angle + 0.4)
    lines, widths = vessel_tree(rng, (side * 0.17, 0.0), fan, 3, 0.5)
    for pixels, width in zip(chest.pixels(lines), widths, strict=True):
        stroke(canvas, pixels, (0.006 + 0.014 * width) * chest.size / 2, 255)
    bronchi = canvas.astype(np.float32) / 255
    filled = upper * lower * reach * (1 - 0.35 * bronchi) * chest.lungs[side]
    return np.asarray(0.42 * strength * filled, np.float32)


def _nodules(rng: np.random.Generator, chest: _Chest, strength: float) -> Plane:
    """Tuberculosis: nodules and cavities in the upper zones."""
    out = np.zeros((chest.size, chest.size), np.float32)
    for side in (_RIGHT, _LEFT):
        hub = (side * rng.uniform(0.32, 0.46), rng.uniform(-0.56, -0.34))
        for dx, dy in rng.normal(0, 0.10, (rng.integers(6, 13), 2)):
            radius = rng.uniform(0.014, 0.030)
            spot = blob(chest.x, chest.y, (hub[0] + dx, hub[1] + dy), (radius, radius))
            out = np.maximum(out, spot)
        if rng.uniform() < 0.75:
            radius, wall = rng.uniform(0.06, 0.10), rng.uniform(0.018, 0.028)
            from_centre = np.hypot(chest.x - hub[0], chest.y - hub[1])
            ring = np.exp(-0.5 * ((from_centre - radius) / wall) ** 2)
            out = np.maximum(out, ring) - 0.3 * inside(radius - wall - from_centre, 0.02)
        out = np.maximum(out, 0.35 * blob(chest.x, chest.y, hub, (0.13, 0.12)))
    return np.asarray(0.30 * strength * out, np.float32)


def _bullae(rng: np.random.Generator, chest: _Chest, strength: float) -> Plane:
    """Chronic disease: thin-walled air spaces."""
    out = np.zeros((chest.size, chest.size), np.float32)
    for side in (_RIGHT, _LEFT):
        for _ in range(rng.integers(2, 5)):
            centre = (side * rng.uniform(0.30, 0.60), rng.uniform(-0.55, chest.bottom))
            radius = rng.uniform(0.05, 0.11)
            hole = ellipse(chest.x, chest.y, centre, (radius, radius * rng.uniform(0.8, 1.3)))
            out = np.minimum(out, -0.06 * inside(hole, 0.03))
            out += np.float32(0.07) * np.exp(-0.5 * (hole / np.float32(0.010)) ** 2)
    return np.asarray(strength * out, np.float32)


_SIGNS = {
    Label.COVID19: _haze,
    Label.PNEUMONIA: _lobe,
    Label.TUBERCULOSIS: _nodules,
    Label.CHRONIC_LUNG_DISEASE: _bullae,
}
