"""The Lightning module that trains every model: unimodal classifiers and the fusion alike."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Protocol, Self, cast, runtime_checkable

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_auroc

from pulmofuse.config import TrainingConfig
from pulmofuse.models.unfreezing import (
    Staged,
    check_stages,
    first_trained,
    learning_groups,
    rest_frozen,
    set_frozen,
)
from pulmofuse.statistics import within_auc
from pulmofuse.training.data import Batch, Targets
from pulmofuse.training.mixing import Mixture, draw_mixture

#: Shares of the peak rate at which a cycle starts and ends; torch's OneCycleLR uses the same.
_START, _END = 1 / 25, 4e-6


class Featured(Protocol):
    """What auxiliary losses ask of a model."""

    def features(self, *inputs: object) -> torch.Tensor:
        """(batch, feature_dim) of a batch."""
        ...

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, feature_dim) -> logits (batch, classes)."""
        ...


class Auxiliary(Protocol):
    """A further loss on the pooled features; its parameters are trained at `lr_head`."""

    def __call__(self, features: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Features (batch, feature_dim) and what is known of them -> a scalar, weighted already."""
        ...


@runtime_checkable
class Ramped(Protocol):
    """An auxiliary loss that changes in the course of the training.

    Attributes:
        progress: share of the training that is done, set before every step.
    """

    progress: float


class TrainingModule(pl.LightningModule):
    """Cross-entropy training with AdamW, one cycle and an averaged copy of the weights.

    The averaged copy (exponential moving average; Polyak & Juditsky 1992) is what is validated,
    kept and used; it moves once per step, however many batches are accumulated for one. Random
    draws depend on (seed, step, batch of the step) only, so that a run which was killed and resumed
    makes the same draws as an undisturbed one.

    Where several processes train together (DDP), each makes draws of its own, and losses are
    weighted so that the mean of the processes' gradients is the gradient of the whole batch.
    Batch statistics are those of a process's own rows.

    Args:
        model: an `nn.Module` that is `Staged`; called with the inputs of a batch.
        config: optimisation settings.
        class_weights: (classes,) weights of the loss.
        seed: seeds augmentation and dropout.
        augment: applied to the first input of each training batch.
        auxiliary: modules that are `Auxiliary`; the model must then be `Featured`.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        class_weights: torch.Tensor,
        seed: int,
        augment: nn.Module | None = None,
        auxiliary: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        check_stages(cast(Staged, model), config)
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.augment = augment
        self.auxiliary = nn.ModuleList(auxiliary)
        self.register_buffer("class_weights", class_weights.float())
        self._config = config
        self._seed = seed
        self._pairs: dict[bool, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        self._averaged_step = 0
        # DDP fixes at its start which parameters it joins: what thaws later is not frozen yet.
        self._freeze(config.epochs + config.unfreeze_epochs)
        self._val_logits: list[torch.Tensor] = []
        self._val_y: list[torch.Tensor] = []
        self._val_site: list[torch.Tensor] = []

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        """Loss of one augmented batch."""
        # Seeded per batch: Lightning skips the start-of-epoch hooks in a resumed run.
        parts = self._config.accumulate
        draw = self.trainer.global_step * parts + index % parts
        torch.manual_seed(
            step_seed(self._seed, draw * self.trainer.world_size + self.trainer.global_rank)
        )
        inputs, targets = batch
        for extra in self.auxiliary:
            if isinstance(extra, Ramped):
                # From the step, not counted: a resumed run must not start the ramp anew.
                steps = int(self.trainer.estimated_stepping_batches)
                extra.progress = self.trainer.global_step / max(1, steps)
        mixture: Mixture | None = None
        with torch.no_grad():
            if self.augment is not None:
                inputs = (self.augment(inputs[0]), *inputs[1:])
            if self._config.mixup or self._config.cutmix:
                mixture = draw_mixture(
                    cast(torch.Tensor, inputs[0]), self._config.mixup, self._config.cutmix
                )
                inputs = (mixture.inputs, *inputs[1:])
        loss = self._training_loss(tuple(map(_channels_last, inputs)), targets, mixture)
        self.log(
            "train_loss",
            loss,
            on_epoch=True,
            on_step=False,
            batch_size=len(targets.y),
            sync_dist=True,
        )
        return loss

    def _training_loss(
        self, inputs: tuple[object, ...], targets: Targets, mixture: Mixture | None
    ) -> torch.Tensor:
        """Loss of one batch; of a mixture, both parents' losses by their shares."""
        features: torch.Tensor | None = None
        if self.auxiliary:
            model = cast(Featured, self.model)
            features = model.features(*inputs)
            logits = model.classify(features)
        else:
            logits = self.model(*inputs)

        def loss(targets: Targets) -> torch.Tensor:
            weight = cast(torch.Tensor, self.class_weights)[targets.y].sum()
            total = self._loss(logits, targets.y) * _part_of_all(weight)
            rows = _part_of_all(weight.new_tensor(float(len(targets.y))))
            for term in self.auxiliary:
                total = total + term(features, targets) * rows
            return total

        if mixture is None:
            return loss(targets)
        partners = targets.take(mixture.partner)
        return mixture.share * loss(targets) + (1.0 - mixture.share) * loss(partners)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        rest_frozen(cast(Staged, self.model), self._first)
        return self

    def on_train_start(self) -> None:
        """Pair every tensor of the average with the current one, now that they are in place."""
        for optimizer in self.trainer.optimizers:
            lay_out_state(optimizer)
        self._averaged_step = self.trainer.global_step
        averaged = chain(self.average.parameters(), self.average.buffers())
        current = chain(self.model.parameters(), self.model.buffers())
        self._pairs = {True: ([], []), False: ([], [])}
        for a, c in zip(averaged, current, strict=True):
            for side, tensor in zip(self._pairs[a.is_floating_point()], (a, c), strict=True):
                side.append(tensor.detach())

    def on_train_batch_start(self, _batch: Batch, _index: int) -> None:
        """Thaw what this epoch thaws; see `training_step` for why not at the epoch's start."""
        if self._frozen_for != self.current_epoch:
            self._freeze(self.current_epoch)
            self.train()

    def _freeze(self, epoch: int) -> None:
        """Freeze what is frozen in an epoch."""
        model = cast(Staged, self.model)
        self._frozen_for = epoch
        self._first = first_trained(self._config, len(model.stages()), epoch)
        set_frozen(model, self._first)

    def on_train_batch_end(self, *_: Any) -> None:
        """After a step, move the averaged weights towards the current ones; copy counters."""
        step = self.trainer.global_step
        if step == self._averaged_step:  # gradients are still being accumulated
            return
        self._averaged_step = step
        # The average of the first steps would otherwise be dominated by the starting point.
        decay = min(self._config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(*self._pairs[True], 1 - decay)
            for counter, value in zip(*self._pairs[False], strict=True):
                counter.copy_(value)

    def validation_step(self, batch: Batch, _index: int) -> None:
        """Collect the averaged model's logits."""
        inputs, targets = batch
        self._val_logits.append(self.average(*map(_channels_last, inputs)).float())
        self._val_y.append(targets.y)
        if self._config.choose_epoch == "auc_within_site" and targets.site is not None:
            self._val_site.append(targets.site)

    def on_validation_epoch_end(self) -> None:
        """Log loss and macro one-vs-rest ROC-AUC over the whole validation set."""
        logits, y = torch.cat(self._val_logits), torch.cat(self._val_y)
        self._val_logits.clear()
        self._val_y.clear()
        site = torch.cat(self._val_site) if self._val_site else None
        self._val_site.clear()
        auc = _validation_auc(logits, y) if site is None else _auc_within_site(logits, y, site)
        # Every process validates on all rows; the mean over them keeps their decisions the same.
        self.log("val_loss", self._loss(logits, y), sync_dist=True)
        self.log("val_auc", auc, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW with the rates of `learning_groups`, each on one cycle."""
        groups = learning_groups(self.model, self._config, self.auxiliary.parameters())
        try:
            optimizer = torch.optim.AdamW(groups, fused=True)
        except RuntimeError:  # a device that has no fused AdamW
            optimizer = torch.optim.AdamW(groups)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: one_cycle(step, total, self._config.warmup)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the whole gradient.

        Lightning refuses to clip with a fused optimiser under mixed precision, because some unscale
        gradients in their step; bfloat16 scales none.
        """
        del gradient_clip_val, gradient_clip_algorithm
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self._config.gradient_clip)

    def _loss(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(
            logits.float(),
            y,
            weight=cast(torch.Tensor, self.class_weights),
            label_smoothing=self._config.label_smoothing,
        )


def one_cycle(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate in a step of one cycle (Smith & Topin 2019), cosine arms.

    torch's own OneCycleLR divides by zero when the warm-up is a single step, as in a short study.

    Args:
        step: from 0 to `total`.
        total: steps of the whole run.
        warmup: share of the steps in which the rate rises.

    Returns:
        From `_START` up to 1 and down to nearly 0.
    """
    peak = max(1, round(warmup * total))
    if step < peak:
        return _START + (1 - _START) * (1 - math.cos(math.pi * step / peak)) / 2
    rest = min(1.0, (step - peak) / max(1, total - peak))
    return max(_END, (1 + math.cos(math.pi * rest)) / 2)


def lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Give the moments of an optimiser the memory layout of their parameters.

    A checkpoint keeps values but not layouts, and the fused AdamW runs through the memory of
    parameters and moments side by side: a weight in channels-last layout would meet the moments
    of another place.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def class_weights(
    y: Iterator[int] | Any, n_classes: int, drawn: np.ndarray | None = None
) -> torch.Tensor:
    """Weights inverse to class frequency with mean 1 over the rows; 0 for an absent class.

    Args:
        y: (n,) class indexes of the training rows.
        n_classes: number of classes.
        drawn: (n,) how often each row is drawn; None for all alike.
    """
    often = None if drawn is None else torch.as_tensor(drawn)
    rows = torch.as_tensor(y, dtype=torch.long)
    counts = torch.bincount(rows, weights=often, minlength=n_classes).float()
    present = counts > 0
    weights = torch.zeros(n_classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def _validation_auc(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Macro one-vs-rest ROC-AUC over the classes that have both kinds of rows; .5 if none has."""
    p = logits.softmax(dim=1)
    counts = torch.bincount(y, minlength=p.shape[1])
    usable = (counts > 0) & (counts < len(y))
    if not bool(usable.any()):
        return torch.tensor(0.5)
    per_class = multiclass_auroc(p, y, num_classes=p.shape[1], average="none", thresholds=None)
    return per_class[usable].mean()


def _auc_within_site(logits: torch.Tensor, y: torch.Tensor, site: torch.Tensor) -> torch.Tensor:
    """Macro one-vs-rest ROC-AUC over pairs of one known site; .5 where there are none."""
    known = (site >= 0).numpy(force=True)
    p = logits.softmax(dim=1).double().numpy(force=True)[known]
    labels, sites = y.numpy(force=True)[known], site.numpy(force=True)[known]
    aucs = [float(within_auc(labels == c, p[:, c], sites)) for c in range(p.shape[1])]
    defined = [auc for auc in aucs if math.isfinite(auc)]
    # In float32 as the other figure: checkpoints keep its type.
    return torch.tensor(sum(defined) / len(defined) if defined else 0.5)


def _channels_last(value: object) -> object:
    """Images in the memory layout in which convolutions are fastest on CPUs; others unchanged."""
    if isinstance(value, torch.Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value


def _part_of_all(amount: torch.Tensor) -> torch.Tensor | float:
    """What turns a mean over this process's rows into its part of the mean over all processes'.

    DDP takes the mean of the gradients, as if all had the same number and weight of rows.

    Args:
        amount: scalar, the weight of the rows of this process.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1.0
    total = amount.clone()
    distributed.all_reduce(total)
    return amount * distributed.get_world_size() / total


def step_seed(seed: int, step: int) -> int:
    """A seed for one step of a run."""
    return (seed * 1_000_003 + step) % 2**31
