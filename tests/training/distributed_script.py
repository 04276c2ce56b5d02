"""Trains a small model; run alone or as several processes by tests/training/test_distributed.py.

python distributed_script.py FOLDER DEVICES
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pulmofuse.config import TrainingConfig
from pulmofuse.training import InstanceSource, class_weights, fit


class Plain(nn.Module):
    """Without batch normalisation and dropout, so that only the rows of a batch decide."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).relu().mean(dim=(2, 3)))

    def stages(self) -> list[list[nn.Module]]:
        return [[self.stem], [self.head]]


def train(folder: Path, devices: int, trainable: str) -> Plain:
    """Uneven batches (15 of 54 rows, 9 in the last) of classes of unequal weight."""
    rng = np.random.default_rng(4)
    y = rng.choice(3, 80, p=[0.6, 0.3, 0.1])
    images = (rng.random((80, 9, 9)) * 100 + 70 * y[:, None, None]).astype(np.uint8)
    rows = np.arange(80)
    torch.manual_seed(0)
    model = Plain()
    fit(
        model,
        InstanceSource(images, rows[:54], y[:54]),
        InstanceSource(images, rows[54:], y[54:]),
        config=TrainingConfig(
            epochs=3,
            batch_size=15,
            lr_backbone=0.01,
            lr_head=0.02,
            precision="fp32",
            trainable=trainable,  # type: ignore[arg-type]
            unfreeze_epochs=1,
            patience=3,
        ),
        class_weights=class_weights(y[:54], 3),
        seed=9,
        folder=folder,
        devices=devices,
    )
    return model


def main() -> None:
    torch.set_num_threads(1)
    folder, devices = Path(sys.argv[1]), int(sys.argv[2])
    for trainable in ("all", "gradual"):
        model = train(folder / trainable, devices, trainable)
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        state = {name: value.tolist() for name, value in model.state_dict().items()}
        (folder / f"{trainable}-{rank}.json").write_text(json.dumps(state))


if __name__ == "__main__":
    main()
