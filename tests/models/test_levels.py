"""Pooling over several depths: the moments are those of the maps, whatever the backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pulmofuse.config import CtConfig, CtModelConfig
from pulmofuse.models import BACKBONES, ImageClassifier, build_backbone, build_ct_model, frozen
from pulmofuse.models.levels import join_levels, pool_levels


def test_pooled_levels_are_means_and_deviations_over_all_places() -> None:
    rng = np.random.default_rng(3)
    fine, middle, coarse = (
        rng.normal(1.5, 2.0, (2, c, side, side)).astype(np.float32)
        for c, side in ((3, 16), (5, 8), (7, 4))
    )
    joined = join_levels([torch.from_numpy(m) for m in (fine, middle, coarse)])
    pooled = pool_levels(joined, [3, 5, 7]).numpy()
    assert joined.shape == (2, 7 + 2 * 3 + 2 * 5, 4, 4)
    expected = [coarse.mean(axis=(2, 3))]
    for level in (fine, middle):
        expected += [level.mean(axis=(2, 3)), level.std(axis=(2, 3))]
    assert pooled == pytest.approx(np.concatenate(expected, axis=1), abs=1e-5)


def test_a_constant_map_has_a_finite_gradient() -> None:
    level = torch.full((1, 2, 8, 8), 3.0, requires_grad=True)
    joined = join_levels([level, torch.ones(1, 1, 2, 2)])
    pool_levels(joined, [2, 1]).sum().backward()
    assert level.grad is not None
    assert torch.isfinite(level.grad).all()


@pytest.mark.parametrize("name", BACKBONES)
def test_levels_end_with_the_feature_map(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, "none").eval()
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        levels = backbone.levels(x)
        torch.testing.assert_close(levels[-1], backbone(x))
    assert len(levels) >= 3
    assert [level.shape[1] for level in levels] == backbone.level_channels()
    assert [level.shape[2] for level in levels] == sorted(
        (level.shape[2] for level in levels), reverse=True
    )


def test_a_model_with_levels_trains_and_freezes_like_any_other() -> None:
    torch.manual_seed(0)
    model_config = CtModelConfig(backbone="resnet18", weights="none", pooling="levels")
    model = build_ct_model(CtConfig(model=model_config), 2)
    assert isinstance(model, ImageClassifier)
    x = torch.rand(4, 1, 64, 64)
    model.train()(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(frozen(model)(x), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.classify(model.pool(model.feature_map(x))), expected)
