"""Placeholder by the integrator so that imports work; helper COUGH replaces this file."""

from pulmofuse.curation.remarks import Remark
from pulmofuse.io import Sound


def sound_remarks(sound: Sound) -> tuple[Remark, ...]:
    """Placeholder."""
    return ()
