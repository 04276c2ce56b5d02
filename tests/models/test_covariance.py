"""Pooling by covariance: numpy's covariances, of each network by itself."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from pulmofuse.config import CtConfig, CtModelConfig, TestTimeViews, TrainingConfig
from pulmofuse.models import ImageClassifier, build_backbone, build_ct_model, frozen
from pulmofuse.models.covariance import covariance_features, pool_covariance


def ct_config(backbone: str, *, flip: bool = False) -> CtConfig:
    return CtConfig(
        model=CtModelConfig(backbone=backbone, weights="none", pooling="covariance"),
        tta=TestTimeViews(flip_horizontal=flip),
        training=TrainingConfig(trainable="head"),
    )


def test_features_are_signed_roots_of_numpys_covariances() -> None:
    channels = (3, 5)
    maps = np.random.default_rng(3).normal(1.5, 2.0, (2, 8, 6, 7)).astype(np.float32)
    maps[:, 1] -= maps[:, 0]  # some that are surely negative

    pooled = pool_covariance(torch.from_numpy(maps), channels).numpy()

    assert pooled.shape == (2, covariance_features(channels))
    for row, image in zip(pooled, maps, strict=True):
        expected = []
        for first, last in pairwise(np.cumsum((0, *channels))):
            places = image[first:last].reshape(last - first, -1)
            covariance = np.cov(places, bias=True)[np.triu_indices(last - first)]
            expected += list(np.sign(covariance) * np.sqrt(np.abs(covariance)))
        assert min(expected) < 0
        assert row == pytest.approx(np.array(expected), abs=1e-3)


def test_order_of_places_does_not_matter_and_brightness_neither() -> None:
    maps = torch.rand(1, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    pooled = pool_covariance(maps, [4])

    torch.testing.assert_close(pool_covariance(maps.flip(3) + 2.0, [4]), pooled, atol=1e-4, rtol=0)


def test_a_constant_map_has_a_finite_gradient() -> None:
    level = torch.full((1, 3, 4, 4), 2.0, requires_grad=True)
    pool_covariance(level, [3]).sum().backward()
    assert level.grad is not None
    assert torch.isfinite(level.grad).all()


@pytest.mark.parametrize("size", [64, 72])
def test_a_model_sees_the_maps_of_each_network_before_its_last(size: int) -> None:
    torch.manual_seed(0)
    model = build_ct_model(ct_config("resnet18+densenet121"), 2).eval()
    assert isinstance(model, ImageClassifier)
    x = torch.rand(2, 1, size, size)
    parts = [build_backbone(name, "none") for name in ("resnet18", "densenet121")]
    with torch.no_grad():
        seen = model.feature_map(x)
    channels = [part.level_channels()[-2] for part in parts]
    assert seen.shape == (2, sum(channels), -(-size // 16), -(-size // 16)) or (
        seen.shape == (2, sum(channels), size // 16, size // 16)
    )
    assert model.feature_dim == covariance_features(channels)


def test_a_model_classifies_and_freezes_like_any_other_and_only_its_head_learns() -> None:
    torch.manual_seed(0)
    model = build_ct_model(ct_config("efficientnet_lite0", flip=True), 2).eval()
    x = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(model(x.flip(3)), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(frozen(model)(x), expected, rtol=1e-3, atol=1e-3)
    model(x).sum().backward()
    assert all(p.grad is not None for head in model.heads() for p in head.parameters())
