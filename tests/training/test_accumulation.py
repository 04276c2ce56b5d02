"""Batches whose gradients are added up: they make one step of their rows, and each draws anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pulmofuse.config import TrainingConfig
from pulmofuse.training import InstanceSource, fit
from pulmofuse.training.checkpoint import load
from tests.training.distributed_script import Plain


@pytest.fixture(scope="module")
def source() -> InstanceSource:
    rng = np.random.default_rng(6)
    y = rng.integers(0, 3, 48)
    images = (rng.random((48, 9, 9)) * 100 + 70 * y[:, None, None]).astype(np.uint8)
    return InstanceSource(images, np.arange(48), y)


def _train(
    source: InstanceSource,
    folder: Path,
    batch_size: int,
    accumulate: int,
    augment: nn.Module | None = None,
) -> dict[str, Tensor]:
    """What a run of two epochs leaves: the weights, and their average."""
    torch.manual_seed(1)
    config = TrainingConfig(
        epochs=2,
        batch_size=batch_size,
        accumulate=accumulate,
        lr_backbone=0.01,
        lr_head=0.02,
        precision="fp32",
        patience=2,
    )
    fit(
        Plain(),
        source,
        source,
        config=config,
        class_weights=torch.ones(3),
        seed=2,
        folder=folder,
        augment=augment,
    )
    state: dict[str, Tensor] = load(folder / "last.safetensors")["state_dict"]
    return state


def test_half_batches_two_at_a_time_are_whole_batches(
    source: InstanceSource, tmp_path: Path
) -> None:
    whole = _train(source, tmp_path / "whole", 8, 1)
    halves = _train(source, tmp_path / "halves", 4, 2)
    assert {name.split(".")[0] for name in whole} >= {"model", "average"}
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, atol=1e-5, rtol=1e-4, msg=name)


class Draws(nn.Module):
    """Changes nothing and notes what the generator gives in each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(float(torch.rand((), dtype=torch.float64)))
        return x


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_every_batch_makes_draws_of_its_own(
    source: InstanceSource, tmp_path: Path, accumulate: int
) -> None:
    """With 5, the last step of an epoch has fewer batches than the others."""
    draws = Draws()
    _train(source, tmp_path, 4, accumulate, draws)
    assert len(draws.seen) == 24
    assert len(set(draws.seen)) == 24
