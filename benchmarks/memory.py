"""Resident memory while training on 1,000 and on 5,000 images of 1,024 px.

    python benchmarks/memory.py [--rows 1000 5000] [--size 1024] [--backbone resnet18]

The instances are 1,024 px themselves (`cxr.preprocessing.size=1024`): 1 MiB a row, 5 GiB of
`instances.bin` for 5,000, made here as a cache makes them, out of drawn X-rays and noise, and
deleted afterwards. Each number of rows is measured in a process of its own, through `training.fit`:

1. an *epoch over all rows* with batches of 4 and a tiny network (two strided convolutions), because
   a real one would take an hour on two cores. Reading, augmentation, averaging and logging are
   those of every study; RSS is read after each step.
2. *16 rows spread over the whole cache* with ResNet-18, batches of 4 accumulated to 8: what the
   activations of a real network at 1,024 px need on top.

`rss` is what the kernel counts as resident, `anon` the memory of the process itself and `file` the
pages of mapped files (libraries and the cache). `peak` is the highest `rss` of the whole process
(getrusage). All in MiB. Writes benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from machine import facts, status, write
from torch import nn

from pulmofuse.config import CxrConfig, CxrModelConfig, CxrPreprocessing, TrainingConfig
from pulmofuse.models import BACKBONES, Classifier, build_cxr_model
from pulmofuse.preprocessing import Cache, ImageAugment, build_cache
from pulmofuse.schema import Modality
from pulmofuse.sources.phantom import draw_cxr
from pulmofuse.training import InstanceSource, fit

CLASSES, BATCH, N_VAL, N_REAL = 3, 4, 8, 16
TILE = 16  # pictures that are drawn; every row is one of them, shifted, with noise of its own
LIMIT_MIB = 4096


def make_files(folder: Path, n: int, size: int) -> list[str]:
    """Write n JPEG files of size x size and return their names."""
    rng = np.random.default_rng(0)
    drawn = [draw_cxr(rng, size, {}, female=bool(i % 2), coarse=False) for i in range(TILE)]
    noise = rng.integers(0, 10, (2 * size, 2 * size), dtype=np.uint8)
    names = []
    for i in range(n):
        top, left = (int(v) for v in rng.integers(0, size, 2))
        grey = cv2.add(drawn[i % TILE], noise[top : top + size, left : left + size])
        names.append(f"{i:05d}.jpg")
        cv2.imwrite(str(folder / names[-1]), grey)
    return names


class Tiny(Classifier):
    """A network that costs next to nothing at any size."""

    def __init__(self) -> None:
        super().__init__(16, CLASSES, 0.0)
        self.body = nn.Sequential(nn.Conv2d(1, 8, 8, stride=8), nn.ReLU(), nn.Conv2d(8, 16, 4, 4))

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, h, w) -> (n, 16, h / 32, w / 32)."""
        y: torch.Tensor = self.body(x)
        return y


def resident() -> dict[str, int]:
    """MiB that are resident now."""
    now = status("VmRSS", "RssAnon", "RssFile")
    return {
        name: now[field] // 1024
        for name, field in (("rss", "VmRSS"), ("anon", "RssAnon"), ("file", "RssFile"))
    }


def peak() -> int:
    """MiB that were resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def train(cache: Cache, model: nn.Module, rows: np.ndarray, accumulate: int) -> dict[str, Any]:
    """Train one epoch on these rows; resident memory along it."""
    y = np.arange(len(rows)) % CLASSES
    seen: list[dict[str, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            InstanceSource(cache.instances, rows[N_VAL:], y[N_VAL:]),
            InstanceSource(cache.instances, rows[:N_VAL], y[:N_VAL]),
            config=TrainingConfig(epochs=1, batch_size=BATCH, accumulate=accumulate),
            class_weights=torch.ones(CLASSES),
            seed=0,
            folder=Path(folder),
            augment=ImageAugment(CxrConfig().augmentation),
            progress=lambda *_: seen.append(resident()),
        )
    quarters = np.linspace(0, len(seen) - 1, 5).round().astype(int)
    return {
        "rows": len(rows),
        "along_the_epoch": [seen[i] for i in quarters],
        "highest": {name: max(step[name] for step in seen) for name in seen[0]},
        "peak": peak(),
    }


def child(n: int, size: int, backbone: str, folder: Path) -> dict[str, Any]:
    """Measure in this process, which does nothing else."""
    torch.manual_seed(0)
    config = CxrConfig(
        preprocessing=CxrPreprocessing(size=size),
        model=CxrModelConfig(backbone=backbone, weights="none"),
    )
    names = [f"{i:05d}.jpg" for i in range(n)]
    before = resident()
    cache = build_cache(names, folder, Modality.CXR, config.preprocessing, folder / "cache")
    rows = cache.index["start"].to_numpy()
    out: dict[str, Any] = {
        "cache_gib": round(cache.instances.nbytes / 2**30, 2),
        "before": before,
        "cache_opened": resident() | {"peak": peak()},
        "epoch_tiny_network": train(cache, Tiny(), rows, 1),
    }
    spread = rows[np.linspace(0, n - 1, N_REAL + N_VAL).astype(int)]
    model = build_cxr_model(config, CLASSES)
    out["network"] = train(cache, model, spread, 2)
    return out


def main() -> None:
    """Measure each number of rows in a child process and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--backbone", default="resnet18", choices=BACKBONES)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        found = child(arguments.rows[0], arguments.size, arguments.backbone, arguments.child)
        print(json.dumps(found))
        return
    shared = ["--size", str(arguments.size), "--backbone", arguments.backbone]
    machine = facts()
    by_rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder, max(arguments.rows), arguments.size)
        for n in sorted(arguments.rows):
            command = [sys.executable, __file__, "--rows", str(n), "--child", name, *shared]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            by_rows[str(n)] = json.loads(done.stdout)
    first, last = (by_rows[str(n)] for n in (min(arguments.rows), max(arguments.rows)))
    results = {
        "size": arguments.size,
        "batch": BATCH,
        "backbone": arguments.backbone,
        "by_rows": by_rows,
        "peak_mib": {n: run["network"]["peak"] for n, run in by_rows.items()},
        "below_limit": all(r["network"]["peak"] < LIMIT_MIB for r in by_rows.values()),
        "growth_of_epoch_peak_mib": last["epoch_tiny_network"]["peak"]
        - first["epoch_tiny_network"]["peak"],
    }
    rows = ["--rows", *map(str, arguments.rows)]
    write("memory", " ".join(["python benchmarks/memory.py", *rows, *shared]), results, machine)


if __name__ == "__main__":
    main()
