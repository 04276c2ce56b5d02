"""Images per second and the share of the matrix peak of each backbone, float32 NCHW and ours.

    python benchmarks/backbones.py [--backbones NAME ...]

One training step is forward, loss and backward of a classifier on a batch of drawn noise at 224 px,
one inference step the forward pass of the trained network. *Plain* is float32 with NCHW; *ours* is
bfloat16 autocast with channels last for training, as `training.fit` does it, and for inference
float32, channels last and folded normalisation (`models.frozen`), as `training.infer` does it.
Plain and ours take turns and the fastest step of each counts.

The peak is that of the same process on a product of two large matrices (MKL) or a 3 x 3 convolution
of 256 channels (oneDNN), whichever is higher: on some processors MKL reaches half of what oneDNN
does in float32. Load by others makes it wrong. FLOPs of the forward pass are counted by
`torch.utils.flop_counter` (two per multiplication and addition, convolutions and matrix products
only), so memory-bound layers (normalisation, activations, depthwise convolutions) lower a share. A
training step is three times that: the gradients of input and weights cost as much as the forward
pass each. (The counter's own figure for the backward pass ignores groups, and gives
EfficientNet-Lite0 fourteen times too much.)
Writes benchmarks/results/backbones.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import facts, write
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from pulmofuse.models import BACKBONES, ImageClassifier, build_backbone, frozen

CLASSES, SIZE, BATCH = 3, 224, 16
ROUNDS = 3
PEAK_SIDE, PEAK_ROUNDS = 3072, 5
CHANNELS_LAST = torch.channels_last


def peak_gflops(dtype: torch.dtype) -> float:
    """GFLOP/s of a large matrix product or 3 x 3 convolution, whichever library is faster."""
    left, right = (torch.randn(PEAK_SIDE, PEAK_SIDE).to(dtype) for _ in range(2))
    n, channels, side = 8, 256, 56
    images, weight = (
        torch.randn(shape).to(dtype).contiguous(memory_format=CHANNELS_LAST)
        for shape in ((n, channels, side, side), (channels, channels, 3, 3))
    )
    works: tuple[tuple[Callable[[], object], int], ...] = (
        (lambda: left @ right, 2 * PEAK_SIDE**3),
        (lambda: conv2d(images, weight, padding=1), 2 * 9 * n * side**2 * channels**2),
    )
    with torch.inference_mode():
        rates = [flop / seconds_of(work) for _ in range(PEAK_ROUNDS) for work, flop in works]
    return round(max(rates) / 1e9, 1)


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def train_step(model: nn.Module, images: Tensor, *, bf16: bool) -> None:
    """Forward, loss and backward; gradients start from nothing, as after `zero_grad`."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(images)
    nn.functional.cross_entropy(logits.float(), torch.zeros(len(images)).long()).backward()


def gflop(work: Callable[[], object]) -> float:
    """GFLOP of a call per image."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / BATCH / 1e9


def measure(name: str, peaks: dict[str, float]) -> dict[str, Any]:
    """Rates and shares of one backbone."""
    torch.manual_seed(0)
    plain, ours = (
        ImageClassifier(build_backbone(name, "none"), CLASSES, 0.2).train() for _ in range(2)
    )
    ours.to(memory_format=CHANNELS_LAST)
    images = torch.rand(BATCH, 1, SIZE, SIZE)
    last = images.contiguous(memory_format=CHANNELS_LAST)
    done = frozen(ours)

    def infer(model: nn.Module, batch: Tensor) -> None:
        with torch.inference_mode():
            model(batch)

    ways: dict[str, Callable[[], object]] = {
        "train_plain": lambda: train_step(plain.train(), images, bf16=False),
        "train_ours": lambda: train_step(ours, last, bf16=True),
        "infer_plain": lambda: infer(plain.eval(), images),
        "infer_ours": lambda: infer(done, last),
    }
    forward = gflop(lambda: infer(plain.eval(), images))
    work = {"train": 3 * forward, "infer": forward}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for way, step in ways.items():
            best[way] = min(best[way], seconds_of(step))
    rate = {way: BATCH / seconds for way, seconds in best.items()}
    return {
        "gflop_per_image": {kind: round(value, 3) for kind, value in work.items()},
        "images_per_s": {way: round(value, 1) for way, value in rate.items()},
        "times_faster": {
            kind: round(rate[f"{kind}_ours"] / rate[f"{kind}_plain"], 2) for kind in work
        },
        "gflop_per_s_train_ours": round(rate["train_ours"] * work["train"], 1),
        "share_of_bf16_peak_train": round(
            rate["train_ours"] * work["train"] / peaks["bfloat16"], 3
        ),
        "share_of_fp32_peak_infer": round(rate["infer_ours"] * work["infer"] / peaks["float32"], 3),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=sorted(BACKBONES), choices=BACKBONES)
    arguments = parser.parse_args()
    machine = facts()
    peaks = {
        "float32": peak_gflops(torch.float32),
        "bfloat16": peak_gflops(torch.bfloat16),
    }
    results = {
        "size": SIZE,
        "batch": BATCH,
        "peak_gflop_per_s": peaks,
        "backbones": {name: measure(name, peaks) for name in arguments.backbones},
    }
    command = "python benchmarks/backbones.py"
    if arguments.backbones != sorted(BACKBONES):
        command += f" --backbones {' '.join(arguments.backbones)}"
    write("backbones", command, results, machine)


if __name__ == "__main__":
    main()
