"""One file in, one array out, with what was seen of the recording on the way."""

from pulmofuse.io.arrays import image_from_array, sound_from_array
from pulmofuse.io.bounds import Bounds, bounded
from pulmofuse.io.image import Image, read_image
from pulmofuse.io.series import read_series
from pulmofuse.io.sound import Sound, read_sound

__all__ = [
    "Bounds",
    "Image",
    "Sound",
    "bounded",
    "image_from_array",
    "read_image",
    "read_series",
    "read_sound",
    "sound_from_array",
]
