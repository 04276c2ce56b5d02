"""The unimodal classifiers: one interface, numbers that hold under bfloat16 and silence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.signal import savgol_filter
from torch import Tensor

from pulmofuse.config import (
    CoughConfig,
    CoughModelConfig,
    CoughPreprocessing,
    CtConfig,
    CtModelConfig,
    CxrConfig,
    CxrModelConfig,
)
from pulmofuse.models import (
    ARCHITECTURES,
    Classifier,
    build_audio_model,
    build_ct_model,
    build_cxr_model,
)
from pulmofuse.models.audio_model import delta, normalise_db, standardise

SOUNDS = CoughPreprocessing(duration_s=0.5)


def cough(architecture: str) -> Classifier:
    model = CoughModelConfig(
        architecture=architecture,  # type: ignore[arg-type]
        backbone="resnet18",
        weights="none",
        hidden=16,
    )
    return build_audio_model(CoughConfig(preprocessing=SOUNDS, model=model), 3)


BUILD: dict[str, Callable[[], Classifier]] = {
    "ct": lambda: build_ct_model(CtConfig(model=CtModelConfig(weights="none")), 3),
    "cxr": lambda: build_cxr_model(
        CxrConfig(model=CxrModelConfig(backbone="resnet18", weights="none")), 3
    ),
    "volume": lambda: build_ct_model(
        CtConfig(model=CtModelConfig(aggregation="volume", depth=6)), 3
    ),
    "spectrogram_cnn": lambda: cough("spectrogram_cnn"),
    "mfcc_lstm": lambda: cough("mfcc_lstm"),
    "crnn": lambda: cough("crnn"),
}

FEATURE_MAPS = {
    "ct": (4, 1280, 2, 2),
    "cxr": (4, 512, 2, 2),
    "volume": (4, 256, 4, 4),
    "spectrogram_cnn": (4, 512, 4, 2),
    "mfcc_lstm": (4, 32, 1, 51),
    "crnn": (4, 32, 1, 7),
}

every_model = pytest.mark.parametrize("name", BUILD)


def build(name: str, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return BUILD[name]()


def inputs(name: str) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if name in ARCHITECTURES:
        return torch.randn(4, 8000, generator=generator) * torch.linspace(0.0, 0.3, 8000)
    return torch.rand(4, 6 if name == "volume" else 1, 64, 64, generator=generator)


def test_every_architecture_is_tested() -> None:
    assert set(ARCHITECTURES) <= set(BUILD)


@every_model
@torch.no_grad()
def test_the_steps_fit_together(name: str) -> None:
    model, x = build(name).eval(), inputs(name)
    features = model.features(x)
    assert model.feature_map(x).shape == FEATURE_MAPS[name]
    assert features.shape == (4, model.feature_dim)
    assert model(x).shape == (4, 3)
    assert torch.equal(model(x), model.classify(features))


@every_model
def test_stages_hold_every_parameter_once_and_the_head_is_last(name: str) -> None:
    model = build(name)
    stages = [[p for m in stage for p in m.parameters()] for stage in model.stages()]
    assert sorted(id(p) for s in stages for p in s) == sorted(map(id, model.parameters()))
    assert all(stages)
    assert sum(p.numel() for p in stages[-1]) == 3 * model.feature_dim + 3


@every_model
def test_a_seed_decides_everything(name: str) -> None:
    outputs = []
    for seed in (5, 5, 6):
        model = build(name, seed).train()
        with torch.no_grad():
            outputs.append(model(inputs(name)))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@every_model
def test_training_in_bfloat16_and_channels_last_gives_finite_gradients(name: str) -> None:
    model = build(name).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(inputs(name))
    torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@every_model
@torch.no_grad()
def test_bfloat16_changes_little(name: str) -> None:
    model, x = build(name).eval(), inputs(name)
    expected = model(x).softmax(dim=1)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        p = model(x).float().softmax(dim=1)
    torch.testing.assert_close(p, expected, atol=0.03, rtol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_cough_models_bear_silence_and_do_not_hear_the_gain(name: str) -> None:
    model, x = build(name).eval(), inputs(name)
    assert torch.isfinite(model(torch.zeros(2, 8000))).all()
    torch.testing.assert_close(model(0.5 * x), model(x), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["spectrogram_cnn", "crnn"])
def test_spectrograms_are_masked_in_training_only(name: str) -> None:
    model = build(name)
    x = inputs(name)
    seen: list[Tensor] = []
    model.get_submodule("spec_augment").register_forward_hook(
        lambda _module, before, after: seen.append((before[0] != after).float().mean())
    )
    model.train()(x)
    model.eval()(x)
    assert seen[0] > 0
    assert seen[1] == 0


@pytest.mark.parametrize(
    ("spectrogram", "expected"),
    [
        ([0.0, -40.0, -80.0, -200.0], [1.0, 0.5, 0.0, 0.0]),
        ([30.0, 10.0, -10.0, -30.0], [1.0, 0.75, 0.5, 0.25]),
        ([-100.0, -100.0, -100.0, -100.0], [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_normalise_db(spectrogram: list[float], expected: list[float]) -> None:
    result = normalise_db(torch.tensor(spectrogram).view(1, 2, 2))
    torch.testing.assert_close(result.flatten(), torch.tensor(expected))


def test_delta_is_the_slope_of_a_nine_point_line() -> None:
    signal = np.random.default_rng(0).normal(size=(2, 3, 40))
    # What librosa.feature.delta calls, in the mode that repeats the edges.
    expected = savgol_filter(signal, 9, polyorder=1, deriv=1, axis=2, mode="nearest")
    np.testing.assert_allclose(delta(torch.from_numpy(signal)).numpy(), expected, atol=1e-12)


def test_standardise() -> None:
    x = torch.stack((torch.randn(50) * 7 + 3, torch.full((50,), 5.0)))[None]
    result = standardise(x)
    torch.testing.assert_close(result.mean(dim=2), torch.zeros(1, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std(dim=2, correction=0)[0, 0], torch.tensor(1.0))
    assert torch.equal(result[0, 1], torch.zeros(50))
