"""One file to instances: the only way from a file to a model, in training and everywhere else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pulmofuse.config import CoughPreprocessing, CtPreprocessing, CxrPreprocessing
from pulmofuse.curation.inspection import Seen, inspect_image, inspect_sound
from pulmofuse.errors import UnreadableFile
from pulmofuse.io import Image, Sound, read_image, read_sound
from pulmofuse.preprocessing.coughs import prepare_cough, window_samples
from pulmofuse.preprocessing.images import prepare_ct, prepare_cxr
from pulmofuse.schema import Modality

PreprocessingConfig = CtPreprocessing | CxrPreprocessing | CoughPreprocessing

#: Raise it with any change that alters instances: caches of older versions are made anew.
PREPROCESSING_VERSION = 3


@dataclass(frozen=True, eq=False)
class Prepared:
    """One file, ready for a model.

    Attributes:
        instances: uint8 (n, size, size) for images, int16 (n, samples) for coughs; n >= 1.
        seen: its traits, its fingerprint, and what is odd about it.
    """

    instances: npt.NDArray[Any]
    seen: Seen


def prepare(
    source: Path | bytes | Image | Sound,
    modality: Modality,
    config: PreprocessingConfig,
    name: str | None = None,
) -> Prepared:
    """Read a file and normalise it to instances.

    Args:
        source: a path, the bytes of the file, or what was decoded before.
        modality: what was recorded.
        config: the preprocessing of that modality.
        name: what errors call the file; by default its path.

    Raises:
        UnreadableFile: the file cannot be used; see `pulmofuse.io`.
        TypeError: the configuration belongs to another modality.
    """
    label = name or (str(source) if isinstance(source, Path) else "data in memory")
    match modality, config:
        case Modality.CT, CtPreprocessing():
            image = _image(source, label)
            return _prepared(*prepare_ct(image, config), inspect_image(image, modality))
        case Modality.CXR, CxrPreprocessing():
            image = _image(source, label)
            return _prepared(*prepare_cxr(image, config, label), inspect_image(image, modality))
        case Modality.COUGH, CoughPreprocessing():
            sound = _sound(source, label)
            return Prepared(prepare_cough(sound, config, label), inspect_sound(sound))
    raise TypeError(f"{type(config).__name__} does not belong to {modality}")


def _image(source: Path | bytes | Image | Sound, label: str) -> Image:
    if isinstance(source, Sound):
        raise UnreadableFile(label, "this is a sound, not an image", "give it as cough")
    return source if isinstance(source, Image) else read_image(source, label)


def _sound(source: Path | bytes | Image | Sound, label: str) -> Sound:
    if isinstance(source, Image):
        raise UnreadableFile(label, "this is an image, not a sound", "give it as ct or cxr")
    return source if isinstance(source, Sound) else read_sound(source, label)


def _prepared(instances: npt.NDArray[Any], lungs_found: float | None, seen: Seen) -> Prepared:
    """Instances with what was seen; that lungs were looked for and not found is a trait.

    As a trait the audit asks whether it tells the class, as a crop that fails in one class would.
    """
    if lungs_found is not None:
        seen = replace(seen, traits={**seen.traits, "lungs_found": lungs_found})
    return Prepared(instances, seen)


def instance_shape(modality: Modality, config: PreprocessingConfig) -> tuple[int, ...]:
    """Shape of one instance: (size, size) or (samples,)."""
    if isinstance(config, CoughPreprocessing) != (modality is Modality.COUGH):
        raise TypeError(f"{type(config).__name__} does not belong to {modality}")
    if isinstance(config, CoughPreprocessing):
        return (window_samples(config),)
    return (config.size, config.size)


def instance_dtype(modality: Modality) -> np.dtype[Any]:
    """Type of stored instances: uint8 for images, int16 for coughs."""
    return np.dtype(np.int16 if modality is Modality.COUGH else np.uint8)
