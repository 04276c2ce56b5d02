"""A bundle with networks that learnt nothing, and files that they can read."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import cv2
import numpy as np
import torch

from pulmofuse.config import CoughConfig, CtConfig, CxrConfig
from pulmofuse.evaluation import identity_calibration
from pulmofuse.inference import Bundle, DecisionFusion, Unimodal, save_bundle
from pulmofuse.inference.bundle import build_model
from pulmofuse.schema import Modality
from pulmofuse.sources.phantom import SAMPLE_RATE_HZ, draw_cough, draw_ct, draw_cxr

_CONFIGS = {
    Modality.CT: CtConfig.model_validate(
        {"preprocessing": {"size": 32}, "model": {"backbone": "resnet18", "weights": "none"}}
    ),
    Modality.CXR: CxrConfig.model_validate(
        {"preprocessing": {"size": 32}, "model": {"backbone": "resnet18", "weights": "none"}}
    ),
    Modality.COUGH: CoughConfig.model_validate(
        {
            "preprocessing": {"duration_s": 1.0, "max_windows": 2},
            "model": {"architecture": "mfcc_lstm"},
        }
    ),
}


def write_bundle(folder: Path) -> Path:
    """Write the bundle."""
    torch.manual_seed(0)
    parts = {
        modality: Unimodal(
            modality, config, build_model(modality, config, 2).eval(), identity_calibration(2)
        )
        for modality, config in _CONFIGS.items()
    }
    half = np.full(2, 0.5)
    bundle = Bundle(
        name="tiny",
        question="Does the service hold?",
        classes=("normal", "covid19"),
        positive="covid19",
        unimodal=parts,
        decision=DecisionFusion(tuple(parts), half, np.tile(half, (3, 1)), np.ones(3), 0.8),
        feature={},
        thresholds={"cxr|unimodal": 0.4},
        facts={"warnings": [{"modality": "cough", "text": "the channel tells the class"}]},
    )
    save_bundle(folder, bundle)
    return folder


def png(picture: np.ndarray) -> bytes:
    """A picture as PNG."""
    done, data = cv2.imencode(".png", picture)
    assert done
    return data.tobytes()


def ct(seed: int = 0) -> bytes:
    """A drawn CT slice."""
    return png(draw_ct(np.random.default_rng(seed), 96, {}, female=False, coarse=False))


def cxr(seed: int = 0) -> bytes:
    """A drawn X-ray."""
    return png(draw_cxr(np.random.default_rng(seed), 96, {}, female=False, coarse=False))


def wav(samples: np.ndarray, rate: int = SAMPLE_RATE_HZ) -> bytes:
    """int16 samples as WAV."""
    out = io.BytesIO()
    with wave.open(out, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(rate)
        stream.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def cough(seed: int = 0) -> bytes:
    """A drawn cough."""
    return wav(draw_cough(np.random.default_rng(seed), {}, female=False, coarse=False))
