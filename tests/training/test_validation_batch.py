"""Validation takes no more rows at once than a person's training batches let expect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pulmofuse.config import TrainingConfig
from pulmofuse.training import InstanceSource, fit
from tests.training.test_fit import TinyNet


@pytest.mark.parametrize(("batch_size", "most"), [(3, 6), (48, 64)])
def test_validation_batches_follow_the_training_batch(
    batch_size: int, most: int, tmp_path: Path
) -> None:
    seen: list[int] = []

    class Watched(TinyNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.training:
                seen.append(len(x))
            return super().forward(x)

    images = np.random.default_rng(0).integers(0, 256, (150, 8, 8), dtype=np.uint8)
    rows, y = np.arange(150), np.arange(150) % 2
    fit(
        Watched(),
        InstanceSource(images, rows[:50], y[:50]),
        InstanceSource(images, rows[50:], y[50:]),
        config=TrainingConfig(epochs=1, batch_size=batch_size),
        class_weights=torch.ones(2),
        seed=0,
        folder=tmp_path,
    )
    assert sum(seen) == 100
    assert max(seen) == most
