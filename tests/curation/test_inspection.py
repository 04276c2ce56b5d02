"""What one look at a decoded file keeps."""

from __future__ import annotations

import numpy as np
import pytest

from pulmofuse.curation.coughs import sound_remarks
from pulmofuse.curation.fingerprints import image_fingerprint, sound_fingerprint
from pulmofuse.curation.inspection import inspect_image, inspect_sound
from pulmofuse.curation.views import image_remarks
from pulmofuse.io import Image, Sound
from pulmofuse.schema import Modality


@pytest.mark.parametrize(
    "shape", [(1, 50, 40), (1, 64, 64), (1, 301, 217), (3, 80, 90), (9, 70, 70)]
)
@pytest.mark.parametrize("hounsfield", [False, True])
def test_what_is_shared_changes_neither_fingerprint_nor_remarks(
    shape: tuple[int, int, int], *, hounsfield: bool
) -> None:
    rng = np.random.default_rng(sum(shape))
    pixels = rng.random(shape, dtype=np.float32)
    image = Image(2000 * pixels - 1000 if hounsfield else pixels, hounsfield, {"bit_depth": 16})

    seen = inspect_image(image, Modality.CXR)

    assert seen.fingerprint == image_fingerprint(image)
    assert seen.remarks == image_remarks(image, Modality.CXR)
    assert seen.traits is image.traits


@pytest.mark.parametrize("channels", [1, 2])
def test_a_recording_is_known_by_its_mix_and_judged_by_its_loudest_channel(channels: int) -> None:
    rng = np.random.default_rng(channels)
    samples = rng.normal(0, 0.1, (channels, 24_000)).astype(np.float32)
    samples[-1] *= 2
    sound = Sound(samples, 16_000, {"silent_fraction": 0.0, "clipped_fraction": 0.3})

    seen = inspect_sound(sound)

    assert seen.fingerprint == sound_fingerprint(samples.mean(axis=0), 16_000)
    assert seen.remarks == sound_remarks(Sound(samples[-1:], 16_000, sound.traits))
    assert len(seen.remarks) >= 1
