"""Self-supervised pre-training of an image backbone: BYOL, or go on where a killed run stopped.

Grill et al. 2020, "Bootstrap your own latent" (arXiv:2006.07733): an online network predicts, from
one view of an image, what a slowly following copy of it (the target) says of another view. No
label and no negative is needed, so small batches do. Two cores have no time for training from
nothing; starting from ImageNet weights at a small rate, features are adapted, not replaced.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pulmofuse.config import PretrainConfig
from pulmofuse.errors import StudyError
from pulmofuse.files import write_csv
from pulmofuse.models.backbones import Backbone
from pulmofuse.preprocessing import to_tensor
from pulmofuse.training.checkpoint import LAST, load, save
from pulmofuse.training.data import EpochBatches
from pulmofuse.training.module import one_cycle, step_seed
from pulmofuse.training.views import RandomView

#: Below this spread (see `spread`) every image looks the same to the network.
LEAST_SPREAD = 0.05


class Byol(nn.Module):
    """An online network with its predictor, and the target that follows it.

    Args:
        backbone: changed by training; (n, 1, h, w) -> (n, out_channels, h', w').
        hidden: width of the projector's and the predictor's hidden layer.
        projection: length of the embeddings.
    """

    def __init__(self, backbone: Backbone, hidden: int, projection: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = _perceptron(backbone.out_channels, hidden, projection)
        self.predictor = _perceptron(projection, hidden, projection)
        self.target = copy.deepcopy(nn.ModuleList([self.backbone, self.projector]))
        self.target.requires_grad_(requires_grad=False)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (scalar) of two views of each image, and the target's embeddings.

        Args:
            views: (2n, 1, h, w), the second views of all images after the first ones.

        Returns:
            The mean of 2 - 2 cos(prediction, target's embedding of the other view), and the
            normalised embeddings (2n, projection).
        """
        predicted = self.predictor(_embed(self.backbone, self.projector, views))
        with torch.no_grad():
            backbone, projector = self.target
            embedded = normalize(_embed(backbone, projector, views).float(), dim=1)
        swapped = embedded.roll(len(views) // 2, dims=0)
        cosine = (normalize(predicted.float(), dim=1) * swapped).sum(dim=1)
        return (2.0 - 2.0 * cosine).mean(), embedded

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the target's weights, not its statistics, towards the online network's."""
        online = [*self.backbone.parameters(), *self.projector.parameters()]
        for target, current in zip(self.target.parameters(), online, strict=True):
            target.lerp_(current, 1.0 - momentum)


def pretrain(
    backbone: Backbone,
    instances: np.ndarray,
    rows: np.ndarray,
    *,
    config: PretrainConfig,
    flip: bool,
    seed: int,
    folder: Path,
    progress: Callable[[int, int, str], None],
) -> pd.DataFrame:
    """Adapt `backbone` to images without labels; in evaluation mode afterwards.

    If `folder` holds the checkpoint of a run, training goes on from its last epoch. Draws of a step
    depend on (seed, step) only, so that a killed run ends where an undisturbed one does.

    Args:
        backbone: with its starting weights; changed in place.
        instances: (all, height, width) uint8, possibly memory-mapped.
        rows: (n,) row numbers to learn from.
        config: optimisation and views.
        flip: whether a mirrored image is one of its kind.
        seed: decides first weights of the heads, batch order and views.
        folder: takes `last.safetensors` and `history.csv`.
        progress: told of every step.

    Returns:
        History with the columns epoch, loss, spread, lr, seconds.

    Raises:
        StudyError: there are too few images, or the embeddings collapsed to one point.
    """
    if len(rows) < 2:
        why = f"needs two images at least, and has {len(rows)}"
        raise StudyError("pre-training", why, "add data sets to `pretrain.extra`")
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    network = Byol(backbone, config.hidden, config.projection)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(_groups(network, config))
    history = _resume(folder / LAST, network, optimizer)
    batches = EpochBatches(len(rows), config.batch_size, seed)
    view = RandomView(config, flip=flip)
    total = config.epochs * len(batches)
    network.train()
    for epoch in range(len(history), config.epochs):
        batches.set_epoch(epoch)
        begin, losses, spreads = time.perf_counter(), list[float](), list[float]()
        for index, chosen in enumerate(batches):
            step = epoch * len(batches) + index
            torch.manual_seed(step_seed(seed, step))
            images = to_tensor(instances[rows[chosen]]).to(device)
            loss, now = _step(network, optimizer, images, view, config, step, total)
            losses.append(loss)
            spreads.append(now)
            note = f"epoch {epoch + 1}/{config.epochs}, loss {loss:.3f}"
            progress(step + 1, total, note)
        history.append(
            {
                "epoch": epoch,
                "loss": float(np.mean(losses)),
                "spread": float(np.mean(spreads)),
                "lr": optimizer.param_groups[0]["lr"],
                "seconds": round(time.perf_counter() - begin, 3),
            }
        )
        write_csv(folder / "history.csv", pd.DataFrame(history))
        _refuse_collapse(history[-1])
        state = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
        save(folder / LAST, {**state, "history": history})
    backbone.cpu().eval()
    return pd.DataFrame(history)


def spread(embeddings: Tensor) -> float:
    """How far normalised embeddings (n, d) lie apart: 0 all in one point, 1 all directions alike.

    It is the square root of their total variance, sqrt(1 - |mean|^2).
    """
    return math.sqrt(max(0.0, 1.0 - float(embeddings.mean(dim=0).square().sum())))


def _step(
    network: Byol,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    view: RandomView,
    config: PretrainConfig,
    step: int,
    total: int,
) -> tuple[float, float]:
    """Step `step` of `total` on images (n, 1, h, w); its loss, and the spread of embeddings."""
    share = one_cycle(step, total, config.warmup)
    for group in optimizer.param_groups:
        group["lr"] = share * group["peak"]
    with torch.no_grad():
        views = torch.cat([view(images), view(images)])
        views = views.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        loss, embedded = network(views)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
    optimizer.step()
    # Towards the end the target stands still, and the online network settles on it.
    left = (1.0 + math.cos(math.pi * step / total)) / 2.0
    network.follow(1.0 - (1.0 - config.momentum) * left)
    return float(loss.detach()), spread(embedded)


def _embed(backbone: nn.Module, projector: nn.Module, views: Tensor) -> Tensor:
    """(n, 1, h, w) -> (n, projection)."""
    out: Tensor = projector(backbone(views).float().mean(dim=(2, 3)))
    return out


def _perceptron(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, n_out)
    )


def _groups(network: Byol, config: PretrainConfig) -> list[dict[str, Any]]:
    """Two learning rates; no weight decay on biases and normalisation."""
    heads = [*network.projector.parameters(), *network.predictor.parameters()]
    groups = []
    for parameters, rate in (
        (list(network.backbone.parameters()), config.lr_backbone),
        (heads, config.lr_head),
    ):
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            decay = config.weight_decay if decays else 0.0
            groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
    return [group for group in groups if group["params"]]


def _resume(path: Path, network: Byol, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Take over the state of the last epoch, if there is one, and return the history so far."""
    if not path.exists():
        return []
    state = load(path)
    network.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    history: list[dict[str, Any]] = state["history"]
    return history


def _refuse_collapse(row: dict[str, Any]) -> None:
    """End a run whose network says the same of every image (or nothing at all).

    Raises:
        StudyError: the spread or the loss of this epoch says so.
    """
    if math.isfinite(row["loss"]) and row["spread"] >= LEAST_SPREAD:
        return
    raise StudyError(
        "pre-training",
        f"collapsed in epoch {row['epoch'] + 1}: the network says the same of every image"
        f" (loss {row['loss']:.3f}, spread of the embeddings {row['spread']:.3f})",
        "lower pretrain.lr_backbone and pretrain.lr_head, raise pretrain.momentum or"
        " pretrain.batch_size, or give more images",
    )
