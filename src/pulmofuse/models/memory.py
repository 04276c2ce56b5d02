"""Remember what a network made of an instance, while many heads are trained on one network.

In a cross-validation of linear probes every fold runs the same frozen network over the same images.
Inside `remember_features()` what it said is kept by content: of the network without its heads (its
numbers, and the settings of its parts: test-time views, levels, normalisation, spectrogram) and of
the instance. So it cannot answer for anything else, whatever is trained in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from pulmofuse.models.classifier import Classifier

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
    """What decides the pooled features: every part outside the heads, its settings and numbers."""
    heads = {id(part) for head in model.heads() for part in head.modules()}
    found = hashlib.sha256()
    # A part that stands in two places is named twice: twins are not one model.
    for name, part in model.named_modules(remove_duplicate=False):
        if id(part) in heads:
            continue
        kind = type(part)
        found.update(repr((name, kind.__module__, kind.__qualname__, _settings(part))).encode())
        # Buffers that no checkpoint holds (the spectrogram's filters) are among them.
        numbers = (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))
        for key, value in numbers:
            found.update(key.encode())
            found.update(_digest(value))
    return found.digest()


def _settings(part: nn.Module) -> list[tuple[str, object]]:
    """What a part was built with, by name: its attributes that have a `repr` of their content."""
    return sorted((name, value) for name, value in vars(part).items() if _is_plain(value))


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return isinstance(value, bool | int | float | str | BaseModel)


def _digest(value: Tensor) -> bytes:
    content = value.detach().cpu().contiguous().numpy()
    kind = str((content.shape, content.dtype, value.device))
    return hashlib.sha256(kind.encode() + content.tobytes()).digest()
