"""Arrays that are in memory already, checked and described as if they had been read from a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import check_pixels
from pulmofuse.io.decoded import Decoded, check_finite, scale_to_unit
from pulmofuse.io.image import Image, finish
from pulmofuse.io.sound import Sound, check_declared, finish_sound

#: What traits call the format of an array.
ARRAY = "array"

_FULL_SCALE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}


def image_from_array(
    pixels: npt.ArrayLike, *, hounsfield: bool = False, name: str = ARRAY
) -> Image:
    """An image or a volume from its pixels.

    Args:
        pixels: (height, width) or (slices, height, width). Without `hounsfield`, uint8 and uint16
            are of their whole range, floating-point values in [0, 1] are taken as they are, and
            all others are scaled by their own extremes, as in a file.
        hounsfield: the values are Hounsfield units of a CT.
        name: what errors call it.

    Raises:
        UnreadableFile: no numbers, of another shape, of absurd size, smaller than 32 pixels, not
            finite, or blank.
    """
    values = _numbers(name, pixels)
    if values.ndim not in (2, 3) or not values.size:
        raise UnreadableFile(
            name,
            f"has the shape {values.shape}, which is no image",
            "give (height, width) of an image or (slices, height, width) of a volume",
        )
    volume = values.reshape(-1, *values.shape[-2:])
    n_slices, height, width = volume.shape
    check_pixels(name, height, width, n_slices)
    bits = 8 * values.dtype.itemsize
    traits = {"channels": 1, "bit_depth": bits, "colour": False, "bits_per_pixel": float(bits)}
    levels = volume if volume.dtype == np.uint8 and not hounsfield else None
    if hounsfield:
        check_finite(name, volume)
        unit = volume.astype(np.float32)
    elif volume.dtype in _FULL_SCALE:
        unit = volume.astype(np.float32)
        unit /= np.float32(_FULL_SCALE[volume.dtype])
    else:
        unit = scale_to_unit(name, volume)
    return finish(name, ARRAY, values.nbytes, Decoded(unit, hounsfield, traits, levels=levels))


def sound_from_array(samples: npt.ArrayLike, sample_rate_hz: int, name: str = ARRAY) -> Sound:
    """A recording from its samples.

    Args:
        samples: (n,) or (channels, n); whole numbers are of the range of their type,
            floating-point samples beyond [-1, 1] are divided by their peak.
        sample_rate_hz: samples per second and channel.
        name: what errors call it.

    Raises:
        UnreadableFile: no numbers, of another shape, of absurd size or rate, shorter than 0.1 s,
            silent, or not finite.
    """
    values = _numbers(name, samples)
    if values.ndim not in (1, 2) or not values.size:
        raise UnreadableFile(
            name,
            f"has the shape {values.shape}, which is no recording",
            "give (samples,) or (channels, samples)",
        )
    channels = values.reshape(-1, values.shape[-1])
    kind, subtype = channels.dtype.kind, channels.dtype.name
    if kind in "iu":
        middle = np.iinfo(channels.dtype).max + 1 if kind == "i" else 2 ** (8 * values.itemsize - 1)
        channels = (channels.astype(np.float64) - (0 if kind == "i" else middle)) / middle
    check_declared(name, int(sample_rate_hz), *channels.shape)
    return finish_sound(
        name, ARRAY, values.nbytes, channels.astype(np.float32), int(sample_rate_hz), subtype
    )


def _numbers(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        why = f"holds {array.dtype}, not real numbers"
        raise UnreadableFile(name, why, "give an array of them")
    return array
