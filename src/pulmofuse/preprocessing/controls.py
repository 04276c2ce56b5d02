"""Negative controls: cached instances with the disease taken out, and what is left kept.

A model that still tells the classes apart when the lungs are blanked has learnt something else
(Maguolo & Nanni 2021, "A critic evaluation of methods for COVID-19 automatic detection from X-ray
images"; DeGrave, Janizek & Lee 2021). What is blanked takes the mean of what is left: the mean of
the whole image would still say how dense the blanked lungs were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pulmofuse.config import CoughPreprocessing
from pulmofuse.curation.coughs import between_coughs, find_coughs
from pulmofuse.preprocessing.lungs import ByteArray, Mask, lung_mask
from pulmofuse.preprocessing.prepare import PreprocessingConfig
from pulmofuse.preprocessing.tensors import SOUND_SCALE
from pulmofuse.schema import Modality

Instances = npt.NDArray[Any]

#: Width of the border that `border_only` leaves, as a share of the image's side (design.md: borders
#: alone reach an AUC of .98 on the public COVID-19 X-rays).
BORDER = 0.14

_MID_GREY = 128  # where nothing is left whose mean could be taken
_WHITE = 255


@dataclass(frozen=True, eq=False)
class Altered:
    """Instances of a control.

    Attributes:
        instances: shape and type of those given.
        missed: (n,) bool; the lungs (or coughs) of this instance were not found: a central box
            stands in for the lungs, and a recording without a cough found stays as it is.
    """

    instances: Instances
    missed: Mask


@dataclass(frozen=True)
class Control:
    """One way to take the disease out.

    Attributes:
        modalities: that it is for.
        alter: instances and the preprocessing they were made with -> altered instances. Images are
            uint8 (n, size, size), coughs int16 (n, samples).
        words: what was done, as in "with the lungs blanked".
        healthy: whether the disease is gone, so that an AUC above .5 is a shortcut.
        picture: whether it still looks like a record, so that the trained model can be asked.
    """

    modalities: tuple[Modality, ...]
    alter: Callable[[Instances, Modality, PreprocessingConfig], Altered]
    words: str
    healthy: bool = True
    picture: bool = True


def _lungs_blanked(
    instances: Instances,
    modality: Modality,
    config: PreprocessingConfig,  # noqa: ARG001  # every control takes the same arguments
) -> Altered:
    """Everything but the lungs is left."""
    masks, missed = _masks(instances, modality)
    return Altered(_keep(instances, ~masks), missed)


def _lungs_only(
    instances: Instances,
    modality: Modality,
    config: PreprocessingConfig,  # noqa: ARG001
) -> Altered:
    """Only the lungs are left."""
    masks, missed = _masks(instances, modality)
    return Altered(_keep(instances, masks), missed)


def _lung_outline(
    instances: Instances,
    modality: Modality,
    config: PreprocessingConfig,  # noqa: ARG001
) -> Altered:
    """The mask itself, white on black: what the blanking itself tells."""
    masks, missed = _masks(instances, modality)
    return Altered(masks.astype(np.uint8) * np.uint8(_WHITE), missed)


def _border_only(
    instances: Instances,
    modality: Modality,  # noqa: ARG001
    config: PreprocessingConfig,  # noqa: ARG001
) -> Altered:
    """Only the outer `BORDER` of each side is left."""
    n, height, width = instances.shape
    top, left = round(BORDER * height), round(BORDER * width)
    kept = np.ones((n, height, width), dtype=bool)
    kept[:, top : height - top, left : width - left] = False
    return Altered(_keep(instances, kept), np.zeros(n, dtype=bool))


def _between_coughs(
    instances: Instances,
    modality: Modality,  # noqa: ARG001
    config: PreprocessingConfig,
) -> Altered:
    """Only the sound between the coughs is left; the coughs are silent."""
    if not isinstance(config, CoughPreprocessing):
        raise TypeError(f"{type(config).__name__} does not belong to coughs")
    out = np.empty_like(instances)
    missed = np.zeros(len(instances), dtype=bool)
    for i, window in enumerate(instances):
        samples = window.astype(np.float32) / SOUND_SCALE
        coughs = find_coughs(samples, config.sample_rate_hz)
        rest = between_coughs(samples, config.sample_rate_hz, coughs)
        out[i] = np.rint(rest * SOUND_SCALE).astype(np.int16)
        missed[i] = len(coughs) == 0
    return Altered(out, missed)


_IMAGES = (Modality.CT, Modality.CXR)

#: Controls by name. `lungs_only` leaves the disease in: it says what is lost with the rest. So may
#: `lung_outline`, for disease can change the outline: it says how far to trust `lungs_blanked`.
CONTROLS: dict[str, Control] = {
    "lungs_blanked": Control(_IMAGES, _lungs_blanked, "with the lungs blanked"),
    "border_only": Control(_IMAGES, _border_only, "on the outer border alone"),
    "lung_outline": Control(
        _IMAGES, _lung_outline, "on the outline of the lungs alone", healthy=False, picture=False
    ),
    "lungs_only": Control(_IMAGES, _lungs_only, "on the lungs alone", healthy=False),
    "between_coughs": Control(
        (Modality.COUGH,), _between_coughs, "on the sound between the coughs"
    ),
}


def _masks(images: Instances, modality: Modality) -> tuple[Mask, Mask]:
    """Lung masks (n, size, size), and (n,) where a box stands in."""
    pairs = [lung_mask(image, modality) for image in images]
    if not pairs:
        return np.zeros(images.shape, dtype=bool), np.zeros(0, dtype=bool)
    return np.stack([mask for mask, _ in pairs]), np.array([not found for _, found in pairs])


def _keep(images: Instances, kept: Mask) -> ByteArray:
    """Images (n, h, w) where `kept`; elsewhere the mean of what is kept of each image."""
    counts = kept.sum(axis=(1, 2))
    sums = np.where(kept, images, 0).sum(axis=(1, 2), dtype=np.float64)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), _MID_GREY)
    fill = np.rint(means).astype(np.uint8)[:, None, None]
    return np.where(kept, images, fill).astype(np.uint8)
