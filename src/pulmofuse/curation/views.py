"""Placeholder by the integrator so that imports work; helper VIEW replaces this file."""

from pulmofuse.curation.remarks import Remark
from pulmofuse.io import Image
from pulmofuse.schema import Modality


def image_remarks(image: Image, modality: Modality) -> tuple[Remark, ...]:
    """Placeholder."""
    return ()
