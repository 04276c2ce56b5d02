"""Training: it learns, it stops, and a killed run ends where an undisturbed one does."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pulmofuse.config import TrainingConfig
from pulmofuse.training import InstanceSource, class_weights, fit, is_finished
from pulmofuse.training.data import EpochBatches, OrderedBatches
from pulmofuse.training.module import one_cycle

CONFIG = TrainingConfig(epochs=4, batch_size=16, lr_backbone=0.01, lr_head=0.01, patience=4)


class TinyNet(nn.Module):
    """A classifier with the parts that training must handle: BatchNorm, dropout, two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.stem(x).mean(dim=(2, 3))))

    def stages(self) -> list[list[nn.Module]]:
        return [[self.stem], [self.head]]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.fixture(scope="module")
def bright_and_dark() -> tuple[InstanceSource, InstanceSource]:
    """Two classes of noise images, one brighter: train and validation."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 120)
    images = (rng.random((120, 16, 16)) * 120 + 60 * y[:, None, None]).astype(np.uint8)
    rows = np.arange(120)
    return (
        InstanceSource(images, rows[:80], y[:80]),
        InstanceSource(images, rows[80:], y[80:]),
    )


def _train(
    sources: tuple[InstanceSource, InstanceSource],
    folder: Path,
    config: TrainingConfig = CONFIG,
    kill_at: int | None = None,
) -> tuple[TinyNet, pd.DataFrame]:
    def progress(done: int, total: int, note: str) -> None:
        if done == kill_at:
            raise Killed

    torch.manual_seed(3)
    model = TinyNet()
    history = fit(
        model,
        *sources,
        config=config,
        class_weights=class_weights(sources[0].targets.y, 2),
        seed=11,
        folder=folder,
        augment=nn.Dropout(0.1),
        progress=progress,
    )
    return model, history


def test_it_learns_a_plain_difference(
    bright_and_dark: tuple[InstanceSource, InstanceSource], tmp_path: Path
) -> None:
    _, history = _train(bright_and_dark, tmp_path)
    assert list(history.columns) == [
        "epoch", "train_loss", "val_loss", "val_auc", "lr", "seconds",
    ]  # fmt: skip
    assert history["val_auc"].iloc[-1] > 0.95
    assert len(history) == CONFIG.epochs


@pytest.mark.parametrize(
    ("precision", "accumulate", "kills"),
    [("bf16", 1, (2, 10, 13)), ("fp32", 1, (2, 10, 13)), ("fp32", 2, (2, 6, 8))],
)
def test_a_killed_run_ends_where_an_undisturbed_one_does(
    bright_and_dark: tuple[InstanceSource, InstanceSource],
    tmp_path: Path,
    precision: str,
    accumulate: int,
    kills: tuple[int, ...],
) -> None:
    config = CONFIG.model_copy(update={"precision": precision, "accumulate": accumulate})
    straight, expected = _train(bright_and_dark, tmp_path / "a", config)
    # Five batches an epoch: in the first epoch, at an epoch's last step, and in the middle of one.
    for kill_at in kills:
        with pytest.raises(Killed):
            _train(bright_and_dark, tmp_path / "b", config, kill_at)
    resumed, history = _train(bright_and_dark, tmp_path / "b", config)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    columns = ["epoch", "train_loss", "val_loss", "val_auc", "lr"]
    pd.testing.assert_frame_equal(history[columns], expected[columns])


def test_ctrl_c_stays_ctrl_c(
    bright_and_dark: tuple[InstanceSource, InstanceSource], tmp_path: Path
) -> None:
    def interrupted(done: int, total: int, note: str) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(
            TinyNet(),
            *bright_and_dark,
            config=CONFIG,
            class_weights=torch.ones(2),
            seed=1,
            folder=tmp_path,
            progress=interrupted,
        )
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_finished_run_is_only_loaded(
    bright_and_dark: tuple[InstanceSource, InstanceSource], tmp_path: Path
) -> None:
    first, _ = _train(bright_and_dark, tmp_path)
    again, _ = _train(bright_and_dark, tmp_path, kill_at=1)
    assert is_finished(tmp_path, CONFIG)
    assert torch.equal(first.head.weight, again.head.weight)


def test_it_stops_early_and_does_not_go_on_when_started_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 40)
    noise = rng.integers(0, 255, (80, 8, 8), dtype=np.uint8)
    same = np.full((80, 8, 8), 128, dtype=np.uint8)
    # Validation images that are all alike leave the AUC at .5 for ever.
    sources = (
        InstanceSource(noise, np.arange(80), y),
        InstanceSource(same, np.arange(80), y),
    )
    config = CONFIG.model_copy(update={"epochs": 20, "patience": 2})
    _, history = _train(sources, tmp_path, config)
    assert len(history) == 3
    _, again = _train(sources, tmp_path, config, kill_at=1)
    assert len(again) == 3


def test_no_file_of_a_run_is_a_pickle(
    bright_and_dark: tuple[InstanceSource, InstanceSource], tmp_path: Path
) -> None:
    _train(bright_and_dark, tmp_path, CONFIG.model_copy(update={"epochs": 1}))
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {"best.safetensors", "last.safetensors", "history.csv"}
    assert any((tmp_path / "tensorboard").iterdir())


def test_batches_of_an_epoch_are_a_permutation_that_depends_on_the_epoch() -> None:
    first, second = EpochBatches(50, 16, seed=1), EpochBatches(50, 16, seed=1, epoch=1)
    rows = [row for batch in first for row in batch]
    assert sorted(rows) == list(range(50))
    assert rows != [row for batch in second for row in batch]
    first.set_epoch(1)
    assert list(first) == list(second)


def test_a_last_batch_of_one_row_is_left_out() -> None:
    assert [len(batch) for batch in EpochBatches(33, 16, seed=1)] == [16, 16]
    assert [len(batch) for batch in OrderedBatches(33, 16)] == [16, 16, 1]


def test_class_weights_balance_the_classes() -> None:
    y = [0] * 30 + [1] * 10
    weights = class_weights(y, 3)
    assert weights.tolist() == pytest.approx([40 / 60, 40 / 20, 0.0])
    assert float(weights[y].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("total", [2, 5, 100])
def test_the_learning_rate_rises_to_its_peak_once_and_falls_to_nothing(total: int) -> None:
    rates = [one_cycle(step, total, warmup=0.2) for step in range(total + 1)]
    peak = int(np.argmax(rates))
    assert rates[peak] == pytest.approx(1.0)
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert rates[-1] < 1e-3
