"""Latency, throughput and faithfulness of every runtime and precision, side by side.

    python benchmarks/runtime.py [--seconds 80] [--study DIR --data-root DIR]

The networks are those of the defaults (EfficientNet-Lite0 with ImageNet weights on 224 px for
images, and on the log-mel of 4 s for coughs; three classes), normalised on drawn patients and with
heads about as sure as trained ones. Nothing is trained: what is asked is how long they take and how
far each runtime is from torch in float32 with folded normalisation (`models.frozen`), which the
study itself uses. Runtimes take turns, round after round, on one and on two threads; p50 and p95
are over the calls of one instance, throughput is the fastest batch of 16. All of `features` and
`classify` is timed, of coughs the spectrogram too, and no decoding of files.

int8 is ONNX Runtime's static quantisation (per channel, QDQ, calibrated on 32 drawn patients),
run by ONNX Runtime and by OpenVINO; OpenVINO's own needs the package nncf. Recurrent layers are
not quantised.

With `--study`, the models of that study's bundle run over its test set, and the AUC of each
runtime is compared with that of torch: bfloat16 and int8 are allowed only where it changes by no
more than .005. There int8 is calibrated on records of the training set.
Writes benchmarks/results/runtime.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from machine import facts, write
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from pulmofuse.config import CoughConfig, CtConfig, CxrConfig
from pulmofuse.errors import PulmofuseError
from pulmofuse.evaluation import identity_calibration
from pulmofuse.inference import RUNTIMES, Runtime, Unimodal, build_model, load_bundle, run_by
from pulmofuse.inference.examples import drawn_inputs
from pulmofuse.inference.runtime import OnnxRuntime, OpenVino
from pulmofuse.inference.tracing import openvino, to_onnx
from pulmofuse.models import Classifier, frozen, infer_records
from pulmofuse.models.predict import model_input
from pulmofuse.preprocessing import prepare
from pulmofuse.schema import Modality

CLASSES, BATCH, CALIBRATION, EXAMPLES = 3, 16, 32, 8
TOLERANCE, AUC_TOLERANCE = 1e-4, 0.005
#: Margin of the largest logit over the next that the median drawn patient gets: p of about .8.
MARGIN = 2.0
CONFIGS = {Modality.CT: CtConfig(), Modality.CXR: CxrConfig(), Modality.COUGH: CoughConfig()}

_QUANTISED: dict[bytes, bytes] = {}


def int8(reader: str) -> Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]:
    """A `Runtime.compile` that quantises with its example as the calibration data."""

    def compiling(network: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Rows(CalibrationDataReader):  # type: ignore[misc]  # untyped
            def __init__(self) -> None:
                self.rows: Iterator[Tensor] = iter(example.split(1))

            def get_next(self) -> dict[str, np.ndarray] | None:
                row = next(self.rows, None)
                return None if row is None else {"x": row.numpy()}

        with tempfile.TemporaryDirectory() as folder:
            plain, ready, small = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
            to_onnx(network, example[:2], plain, "x", ["features"])
            # Both readers, on any number of threads, read the same file: it is made once.
            key = sha256(plain.read_bytes() + example.numpy().tobytes()).digest()
            if key not in _QUANTISED:
                quant_pre_process(plain, ready)
                quantize_static(
                    ready, small, Rows(), quant_format=QuantFormat.QDQ, per_channel=True,
                    op_types_to_quantize=["Conv", "MatMul", "Gemm", "Add"],
                )  # fmt: skip
                _QUANTISED[key] = small.read_bytes()
            small.write_bytes(_QUANTISED[key])
            if reader == "onnxruntime":
                return OnnxRuntime(small)
            return OpenVino(openvino().Core().read_model(small))

    return compiling


for _reader in ("onnxruntime", "openvino"):
    _packages = ("onnx", "onnxruntime", "openvino")
    RUNTIMES[f"{_reader}_int8"] = Runtime(f"{_reader}_int8", _packages, int8(_reader))


def untrained(modality: Modality) -> Unimodal:
    """The default model of a modality, normalised on drawn patients, with a head of some margin."""
    torch.manual_seed(0)
    config = CONFIGS[modality]
    model = build_model(modality, config, CLASSES)
    part = Unimodal(modality, config, model, identity_calibration(CLASSES))
    with torch.no_grad():
        x = drawn_inputs(part, BATCH)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the plain mean over what it has seen
        model.train()(x)
        top, _ = model.eval()(x).topk(2, dim=1)
        factor = MARGIN / float((top[:, 0] - top[:, 1]).median())
        for value in model.head[-1].parameters():
            value.mul_(factor)
    return part


def ready(
    model: Classifier, examples: Tensor, names: Iterable[str]
) -> tuple[dict[str, Classifier], dict[str, str], dict[str, float]]:
    """The model run by every runtime, why some cannot, and seconds that it took to get ready."""
    models, refused, seconds = {}, {}, {}
    for name in names:
        calibration = examples if name.endswith("int8") else examples[:2]
        begin = time.perf_counter()
        try:
            models[name] = run_by(name, model, calibration)
        except PulmofuseError as error:
            refused[name] = str(error)
        except Exception as error:  # noqa: BLE001  # a quantiser that fails is a result too
            refused[name] = repr(error)[:200]
        seconds[name] = round(time.perf_counter() - begin, 2)
    return models, refused, seconds


def probabilities(model: Classifier, x: Tensor) -> Tensor:
    """Of instances."""
    with torch.inference_mode():
        return model.classify(model.features(x)).double().softmax(dim=1)


def seconds_of(model: Classifier, x: Tensor) -> float:
    """Of one call."""
    begin = time.perf_counter()
    probabilities(model, x)
    return time.perf_counter() - begin


def measure(part: Unimodal, threads: int, budget_s: float) -> dict[str, Any]:
    """Every runtime of one modality on some threads, for about so long."""
    torch.set_num_threads(threads)
    drawn = drawn_inputs(part, CALIBRATION + EXAMPLES)
    examples, asked = drawn[:CALIBRATION], drawn[CALIBRATION:]  # the second no calibration sees
    models, refused, prepared = ready(part.model, examples, RUNTIMES)
    one, batch = examples[:1], examples[:BATCH]
    last = torch.channels_last
    if examples.ndim == 4:
        one, batch, asked = (x.contiguous(memory_format=last) for x in (one, batch, asked))
    reference = probabilities(frozen(part.model), asked)
    off = {n: float((probabilities(m, asked) - reference).abs().max()) for n, m in models.items()}
    single: dict[str, list[float]] = {name: [] for name in models}
    many = dict.fromkeys(models, float("inf"))
    end = time.perf_counter() + budget_s
    for turn in itertools.count():
        for name, model in models.items():
            if turn == 0:
                seconds_of(model, one), seconds_of(model, batch)  # warm
            single[name] += [seconds_of(model, one) for _ in range(4)]
            many[name] = min(many[name], seconds_of(model, batch))
        if time.perf_counter() > end and turn:
            break
    rows = {
        name: {
            "p50_ms": round(1e3 * float(np.percentile(times, 50)), 2),
            "p95_ms": round(1e3 * float(np.percentile(times, 95)), 2),
            "per_s": round(BATCH / many[name], 1),
            "calls": len(times),
            "ready_s": prepared[name],
            "largest_difference": float(f"{off[name]:.2g}"),
            "within_tolerance": off[name] <= TOLERANCE,
        }
        for name, times in single.items()
    }
    return {"runtimes": rows, "refused": refused}


def study(folder: Path, data_root: Path) -> dict[str, Any]:
    """Test AUC of each modality of a study by runtime."""
    bundle = load_bundle(folder / "bundle")
    manifest = pd.read_parquet(folder / "manifest.parquet")
    known = pd.read_parquet(folder / "predictions.parquet")
    out: dict[str, Any] = {}
    for modality, part in bundle.unimodal.items():
        own = manifest[manifest["modality"] == modality.value].set_index("record_id")
        test = known[(known["subset"] == modality.value) & (known["split"] == "test")]
        test = test.drop_duplicates("record_id").set_index("record_id")
        test = test[test.index.isin(own.index)]
        y = test["y_true"].to_numpy()
        cases, counts = _instances(part, own.loc[test.index, "path"], data_root)
        train = own[own["split"] == "train"]
        chosen = train.sample(min(CALIBRATION, len(train)), random_state=0)["path"]
        examples, n = _instances(part, chosen, data_root)
        calibration = model_input(part.model, examples, n)
        models, refused, _ = ready(part.model, calibration, RUNTIMES)
        p = {}
        for name, model in models.items():
            seen = infer_records(model, cases, np.arange(len(cases)), counts)
            p[name] = part.calibration.apply(seen.p)
        auc = {name: _auc(y, values, bundle.classes) for name, values in p.items()}
        out[modality.value] = {
            "records": len(test),
            "runtimes": {
                name: {
                    "auc": round(value, 4),
                    "change": round(value - auc["torch"], 4),
                    "allowed": abs(value - auc["torch"]) <= AUC_TOLERANCE,
                    "largest_difference": float(f"{np.abs(p[name] - p['torch']).max():.2g}"),
                }
                for name, value in auc.items()
            },
            "refused": refused,
        }
    return out


def _instances(
    part: Unimodal, paths: pd.Series[str], data_root: Path
) -> tuple[np.ndarray, np.ndarray]:
    settings = part.config.preprocessing
    bags = [prepare(data_root / path, part.modality, settings).instances for path in paths]
    return np.concatenate(bags), np.array([len(bag) for bag in bags])


def _auc(y: np.ndarray, p: np.ndarray, classes: tuple[str, ...]) -> float:
    """Of two classes, or the mean of one against the rest."""
    truth = np.stack([y == name for name in classes], axis=1)
    if not truth.any():  # numbered classes
        truth = np.stack([y == i for i in range(len(classes))], axis=1)
    several = range(1) if len(classes) == 2 else range(len(classes))
    return float(np.mean([roc_auc_score(truth[:, i], p[:, i]) for i in several]))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0, help="of timing, about")
    parser.add_argument("--study", type=Path, help="output folder of a study")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    machine = facts()
    results: dict[str, Any] = {"batch": BATCH, "tolerance": TOLERANCE, "threads": {}}
    # CT and X-ray are the same network on images of the same size.
    timed = {"image": untrained(Modality.CXR), "cough": untrained(Modality.COUGH)}
    for threads in (1, 2):
        results["threads"][str(threads)] = {
            name: measure(part, threads, arguments.seconds / 4) for name, part in timed.items()
        }
    command = "python benchmarks/runtime.py"
    if arguments.study is not None:
        results["study"] = study(arguments.study, arguments.data_root)
        command += f" --study {arguments.study.name} --data-root {arguments.data_root.name}"
    write("runtime", command, json.loads(json.dumps(results)), machine)


if __name__ == "__main__":
    main()
