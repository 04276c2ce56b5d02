"""Mixup and CutMix: what is mixed, in which shares, and what the loss makes of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from pulmofuse.config import TrainingConfig
from pulmofuse.training import Targets
from pulmofuse.training.mixing import draw_mixture
from pulmofuse.training.module import TrainingModule

SHAPES = [(6, 1, 20, 24), (6, 500)]


def _numbered(shape: tuple[int, ...]) -> torch.Tensor:
    """A batch whose row i holds nothing but i."""
    return torch.arange(float(shape[0])).view(-1, *[1] * (len(shape) - 1)).expand(shape).clone()


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_mixup_blends_each_row_with_its_partner(shape: tuple[int, ...], seed: int) -> None:
    torch.manual_seed(seed)
    mixed = draw_mixture(_numbered(shape), mixup=0.4, cutmix=0.0)
    own, other = torch.arange(6.0), mixed.partner.float()
    expected = mixed.share * own + (1 - mixed.share) * other
    assert sorted(mixed.partner.tolist()) == list(range(6))
    assert torch.allclose(mixed.inputs.flatten(1).amin(1), expected, atol=1e-5)
    assert torch.allclose(mixed.inputs.flatten(1).amax(1), expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_cutmix_takes_the_stated_share_of_places_from_the_partner(
    shape: tuple[int, ...], seed: int
) -> None:
    torch.manual_seed(seed)
    mixed = draw_mixture(_numbered(shape), mixup=0.0, cutmix=1.0)
    for row, partner in enumerate(mixed.partner.tolist()):
        values = mixed.inputs[row]
        assert set(values.unique().tolist()) <= {row, partner}
        if partner != row:
            assert float((values == row).float().mean()) == pytest.approx(mixed.share, abs=1e-6)


def test_with_both_on_either_is_drawn() -> None:
    torch.manual_seed(0)
    draws = [draw_mixture(_numbered(SHAPES[0]), 0.4, 1.0).inputs for _ in range(40)]
    # Only a blend gives values that are no whole row numbers.
    blended = sum(bool((inputs != inputs.round()).any()) for inputs in draws)
    assert 8 < blended < 32


def test_the_loss_of_a_mixture_is_that_of_both_labels_by_their_shares() -> None:
    class Linear(torch.nn.Linear):
        def stages(self) -> list[list[torch.nn.Module]]:
            return [[self]]

    config = TrainingConfig(mixup=1.0, label_smoothing=0.0)
    module = TrainingModule(Linear(5, 3), config, torch.ones(3), seed=1)
    inputs, y = torch.randn(8, 5), torch.randint(0, 3, (8,))
    mixed = draw_mixture(inputs, 1.0, 0.0)
    logits = module.model(mixed.inputs)
    soft = torch.zeros(8, 3)
    soft[torch.arange(8), y] += mixed.share
    soft[torch.arange(8), y[mixed.partner]] += 1 - mixed.share
    loss = module._training_loss((mixed.inputs,), Targets(y), mixed)
    assert float(loss) == pytest.approx(float(cross_entropy(logits, soft)), rel=1e-5)
