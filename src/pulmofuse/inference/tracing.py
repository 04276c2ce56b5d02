"""Models as graphs for other runtimes: traced, with operations that every one of them knows.

Some of PyTorch's operations have no counterpart in ONNX or OpenVINO, or only for shapes that are
constants in the trace. While a model is traced those are replaced by others with the same numbers
but for rounding. All sides but the first (the batch) are fixed in the graph.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

#: The first ONNX operator set with what the models need: GridSample came with 16, and 17 is the
#: oldest that runtimes of today are tested with.
OPSET = 17


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Trace in here: no gradients, known operations, and no talk of constants that are meant."""
    with warnings.catch_warnings(), torch.no_grad(), _Known():
        warnings.simplefilter("ignore")
        yield


def to_onnx(
    network: nn.Module, example: Tensor, path: Path, inputs: str, outputs: Sequence[str]
) -> None:
    """Write an ONNX file with a free batch size.

    Args:
        network: in evaluation mode; gives one tensor, or one for each name.
        example: (n, ...) with n of at least 2.
        path: of the file.
        inputs: name of the input.
        outputs: names of the outputs.

    Raises:
        RuntimeError: an operation cannot be converted, or the package onnx is missing.
    """
    # On failure the exporter prints the whole graph.
    with tracing(), contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            network,
            (example,),
            str(path),
            # The newer exporter wants onnxscript, which nothing else here needs.
            dynamo=False,
            opset_version=OPSET,
            input_names=[inputs],
            output_names=list(outputs),
            dynamic_axes={name: {0: "n"} for name in (inputs, *outputs)},
        )


def openvino() -> Any:
    """The package, without the telemetry that otherwise tells its makers of every import and use.

    Hospitals' networks and people's privacy are no place for that. None instead of a module makes
    its import fail, for which OpenVINO has a substitute that does nothing.
    """
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    import openvino as package

    return package


def to_openvino(network: nn.Module, example: Tensor) -> Any:
    """An `openvino.Model` with a free batch size; see `to_onnx` for the arguments.

    Raises:
        RuntimeError: an operation cannot be converted.
    """
    ov = openvino()
    with tracing():
        # `convert_model` would trace by itself, and check its trace by running it twice more.
        traced = torch.jit.trace(network, example, check_trace=False)
        return ov.convert_model(traced, input=[ov.PartialShape([-1, *example.shape[1:]])])


class _Known(TorchFunctionMode):
    """Replaces operations that runtimes do not know."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _REPLACED.get(func, func)(*args, **(kwargs or {}))


def _adaptive_mean(x: Tensor, size: int | Sequence[int]) -> Tensor:
    """`adaptive_avg_pool2d` as two products with fixed matrices."""
    height, width = (size, size) if isinstance(size, int) else size
    rows = _means(int(x.shape[2]), int(height)).to(x)
    columns = _means(int(x.shape[3]), int(width)).to(x)
    return rows @ x @ columns.T


def _means(before: int, after: int) -> Tensor:
    """(after, before): row i takes the mean from floor(i b / a) to ceil((i + 1) b / a)."""
    out = np.zeros((after, before), dtype=np.float32)
    for i in range(after):
        first, last = i * before // after, -(-(i + 1) * before // after)
        out[i, first:last] = 1 / (last - first)
    return torch.from_numpy(out)


def _constant_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """`affine_grid` of a batch whose transforms are all the same, as a constant."""
    if align_corners:
        raise RuntimeError("a grid of corners is not converted")
    height, width = int(size[2]), int(size[3])
    x, y = (torch.arange(n) * (2 / n) + (1 / n - 1) for n in (width, height))
    plane = torch.stack(
        [x.expand(height, width), y[:, None].expand(height, width), torch.ones(height, width)], -1
    )
    (first, *_) = theta.tolist()
    grid = torch.from_numpy(np.asarray(plane.numpy() @ np.array(first, np.float32).T))
    return grid.unsqueeze(0).expand(size[0], height, width, 2)


def _unfold(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """`Tensor.unfold` as slices put side by side."""
    if step != 1:
        raise RuntimeError("unfolding in steps is not converted")
    length = int(x.shape[dimension]) - size + 1
    return torch.stack([x.narrow(dimension, i, length) for i in range(size)], dim=-1)


_REPLACED: dict[Any, Callable[..., Any]] = {
    functional.adaptive_avg_pool2d: _adaptive_mean,
    functional.affine_grid: _constant_grid,
    torch.Tensor.unfold: _unfold,
    # OpenVINO 2026.4 gets a linear layer wrong whose output becomes float64.
    torch.Tensor.double: torch.Tensor.float,
}
