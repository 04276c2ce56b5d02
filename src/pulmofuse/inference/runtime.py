"""What a network is run by: PyTorch, OpenVINO or ONNX Runtime.

    model = run_by("openvino", frozen(part.model), example)
    infer_records(model, ...)  # as before

Only what costs time is handed over: the way from an image (for coughs: from the spectrogram, whose
Fourier transform stays with torch) to pooled features. Views, attention and heads are torch's in
every runtime, so nothing else of the program knows which one it is. docs/runtime.md has what each
of them gains, and what it changes.
"""

from __future__ import annotations

import importlib.util
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pulmofuse.errors import RuntimeUnavailable
from pulmofuse.inference.tracing import openvino, to_onnx, to_openvino
from pulmofuse.models import Classifier, frozen
from pulmofuse.models.audio_model import split_front_end

#: Takes a batch to pooled features (n, feature_dim).
Network = Callable[[Tensor], Tensor]

#: The fastest of those whose probabilities are those of the study (docs/runtime.md).
FASTEST = "openvino"

#: What `auto` allows the probabilities of one example to differ by; else it takes torch.
PARITY = 1e-5

_NAME = "x"
_ONNX_PARTS = ("onnx", "onnxruntime")


@dataclass(frozen=True)
class Runtime:
    """A way to run a network.

    Attributes:
        name: as users give it.
        packages: what must be installed besides torch.
        compile: makes a network run by it, from a module (n, ...) -> (n, feature_dim) in
            evaluation mode and an example of its input with n of at least 2. It uses as many
            threads as torch does at that time.
    """

    name: str
    packages: tuple[str, ...]
    compile: Callable[[nn.Module, Tensor], Network]

    @property
    def missing(self) -> list[str]:
        """Those of its packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


class Pooled(nn.Module):
    """The part of a classifier that is handed over, as a module of its own."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n, feature_dim)."""
        return self.model.pool(self.model.feature_map(x))


class OpenVino:
    """A network in OpenVINO; may be called from several threads.

    Args:
        model: an `openvino.Model` or the path of a file that it reads.
        precision: "f32", or "bf16" where the processor has it, and where it is OpenVINO's default.
    """

    def __init__(self, model: Any, precision: str = "f32") -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled = openvino().Core().compile_model(model, "CPU", settings)
        self._n_outputs = len(self._compiled.outputs)
        self._own = threading.local()

    def outputs(self, x: np.ndarray) -> list[np.ndarray]:
        """Every output for a batch."""
        request = getattr(self._own, "request", None)
        if request is None:
            # One request is one call at a time, and its outputs are overwritten by the next.
            request = self._own.request = self._compiled.create_infer_request()
        request.infer([x], share_inputs=True)
        return [np.array(request.get_output_tensor(i).data) for i in range(self._n_outputs)]

    def __call__(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n, feature_dim)."""
        return torch.from_numpy(self.outputs(_plain(x))[0])


class OnnxRuntime:
    """A network in ONNX Runtime; may be called from several threads.

    Args:
        path: of the ONNX file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self._session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        (first,) = self._session.get_inputs()
        self._input = first.name

    def outputs(self, x: np.ndarray) -> list[np.ndarray]:
        """Every output for a batch."""
        return [np.asarray(out) for out in self._session.run(None, {self._input: x})]

    def __call__(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n, feature_dim)."""
        return torch.from_numpy(self.outputs(_plain(x))[0])


def _plain(x: Tensor) -> np.ndarray:
    # Of one channel, channels-last memory is the plain one; slices of a volume must be copied.
    return np.asarray(x.contiguous().numpy())


def _torch(network: nn.Module, _example: Tensor) -> Network:
    return network


def _torch_bf16(network: nn.Module, _example: Tensor) -> Network:
    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = network(x)
        return out.float()

    return run


def _openvino(network: nn.Module, example: Tensor) -> Network:
    return OpenVino(to_openvino(network, example))


def _openvino_bf16(network: nn.Module, example: Tensor) -> Network:
    return OpenVino(to_openvino(network, example), "bf16")


def _onnxruntime(network: nn.Module, example: Tensor) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        to_onnx(network, example, path, _NAME, ["features"])
        return OnnxRuntime(path)


#: Every runtime by name.
RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("torch", (), _torch),
        Runtime("torch_bf16", (), _torch_bf16),
        Runtime("openvino", ("openvino",), _openvino),
        Runtime("openvino_bf16", ("openvino",), _openvino_bf16),
        Runtime("onnxruntime", _ONNX_PARTS, _onnxruntime),
    )
}


def find_runtime(name: str) -> Runtime:
    """The runtime of a name.

    Raises:
        RuntimeUnavailable: there is none, or it is not installed.
    """
    if name not in RUNTIMES:
        raise RuntimeUnavailable(
            f"runtime {name!r}", "unknown", f"take auto, {', '.join(RUNTIMES)}"
        )
    runtime = RUNTIMES[name]
    if missing := runtime.missing:
        raise RuntimeUnavailable(
            f"runtime {name}",
            f"{' and '.join(missing)} cannot be imported",
            f"install it with `pip install {' '.join(missing)}`, or take auto",
        )
    return runtime


def run_by(name: str, model: Classifier, example: Tensor) -> Classifier:
    """A frozen copy of a model, run by a runtime.

    Args:
        name: a key of `RUNTIMES`, or "auto": the fastest one, if it is installed, takes the model
            and gives the probabilities of torch for the example; else torch.
        model: a trained model.
        example: (n, ...) what the model reads, n of at least 2.

    Raises:
        RuntimeUnavailable: no such runtime, it is not installed, or it cannot take this model.
    """
    if name != "auto":
        return _handed_over(find_runtime(name), model, example)
    plain = frozen(model)
    if RUNTIMES[FASTEST].missing:
        return plain
    try:
        fast = _handed_over(RUNTIMES[FASTEST], model, example)
    except RuntimeUnavailable:
        return plain
    return fast if deviation(fast, plain, example) <= PARITY else plain


def deviation(model: Classifier, reference: Classifier, x: Tensor) -> float:
    """Largest difference of the probabilities (of instances) that two models give."""
    with torch.inference_mode():
        p, q = (
            m.classify(m.features(x)).double().softmax(dim=1) for m in (model.eval(), reference)
        )
    return float((p - q).abs().max())


def _handed_over(runtime: Runtime, model: Classifier, example: Tensor) -> Classifier:
    out = frozen(model)
    if runtime.name == "torch":
        return out
    front, behind = split_front_end(out)
    with torch.no_grad():
        seen = front(example)
    try:
        network = runtime.compile(Pooled(behind).eval(), seen)
    except RuntimeError as error:
        raise cannot_take(runtime.name, error) from None
    out.compiled = lambda x: network(front(x))
    return out


def cannot_take(name: str, error: Exception) -> RuntimeUnavailable:
    """The error of a model that a runtime has no operations for."""
    why = next((line for line in str(error).splitlines() if line.strip()), repr(error))
    return RuntimeUnavailable(f"runtime {name}", f"cannot take this model ({why})", "take torch")
