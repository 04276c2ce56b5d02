"""The input gate passes what the model was made for, and refuses all else with its reason."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy.spatial.distance import mahalanobis
from sklearn.decomposition import PCA
from typer.testing import CliRunner

from pulmofuse.cli import app
from pulmofuse.config import (
    CoughConfig,
    CoughModelConfig,
    CtConfig,
    CtModelConfig,
    CtPreprocessing,
    CxrConfig,
    CxrModelConfig,
    CxrPreprocessing,
)
from pulmofuse.curation.inspection import Seen
from pulmofuse.curation.remarks import Remark
from pulmofuse.errors import BundleError, InputRefused, PulmofuseError, UnreadableFile
from pulmofuse.evaluation import identity_calibration
from pulmofuse.inference import (
    Bundle,
    DecisionFusion,
    Gate,
    Predictor,
    Unimodal,
    build_model,
    fit_statistics,
    save_bundle,
)
from pulmofuse.inference.gate import fit_space
from pulmofuse.models import frozen, infer_records
from pulmofuse.preprocessing import Prepared, prepare
from pulmofuse.schema import Modality, Oddity
from pulmofuse.sources.phantom import SAMPLE_RATE_HZ, draw_cough, draw_ct, draw_cxr

LEFT_OUT = (
    Oddity.BLANK,
    Oddity.NOT_RADIOLOGY,
    Oddity.WRONG_MODALITY,
    Oddity.LATERAL,
    Oddity.NO_COUGH,
    Oddity.SPEECH,
)
CONFIGS: dict[Modality, CtConfig | CxrConfig | CoughConfig] = {
    Modality.CT: CtConfig(
        preprocessing=CtPreprocessing(size=64),
        model=CtModelConfig(backbone="resnet18", weights="none"),
    ),
    Modality.CXR: CxrConfig(
        preprocessing=CxrPreprocessing(size=96),
        model=CxrModelConfig(backbone="resnet18", weights="none"),
    ),
    Modality.COUGH: CoughConfig(model=CoughModelConfig(architecture="mfcc_lstm")),
}
N_TRAIN, N_VAL, N_NEW = 40, 50, 8


def _png(grey: np.ndarray) -> bytes:
    return cv2.imencode(".png", grey)[1].tobytes()


def _wav(samples: np.ndarray, rate: int = SAMPLE_RATE_HZ) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV")
    return buffer.getvalue()


def _draw(modality: Modality, seed: int) -> bytes:
    """One file of a healthy person of the synthetic cohort."""
    rng = np.random.default_rng([seed, list(Modality).index(modality)])
    female, coarse = bool(rng.integers(2)), bool(rng.integers(2))
    if modality is Modality.COUGH:
        return _wav(draw_cough(rng, {}, female=female, coarse=coarse))
    draw = draw_ct if modality is Modality.CT else draw_cxr
    return _png(draw(rng, 160, {}, female=female, coarse=coarse))


def _part(modality: Modality) -> Unimodal:
    torch.manual_seed(0)
    config = CONFIGS[modality]
    model = build_model(modality, config, 2).eval()
    return Unimodal(modality, config, model, identity_calibration(2))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Untrained models with the gate of drawn records."""
    parts = {m: _part(m) for m in Modality}
    gates = {}
    for modality, part in parts.items():
        files = [
            prepare(_draw(modality, i), modality, part.config.preprocessing)
            for i in range(N_TRAIN + N_VAL)
        ]
        counts = np.array([len(file.instances) for file in files])
        instances = np.concatenate([file.instances for file in files])
        rows = np.arange(len(instances))
        features = infer_records(frozen(part.model), instances, rows, counts).features
        gates[modality] = fit_statistics(
            modality,
            [file.seen.traits for file in files],
            [remark.kind for file in files for remark in file.seen.remarks],
            LEFT_OUT,
            getattr(part.config.preprocessing, "size", None),
            features[:N_TRAIN],
            features[N_TRAIN:],
        )
    half = np.full(2, 0.5)
    decision = DecisionFusion(tuple(Modality), half, np.tile(half, (3, 1)), np.full(3, 1 / 3), 1.0)
    return Bundle(
        "drawn", "", ("normal", "covid19"), "covid19", parts, decision, {}, {}, gates=gates
    )


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gate") / "bundle"
    save_bundle(path, bundle)
    return path


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor.load(folder)


@pytest.mark.parametrize("modality", list(Modality))
def test_new_records_of_the_kind_that_was_learnt_from_pass(
    predictor: Predictor, modality: Modality
) -> None:
    for i in range(N_NEW):
        answer = predictor.predict(**{modality.value: _draw(modality, 1000 + i)})
        assert all(remark["severity"] == "warn" for remark in answer.quality)


def _chart() -> bytes:
    page = np.full((300, 400), 255, np.uint8)
    cv2.line(page, (40, 20), (40, 260), 0, 2)
    cv2.line(page, (40, 260), (380, 260), 0, 2)
    for x in range(60, 360, 40):
        cv2.rectangle(page, (x, 260 - x // 2), (x + 25, 260), 90, -1)
    cv2.putText(page, "cases by week", (120, 30), 0, 0.7, 0, 2)
    return _png(page)


def _changed(modality: Modality, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    grey = cv2.imdecode(np.frombuffer(_draw(modality, 0), np.uint8), cv2.IMREAD_GRAYSCALE)
    return _png(change(np.asarray(grey)))


def _lower_half_grey(grey: np.ndarray) -> np.ndarray:
    out = grey.copy()
    out[len(out) // 2 :] = 128
    return out


def _seconds(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def _noise(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).normal(size=len(_seconds(seconds)))


def _cough_onset() -> bytes:
    samples, rate = soundfile.read(io.BytesIO(_draw(Modality.COUGH, 0)))
    peak = int(np.abs(samples).argmax())
    first = max(0, peak - rate // 20)
    return _wav(samples[first : first + rate // 7], rate)


def _clipped() -> bytes:
    samples, rate = soundfile.read(io.BytesIO(_draw(Modality.COUGH, 0)))
    return _wav(np.clip(60 * samples, -1, 1), rate)


@pytest.mark.parametrize(
    ("modality", "make", "code"),
    [
        ("cxr", _chart, "not_radiology"),
        ("ct", _chart, "not_radiology"),
        ("cxr", lambda: _draw(Modality.CT, 1), "wrong_modality"),
        ("ct", lambda: _draw(Modality.CXR, 1), "wrong_modality"),
        ("cxr", lambda: _changed(Modality.CXR, _lower_half_grey), "cut"),
        ("cxr", lambda: _changed(Modality.CXR, lambda g: g[: len(g) // 3]), "cut"),
        ("ct", lambda: _changed(Modality.CT, lambda g: g[: len(g) // 3]), "cut"),
        ("cxr", lambda: _changed(Modality.CXR, lambda g: cv2.resize(g, (33, 33))), "too_small"),
        ("ct", lambda: _changed(Modality.CT, lambda g: 100 + g // 100), "blank"),
        ("cough", lambda: _wav(_noise(3)), "no_cough"),
        ("cough", lambda: _wav(0.3 * np.sin(2764 * _seconds(3))), "no_cough"),
        ("cough", lambda: _wav(_noise(3) * 2e-3), "silent"),
        ("cough", _cough_onset, "too_short"),
        ("cough", _clipped, "clipped"),
    ],
)
def test_what_the_model_was_not_made_for_is_refused_with_reason_and_remedy(
    predictor: Predictor, tmp_path: Path, modality: str, make: Callable[[], bytes], code: str
) -> None:
    data = make()
    quality = predictor.predict(**{modality: data}, gate="warn").quality
    refused = {remark["code"]: remark for remark in quality if remark["severity"] == "refuse"}
    assert code in refused, quality
    assert refused[code]["modality"] == modality

    path = tmp_path / "given"
    path.write_bytes(data)
    with pytest.raises(InputRefused) as error:
        predictor.predict(**{modality: path})
    assert str(path) in error.value.what
    assert modality in error.value.what
    assert refused[code]["text"] in error.value.why
    assert error.value.remedy in {remark["remedy"] for remark in refused.values()}


@pytest.mark.parametrize(("modality", "other"), [("cough", "cxr"), ("ct", "cough")])
def test_a_sound_is_no_image_and_an_image_no_sound(
    predictor: Predictor, modality: str, other: str
) -> None:
    with pytest.raises(UnreadableFile):
        predictor.predict(**{modality: _draw(Modality(other), 0)})


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("voice", ["en-gb", "es+f2", "ru+m4"])
def test_speech_is_refused_as_a_cough(predictor: Predictor, tmp_path: Path, voice: str) -> None:
    path = tmp_path / "said.wav"
    command = ["espeak-ng", "-v", voice, "-w", str(path), "one two three, 1984, 2026 and 77"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(InputRefused, match="no cough"):
        predictor.predict(cough=path)


@pytest.mark.skipif(shutil.which("sox") is None, reason="sox is not installed")
@pytest.mark.parametrize("made", ["whitenoise", "pinknoise", "brownnoise", "sine 440"])
def test_noise_and_tones_are_refused_as_a_cough(
    predictor: Predictor, tmp_path: Path, made: str
) -> None:
    path = tmp_path / "made.wav"
    command = ["sox", "-n", "-R", "-r", "16000", str(path), "synth", "3", *made.split()]
    subprocess.run([*command, "gain", "-6"], check=True, capture_output=True)
    with pytest.raises(InputRefused):
        predictor.predict(cough=path)


class TestModes:
    def test_warn_predicts_and_off_does_not_look(self, predictor: Predictor) -> None:
        wrong = _draw(Modality.CT, 2)
        warned = predictor.predict(cxr=wrong, gate="warn")
        blind = predictor.predict(cxr=wrong, gate="off")
        assert {remark["severity"] for remark in warned.quality} >= {"refuse"}
        assert blind.quality == ()
        assert warned.probabilities == blind.probabilities
        json.dumps(warned.to_dict())

    def test_one_refused_file_refuses_the_patient(self, predictor: Predictor) -> None:
        with pytest.raises(InputRefused, match="as cxr"):
            predictor.predict(ct=_draw(Modality.CT, 3), cxr=_draw(Modality.CT, 3))

    def test_another_mode_is_an_error(self, predictor: Predictor) -> None:
        with pytest.raises(ValueError, match="refuse, warn, off"):
            predictor.predict(ct=_draw(Modality.CT, 3), gate="maybe")  # type: ignore[arg-type]

    def test_the_command_line_warns_where_it_is_told_to(self, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "slice.png"
        path.write_bytes(_draw(Modality.CT, 4))
        arguments = ["predict", str(folder), "--cxr", str(path)]
        refused = CliRunner().invoke(app, arguments)
        assert isinstance(refused.exception, InputRefused)
        warned = CliRunner().invoke(app, [*arguments, "--gate", "warn", "--json"])
        assert "wrong_modality" in {r["code"] for r in json.loads(warned.stdout)["quality"]}
        assert CliRunner().invoke(app, [*arguments, "--gate", "no"]).exit_code == 2


class TestBundle:
    def test_loaded_it_says_the_same(self, bundle: Bundle, predictor: Predictor) -> None:
        before = Predictor(bundle)
        for data in (_draw(Modality.CXR, 5), _chart()):
            answers = [p.predict(cxr=data, gate="warn").quality for p in (before, predictor)]
            assert answers[0] == answers[1]

    def test_a_modality_without_statistics_is_not_looked_at(
        self, bundle: Bundle, tmp_path: Path
    ) -> None:
        few = {m: s for m, s in bundle.gates.items() if m is not Modality.CXR}
        save_bundle(tmp_path, replace(bundle, gates=few))
        assert Predictor.load(tmp_path).predict(cxr=_draw(Modality.CT, 6)).quality == ()

    @pytest.mark.parametrize("fault", ["missing", "cut", "other model", "extra", "infinite"])
    def test_damaged_arrays_are_refused(self, folder: Path, tmp_path: Path, fault: str) -> None:
        copy = tmp_path / "bundle"
        shutil.copytree(folder, copy)
        path = copy / "gate-cough.safetensors"
        arrays = load_file(path)
        if fault == "missing":
            path.unlink()
        elif fault == "cut":
            path.write_bytes(path.read_bytes()[:-20])
        elif fault == "other model":
            shutil.copy(copy / "gate-ct.safetensors", path)
        elif fault == "extra":
            save_file(arrays | {"more": np.ones(1, np.float32)}, path)
        else:
            save_file(arrays | {"mean": np.full_like(arrays["mean"], np.inf)}, path)
        with pytest.raises(BundleError, match="gate-cough"):
            Predictor.load(copy)

    @pytest.mark.parametrize(
        "change",
        [
            lambda gate: gate.pop("cxr"),
            lambda gate: gate["cxr"].pop("refused"),
            lambda gate: gate["cxr"].update(rest=0.0),
            lambda gate: gate["cxr"].update(refused=["ugly"]),
        ],
    )
    def test_damaged_json_is_refused(
        self, folder: Path, tmp_path: Path, change: Callable[[dict[str, dict[str, object]]], object]
    ) -> None:
        copy = tmp_path / "bundle"
        shutil.copytree(folder, copy)
        content = json.loads((copy / "bundle.json").read_text(encoding="utf-8"))
        change(content["gate"])
        (copy / "bundle.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(BundleError, match="damaged"):
            Predictor.load(copy)


@pytest.mark.parametrize(
    ("kind", "left_out", "share_with", "unusual", "severity"),
    [
        (Oddity.LATERAL, LEFT_OUT, 0, False, "refuse"),
        (Oddity.LATERAL, (), 0, False, "warn"),
        (Oddity.CLIPPED, LEFT_OUT, 0, False, "warn"),
        (Oddity.CLIPPED, LEFT_OUT, 0, True, "refuse"),
        (Oddity.CLIPPED, LEFT_OUT, 10, True, "warn"),
        (Oddity.INCOMPLETE, LEFT_OUT, 0, False, "refuse"),
        (Oddity.BURNT_IN_TEXT, LEFT_OUT, 0, True, "warn"),
    ],
)
def test_refused_is_what_the_study_left_out_and_what_it_hardly_saw(
    kind: Oddity, left_out: tuple[Oddity, ...], share_with: int, unusual: bool, severity: str
) -> None:
    rng = np.random.default_rng(0)
    traits = [{"height": 400, "width": 400}] * 100
    train, val = rng.normal(size=(60, 8)), rng.normal(size=(60, 8))
    known = fit_statistics(Modality.CXR, traits, [kind] * share_with, left_out, 224, train, val)
    instances = rng.integers(0, 255, (1, 32, 32), np.uint8)
    seen = Seen(traits[0], b"", (Remark(kind, "is odd", "mend it"),))
    features = train[0] + 99.0 * unusual
    found = Gate({Modality.CXR: known}).check(Modality.CXR, Prepared(instances, seen), features)
    assert (found[0].severity, found[0].text, found[0].remedy) == (severity, "is odd", "mend it")
    assert [remark.code for remark in found[1:]] == ["unusual"] * unusual


class TestFeatureSpace:
    def test_distance_is_that_of_probabilistic_pca(self) -> None:
        rng = np.random.default_rng(1)
        train = rng.normal(size=(40, 12)) @ rng.normal(size=(12, 12))
        space = fit_space(train, train[:5])
        reference = PCA(len(space.components), svd_solver="full").fit(train)
        precision = reference.get_precision()
        for x in rng.normal(size=(5, 12)) * 3:
            expected = mahalanobis(x, reference.mean_, precision)
            assert space.distance(x[None])[0] == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize(("n", "there"), [(0, False), (48, False), (49, True), (200, True)])
    def test_the_limit_needs_enough_validation_records(self, n: int, there: bool) -> None:
        rng = np.random.default_rng(2)
        limit = fit_space(rng.normal(size=(80, 6)), rng.normal(size=(n, 6))).limit
        assert (limit is not None) == there

    @given(st.integers(0, 2**32 - 1))
    def test_new_records_seldom_lie_beyond_the_limit(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        space = fit_space(rng.normal(size=(100, 5)), rng.normal(size=(400, 5)))
        assert space.limit is not None
        beyond = (space.distance(rng.normal(size=(2000, 5))) > space.limit).mean()
        # The share beyond the 394th of 400 is beta distributed about .0175; .06 is six sigma off.
        assert beyond < 0.06

    def test_features_that_never_vary_and_those_that_are_no_number(self) -> None:
        rng = np.random.default_rng(3)
        train = np.hstack([rng.normal(size=(80, 3)), np.ones((80, 3))])
        space = fit_space(train, train)
        assert np.isfinite(space.distance(train)).all()
        moved = train[0] + np.array([0, 0, 0, 5.0, 0, 0])
        assert space.limit is not None
        assert space.distance(moved[None])[0] > space.limit


def test_errors_of_the_gate_are_ones_that_a_user_can_act_on() -> None:
    assert issubclass(InputRefused, PulmofuseError)
