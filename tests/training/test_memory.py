"""Remembered features: the same answers, each network and each instance run once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pulmofuse.config import CtConfig, CtModelConfig
from pulmofuse.models import Classifier, build_ct_model
from pulmofuse.training import infer_records, remember_features


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
