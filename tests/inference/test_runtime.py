"""Whatever runs a network, the answers are those of torch; and files hold the whole model."""

from __future__ import annotations

import copy
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pulmofuse.cli import app
from pulmofuse.config import (
    CoughConfig,
    CoughModelConfig,
    CoughPreprocessing,
    CtConfig,
    CtModelConfig,
    CtPreprocessing,
    CxrConfig,
    CxrModelConfig,
    CxrPreprocessing,
    TestTimeViews,
    TrainingConfig,
)
from pulmofuse.errors import RuntimeUnavailable
from pulmofuse.evaluation import identity_calibration
from pulmofuse.findings import Finding
from pulmofuse.inference import (
    RUNTIMES,
    Bundle,
    DecisionFusion,
    Predictor,
    Unimodal,
    build_model,
    export_bundle,
    run_by,
    runtime,
    save_bundle,
)
from pulmofuse.inference.examples import drawn_inputs, noise_inputs
from pulmofuse.inference.tracing import openvino
from pulmofuse.models import frozen, infer_records
from pulmofuse.preprocessing import LogMel
from pulmofuse.preprocessing.features import ConvolvedLogMel
from pulmofuse.schema import Modality

CLASSES = ("normal", "covid19", "pneumonia")


def ct(model: dict[str, Any], **settings: Any) -> CtConfig:
    chosen = {"backbone": "resnet18", "weights": "none", **model}
    return CtConfig(
        preprocessing=CtPreprocessing(size=48), model=CtModelConfig(**chosen), **settings
    )


def cough(**model: Any) -> CoughConfig:
    return CoughConfig(
        preprocessing=CoughPreprocessing(duration_s=1.0),
        model=CoughModelConfig(weights="none", **model),
    )


#: One of every kind of model that is run in a way of its own.
KINDS: dict[str, tuple[Modality, CtConfig | CxrConfig | CoughConfig]] = {
    "lite0": (
        Modality.CXR,
        CxrConfig(preprocessing=CxrPreprocessing(size=32), model=CxrModelConfig(weights="none")),
    ),
    "two backbones, levels": (
        Modality.CT,
        ct({"backbone": "resnet18+resnet18", "pooling": "levels"}),
    ),
    "covariance": (
        Modality.CT,
        ct(
            {"backbone": "resnet18+resnet18", "pooling": "covariance"},
            training=TrainingConfig(trainable="head"),
        ),
    ),
    "members and views": (
        Modality.CT,
        ct(
            {},
            training=TrainingConfig(members=2),
            tta=TestTimeViews(zooms=(1.0, 1.2)),
        ),
    ),
    "attention": (
        Modality.CT,
        ct({"aggregation": "attention"}, tta=TestTimeViews(flip_horizontal=True)),
    ),
    "volume": (Modality.CT, ct({"aggregation": "volume", "depth": 4})),
    "spectrogram_cnn": (Modality.COUGH, cough(backbone="resnet18")),
    "mfcc_lstm": (Modality.COUGH, cough(architecture="mfcc_lstm")),
    "crnn": (Modality.COUGH, cough(architecture="crnn", aggregation="attention")),
}


@cache
def trained(kind: str) -> Unimodal:
    """A model as if trained: its normalisations have seen data, and its head is sure of itself."""
    modality, config = KINDS[kind]
    torch.manual_seed(0)
    part = Unimodal(modality, config, build_model(modality, config, 3), identity_calibration(3))
    if kind == "lite0":
        part.model.learn_findings([Finding.LUNG_OPACITY])
    with torch.no_grad():
        part.model.train()(drawn_inputs(part, 3))
        for module in part.model.eval().modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(4)
                module.bias is None or module.bias.mul_(4)
    return part


def bundle_of(*parts: Unimodal) -> Bundle:
    third = np.full(3, 1 / 3)
    modalities = tuple(part.modality for part in parts)
    decision = DecisionFusion(
        modalities, third, np.tile(third, (len(parts), 1)), np.ones(len(parts)), 1.0
    )
    named = dict(zip(modalities, parts, strict=True))
    return Bundle("tiny", "", CLASSES, None, named, decision, {}, {})


class TestRuntimes:
    # ONNX files of the other kinds are compared below.
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            *(("openvino", kind) for kind in KINDS),
            ("onnxruntime", "lite0"),
            ("onnxruntime", "crnn"),
        ],
    )
    def test_give_the_answers_of_torch_for_any_number_of_instances(
        self, name: str, kind: str
    ) -> None:
        part = trained(kind)
        reference = frozen(part.model)
        model = run_by(name, part.model, drawn_inputs(part))
        for x in (drawn_inputs(part, 1), drawn_inputs(part, 3), noise_inputs(part)):
            with torch.inference_mode():
                expected, found = (m(x).softmax(dim=1) for m in (reference, model))
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("kind", ["lite0", "volume", "mfcc_lstm"])
    def test_in_bfloat16_are_near(self, kind: str) -> None:
        part = trained(kind)
        x = drawn_inputs(part)
        model = run_by("torch_bf16", part.model, x)
        with torch.inference_mode():
            expected, found = (m(x).softmax(dim=1) for m in (frozen(part.model), model))
        # Eight bits of mantissa, through a network whose head is as sure as a trained one's.
        torch.testing.assert_close(found, expected, rtol=0, atol=0.2)

    def test_leave_attention_over_a_record_to_torch(self) -> None:
        part = trained("crnn")
        instances = (drawn_inputs(part, 4).numpy() * 32767).round().astype(np.int16)
        rows, counts = np.arange(4), np.array([3, 1])
        expected = infer_records(frozen(part.model), instances, rows, counts)
        model = run_by("openvino", part.model, drawn_inputs(part))
        found = infer_records(model, instances, rows, counts)
        np.testing.assert_allclose(found.p, expected.p, atol=1e-5)
        assert expected.attention is not None
        assert found.attention is not None
        np.testing.assert_allclose(found.attention, expected.attention, atol=1e-5)

    def test_an_unknown_one_names_those_there_are(self) -> None:
        with pytest.raises(RuntimeUnavailable, match=r"'tensorrt': unknown.*openvino"):
            runtime.find_runtime("tensorrt")

    def test_one_that_is_not_installed_says_how_to_get_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(
            RUNTIMES, "other", runtime.Runtime("other", ("no_such_package",), lambda n, _: n)
        )
        with pytest.raises(RuntimeUnavailable, match=r"pip install.*no_such_package"):
            Predictor(bundle_of(trained("attention")), "other")


class TestAuto:
    part = trained("attention")

    def test_is_the_fastest_where_it_gives_the_answers_of_torch(self) -> None:
        assert run_by("auto", self.part.model, drawn_inputs(self.part)).compiled is not None

    @pytest.mark.parametrize("fault", ["missing", "refuses", "differs"])
    def test_is_torch_where_the_fastest_fails(
        self, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def compiling(network: nn.Module, _: torch.Tensor) -> runtime.Network:
            if fault == "refuses":
                raise RuntimeError("no such operation")
            return lambda x: network(x) + 1e-2 * x.flatten(1)[:, :1]

        packages = ("no_such_package",) if fault == "missing" else ()
        broken = runtime.Runtime(runtime.FASTEST, packages, compiling)
        monkeypatch.setitem(RUNTIMES, runtime.FASTEST, broken)
        assert run_by("auto", self.part.model, drawn_inputs(self.part)).compiled is None


def test_a_predictor_answers_as_torch_does(tmp_path: Path) -> None:
    import cv2

    from pulmofuse.sources.phantom import draw_ct

    picture = draw_ct(np.random.default_rng(5), 96, {}, female=False, coarse=False)
    png = cv2.imencode(".png", picture)[1].tobytes()
    save_bundle(tmp_path, bundle_of(trained("attention")))
    expected = Predictor.load(tmp_path, "torch").predict(ct=png).probabilities
    found = Predictor.load(tmp_path).predict(ct=png).probabilities
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("win_length", [400, 512])
def test_the_log_mel_of_files_is_that_of_the_models(win_length: int) -> None:
    config = CoughPreprocessing(duration_s=0.5, win_length=win_length)
    sounds = torch.rand(3, 8000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = LogMel(config)(sounds)
    torch.testing.assert_close(ConvolvedLogMel(config)(sounds), expected, rtol=0, atol=1e-3)


class TestExport:
    def outputs(self, folder: Path, kind: str, name: str, x: torch.Tensor) -> dict[str, Any]:
        """What a file says, read by its own runtime and by nothing of ours."""
        names = list(json.loads((folder / f"{name}.json").read_text())["outputs"])
        if kind == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
            return dict(zip(names, session.run(names, {"x": x.numpy()}), strict=True))
        settings = json.loads((folder / f"{name}.json").read_text())["settings"]
        compiled = openvino().Core().compile_model(folder / f"{name}.xml", "CPU", settings)
        found = compiled({"x": x.numpy()})
        return {key: found[compiled.output(key)] for key in names}

    # OpenVINO writes what it runs, which is tested above, but for these.
    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            *(("onnx", name) for name in KINDS),
            *(("openvino", name) for name in ("lite0", "spectrogram_cnn")),
        ],
    )
    def test_a_file_tells_what_the_model_tells(self, kind: Any, name: str, tmp_path: Path) -> None:
        part = trained(name)
        (described,) = export_bundle(bundle_of(part), tmp_path, kind)
        model = frozen(part.model)
        x = drawn_inputs(part, 5)
        found = self.outputs(tmp_path, kind, part.modality.value, x)
        with torch.inference_mode():
            features = model.features(x)
            p = model.classify(features).softmax(dim=1).numpy()
        np.testing.assert_allclose(found["features"], features, atol=1e-3)
        logits = torch.from_numpy(np.array(found["logits"]))
        np.testing.assert_allclose(logits.softmax(dim=1), p, atol=1e-4)
        if model.findings:
            expected = model.findings_probabilities(features).numpy()
            np.testing.assert_allclose(found["findings"], expected, atol=1e-4)
        content = json.loads(described.read_text())
        assert content["input"]["shape"] == ["n", *x.shape[1:]]
        assert content["outputs"]["logits"]["classes"] == list(CLASSES)
        for measured in content["largest_difference"].values():
            assert measured["probabilities"] <= content["tolerance"]

    def test_attention_of_a_file_joins_records_as_the_model_does(self, tmp_path: Path) -> None:
        part = copy.deepcopy(trained("crnn"))
        with torch.no_grad():
            assert part.model.instance_attention is not None
            nn.init.normal_(part.model.instance_attention.score.weight)
        export_bundle(bundle_of(part), tmp_path, "onnx")
        x = drawn_inputs(part, 4)
        found = self.outputs(tmp_path, "onnx", "cough", x)
        score = torch.from_numpy(found["attention"])
        logits = score.softmax(dim=0) @ torch.from_numpy(found["logits"])
        with torch.inference_mode():
            expected = frozen(part.model)(x, torch.tensor([4]))[0]
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)

    def test_members_that_attend_are_refused_before_anything_is_written(
        self, tmp_path: Path
    ) -> None:
        config = ct({"aggregation": "attention"}, training=TrainingConfig(members=2))
        model = build_model(Modality.CT, config, 3)
        part = Unimodal(Modality.CT, config, model, identity_calibration(3))
        with pytest.raises(RuntimeUnavailable, match="members attend"):
            export_bundle(bundle_of(part), tmp_path / "out", "onnx")
        assert not (tmp_path / "out").exists()

    def test_a_file_that_differs_is_not_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pulmofuse.inference.exporting.TOLERANCE", -1.0)
        with pytest.raises(RuntimeUnavailable, match="differs from the bundle"):
            export_bundle(bundle_of(trained("attention")), tmp_path, "openvino")
        assert list(tmp_path.iterdir()) == []

    def test_without_onnx_the_error_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(
            RUNTIMES, "onnxruntime", runtime.Runtime("onnxruntime", ("no_onnx",), lambda n, _: n)
        )
        with pytest.raises(RuntimeUnavailable, match=r"pip install.*no_onnx"):
            export_bundle(bundle_of(trained("attention")), tmp_path, "onnx")

    def test_the_command_writes_what_it_is_asked_for(self, tmp_path: Path) -> None:
        save_bundle(tmp_path / "bundle", bundle_of(trained("attention")))
        call = ["export", str(tmp_path / "bundle"), "--out", str(tmp_path / "out"), "--format"]
        assert CliRunner().invoke(app, [*call, "openvino"]).exit_code == 0
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {"ct.xml", "ct.bin", "ct.json"}
        assert CliRunner().invoke(app, [*call, "pickle"]).exit_code == 2


def test_openvino_tells_nobody_that_it_is_used() -> None:
    openvino()
    assert [name for name in sys.modules if name.startswith("openvino_telemetry.")] == []
