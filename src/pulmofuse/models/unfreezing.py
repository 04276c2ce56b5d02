"""Which stages of a model are trained, when, and at which rate (transfer learning).

A model names its stages from the input to the head. Stages near the input hold what is common to
all images and change least in transfer (Yosinski et al. 2014, arXiv:1411.1792); with few patients
it pays to train them late, slowly or not at all. Three ways, which can be joined:

- `trainable`: "all" stages from the start; the "head" alone (a linear probe); or "gradual", from
  the head down one after the other over the first `unfreeze_epochs` epochs (Howard & Ruder 2018,
  arXiv:1801.06146).
- `frozen_stages`: the first stages are never trained. Nothing is computed backwards for them.
- `layer_decay`: discriminative learning rates (the same paper): the stage below the head has the
  rate `lr_backbone`, each one below it `layer_decay` times the rate of the one above.

A frozen stage is wholly as it was: it is in evaluation mode, so that batch normalisation neither
uses nor collects statistics of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import nn

from pulmofuse.config import TrainingConfig
from pulmofuse.errors import ConfigError


class Staged(Protocol):
    """A model with stages."""

    def stages(self) -> list[list[nn.Module]]:
        """Modules of each stage from the input to the output; the last stage is the head."""
        ...


def check_stages(model: Staged, config: TrainingConfig) -> None:
    """Make sure that something is left to train.

    Raises:
        ConfigError: `frozen_stages` freezes the head too.
    """
    most = len(model.stages()) - 1
    if config.frozen_stages > most:
        raise ConfigError(
            f"frozen_stages {config.frozen_stages}",
            f"this model has {most} stages below its head",
            f"set it to at most {most}",
        )


def first_trained(config: TrainingConfig, n_stages: int, epoch: int) -> int:
    """Index of the lowest stage that is trained in an epoch; with the head, so are all above it.

    Args:
        config: optimisation settings.
        n_stages: of the model, its head included.
        epoch: from 0.
    """
    if config.trainable == "head":
        return n_stages - 1
    lowest = config.frozen_stages
    if config.trainable == "gradual" and epoch < config.unfreeze_epochs:
        thawed = (n_stages - 1 - lowest) * epoch // config.unfreeze_epochs
        return n_stages - 1 - thawed
    return lowest


def set_frozen(model: Staged, first: int) -> None:
    """Compute gradients for the stages from `first` on, and none below."""
    for i, stage in enumerate(model.stages()):
        for module in stage:
            module.requires_grad_(i >= first)


def rest_frozen(model: Staged, first: int) -> None:
    """Put the stages below `first` into evaluation mode."""
    for stage in model.stages()[:first]:
        for module in stage:
            module.eval()


def learning_groups(
    model: nn.Module, config: TrainingConfig, further: Iterable[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """Groups for an optimiser: every parameter that is ever trained, by rate and weight decay.

    Biases and parameters of normalisation have no weight decay.

    Args:
        model: is `Staged`; what lies in no stage counts with the head.
        config: optimisation settings.
        further: parameters beyond the model, trained at `lr_head`.

    Returns:
        Groups with params, lr and weight_decay, the head's last.
    """
    stages: list[list[nn.Module]] = model.stages()  # type: ignore[operator]
    # Everything frozen in the last epoch is frozen for good.
    lowest = first_trained(config, len(stages), config.epochs + config.unfreeze_epochs)
    parts = [[p for module in stage for p in module.parameters()] for stage in stages]
    held = {id(p) for part in parts for p in part}
    parts[-1] += [*(p for p in model.parameters() if id(p) not in held), *further]
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for i, part in enumerate(parts[lowest:], start=lowest):
        head = i == len(parts) - 1
        depth = len(parts) - 2 - i
        rate = config.lr_head if head else config.lr_backbone * config.layer_decay**depth
        for parameter in part:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((head, rate, decay), []).append(parameter)
    return [
        {"params": params, "lr": rate, "weight_decay": decay}
        for (_, rate, decay), params in groups.items()
    ]
