"""Training checkpoints as one safetensors file: tensors as tensors, everything else as JSON.

Lightning's own checkpoints are pickles, which can run code when they are read. A checkpoint here
holds its tensors in safetensors and the structure around them (loops, optimiser, callbacks) as
JSON in the file's header; what neither can hold is refused when written, not dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pulmofuse.errors import StudyError
from pulmofuse.files import atomic_path

#: What a run goes on from, and the weights of its best epoch.
LAST, BEST = "last.safetensors", "best.safetensors"

_TREE = "pulmofuse.checkpoint"


class SafetensorsCheckpoint(CheckpointIO):
    """Lightning plug-in that reads and writes checkpoints without pickle, atomically."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint dictionary; see `save`."""
        del storage_options
        save(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, *_args: Any, **_options: Any) -> dict[str, Any]:
        """Read a checkpoint dictionary; see `load`."""
        return load(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint if it is there."""
        Path(path).unlink(missing_ok=True)


def save(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a nested structure of tensors and JSON values as one safetensors file, atomically.

    Raises:
        TypeError: the structure holds something that is neither.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_pack(checkpoint, tensors))
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_TREE: tree})


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote.

    Raises:
        StudyError: the file is damaged or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            tree = (stored.metadata() or {})[_TREE]
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError) as error:
        raise StudyError(
            path,
            f"is not a readable checkpoint ({error})",
            "delete the file; training starts again from the beginning of this model",
        ) from None
    unpacked = _unpack(json.loads(tree), tensors)
    assert isinstance(unpacked, dict)  # noqa: S101  # `save` takes mappings only
    return unpacked


def _pack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON form of a value; tensors move into `tensors` and leave a reference."""
    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors):05d}"
        # safetensors refuses shared and strided memory.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"$": "tensor", "v": name}
    if isinstance(value, Mapping):
        items = [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]
        return {"$": "dict", "v": items}
    if isinstance(value, list | tuple):
        packed = [_pack(v, tensors) for v in value]
        return packed if isinstance(value, list) else {"$": "tuple", "v": packed}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Inverse of `_pack`."""
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    kind, content = value["$"], value["v"]
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_unpack(v, tensors) for v in content)
    return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
