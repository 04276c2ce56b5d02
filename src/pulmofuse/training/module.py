"""The Lightning module that trains every model: unimodal classifiers and the fusion alike."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_auroc

from pulmofuse.config import TrainingConfig
from pulmofuse.statistics import within_auc
from pulmofuse.training.data import Batch, Targets
from pulmofuse.training.mixing import Mixture, draw_mixture

#: Shares of the peak rate at which a cycle starts and ends; torch's OneCycleLR uses the same.
_START, _END = 1 / 25, 4e-6


class Trainable(Protocol):
    """What `TrainingModule` asks of a model beyond being an `nn.Module`."""

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters trained at `lr_backbone`, and those trained at `lr_head`."""
        ...


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
    kept and used. Random draws of a step depend on (seed, step) only, so that a run which was
    killed and resumed makes the same draws as an undisturbed one.

    Args:
        model: an `nn.Module` that is `Trainable`; called with the inputs of a batch.
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
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.augment = augment
        self.auxiliary = nn.ModuleList(auxiliary)
        self.register_buffer("class_weights", class_weights.float())
        self._config = config
        self._seed = seed
        self._val_logits: list[torch.Tensor] = []
        self._val_y: list[torch.Tensor] = []
        self._val_site: list[torch.Tensor] = []

    def training_step(self, batch: Batch, _index: int) -> torch.Tensor:
        """Loss of one augmented batch."""
        # Seeded per step: Lightning skips the start-of-epoch hooks in a resumed run.
        torch.manual_seed(_mix(self._seed, self.trainer.global_step))
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
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(targets.y))
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
            total = self._loss(logits, targets.y)
            for extra in self.auxiliary:
                total = total + extra(features, targets)
            return total

        if mixture is None:
            return loss(targets)
        partners = targets.take(mixture.partner)
        return mixture.share * loss(targets) + (1.0 - mixture.share) * loss(partners)

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the averaged weights towards the current ones."""
        step = self.trainer.global_step
        # The average of the first steps would otherwise be dominated by the starting point.
        decay = min(self._config.ema_decay, (1 + step) / (10 + step))
        averaged, current = self.average.state_dict(), self.model.state_dict()
        with torch.no_grad():
            for name, value in averaged.items():
                if value.dtype.is_floating_point:
                    value.lerp_(current[name].to(value.dtype), 1 - decay)
                else:
                    value.copy_(current[name])

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
        self.log("val_loss", self._loss(logits, y))
        site = torch.cat(self._val_site) if self._val_site else None
        self._val_site.clear()
        auc = _validation_auc(logits, y) if site is None else _auc_within_site(logits, y, site)
        self.log("val_auc", auc)

    def configure_optimizers(self) -> Any:
        """AdamW with two learning rates; no weight decay on biases and normalisation."""
        backbone, head = cast(Trainable, self.model).parameter_groups()
        groups: list[dict[str, Any]] = []
        for parameters, rate in (
            (backbone, self._config.lr_backbone),
            ([*head, *self.auxiliary.parameters()], self._config.lr_head),
        ):
            for decays in (True, False):
                chosen = [p for p in parameters if (p.ndim > 1) == decays]
                if chosen:
                    decay = self._config.weight_decay if decays else 0.0
                    groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
        optimizer = torch.optim.AdamW(groups)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: one_cycle(step, total, self._config.warmup)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

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


def class_weights(y: Iterator[int] | Any, n_classes: int) -> torch.Tensor:
    """Weights inverse to class frequency with mean 1 over the rows; 0 for an absent class.

    Args:
        y: (n,) class indexes of the training rows.
        n_classes: number of classes.
    """
    counts = torch.bincount(torch.as_tensor(y, dtype=torch.long), minlength=n_classes).float()
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


def _mix(seed: int, step: int) -> int:
    """A seed for one step of a run."""
    return (seed * 1_000_003 + step) % 2**31
