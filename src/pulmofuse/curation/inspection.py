"""What reading a file shows beside its content: traits, a fingerprint, and what is odd about it.

Made once, while the file is decoded anyway; the audit and the search for copies read nothing else.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pulmofuse.curation.coughs import sound_remarks
from pulmofuse.curation.fingerprints import image_fingerprint, sound_fingerprint
from pulmofuse.curation.remarks import Remark, series_remarks
from pulmofuse.curation.views import image_remarks, shrink
from pulmofuse.io import Image, Sound
from pulmofuse.schema import Modality, Oddity

#: Raise it with any change that alters traits, fingerprints or remarks: what was stored is then
#: made anew.
INSPECTION_VERSION = 4


@dataclass(frozen=True)
class Seen:
    """What reading one file showed.

    Attributes:
        traits: how it was acquired and stored (JSON values).
        fingerprint: of the search for near duplicates.
        remarks: what is odd about it.
    """

    traits: dict[str, Any]
    fingerprint: bytes
    remarks: tuple[Remark, ...]


def inspect_image(image: Image, modality: Modality) -> Seen:
    """Look at a decoded image that is said to be of this modality."""
    if image.hounsfield or len(image.pixels) > 1:
        return _with_flaws(image, image_fingerprint(image), image_remarks(image, modality))
    # Fingerprint and classifier look at the same grid, and shrinking to it is what costs most.
    grid = shrink(image.pixels[0])
    fingerprint = image_fingerprint(Image(grid[np.newaxis], False, image.traits))
    return _with_flaws(image, fingerprint, image_remarks(image, modality, grid))


def _with_flaws(image: Image, fingerprint: bytes, remarks: tuple[Remark, ...]) -> Seen:
    """What was seen of a picture or a volume; the flaws of a series become remarks."""
    if "flaws" not in image.traits:
        return Seen(image.traits, fingerprint, remarks)
    # They name files, which remarks may do and traits may not.
    traits = {name: value for name, value in image.traits.items() if name != "flaws"}
    return Seen(traits, fingerprint, (*series_remarks(image.traits), *remarks))


def inspect_sound(sound: Sound) -> Seen:
    """Look at a decoded recording."""
    # A copy may be the mix of both ends of a call, which one end alone would not be known in.
    fingerprint = sound_fingerprint(sound.samples.mean(axis=0), sound.sample_rate_hz)
    return Seen(sound.traits, fingerprint, sound_remarks(sound))


def seen_row(seen: Seen) -> dict[str, Any]:
    """The cells `traits` (JSON text), `fingerprint` (bytes), `remarks` (JSON text) of a table."""
    return {
        "traits": json.dumps(seen.traits, allow_nan=False),
        "fingerprint": seen.fingerprint,
        "remarks": json.dumps([asdict(remark) for remark in seen.remarks]),
    }


def remarks_from_json(text: str) -> tuple[Remark, ...]:
    """The remarks of a cell that `seen_row` made."""
    return tuple(
        Remark(Oddity(row["kind"]), str(row["reason"]), str(row["remedy"]))
        for row in json.loads(text)
    )
