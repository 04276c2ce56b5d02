"""A frozen network gives the answers of the one it was made of, which stays as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pulmofuse.models import BACKBONES, Classifier, ImageClassifier, build_backbone
from pulmofuse.models.frozen import frozen

SIZE = 32


def _model(name: str) -> Classifier:
    """A backbone whose normalisations have seen data, so that they scale and shift."""
    torch.manual_seed(0)
    model = ImageClassifier(build_backbone(name, "none"), 3, 0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_answers_are_the_same_but_for_rounding(name: str) -> None:
    model = _model(name)
    x = torch.rand(2, 1, SIZE, SIZE)
    with torch.inference_mode():
        expected = model.eval()(x)
        torch.testing.assert_close(frozen(model)(x), expected, rtol=1e-3, atol=1e-4)
        # The model itself was not touched.
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)


def test_the_normalisations_of_an_efficientnet_are_gone_from_the_copy_only() -> None:
    model = _model("efficientnet_lite0").train()
    copy = frozen(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not copy.training
