"""An ensemble: the mean of its members' probabilities, and a classifier like any other."""

from __future__ import annotations

import pytest
import torch

from pulmofuse.config import CoughConfig, CoughModelConfig, CoughPreprocessing
from pulmofuse.inference.explain import grad_cam
from pulmofuse.models import (
    Classifier,
    Ensemble,
    ImageClassifier,
    build_audio_model,
    build_backbone,
    frozen,
)


def images() -> tuple[list[Classifier], torch.Tensor]:
    torch.manual_seed(0)
    members = [ImageClassifier(build_backbone("resnet18", "none"), 3, 0.2) for _ in range(3)]
    return list(members), torch.rand(4, 1, 32, 32)


def sounds() -> tuple[list[Classifier], torch.Tensor]:
    """Members whose pooling has weights of its own."""
    torch.manual_seed(0)
    config = CoughConfig(
        preprocessing=CoughPreprocessing(duration_s=0.5),
        model=CoughModelConfig(architecture="mfcc_lstm", hidden=8),
    )
    return [build_audio_model(config, 3) for _ in range(3)], torch.randn(4, 8000) * 0.1


@pytest.mark.parametrize("build", [images, sounds])
@torch.no_grad()
def test_probabilities_are_the_mean_of_the_members(build: object) -> None:
    members, x = build()  # type: ignore[operator]
    ensemble = Ensemble(members).eval()
    expected = torch.stack([member(x).softmax(dim=1) for member in members]).mean(dim=0)
    torch.testing.assert_close(ensemble(x).softmax(dim=1), expected)
    torch.testing.assert_close(frozen(ensemble)(x).softmax(dim=1), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ensemble(x).exp(), expected)
    features = torch.cat([member.features(x) for member in members], dim=1)
    torch.testing.assert_close(ensemble.features(x), features)
    assert ensemble.feature_dim == features.shape[1]


@pytest.mark.parametrize("build", [images, sounds])
def test_stages_hold_every_parameter_once(build: object) -> None:
    members, _ = build()  # type: ignore[operator]
    ensemble = Ensemble(members)
    held = [p for stage in ensemble.stages() for module in stage for p in module.parameters()]
    assert sorted(map(id, held)) == sorted(map(id, ensemble.parameters()))
    assert len(ensemble.stages()) == len(members[0].stages())


def test_of_equal_members_the_class_activation_map_is_that_of_one() -> None:
    members, x = images()
    twins = Ensemble([members[0], members[0]])
    expected = grad_cam(members[0], x[:1], 1)
    torch.testing.assert_close(grad_cam(twins, x[:1], 1), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_members_that_are_certain_of_different_things_leave_no_infinite_logits() -> None:
    members, x = images()
    for i, member in enumerate(members):
        member.head[1].bias.copy_(torch.eye(3)[i] * 1000)  # type: ignore[index, operator]
    p = Ensemble(members).eval()(x).softmax(dim=1)
    torch.testing.assert_close(p, torch.full((4, 3), 1 / 3), atol=1e-4, rtol=0)
