"""Training step of EfficientNet-Lite0 with depthwise convolutions in fp32 against bf16 on a CPU.

    python benchmarks/depthwise.py

Alternates the two in one process and prints the fastest step of each as JSON.
"""

from __future__ import annotations

import json
import time

import torch
from torch import nn

from pulmofuse.config import CtConfig, CtModelConfig
from pulmofuse.models import build_ct_model
from pulmofuse.models.efficientnet_lite import SameConv2d

ROUNDS = 6
BATCH, SIZE = 32, 224


def step(model: nn.Module, batch: torch.Tensor) -> float:
    """Seconds of one forward and backward pass under bf16 autocast."""
    begin = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(batch).float().sum()
    loss.backward()
    return time.perf_counter() - begin


def all_bf16(self: SameConv2d, x: torch.Tensor) -> torch.Tensor:
    """The convolution with the input's own precision, stride 2 padded alike."""
    if self.stride[0] > 1:
        x = nn.functional.pad(x, (0, 1, 0, 1) if self.kernel_size[0] == 3 else (1, 2, 1, 2))
    return nn.Conv2d.forward(self, x)


def main() -> None:
    """Measure and print."""
    torch.manual_seed(0)
    model = build_ct_model(CtConfig(model=CtModelConfig(weights="none")), 2).train()
    model.to(memory_format=torch.channels_last)
    batch = torch.rand(BATCH, 1, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    mixed = SameConv2d.forward
    best = {"bf16": float("inf"), "fp32": float("inf")}
    for _ in range(ROUNDS):
        for name, forward in (("bf16", all_bf16), ("fp32", mixed)):
            SameConv2d.forward = forward
            best[name] = min(best[name], step(model, batch))
    rates = {name: round(BATCH / seconds, 1) for name, seconds in best.items()}
    ratio = round(best["bf16"] / best["fp32"], 2)
    print(json.dumps({"images_per_s": rates, "ratio": ratio, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
