"""What a model is shown, as a picture for the eye."""

from __future__ import annotations

import numpy as np
import torch

from pulmofuse.config import CoughPreprocessing, CtPreprocessing, CxrPreprocessing
from pulmofuse.preprocessing import LogMel, to_tensor
from pulmofuse.schema import Modality


def instance_picture(
    instance: np.ndarray,
    modality: Modality,
    front_end: CtPreprocessing | CxrPreprocessing | CoughPreprocessing,
) -> np.ndarray:
    """(height, width) uint8 for the eye: the image itself, or the log-mel of a cough window.

    Args:
        instance: one row of a cache, uint8 (size, size) or int16 (samples,).
        modality: what was recorded.
        front_end: preprocessing of the modality; that of a cough says how its log-mel is made.
    """
    if modality is not Modality.COUGH or not isinstance(front_end, CoughPreprocessing):
        return instance
    with torch.inference_mode():
        log_mel = LogMel(front_end)(to_tensor(instance[None]))[0].numpy()
    return decibel_picture(log_mel)


def decibel_picture(log_mel: np.ndarray) -> np.ndarray:
    """(mels, frames) dB to uint8 for the eye, from the quietest to the loudest value."""
    scaled = (log_mel - log_mel.min()) / max(float(np.ptp(log_mel)), 1e-9)
    # Low frequencies belong at the bottom, as in every spectrogram a reader has seen.
    return np.asarray((scaled[::-1] * 255).astype(np.uint8))
