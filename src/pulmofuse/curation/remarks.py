"""What is odd about one file that can be read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Oddity(StrEnum):
    """Kinds of odd files."""

    BLANK = "blank"  # next to no content: an almost empty image, a recording of silence
    NOT_RADIOLOGY = "not_radiology"  # a photo, a drawing, a screenshot, a chart
    WRONG_MODALITY = "wrong_modality"  # a CT among X-rays, an X-ray among CT
    LATERAL = "lateral"  # an X-ray from the side
    NO_COUGH = "no_cough"  # no cough was heard: noise, a tone, silence between clicks
    SPEECH = "speech"  # somebody talks, and does not cough
    BURNT_IN_TEXT = "burnt_in_text"  # letters in the pixels
    CLIPPED = "clipped"  # much of the range is cut off


@dataclass(frozen=True)
class Remark:
    """One oddity of one file.

    Attributes:
        kind: which.
        reason: in plain words, without a full stop, e.g. "looks like a lateral view (score .98)".
        remedy: what the user can do, without a full stop.
    """

    kind: Oddity
    reason: str
    remedy: str
