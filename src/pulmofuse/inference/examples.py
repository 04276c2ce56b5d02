"""Inputs to try a model with where there are no data: drawn pictures and coughs, and noise."""

from __future__ import annotations

import io

import cv2
import numpy as np
from torch import Tensor

from pulmofuse.inference.bundle import Unimodal
from pulmofuse.models.predict import model_input
from pulmofuse.preprocessing import instance_dtype, instance_shape, prepare
from pulmofuse.schema import Modality
from pulmofuse.sources.phantom import SAMPLE_RATE_HZ, draw_cough, draw_ct, draw_cxr

_SIDE = 256  # pixels of a drawn picture
_SEED = 0


def drawn_inputs(part: Unimodal, n: int = 2) -> Tensor:
    """(n, ...) of what the model reads: of the phantoms of the synthetic cohort, prepared."""
    rng = np.random.default_rng(_SEED)
    files = [_drawn(part.modality, rng) for _ in range(n)]
    settings = part.config.preprocessing
    instances = np.concatenate([prepare(f, part.modality, settings).instances[:1] for f in files])
    return _as_input(part, instances)


def noise_inputs(part: Unimodal, n: int = 2) -> Tensor:
    """(n, ...) of what the model reads: every value drawn by itself, over the whole range."""
    rng = np.random.default_rng(_SEED)
    kind = np.iinfo(instance_dtype(part.modality))
    shape = (n, *instance_shape(part.modality, part.config.preprocessing))
    # The lowest int16 is one below -1; no prepared sound holds it.
    low = kind.min + 1 if kind.min < 0 else 0
    instances = rng.integers(low, kind.max + 1, shape).astype(kind.dtype)
    return _as_input(part, instances)


def _as_input(part: Unimodal, instances: np.ndarray) -> Tensor:
    """Instances as they are, or volumes of `depth` slices made of each with its mirror image."""
    if part.model.depth is None:
        return model_input(part.model, instances, np.ones(len(instances), dtype=np.int64))
    pairs = np.stack([instances, instances[:, :, ::-1]], axis=1).reshape(-1, *instances.shape[1:])
    return model_input(part.model, pairs, np.full(len(instances), 2)).contiguous()


def _drawn(modality: Modality, rng: np.random.Generator) -> bytes:
    """One file of the synthetic cohort's kind."""
    if modality is Modality.COUGH:
        import soundfile

        stream = io.BytesIO()
        sound = draw_cough(rng, {}, female=False, coarse=False)
        soundfile.write(stream, sound, SAMPLE_RATE_HZ, format="WAV")
        return stream.getvalue()
    draw = draw_ct if modality is Modality.CT else draw_cxr
    done, png = cv2.imencode(".png", draw(rng, _SIDE, {}, female=False, coarse=False))
    assert done  # noqa: S101  # a uint8 plane always has a PNG
    return png.tobytes()
