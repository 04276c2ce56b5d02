"""Files to instances of one shape and type, their features, augmentation and cache."""

from pulmofuse.preprocessing.augment import CoughAugment, ImageAugment, SpecAugment
from pulmofuse.preprocessing.cache import Cache, build_cache
from pulmofuse.preprocessing.features import LogMel, Mfcc
from pulmofuse.preprocessing.prepare import (
    Prepared,
    PreprocessingConfig,
    instance_dtype,
    instance_shape,
    prepare,
)
from pulmofuse.preprocessing.tensors import to_tensor, to_volumes

__all__ = [
    "Cache",
    "CoughAugment",
    "ImageAugment",
    "LogMel",
    "Mfcc",
    "Prepared",
    "PreprocessingConfig",
    "SpecAugment",
    "build_cache",
    "instance_dtype",
    "instance_shape",
    "prepare",
    "to_tensor",
    "to_volumes",
]
