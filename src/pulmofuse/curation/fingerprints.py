"""Placeholder by the integrator so that imports work; helper DUP replaces this file."""

import numpy as np

from pulmofuse.io import Image


def image_fingerprint(image: Image) -> bytes:
    """Placeholder."""
    return b""


def sound_fingerprint(samples: np.ndarray, sample_rate_hz: int) -> bytes:
    """Placeholder."""
    return b""
