"""Write a bundle's models as ONNX or OpenVINO files, for programs without PyTorch.

    ct.onnx, ct.json      or      ct.xml, ct.bin, ct.json      and so for each modality

The file takes instances as `prepare` and `to_tensor` give them (of coughs the sound itself) and
gives features, logits and what else the model tells. Its JSON says what goes in and comes out, how
records and calibrated probabilities are made of it, and how far the file, read back right after it
was written, was from the bundle. A file that is too far is not kept.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from pulmofuse import __version__
from pulmofuse.config import CoughConfig
from pulmofuse.errors import RuntimeUnavailable
from pulmofuse.files import write_json
from pulmofuse.inference.bundle import Bundle, Unimodal, subset_partition
from pulmofuse.inference.examples import drawn_inputs, noise_inputs
from pulmofuse.inference.runtime import RUNTIMES, OnnxRuntime, OpenVino, cannot_take
from pulmofuse.inference.tracing import openvino, to_onnx, to_openvino
from pulmofuse.models import Classifier, Ensemble, frozen
from pulmofuse.preprocessing import LogMel
from pulmofuse.preprocessing.features import ConvolvedLogMel
from pulmofuse.preprocessing.prepare import PREPROCESSING_VERSION
from pulmofuse.schema import Modality

Format = Literal["onnx", "openvino"]

#: Largest difference of a probability that a written file may have.
TOLERANCE = 1e-4

_INPUT = "x"


class Exported(nn.Module):
    """A whole classifier as one function from instances to all that it tells of them."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.names = ["features", "logits"]
        if model.attends:
            self.names.append("attention")
        if model.findings:
            self.names.append("findings")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(n, ...) -> (n, feature_dim), (n, classes) and what else `names` has."""
        model = self.model
        pooled = [model.pool(model.feature_map(view)) for view in model.views(x)]
        features = sum(pooled[1:], pooled[0]) / len(pooled)
        out = [features, model.classify(features)]
        if model.instance_attention is not None:
            out.append(model.instance_attention.scores(features))
        if model.findings:
            out.append(model.findings_probabilities(features).float())
        return tuple(out)


def export_bundle(bundle: Bundle, folder: Path, kind: Format) -> list[Path]:
    """Write every model of a bundle.

    Args:
        bundle: with trained models.
        folder: is made if need be; older files of the same names are replaced.
        kind: of the files.

    Returns:
        The JSON files.

    Raises:
        RuntimeUnavailable: a package is missing, or a model cannot be written as such a file.
    """
    if kind == "onnx" and RUNTIMES["onnxruntime"].missing:
        missing = " ".join(RUNTIMES["onnxruntime"].missing)
        raise RuntimeUnavailable(
            "format onnx",
            f"needs what cannot be imported: {missing}",
            f"install it with `pip install {missing}`, or take the format openvino",
        )
    for modality, part in bundle.unimodal.items():
        if part.model.attends and isinstance(part.model, Ensemble):
            raise RuntimeUnavailable(
                f"the {modality.value} model",
                "is an ensemble whose members attend to slices or windows each in their own way,"
                " and no file of one network can join records as it does",
                "train one member (training.members=1), or predict with the bundle itself",
            )
    folder.mkdir(parents=True, exist_ok=True)
    return [_export_one(bundle, modality, folder, kind) for modality in bundle.unimodal]


def _export_one(bundle: Bundle, modality: Modality, folder: Path, kind: Format) -> Path:
    part = bundle.unimodal[modality]
    reference = Exported(frozen(part.model)).eval()
    network = Exported(_without_fourier(frozen(part.model), part)).eval()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        written = _write(network, drawn_inputs(part), Path(temporary), modality, kind)
        measured = _measure(written[0], kind, reference, part)
        worst = max(
            max(values["probabilities"], values.get("findings", 0.0))
            for values in measured.values()
        )
        if not worst <= TOLERANCE:
            raise RuntimeUnavailable(
                f"the {modality.value} model as {kind}",
                f"differs from the bundle by {worst:.1e} in probability, more than {TOLERANCE:g}",
                "predict with the bundle itself, and report this",
            )
        described = folder / f"{modality.value}.json"
        # A description stands for files that are whole.
        described.unlink(missing_ok=True)
        for path in written:
            shutil.move(path, folder / path.name)
        write_json(described, _description(bundle, part, network.names, kind, measured))
    return described


def _without_fourier(model: Classifier, part: Unimodal) -> Classifier:
    """The model with its front end in operations that files know."""
    if not isinstance(part.config, CoughConfig):
        return model
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LogMel):
                setattr(module, name, ConvolvedLogMel(part.config.preprocessing))
    return model


def _write(
    network: Exported, example: Tensor, folder: Path, modality: Modality, kind: Format
) -> list[Path]:
    """Write the files of one model; that to be read comes first."""
    path = folder / f"{modality.value}.{'onnx' if kind == 'onnx' else 'xml'}"
    try:
        if kind == "onnx":
            to_onnx(network, example, path, _INPUT, network.names)
            return [path]
        graph = to_openvino(network, example)
        graph.inputs[0].get_tensor().set_names({_INPUT})
        for output, name in zip(graph.outputs, network.names, strict=True):
            output.get_tensor().set_names({name})
        openvino().save_model(graph, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise cannot_take(kind, error) from None
    return [path, path.with_suffix(".bin")]


def _measure(
    path: Path, kind: Format, reference: Exported, part: Unimodal
) -> dict[str, dict[str, float]]:
    """Largest difference of each output, and of probabilities, by kind of input."""
    runner = OnnxRuntime(path) if kind == "onnx" else OpenVino(path)
    measured = {}
    # Another number of inputs than the example's shows that the batch is free.
    for name, x in {"noise": noise_inputs(part, 3), "drawn": drawn_inputs(part, 4)}.items():
        with torch.inference_mode():
            expected = [out.numpy() for out in reference(x)]
        found = runner.outputs(x.numpy())
        pairs = zip(reference.names, found, expected, strict=True)
        measured[name] = {key: _largest(a - b) for key, a, b in pairs}
        measured[name]["probabilities"] = _largest(_softmax(found[1]) - _softmax(expected[1]))
    return measured


def _largest(difference: np.ndarray) -> float:
    return float(np.abs(difference).max())


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(torch.from_numpy(logits).double().softmax(dim=1).numpy())


def _description(
    bundle: Bundle,
    part: Unimodal,
    outputs: list[str],
    kind: Format,
    measured: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """What the JSON of a model says."""
    model, sound = part.model, part.modality is Modality.COUGH
    shape = list(drawn_inputs(part, 1).shape[1:])
    told = subset_partition([part], bundle.classes).names
    meaning = {
        "features": {"shape": ["n", model.feature_dim], "is": "pooled features"},
        "logits": {
            "shape": ["n", len(told)],
            "is": "their softmax are the probabilities of the classes before calibration",
            # "a|b" where the model cannot tell a from b; their prior below says how to divide it.
            "classes": list(told),
        },
        "attention": {"shape": ["n"], "is": "score; see record"},
        "findings": {
            "shape": ["n", len(model.findings)],
            "is": "probabilities that each finding is present, not calibrated",
            "findings": [finding.value for finding in model.findings],
        },
    }
    return {
        "research_use_only": True,
        "name": bundle.name,
        "question": bundle.question,
        "modality": part.modality.value,
        "format": kind,
        # Where a processor has bfloat16, OpenVINO takes it unless it is told not to.
        "settings": {"INFERENCE_PRECISION_HINT": "f32"} if kind == "openvino" else {},
        "version": __version__,
        "input": {
            "name": _INPUT,
            "shape": ["n", *shape],
            "type": "float32",
            "range": [-1.0, 1.0] if sound else [0.0, 1.0],
            "is": "mono sound, int16 / 32767" if sound else "grey image, uint8 / 255",
            "preprocessing": {
                "by": "pulmofuse.preprocessing.prepare, then to_tensor",
                "version": PREPROCESSING_VERSION,
                **part.config.preprocessing.model_dump(mode="json"),
            },
        },
        "outputs": {name: meaning[name] for name in outputs},
        "record": _record(model),
        "calibration": part.calibration.to_dict(),
        "prior": _prior(bundle, part.modality),
        "largest_difference": measured,
        "tolerance": TOLERANCE,
    }


def _record(model: Classifier) -> str:
    """How the answers for instances become that for their record."""
    if model.depth is not None:
        return (
            f"n counts records: the slices of each are interpolated to {model.depth} along the"
            " axis (pulmofuse.preprocessing.to_volumes)"
        )
    if model.attends:
        return (
            "n counts slices or windows: the features, and so the logits, of a record are the mean"
            " of theirs, weighted by the softmax of attention over the record"
        )
    return (
        "n counts slices or windows: the probabilities and features of a record are the mean of"
        " theirs"
    )


def _prior(bundle: Bundle, modality: Modality) -> dict[str, float]:
    """The prior that the calibrated probabilities assume."""
    row = bundle.decision.modality_priors[bundle.decision.modalities.index(modality)]
    return dict(zip(bundle.classes, cast("list[float]", row.tolist()), strict=True))
