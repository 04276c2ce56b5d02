"""Remember what a network made of an instance, while many heads are trained on one network.

In a cross-validation of linear probes every fold runs the same frozen network over the same images.
Inside `remember_features()` what it said is kept by content: of the network (without its heads) and
of the instance. So it cannot answer for anything else, whatever is trained in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from pulmofuse.models import Classifier

#: From (network, instance) to pooled features; None outside of `remember_features`.
_MEMORY: ContextVar[dict[tuple[bytes, bytes], Tensor] | None] = ContextVar("memory", default=None)


@contextmanager
def remember_features() -> Iterator[None]:
    """Keep pooled features from here on; thousands of instances take some ten megabytes."""
    token = _MEMORY.set({})
    try:
        yield
    finally:
        _MEMORY.reset(token)


def features_of(model: Classifier) -> Callable[[Tensor], Tensor]:
    """What takes a batch to pooled features: `model.features`, or what is remembered of it.

    Args:
        model: in evaluation mode; not to be changed while the answer is in use.
    """
    memory = _MEMORY.get()
    if memory is None:
        return model.features
    network = _digest_of(model)

    def remembered(batch: Tensor) -> Tensor:
        keys = [(network, _digest(row)) for row in batch]
        missing = [i for i, key in enumerate(keys) if key not in memory]
        if missing:
            fresh = model.features(batch[missing]).float()
            memory.update(zip((keys[i] for i in missing), fresh, strict=True))
        return torch.stack([memory[key] for key in keys])

    return remembered


def _digest_of(model: Classifier) -> bytes:
    """What decides the pooled features: every number outside the heads, in order."""
    heads = {
        id(value) for head in model.heads() for value in head.state_dict(keep_vars=True).values()
    }
    found = hashlib.sha256(type(model).__name__.encode())
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in heads:
            found.update(name.encode())
            found.update(_digest(value))
    return found.digest()


def _digest(value: Tensor) -> bytes:
    content = value.detach().cpu().contiguous().numpy()
    return hashlib.sha256(str((content.shape, content.dtype)).encode() + content.tobytes()).digest()
