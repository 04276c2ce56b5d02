"""A drawn axial CT slice of the chest in a lung window.

The slice is built in Hounsfield units (HU) from distance functions: body outline with fat and
muscle, ribs, vertebra and sternum, two lungs around a mediastinum with heart and great vessels,
and branching lung vessels. Then come the signs of disease, noise and the window. Textbook values
in HU: air -1000, lung -850, fat -100, muscle 50, bone 300 and more (Hounsfield 1980; Fleischner
glossary, Hansell 2008, for the names of the signs).
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
    inside,
    stroke,
    texture,
    to_grey,
    to_pixels,
    vessel_tree,
)

_AIR, _LUNG, _FAT, _MUSCLE = -1000.0, -835.0, -100.0, 50.0
_CAVITY_X, _CAVITY_Y = 0.76, 0.555  # half axes of the thoracic cavity

#: Laminae, transverse and spinous processes, relative to the centre of the vertebral body.
_VERTEBRAL_ARCH = (
    ((-0.06, 0.10), (-0.19, 0.15)),
    ((0.06, 0.10), (0.19, 0.15)),
    ((-0.07, 0.12), (0.0, 0.19), (0.07, 0.12)),
    ((0.0, 0.19), (0.005, 0.30)),
)


@dataclass(frozen=True, eq=False)
class _Chest:
    """One chest: its place in the image and the planes that the parts are drawn with.

    `depth` is the distance from the pleura into the lung, negative outside the lungs.
    """

    size: int
    pose: tuple[float, float, tuple[float, float]]
    x: Plane
    y: Plane
    lung: Plane
    depth: Plane
    cavity: tuple[float, float]

    def pixels(self, points: Points) -> Points:
        """Pixel positions of body points (..., 2)."""
        return to_pixels(points, self.size, *self.pose)

    def line(self, points: Points, width: float) -> Plane:
        """A stroke of `width` body units through body points, as a plane of 0..1."""
        canvas = np.zeros((self.size, self.size), np.uint8)
        stroke(canvas, self.pixels(points), width * self.size / 2, 255)
        return np.asarray(canvas / np.float32(255), np.float32)


def draw_ct(
    rng: np.random.Generator, size: int, signs: Signs, *, female: bool, coarse: bool
) -> NDArray[np.uint8]:
    """Draw one axial slice.

    Args:
        rng: source of all chance.
        size: height and width in pixels.
        signs: strength of the sign of each disease, 0 to 1.
        female: smaller body and breast tissue.
        coarse: a scanner with more noise and a smoother kernel.

    Returns:
        uint8 (size, size).
    """
    chronic = signs.get(Label.CHRONIC_LUNG_DISEASE, 0.0)
    level = rng.uniform(0, 1)  # 0: aortic arch, 1: heart
    chest, hu = _body(rng, size, level, chronic, female=female)
    _mediastinum(rng, chest, hu, level)
    _lungs(rng, chest, hu, signs)
    _bones(rng, chest, hu, level)
    blur = rng.uniform(0.5, 0.75) + (0.25 if coarse else 0.0)
    hu = np.asarray(cv2.GaussianBlur(hu, (0, 0), blur * size / 192), np.float32)
    noise_hu = rng.uniform(18, 38) + (14 if coarse else 0)
    hu += noise_hu * texture(rng, size, 0.004)
    level_hu, width_hu = rng.normal(-510, 35), rng.uniform(1200, 1450)
    return to_grey((hu - (level_hu - width_hu / 2)) / width_hu)


def _body(
    rng: np.random.Generator, size: int, level: float, chronic: float, *, female: bool
) -> tuple[_Chest, Plane]:
    """Body outline, fat, muscle and the shape of the lungs."""
    scale = rng.uniform(0.92, 1.05) * (0.95 if female else 1.0)
    pose = (rng.normal(0, 2.5), scale, (rng.normal(0, 0.02), rng.normal(0, 0.025)))
    x, y = coordinates(size, *pose)
    stretch = rng.uniform(0.94, 1.06) * (1 + 0.06 * chronic)  # a barrel chest is deeper
    cavity = (_CAVITY_X * (1 + 0.03 * chronic), _CAVITY_Y * stretch)
    fat = rng.uniform(0.02, 0.08)
    outline = 1 - (
        np.abs(x / (0.89 + fat)) ** 2.5 + np.abs(y / (cavity[1] + 0.145 + fat)) ** 2.5
    ) ** np.float32(0.4)
    hu = np.full((size, size), _AIR, np.float32)
    hu += inside(outline) * (_FAT - _AIR)
    hu += inside(outline - fat * 1.3, 0.04) * (_MUSCLE - _FAT)
    if female:
        for side in (-1, 1):
            breast = inside(ellipse(x, y, (side * 0.42, -cavity[1] - 0.12), (0.30, 0.13)), 0.03)
            hu = np.maximum(hu, _AIR + breast * (_FAT + 30 * rng.uniform(0.3, 1) - _AIR))
    hu += 14 * texture(rng, size, 0.02) * inside(outline)
    table = np.stack([np.linspace(-0.9, 0.9, 9), 0.90 + 0.04 * np.linspace(-1, 1, 9) ** 2], 1)
    # The lungs: the cavity less mediastinum and spine, each lung rounded where they meet.
    wall = ellipse(x, y, (0, 0), cavity)
    wall -= 0.015 * texture(rng, size, 0.10)
    heart = ellipse(x, y, (0.07 + 0.05 * level, -0.12), (0.17 + 0.16 * level, 0.24 + 0.05 * level))
    middle = ellipse(x, y, (0.0, 0.02), (0.13 + 0.03 * level, cavity[1] * 1.25))
    spine = ellipse(x, y, (0, cavity[1] * 0.72), (0.17, 0.19))
    centre = np.maximum(np.maximum(heart, middle), spine) + 0.008 * texture(rng, size, 0.05)
    depth = np.minimum(wall, -centre).astype(np.float32)
    chest = _Chest(size, pose, x, y, inside(depth, 0.022), depth, cavity)
    hu = np.maximum(hu, _AIR + 900 * chest.line(table, 0.02))
    return chest, hu


def _mediastinum(rng: np.random.Generator, chest: _Chest, hu: Plane, level: float) -> None:
    """Fat, heart, great vessels and airways between the lungs, in place."""
    x, y = chest.x, chest.y
    within = inside(ellipse(x, y, (0, 0), chest.cavity)) * (1 - chest.lung)
    hu += within * rng.uniform(-70, -10)
    contrast = rng.choice([rng.uniform(0, 30), rng.uniform(90, 260)])
    vessels = [((0.12, chest.cavity[1] * 0.52), 0.062)]  # descending aorta
    if level < 0.55:
        vessels += [((-0.05, -0.16), 0.085), ((-0.15, -0.13), 0.042), ((0.07, -0.18), 0.07)]
    for centre, radius in vessels:
        r = radius * rng.uniform(0.9, 1.15)
        hu += inside(ellipse(x, y, centre, (r, r))) * (60 + contrast)
    if level >= 0.55:
        heart = inside(ellipse(x, y, (0.10, -0.13), (0.24, 0.22)), 0.05)
        chambers = 0.5 + 0.5 * np.tanh(2 * texture(rng, chest.size, 0.08))
        hu += heart * (45 + contrast * 0.8 * chambers)
    split = 0.0 if level < 0.35 else 0.05 + 0.07 * level
    for side in (-1, 1) if split else (0,):
        lumen = ellipse(x, y, (side * split, 0.06), (0.045 - 0.015 * bool(split), 0.045))
        hu += inside(lumen) * (_AIR - hu)


def _lungs(rng: np.random.Generator, chest: _Chest, hu: Plane, signs: Signs) -> None:
    """Parenchyma, vessels and the signs of disease, in place."""
    size = chest.size
    chronic = signs.get(Label.CHRONIC_LUNG_DISEASE, 0.0)
    air = np.full((size, size), _LUNG + rng.normal(0, 32) - 60 * chronic, np.float32)
    air += rng.uniform(20, 140) * np.clip(chest.y / chest.cavity[1], -0.5, 1)  # gravity
    air += rng.uniform(12, 24) * texture(rng, size, 0.012)
    air += rng.uniform(8, 26) * texture(rng, size, 0.09)
    air += (620 - 220 * chronic) * _vessels(rng, chest)
    if covid := signs.get(Label.COVID19, 0.0):
        air += _ground_glass(rng, chest, covid)
    if tuberculosis := signs.get(Label.TUBERCULOSIS, 0.0):
        air += _nodules(rng, chest, tuberculosis)
    if pneumonia := signs.get(Label.PNEUMONIA, 0.0):
        # Consolidation replaces the air around the vessels and so hides them (silhouette sign).
        air += _consolidation(rng, chest, pneumonia) * (30 - air)
    if chronic:
        holes, walls = _bullae(rng, chest)
        air += chronic * (holes * (-995 - air) + 260 * walls)
    hu += chest.lung * (np.clip(air, -1000, 90) - hu)


def _vessels(rng: np.random.Generator, chest: _Chest) -> Plane:
    """Branching vessels of both lungs, 0..1."""
    canvas = np.zeros((chest.size, chest.size), np.uint8)
    for side, (low, high) in ((-1, (1.7, 4.6)), (1, (-1.45, 1.45))):
        lines, widths = vessel_tree(rng, (side * 0.19, 0.03), (low, high), 6, 0.46)
        for pixels, width in zip(chest.pixels(lines), widths, strict=True):
            thickness = (0.004 + 0.026 * width**1.6) * chest.size / 2
            stroke(canvas, pixels, thickness, int(60 + 180 * width))
    vessels = canvas.astype(np.float32) / 255
    return np.asarray(cv2.GaussianBlur(vessels, (0, 0), 0.5 * chest.size / 192), np.float32)


def _pleural_point(
    rng: np.random.Generator, chest: _Chest, side: int, share: tuple[float, float], inset: float
) -> tuple[tuple[float, float], float]:
    """A point near the outer pleura of one lung, and the direction along the pleura.

    `share`: range of the angle, -1 (front) to 1 (back).
    """
    angle = rng.uniform(*share) * 1.15
    ax, ay = chest.cavity[0] - inset, chest.cavity[1] - inset
    point = (side * ax * float(np.cos(angle)), ay * float(np.sin(angle)))
    return point, float(np.arctan2(ay * np.cos(angle), -side * ax * np.sin(angle)))


def _ground_glass(rng: np.random.Generator, chest: _Chest, strength: float) -> Plane:
    """COVID-19: peripheral patches of ground glass in both lungs, HU to add."""
    haze = np.zeros((chest.size, chest.size), np.float32)
    for side in (-1, 1):
        for _ in range(rng.integers(2, 5)):
            inset = rng.uniform(0.05, 0.14)
            centre, along = _pleural_point(rng, chest, side, (-0.5, 1.0), inset)
            radii = rng.uniform(0.10, 0.18), rng.uniform(0.06, 0.10)
            haze = np.maximum(haze, blob(chest.x, chest.y, centre, radii, along))
    grain = 1 + 0.28 * texture(rng, chest.size, 0.012) + 0.2 * texture(rng, chest.size, 0.035)
    shape = np.clip((haze - 0.25) / 0.45, 0, 1) * grain
    return np.asarray(500 * strength * shape, np.float32)


def _consolidation(rng: np.random.Generator, chest: _Chest, strength: float) -> Plane:
    """Pneumonia: one lobe filled, sharp at the fissure, with air bronchograms; 0..1."""
    side = int(rng.choice([-1, 1]))
    centre, along = _pleural_point(rng, chest, side, (-0.75, 0.95), 0.16)
    warp = 0.16 * texture(rng, chest.size, 0.05) + 0.08 * texture(rng, chest.size, 0.02)
    radii = rng.uniform(0.24, 0.32), rng.uniform(0.17, 0.23)
    body = blob(chest.x, chest.y, centre, radii, along) + warp
    lobe = np.clip((body - 0.42) / 0.16, 0, 1)
    fissure = rng.uniform(-0.10, 0.10) + centre[1] - 0.5 * abs(centre[0]) * rng.uniform(0, 0.5)
    back = 1 if centre[1] > 0 else -1
    lobe *= inside((back * (chest.y - fissure) + 0.10).astype(np.float32), 0.03)
    lobe *= inside(side * chest.x, 0.02)
    lines, widths = vessel_tree(rng, (side * 0.19, 0.03), _towards(centre, side), 3, 0.5)
    canvas = np.zeros((chest.size, chest.size), np.uint8)
    for pixels, width in zip(chest.pixels(lines), widths, strict=True):
        stroke(canvas, pixels, (0.006 + 0.016 * width) * chest.size / 2, 255)
    bronchi = canvas.astype(np.float32) / 255
    return np.asarray(strength * 0.90 * lobe * (1 - 0.75 * bronchi), np.float32)


def _towards(centre: tuple[float, float], side: int) -> tuple[float, float]:
    """Angles of a fan from the hilum of one lung towards a point."""
    angle = float(np.arctan2(centre[1] - 0.03, centre[0] - side * 0.19))
    return angle - 0.35, angle + 0.35


def _nodules(rng: np.random.Generator, chest: _Chest, strength: float) -> Plane:
    """Tuberculosis: clustered nodules and a thick-walled cavity or two, HU to add."""
    out = np.zeros((chest.size, chest.size), np.float32)
    for side in (-1, 1):
        hub, _ = _pleural_point(rng, chest, side, (-0.2, 0.9), rng.uniform(0.14, 0.24))
        for dx, dy in rng.normal(0, 0.11, (rng.integers(5, 11), 2)):
            radius = rng.uniform(0.013, 0.028)
            spot = blob(chest.x, chest.y, (hub[0] + dx, hub[1] + dy), (radius, radius))
            out = np.maximum(out, spot)
        if rng.uniform() < 0.75:
            radius, wall = rng.uniform(0.055, 0.085), rng.uniform(0.016, 0.026)
            from_centre = np.hypot(chest.x - hub[0], chest.y - hub[1])
            ring = np.exp(-0.5 * ((from_centre - radius) / wall) ** 2)
            out = np.maximum(out, ring) - 0.25 * inside((radius - wall - from_centre), 0.02)
    return np.asarray(650 * strength * out, np.float32)


def _bullae(rng: np.random.Generator, chest: _Chest) -> tuple[Plane, Plane]:
    """Chronic disease: air spaces below the pleura and their thin walls, each 0..1."""
    nearest = np.full((chest.size, chest.size), -1, np.float32)
    for side in (-1, 1):
        for _ in range(rng.integers(3, 7)):
            centre, _ = _pleural_point(rng, chest, side, (-1.0, 1.0), rng.uniform(0.06, 0.22))
            radius = rng.uniform(0.04, 0.09)
            nearest = np.maximum(nearest, ellipse(chest.x, chest.y, centre, (radius, radius)))
    return inside(nearest), np.exp(-0.5 * (nearest / np.float32(0.011)) ** 2)


def _bones(rng: np.random.Generator, chest: _Chest, hu: Plane, level: float) -> None:
    """Ribs, vertebra, sternum and shoulder blades, in place."""
    ax, ay = chest.cavity[0] + 0.045, chest.cavity[1] + 0.045
    outer = np.zeros((chest.size, chest.size), np.uint8)
    inner = np.zeros_like(outer)
    width = chest.size / 2
    back = chest.cavity[1] * 0.74
    for side in (-1, 1):
        for middle in np.linspace(-1.05, 1.15, rng.integers(5, 8)) + rng.normal(0, 0.05):
            arc = middle + np.linspace(-1, 1, 7) * rng.uniform(0.07, 0.15)
            tilt = np.linspace(-0.012, 0.012, 7) * rng.choice([-1, 1])
            ring = np.stack([side * (ax + tilt) * np.cos(arc), (ay + tilt) * np.sin(arc)], axis=1)
            stroke(outer, chest.pixels(ring), 0.050 * width, 255)
            stroke(inner, chest.pixels(ring[1:-1]), 0.020 * width, 255)
        if level < 0.6:
            blade = np.array([[0.55, 0.50], [0.66, 0.38], [0.76, 0.22]]) * [side, ay / 0.55]
            stroke(outer, chest.pixels(blade * [1.05, 1.05]), 0.035 * width, 200)
    for points in _VERTEBRAL_ARCH:
        stroke(outer, chest.pixels(np.add(points, (0.0, back))), 0.042 * width, 255)
    cortex, marrow = (plane.astype(np.float32) / 255 for plane in (outer, inner))
    x, y = chest.x, chest.y
    body = ellipse(x, y, (0, back), (0.115, 0.095))
    cortex = np.maximum(cortex, inside(body))
    marrow = np.maximum(marrow, inside(body - 0.018) * 0.9)
    sternum = inside(ellipse(x, y, (0, -ay - 0.03), (0.11, 0.035)))
    cortex = np.maximum(cortex, sternum)
    marrow = np.maximum(marrow, 0.7 * sternum)
    density = rng.uniform(480, 700) * (1 - 0.55 * marrow)
    hu += cortex * (density - hu)
    canal = inside(ellipse(x, y, (0, back + 0.125), (0.05, 0.035)))
    hu += canal * (20 - hu)
