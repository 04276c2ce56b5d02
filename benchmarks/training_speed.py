"""Epoch time of `training.fit` against the plain loop that a user would write, side by side.

    python benchmarks/training_speed.py [--files 384]

Both train the same ResNet-18 on the same files (drawn X-rays of 512 to 1,024 px, half JPEG, half
PNG) at 224 px with a batch of 32, and validate on the same 32 after each epoch.

*Plain*: PIL opens and shrinks every file in every epoch, torch's DataLoader with 0 or 2 workers
(whichever was faster over a few batches), float32, NCHW, AdamW as torch gives it, no augmentation,
no averaged weights. *Ours*: `build_cache`, then `training.fit` as a study calls it, with its
augmentation, averaged weights, logs and checkpoints. Its first epoch includes making the cache.

Timers around the parts of `fit` say where a steady epoch (neither the first nor the last) goes.
Forward and backward are those of training and the forward of validation; what remains is "outside".
Writes benchmarks/results/training_speed.json.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from machine import facts, write
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pulmofuse.config import CxrConfig, CxrModelConfig, TrainingConfig
from pulmofuse.models import build_cxr_model
from pulmofuse.preprocessing import ImageAugment, build_cache
from pulmofuse.schema import Modality
from pulmofuse.sources.phantom import draw_cxr
from pulmofuse.training import InstanceSource, fit
from pulmofuse.training.checkpoint import SafetensorsCheckpoint
from pulmofuse.training.module import TrainingModule

CLASSES, BATCH, SIZE, N_VAL = 3, 32, 224, 32
PLAIN_EPOCHS, OUR_EPOCHS = 2, 4
TRIAL_BATCHES = 3
CONFIG = CxrConfig(model=CxrModelConfig(backbone="resnet18", weights="none"))


def make_files(folder: Path, n: int) -> tuple[list[str], np.ndarray]:
    """Write n pictures of 512 to 1,024 px and give each a class; returns names and classes."""
    rng = np.random.default_rng(0)
    drawn = [draw_cxr(rng, 1024, {}, female=bool(i % 2), coarse=False) for i in range(8)]
    names = []
    for i in range(n):
        side = int(rng.integers(512, 1025))
        grey = cv2.resize(drawn[i % len(drawn)], (side, side), interpolation=cv2.INTER_AREA)
        grey = cv2.add(grey, rng.integers(0, 12, grey.shape, dtype=np.uint8))
        names.append(f"{i:05d}.{'png' if i % 2 else 'jpg'}")
        cv2.imwrite(str(folder / names[-1]), grey)
    return names, np.arange(n) % CLASSES


class PlainDataset(Dataset[tuple[torch.Tensor, int]]):
    """Open, shrink, convert: what stands in most training scripts."""

    def __init__(self, paths: Sequence[Path], y: np.ndarray) -> None:
        self.paths, self.y = paths, y

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        """One picture (1, SIZE, SIZE) in [0, 1] and its class."""
        with Image.open(self.paths[i]) as picture:
            grey = picture.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(grey)).float().div(255).unsqueeze(0), int(self.y[i])


def plain(paths: Sequence[Path], y: np.ndarray) -> dict[str, Any]:
    """Seconds of each epoch of the plain loop, with the better number of workers."""
    torch.manual_seed(0)
    model = build_cxr_model(CONFIG, CLASSES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4)
    loss_of = nn.CrossEntropyLoss()

    def loader(part: slice, workers: int, *, shuffle: bool) -> DataLoader[Any]:
        data = PlainDataset(paths[part], y[part])
        return DataLoader(data, BATCH, shuffle=shuffle, num_workers=workers)

    def train(batches: Iterator[Any]) -> None:
        model.train()
        for images, classes in batches:
            optimizer.zero_grad()
            loss_of(model(images), classes).backward()
            optimizer.step()

    def epoch(workers: int) -> None:
        train(iter(loader(slice(N_VAL, None), workers, shuffle=True)))
        model.eval()
        with torch.no_grad():
            for images, _ in loader(slice(0, N_VAL), workers, shuffle=False):
                model(images)

    def trial(workers: int) -> None:
        batches = iter(loader(slice(N_VAL, None), workers, shuffle=True))
        train(itertools.islice(batches, TRIAL_BATCHES))

    trial(0)  # warm
    trials = {workers: seconds_of(trial, workers) for workers in (0, 2)}
    workers = min(trials, key=lambda count: trials[count])
    return {
        "workers": workers,
        "trial_s_by_workers": trials,
        "epoch_s": [seconds_of(epoch, workers) for _ in range(PLAIN_EPOCHS)],
    }


def seconds_of(work: Callable[[int], None], argument: int) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    work(argument)
    return round(time.perf_counter() - begin, 3)


class Clock:
    """Sums of seconds by name; what is timed inside another part is taken out of that part."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self._open: list[float] = []
        self.epochs: list[tuple[float, Counter[str]]] = []

    def tick(self) -> None:
        """A new epoch begins."""
        self.epochs.append((time.perf_counter(), self.sums.copy()))

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        begin = time.perf_counter()
        self._open.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - begin
            self.sums[name] += took - self._open.pop()
            if self._open:
                self._open[-1] += took

    def wrap(self, owner: Any, method: str, name: str) -> Any:
        """A patch under which `owner.method` is timed as `name`."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return original(*args, **kwargs)

        return patch.object(owner, method, timed)

    def steady(self) -> tuple[float, dict[str, float]]:
        """Mean seconds of an epoch that is neither first nor last, in all and by part."""
        (begin, before), (end, after) = self.epochs[1], self.epochs[-1]
        n = len(self.epochs) - 2
        parts = {k: round((after[k] - before[k]) / n, 4) for k in sorted(after)}
        whole = (end - begin) / n
        parts["lightning and the rest"] = round(whole - sum(parts.values()), 4)
        return whole, parts


FORWARD_BACKWARD = ("forward", "backward", "validation forward")


def ours(names: list[str], y: np.ndarray, folder: Path) -> dict[str, Any]:
    """Seconds of each epoch of `training.fit`, and the parts of a steady one."""
    clock = Clock()
    torch.manual_seed(0)
    model = build_cxr_model(CONFIG, CLASSES)
    begin = time.perf_counter()
    cache = build_cache(names, folder, Modality.CXR, CONFIG.preprocessing, folder / "cache")
    cache_s = time.perf_counter() - begin
    rows = cache.index["start"].to_numpy()
    forward = type(model).forward

    def timed_forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with clock.part("forward" if self.training else "validation forward"):
            return forward(self, x)

    def on_train_epoch_start(self: TrainingModule) -> None:
        del self
        clock.tick()

    with contextlib.ExitStack() as patches:
        for owner, method, name in (
            (InstanceSource, "__getitem__", "read batch"),
            (ImageAugment, "forward", "augmentation"),
            (TrainingModule, "training_step", "loss and logging"),
            (TrainingModule, "backward", "backward"),
            (TrainingModule, "validation_step", "validation, other than forward"),
            (TrainingModule, "on_validation_epoch_end", "validation, other than forward"),
            (TrainingModule, "on_train_batch_end", "averaged weights"),
            (TrainingModule, "configure_gradient_clipping", "gradient clipping"),
            (TrainingModule, "optimizer_zero_grad", "zero gradients"),
            (TrainingModule, "optimizer_step", "optimiser"),
            (SafetensorsCheckpoint, "save_checkpoint", "checkpoints"),
        ):
            patches.enter_context(clock.wrap(owner, method, name))
        patches.enter_context(patch.object(type(model), "forward", timed_forward))
        patches.enter_context(
            patch.object(TrainingModule, "on_train_epoch_start", on_train_epoch_start)
        )
        begin = time.perf_counter()
        history = fit(
            model,
            InstanceSource(cache.instances, rows[N_VAL:], y[N_VAL:]),
            InstanceSource(cache.instances, rows[:N_VAL], y[:N_VAL]),
            config=TrainingConfig(epochs=OUR_EPOCHS, batch_size=BATCH),
            class_weights=torch.ones(CLASSES),
            seed=0,
            folder=folder / "run",
            augment=ImageAugment(CONFIG.augmentation),
        )
        fit_s = time.perf_counter() - begin
    whole, parts = clock.steady()
    used = sum(parts.get(name, 0.0) for name in FORWARD_BACKWARD)
    return {
        "cache_s": round(cache_s, 3),
        "first_epoch_s": round(cache_s + clock.epochs[1][0] - begin, 3),
        "steady_epoch_s": round(whole, 3),
        "fit_s": round(fit_s, 3),
        "history_s": history["seconds"].tolist(),
        "parts_s": parts,
        "parts_share": {name: round(value / whole, 4) for name, value in parts.items()},
        "outside_forward_backward": round(1 - used / whole, 4),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=384, help="for training")
    arguments = parser.parse_args()
    machine = facts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names, y = make_files(folder, arguments.files + N_VAL)
        by_us = ours(names, y, folder)
        by_hand = plain([folder / n for n in names], y)
    results = {
        "model": "resnet18",
        "size": SIZE,
        "batch": BATCH,
        "train_files": arguments.files,
        "val_files": N_VAL,
        "plain": by_hand,
        "ours": by_us,
        "times_faster_first_epoch": round(by_hand["epoch_s"][0] / by_us["first_epoch_s"], 2),
        "times_faster": round(by_hand["epoch_s"][-1] / by_us["steady_epoch_s"], 2),
        "images_per_s": {
            "plain": round(arguments.files / by_hand["epoch_s"][-1], 1),
            "ours": round(arguments.files / by_us["steady_epoch_s"], 1),
        },
    }
    command = "python benchmarks/training_speed.py"
    if arguments.files != parser.get_default("files"):
        command += f" --files {arguments.files}"
    write("training_speed", command, results, machine)


if __name__ == "__main__":
    main()
