"""Remembered features: the same answers, each network and each instance run once."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pulmofuse.config import (
    CoughConfig,
    CoughModelConfig,
    CoughPreprocessing,
    CtConfig,
    CtModelConfig,
    TestTimeViews,
)
from pulmofuse.models import (
    Classifier,
    Ensemble,
    backbones,
    build_audio_model,
    build_ct_model,
    infer_records,
    remember_features,
)


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    config = CtConfig(model=CtModelConfig(backbone="resnet18", weights="none"))
    return build_ct_model(config, 2).eval()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (6, 32, 32), dtype=np.uint8)


def _count(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    plain = model.feature_map
    monkeypatch.setattr(model, "feature_map", lambda x: (seen.append(len(x)), plain(x))[1])
    return seen


def test_answers_are_those_of_the_network_and_it_runs_once(
    model: Classifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, ones = np.array([0, 3, 1, 3]), np.ones(4, dtype=np.int64)
    expected = infer_records(model, images, rows, ones)
    seen = _count(model, monkeypatch)
    with remember_features():
        infer_records(model, images, np.arange(4), ones)
        found = infer_records(model, images, rows, ones)
        infer_records(model, images, np.arange(6), np.ones(6, dtype=np.int64))
    np.testing.assert_allclose(found.p, expected.p, atol=1e-6)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-5)
    assert seen == [4, 2]


def test_another_network_is_asked_anew_and_another_head_is_not(
    model: Classifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, ones = np.arange(6), np.ones(6, dtype=np.int64)
    seen = _count(model, monkeypatch)
    with remember_features():
        first = infer_records(model, images, rows, ones)
        torch.nn.init.normal_(model.head[-1].weight)
        head = infer_records(model, images, rows, ones)
        assert seen == [6]
        assert not np.allclose(head.p, first.p)
        with torch.no_grad():
            next(model.backbone.parameters()).mul_(1.5)
        changed = infer_records(model, images, rows, ones)
    assert seen == [6, 6]
    assert not np.allclose(changed.features, first.features)


def test_nothing_is_remembered_outside(
    model: Classifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _count(model, monkeypatch)
    with remember_features():
        infer_records(model, images, np.arange(2), np.ones(2, dtype=np.int64))
    for _ in range(2):
        infer_records(model, images, np.arange(2), np.ones(2, dtype=np.int64))
    assert seen == [2, 2, 2]


def _built(**settings: object) -> Classifier:
    torch.manual_seed(0)
    model = CtModelConfig(backbone="resnet18", weights="none")
    return build_ct_model(CtConfig(model=model, **settings), 2).eval()  # type: ignore[arg-type]


def _normalised(mean: float) -> Classifier:
    entry = replace(backbones.BACKBONES["resnet18"], mean=mean)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "resnet18", entry)
        return _built()


def _listening(hop_length: int) -> Classifier:
    torch.manual_seed(0)
    config = CoughConfig(
        preprocessing=CoughPreprocessing(duration_s=0.5, hop_length=hop_length),
        model=CoughModelConfig(architecture="mfcc_lstm", hidden=4),
    )
    return build_audio_model(config, 2).eval()


def _hearing(f_max_hz: float) -> Classifier:
    torch.manual_seed(0)
    config = CoughConfig(
        preprocessing=CoughPreprocessing(duration_s=0.5, f_max_hz=f_max_hz),
        model=CoughModelConfig(architecture="mfcc_lstm", hidden=4),
    )
    return build_audio_model(config, 2).eval()


@pytest.mark.parametrize(
    ("build", "one", "other"),
    [
        (lambda tta: _built(tta=tta), TestTimeViews(), TestTimeViews(zooms=(1.0, 1.25))),
        (_normalised, 0.449, 0.2),
        (_listening, 160, 200),
        (_hearing, 8000.0, 4000.0),
    ],
    ids=["views", "normalisation", "hop", "filters"],
)
def test_the_same_numbers_under_other_settings_are_another_network(
    build: object, one: object, other: object, images: np.ndarray
) -> None:
    first, second = build(one), build(other)  # type: ignore[operator]
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    sounds = np.random.default_rng(0).integers(-9000, 9000, (6, 8000), dtype=np.int16)
    instances = images if first.feature_dim == 512 else sounds
    rows, ones = np.arange(6), np.ones(6, dtype=np.int64)
    expected = infer_records(second, instances, rows, ones).features
    with remember_features():
        before = infer_records(first, instances, rows, ones).features
        found = infer_records(second, instances, rows, ones).features
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(found, before, atol=1e-4)


def test_an_ensemble_is_remembered_without_the_heads_of_its_members(
    model: Classifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = Ensemble([model, copy.deepcopy(model)]).eval()
    rows, ones = np.arange(6), np.ones(6, dtype=np.int64)
    expected = infer_records(ensemble, images, rows, ones)
    seen = _count(ensemble, monkeypatch)
    with remember_features():
        found = infer_records(ensemble, images, rows, ones)
        for member in ensemble.each():
            torch.nn.init.normal_(member.head[-1].weight)
        again = infer_records(ensemble, images, rows, ones)
    np.testing.assert_allclose(found.p, expected.p, atol=1e-6)
    np.testing.assert_allclose(again.features, expected.features, atol=1e-5)
    assert not np.allclose(again.p, expected.p)
    assert seen == [6]
