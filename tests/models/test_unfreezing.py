"""Transfer learning: what is frozen stays bit for bit, and thaws by a plan of epochs alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pulmofuse.config import TrainingConfig
from pulmofuse.errors import ConfigError
from pulmofuse.models import check_stages
from pulmofuse.models.unfreezing import first_trained, learning_groups
from pulmofuse.training import InstanceSource, fit
from pulmofuse.training.checkpoint import load
from pulmofuse.training.module import TrainingModule, lay_out_state

CONFIG = TrainingConfig(epochs=4, batch_size=16, lr_backbone=0.01, lr_head=0.02, precision="fp32")


class Deep(nn.Module):
    """Three stages with batch normalisation and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.1))
            for i in (1, 4, 4)
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x.mean(dim=(2, 3)))

    def stages(self) -> list[list[nn.Module]]:
        return [*([block] for block in self.blocks), [self.head]]


class Killed(BaseException):
    """Stands for SIGKILL."""


def sources() -> tuple[InstanceSource, InstanceSource]:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 96)
    images = (rng.random((96, 8, 8)) * 120 + 90 * y[:, None, None]).astype(np.uint8)
    rows = np.arange(96)
    return InstanceSource(images, rows[:64], y[:64]), InstanceSource(images, rows[64:], y[64:])


def train(
    folder: Path, kill_at: int | None = None, **settings: object
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The state after the last epoch, averaged weights included, and the one at the start."""

    def progress(done: int, total: int, note: str) -> None:
        if done == kill_at:
            raise Killed

    torch.manual_seed(1)
    model = Deep()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = CONFIG.model_copy(update=settings)
    weights = torch.ones(2)
    fit(
        model,
        *sources(),
        config=config,
        class_weights=weights,
        seed=5,
        folder=folder,
        progress=progress,
    )
    return load(folder / "last.safetensors")["state_dict"], before


def changed(after: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> set[str]:
    """Names of what moved, in the weights and in their average alike."""
    model, average = (
        {n for n, value in before.items() if not torch.equal(after[f"{part}.{n}"], value)}
        for part in ("model", "average")
    )
    assert model == average
    return model


def test_a_linear_probe_changes_nothing_but_the_head(tmp_path: Path) -> None:
    after, before = train(tmp_path, trainable="head")
    assert changed(after, before) == {"head.weight", "head.bias"}


def test_frozen_stages_stay_with_their_batch_statistics_and_others_move(tmp_path: Path) -> None:
    after, before = train(tmp_path, frozen_stages=2)
    moved = changed(after, before)
    assert all(not name.startswith(("blocks.0", "blocks.1")) for name in moved)
    assert {n for n in before if n.startswith(("blocks.2", "head"))} == moved


def test_gradual_unfreezing_has_everything_trained_in_the_end_and_not_before(
    tmp_path: Path,
) -> None:
    after, before = train(tmp_path / "a", trainable="gradual", unfreeze_epochs=3)
    assert changed(after, before) == set(before)
    after, before = train(tmp_path / "b", trainable="gradual", unfreeze_epochs=3, epochs=2)
    # The head in epoch 0, the third stage in epoch 1.
    assert not any(n.startswith(("blocks.0", "blocks.1")) for n in changed(after, before))
    assert "blocks.2.1.running_mean" in changed(after, before)


def test_a_killed_gradual_run_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    settings = {"trainable": "gradual", "unfreeze_epochs": 3, "sampling": "balanced"}
    straight, _ = train(tmp_path / "a", **settings)
    # Four steps an epoch: in the middle of the second, and at the end of the third.
    for kill_at in (6, 12):
        with pytest.raises(Killed):
            train(tmp_path / "b", kill_at, **settings)
    resumed, _ = train(tmp_path / "b", **settings)
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), name
    columns = ["epoch", "train_loss", "val_loss", "val_auc", "lr"]
    histories = [pd.read_csv(tmp_path / run / "history.csv")[columns] for run in "ab"]
    pd.testing.assert_frame_equal(*histories)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, 0, 0, 0, 0, 0]),
        ({"frozen_stages": 2}, [2, 2, 2, 2, 2, 2]),
        ({"trainable": "head"}, [5, 5, 5, 5, 5, 5]),
        ({"trainable": "gradual"}, [5, 4, 3, 2, 1, 0]),
        ({"trainable": "gradual", "unfreeze_epochs": 2}, [5, 3, 0, 0, 0, 0]),
        ({"trainable": "gradual", "frozen_stages": 3}, [5, 5, 5, 4, 4, 3]),
    ],
)
def test_lowest_stage_trained_in_each_epoch(
    settings: dict[str, object], expected: list[int]
) -> None:
    config = TrainingConfig.model_validate(settings)
    assert [first_trained(config, 6, epoch) for epoch in range(6)] == expected


def test_rates_fall_by_the_decay_from_stage_to_stage() -> None:
    model = Deep()
    config = CONFIG.model_copy(update={"layer_decay": 0.5, "frozen_stages": 1})
    extra = nn.Linear(4, 2)
    groups = learning_groups(model, config, extra.parameters())
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for stage, expected in zip(
        [*model.stages()[1:], [extra]], (0.005, 0.01, 0.02, 0.02), strict=True
    ):
        for p in (p for module in stage for p in module.parameters()):
            assert rate.pop(id(p)) == pytest.approx(expected)
            assert decay[id(p)] == (config.weight_decay if p.ndim > 1 else 0.0)
    assert not rate


def test_freezing_the_head_too_is_an_error_that_counts_the_stages() -> None:
    check_stages(Deep(), CONFIG.model_copy(update={"frozen_stages": 3}))
    with pytest.raises(ConfigError, match="3 stages below its head"):
        check_stages(Deep(), CONFIG.model_copy(update={"frozen_stages": 4}))


@pytest.mark.parametrize(
    ("settings", "first"), [({"trainable": "head"}, 3), ({"frozen_stages": 2}, 2)]
)
def test_nothing_is_computed_backwards_for_frozen_stages(
    settings: dict[str, object], first: int
) -> None:
    model = Deep()
    TrainingModule(model, CONFIG.model_copy(update=settings), torch.ones(2), seed=1).train()
    loss = model(torch.rand(4, 1, 8, 8)).sum()
    loss.backward()
    graded = [i for i, block in enumerate(model.blocks) if block[0].weight.grad is not None]
    assert graded == list(range(first, 3))
    assert [i for i, block in enumerate(model.blocks) if block.training] == graded


def test_the_fused_optimiser_moves_channels_last_weights_as_the_plain_one_does() -> None:
    # Fused kernels run through memory, so weights, gradients and moments must be laid out alike.
    moved = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = Deep().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.AdamW(learning_groups(model, CONFIG), fused=fused)
        for _ in range(2):
            x = torch.rand(4, 1, 8, 8).contiguous(memory_format=torch.channels_last)
            model(x).square().sum().backward()
            optimiser.step()
        stored = optimiser.state_dict()
        for state in stored["state"].values():
            state.update({name: value.contiguous() for name, value in state.items()})
        optimiser.load_state_dict(stored)
        lay_out_state(optimiser)
        optimiser.step()
        moved.append(model.state_dict())
    for name, value in moved[0].items():
        torch.testing.assert_close(value, moved[1][name], msg=name)
