"""Training on bags: the attention finds the one slice that tells, and a killed run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from pulmofuse.config import TrainingConfig
from pulmofuse.models import Classifier, Inferred, infer_records
from pulmofuse.preprocessing import to_tensor
from pulmofuse.training import BagSource, VolumeSource, class_weights, fit

CONFIG = TrainingConfig(
    epochs=12, batch_size=16, lr_backbone=0.01, lr_head=0.02, patience=12, precision="fp32"
)


class TinyNet(Classifier):
    """Sixteen filters and their mean."""

    def __init__(self) -> None:
        super().__init__(16, 2, 0.1)
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())

    def feature_map(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class Bags:
    """Noise slices; in a bag of class 1 one of them has a bright square."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.y = np.arange(n) % 2
        self.counts = rng.integers(4, 11, n)
        self.starts = np.cumsum(self.counts) - self.counts
        self.slices = rng.integers(0, 120, (self.counts.sum(), 12, 12), dtype=np.uint8)
        # The mean of a bag tells little: bags are of different brightness.
        self.slices += np.repeat(rng.integers(0, 30, n), self.counts).astype(np.uint8)[
            :, None, None
        ]
        self.bright = self.starts + rng.integers(0, self.counts)
        self.slices[self.bright[self.y == 1], 4:8, 4:8] = 220

    def source(self) -> BagSource:
        return BagSource(self.slices, np.arange(len(self.slices)), self.counts, self.y)

    def infer(self, model: Classifier) -> Inferred:
        return infer_records(model, self.slices, np.arange(len(self.slices)), self.counts)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def _train(
    folder: Path, config: TrainingConfig = CONFIG, kill_at: int | None = None
) -> tuple[Classifier, pd.DataFrame]:
    def progress(done: int, total: int, note: str) -> None:
        if done == kill_at:
            raise Killed

    torch.manual_seed(3)
    model = TinyNet()
    model.attend_to_instances(8)
    train, val = Bags(160, seed=1).source(), Bags(60, seed=2).source()
    history = fit(
        model,
        train,
        val,
        config=config,
        class_weights=class_weights(train.targets.y, 2),
        seed=11,
        folder=folder,
        augment=nn.Dropout(0.05),
        progress=progress,
    )
    return model, history


def test_attention_finds_the_slice_that_tells(tmp_path: Path) -> None:
    model, _ = _train(tmp_path)
    test = Bags(100, seed=3)
    seen = test.infer(model)
    assert roc_auc_score(test.y, seen.p[:, 1]) > 0.95
    assert seen.attention is not None
    bags = np.split(seen.attention, test.starts[1:])
    found = np.array([bag.argmax() for bag in bags]) + test.starts == test.bright
    assert found[test.y == 1].mean() > 0.9
    assert np.array([bag.sum() for bag in bags]) == pytest.approx(1.0)


def test_a_killed_run_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 3})
    straight, expected = _train(tmp_path / "a", config)
    for kill_at in (4, 15):
        with pytest.raises(Killed):
            _train(tmp_path / "b", config, kill_at)
    resumed, history = _train(tmp_path / "b", config)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    columns = ["train_loss", "val_loss", "val_auc"]
    pd.testing.assert_frame_equal(history[columns], expected[columns])


def test_a_batch_holds_the_instances_of_its_bags_and_what_is_known_of_them() -> None:
    instances = np.arange(10, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    rows, counts = np.array([9, 0, 1, 4, 5, 6]), np.array([1, 2, 3])
    source = BagSource(instances, rows, counts, np.array([1, 0, 1]), site=np.array([7, 8, 9]))
    assert len(source) == 3
    assert source.mean_size == pytest.approx(2.0)
    (x, sizes), targets = source[[2, 0]]
    assert torch.equal(x, to_tensor(instances[[4, 5, 6, 9]]))
    assert sizes.tolist() == [3, 1]
    assert targets.y.tolist() == [1, 1]
    assert targets.site is not None
    assert targets.site.tolist() == [9, 7]


def test_a_batch_of_volumes_has_one_row_for_each_record() -> None:
    instances = np.random.default_rng(0).integers(0, 255, (6, 4, 4), dtype=np.uint8)
    source = VolumeSource(
        instances, np.arange(6), np.array([1, 2, 3]), np.array([1, 0, 1]), depth=3
    )
    (x,), targets = source[[2, 0]]
    torch.testing.assert_close(x[0], to_tensor(instances[3:]).squeeze(1))
    torch.testing.assert_close(x[1], to_tensor(instances[[0, 0, 0]]).squeeze(1))
    assert targets.y.tolist() == [1, 1]
