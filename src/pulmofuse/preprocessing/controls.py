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
class Found:
    """Where the disease can be in some instances: the lungs of images, the coughs of recordings.

    Attributes:
        masks: bool, shape of the instances; true on lungs or coughs.
        missed: (n,) bool; nothing was found in this instance: a central box stands in for the
            lungs, and a recording without a cough found has an empty mask.
    """

    masks: Mask
    missed: Mask


@dataclass(frozen=True)
class Control:
    """One way to take the disease out.

    Attributes:
        modalities: that it is for.
        alter: instances and the masks that `find` gives for them -> altered instances of the same
            shape and type. Images are uint8 (n, size, size), coughs int16 (n, samples).
        words: what was done, as in "with the lungs blanked".
        healthy: whether the disease is gone, so that an AUC above .5 is a shortcut.
        picture: whether it still looks like a record, so that the trained model can be asked.
        masked: whether it uses the masks, and so depends on what was found.
    """

    modalities: tuple[Modality, ...]
    alter: Callable[[Instances, Mask], Instances]
    words: str
    healthy: bool = True
    picture: bool = True
    masked: bool = True


def find(instances: Instances, modality: Modality, config: PreprocessingConfig) -> Found:
    """Find the lungs or the coughs, once for all controls: this is what takes the time.

    Args:
        instances: of the cache, uint8 (n, size, size) or int16 (n, samples); n may be 0.
        modality: what they are.
        config: that they were made with.

    Raises:
        TypeError: coughs with the configuration of images.
    """
    masks = np.zeros(instances.shape, dtype=bool)
    missed = np.zeros(len(instances), dtype=bool)
    for i, instance in enumerate(instances):
        if modality is Modality.COUGH:
            masks[i] = _cough_mask(instance, config)
            missed[i] = not masks[i].any()
        else:
            masks[i], found = lung_mask(instance, modality)
            missed[i] = not found
    return Found(masks, missed)


def _cough_mask(window: Instances, config: PreprocessingConfig) -> Mask:
    """True (samples,) on the coughs and their margins in one window, int16 (samples,)."""
    if not isinstance(config, CoughPreprocessing):
        raise TypeError(f"{type(config).__name__} does not belong to coughs")
    samples = np.asarray(window / SOUND_SCALE, dtype=np.float32)
    coughs = find_coughs(samples, config.sample_rate_hz)
    rest = between_coughs(np.ones_like(samples), config.sample_rate_hz, coughs)
    return np.asarray(rest == 0.0)


def _lungs_blanked(images: Instances, lungs: Mask) -> ByteArray:
    """Everything but the lungs is left."""
    return _keep(images, ~lungs)


def _lung_outline(images: Instances, lungs: Mask) -> ByteArray:  # noqa: ARG001  # as all controls
    """The mask itself, white on black: what the blanking itself tells."""
    return lungs.astype(np.uint8) * np.uint8(_WHITE)


def _border_only(images: Instances, lungs: Mask) -> ByteArray:  # noqa: ARG001
    """Only the outer `BORDER` of each side is left."""
    n, height, width = images.shape
    top, left = round(BORDER * height), round(BORDER * width)
    kept = np.ones((n, height, width), dtype=bool)
    kept[:, top : height - top, left : width - left] = False
    return _keep(images, kept)


def _between_coughs(windows: Instances, coughs: Mask) -> Instances:
    """Only the sound between the coughs is left; the coughs are silent."""
    return np.where(coughs, np.int16(0), windows)


def _keep(images: Instances, kept: Mask) -> ByteArray:
    """Images (n, h, w) where `kept`; elsewhere the mean of what is kept of each image."""
    counts = kept.sum(axis=(1, 2))
    sums = np.where(kept, images, 0).sum(axis=(1, 2), dtype=np.float64)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), _MID_GREY)
    fill = np.rint(means).astype(np.uint8)[:, None, None]
    return np.where(kept, images, fill).astype(np.uint8)


_IMAGES = (Modality.CT, Modality.CXR)

#: Controls by name. `lungs_only` leaves the disease in: it says what is lost with the rest. So may
#: `lung_outline`, for disease can change the outline: it says how far to trust `lungs_blanked`.
CONTROLS: dict[str, Control] = {
    "lungs_blanked": Control(_IMAGES, _lungs_blanked, "with the lungs blanked"),
    "border_only": Control(_IMAGES, _border_only, "on the outer border alone", masked=False),
    "lung_outline": Control(
        _IMAGES, _lung_outline, "on the outline of the lungs alone", healthy=False, picture=False
    ),
    "lungs_only": Control(_IMAGES, _keep, "on the lungs alone", healthy=False),
    "between_coughs": Control(
        (Modality.COUGH,), _between_coughs, "on the sound between the coughs"
    ),
}
