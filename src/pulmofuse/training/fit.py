"""Train one model, or go on where a killed run stopped."""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from pulmofuse.config import TrainingConfig
from pulmofuse.errors import StudyError
from pulmofuse.files import write_csv
from pulmofuse.training.checkpoint import BEST, LAST, SafetensorsCheckpoint, load
from pulmofuse.training.data import (
    BatchSource,
    EpochBatches,
    OrderedBatches,
    Targets,
    Weighted,
    loader,
)
from pulmofuse.training.module import TrainingModule
from pulmofuse.training.sampling import balanced_cells

#: Called with (steps done, steps in all, a short note such as "epoch 3/18, val AUC .842").
Progress = Callable[[int, int, str], None]

_AVERAGE_PREFIX = "average."
#: Validation keeps no gradients, so that twice the training batch needs less memory than training.
_VALIDATION_BATCH, _VALIDATION_FACTOR = 64, 2


def fit(
    model: nn.Module,
    train: BatchSource,
    val: BatchSource,
    *,
    config: TrainingConfig,
    class_weights: torch.Tensor,
    seed: int,
    folder: Path,
    augment: nn.Module | None = None,
    auxiliary: Sequence[nn.Module] = (),
    progress: Progress | None = None,
    devices: int = 1,
) -> pd.DataFrame:
    """Train `model` and leave in it the averaged weights of the epoch with the best validation AUC.

    If `folder` holds the checkpoint of an unfinished run, training goes on from its last epoch;
    if it holds a finished one, the weights are only loaded.

    Args:
        model: a `Staged` module; changed in place.
        train: rows to learn from.
        val: rows to choose the epoch on.
        config: optimisation settings.
        class_weights: (classes,) weights of the loss.
        seed: decides batch order, augmentation and dropout.
        folder: takes `last.safetensors`, `best.safetensors`, `history.csv` and TensorBoard logs.
        augment: batch augmentation, on the first input.
        auxiliary: further losses on the features; see `TrainingModule`.
        progress: told of every step.
        devices: GPUs, or processes on a machine without one, that share every batch. More than
            one are processes that each run the calling program and make the same call; start them
            with `python -m torch.distributed.run --nproc-per-node <devices>`. Files are written
            by the first alone.

    Returns:
        History with the columns epoch, train_loss, val_loss, val_auc, lr, seconds.

    Raises:
        StudyError: the epoch cannot be chosen as `config.choose_epoch` says.
    """
    check_epoch_choice(config, val.targets)
    folder.mkdir(parents=True, exist_ok=True)
    module = TrainingModule(model, config, class_weights, seed, augment, auxiliary)
    module.to(memory_format=torch.channels_last)
    done, finished = _state(folder, config)
    if not finished:
        history = History(folder / "history.csv", config.patience)
        with _quiet_lightning(), _interruptible():
            trainer = _trainer(folder, config, history, progress, devices)
            drawn = train if isinstance(train, Weighted) else None
            batches = EpochBatches(
                len(train) if drawn is None else drawn.epoch_rows,
                config.batch_size,
                seed,
                epoch=done,
                cells=_cells(train, config),
                weights=None if drawn is None else drawn.weights,
                rank=trainer.global_rank,
                ranks=trainer.world_size,
            )
            trainer.fit(
                module,
                loader(train, batches),
                loader(val, OrderedBatches(len(val), _validation_batch(config.batch_size))),
                ckpt_path=str(folder / LAST) if done else None,
                weights_only=False,
            )
    return load_best(model, folder)


def check_epoch_choice(config: TrainingConfig, val: Targets) -> None:
    """Make sure that `config.choose_epoch` can be computed on validation.

    Args:
        config: optimisation settings.
        val: of all validation rows.

    Raises:
        StudyError: records are to be compared inside their sites, and no site has two classes.
    """
    if config.choose_epoch != "auc_within_site":
        return
    if val.site is not None:
        known = val.site >= 0
        cells = set(zip(val.site[known].tolist(), val.y[known].tolist(), strict=True))
        if len(cells) > len({site for site, _ in cells}):
            return
    raise StudyError(
        "choose_epoch auc_within_site",
        "no site has validation records of two classes, so none can be compared inside their site",
        "set `choose_epoch` to auc, or add data of several classes from one site",
    )


def _cells(train: BatchSource, config: TrainingConfig) -> np.ndarray | None:
    """What `config.sampling` balances."""
    if config.sampling == "shuffled":
        return None
    y, site = train.targets.y, train.targets.site
    return balanced_cells(config.sampling, y.numpy(), None if site is None else site.numpy())


def _validation_batch(batch_size: int) -> int:
    """Rows that are validated at a time: small where a person chose small training batches."""
    return min(_VALIDATION_BATCH, _VALIDATION_FACTOR * batch_size)


def is_finished(folder: Path, config: TrainingConfig) -> bool:
    """True where `folder` holds a run that reached its last epoch or stopped early."""
    return _state(folder, config)[1]


def load_best(model: nn.Module, folder: Path) -> pd.DataFrame:
    """Put the averaged weights of a run's best epoch into `model` and return its history."""
    weights = load(folder / BEST)["state_dict"]
    model.load_state_dict(
        {
            name.removeprefix(_AVERAGE_PREFIX): value
            for name, value in weights.items()
            if name.startswith(_AVERAGE_PREFIX)
        }
    )
    model.cpu().eval()
    return pd.read_csv(folder / "history.csv")


class History(Callback):
    """Rows of the training curve, kept in the checkpoint and written as CSV after every epoch."""

    def __init__(self, path: Path, patience: int) -> None:
        self._path = path
        self._patience = patience
        self._rows: list[dict[str, float]] = []
        self._started = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock of an epoch."""
        del trainer, pl_module, batch
        if batch_idx == 0:
            self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add this epoch and write the file."""
        del pl_module
        metrics = trainer.callback_metrics
        self._rows.append(
            {
                "epoch": trainer.current_epoch,
                "train_loss": float(metrics["train_loss"]),
                "val_loss": float(metrics["val_loss"]),
                "val_auc": float(metrics["val_auc"]),
                "lr": trainer.optimizers[0].param_groups[-1]["lr"],
                "seconds": round(time.perf_counter() - self._started, 3),
            }
        )
        if trainer.is_global_zero:
            write_csv(self._path, pd.DataFrame(self._rows))

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, for the checkpoint."""
        return {"rows": list(self._rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows of the run that is resumed."""
        self._rows = list(state_dict["rows"])


class _StepProgress(Callback):
    """Passes each step on to the study's progress display."""

    def __init__(self, report: Progress) -> None:
        self._report = report

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        del pl_module
        auc = trainer.callback_metrics.get("val_auc")
        note = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        if auc is not None:
            note += f", val AUC {float(auc):.3f}"
        if not trainer.is_global_zero:
            return
        self._report(trainer.global_step, int(trainer.estimated_stepping_batches), note)


def _trainer(
    folder: Path,
    config: TrainingConfig,
    history: History,
    progress: Progress | None,
    devices: int,
) -> pl.Trainer:
    """A Lightning trainer whose files are ours and whose messages stay out of the terminal."""
    best = ModelCheckpoint(
        folder,
        filename=Path(BEST).stem,
        monitor="val_auc",
        mode="max",
        save_weights_only=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        folder,
        filename=Path(LAST).stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    best.FILE_EXTENSION = last.FILE_EXTENSION = Path(LAST).suffix
    callbacks: list[Callback] = [
        history,
        EarlyStopping(
            "val_auc", mode="max", patience=config.patience, check_on_train_epoch_end=True
        ),
        best,
        last,
    ]
    if progress is not None:
        callbacks.append(_StepProgress(progress))
    # What thaws later takes no part in the first epochs, which DDP must be told to expect.
    ddp = "ddp_find_unused_parameters_true" if config.trainable == "gradual" else "ddp"
    return pl.Trainer(
        devices=devices,
        strategy=ddp if devices > 1 else "auto",
        max_epochs=config.epochs,
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        accumulate_grad_batches=config.accumulate,
        callbacks=callbacks,
        plugins=[SafetensorsCheckpoint()],
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _state(folder: Path, config: TrainingConfig) -> tuple[int, bool]:
    """Epochs done by the run in a folder, and whether it was at its end."""
    if not ((folder / LAST).exists() and (folder / BEST).exists()):
        return 0, False
    callbacks = load(folder / LAST)["callbacks"].values()
    done = len(next(state["rows"] for state in callbacks if "rows" in state))
    stopper = next(state for state in callbacks if "wait_count" in state)
    return done, done >= config.epochs or stopper["wait_count"] >= stopper["patience"]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl+C through: Lightning turns it into exit code 1 and ignores the next one."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice (hardware, workers, paid add-ons) away from the user."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", module=r"torchmetrics\..*")
        warnings.filterwarnings("ignore", message=r".*lr_scheduler.step.*")
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
