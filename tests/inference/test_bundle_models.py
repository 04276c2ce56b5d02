"""Ensembles and test-time views in a bundle: saved, loaded strictly, and the same answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pulmofuse.config import (
    CtConfig,
    CtModelConfig,
    CtPreprocessing,
    TestTimeViews,
    TrainingConfig,
)
from pulmofuse.errors import BundleError, ConfigError
from pulmofuse.evaluation import Conformal, identity_calibration
from pulmofuse.inference import (
    Bundle,
    DecisionFusion,
    Predictor,
    Unimodal,
    load_bundle,
    save_bundle,
)
from pulmofuse.inference.bundle import build_model
from pulmofuse.models import Ensemble
from pulmofuse.models.views import views_of
from pulmofuse.preprocessing import prepare, to_tensor
from pulmofuse.schema import Modality
from pulmofuse.sources.phantom import draw_ct

CONFIG = CtConfig(
    preprocessing=CtPreprocessing(size=32),
    model=CtModelConfig(backbone="resnet18", weights="none"),
    training=TrainingConfig(members=2),
    tta=TestTimeViews(flip_horizontal=True, zooms=(1.0, 1.2)),
)


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    model = build_model(Modality.CT, CONFIG, 2).eval()
    part = Unimodal(Modality.CT, CONFIG, model, identity_calibration(2))
    half = np.full(2, 0.5)
    decision = DecisionFusion((Modality.CT,), half, half[None], np.ones(1), 1.0)
    return Bundle(
        "two", "", ("normal", "covid19"), "covid19", {Modality.CT: part}, decision, {}, {}
    )


def test_a_prediction_is_the_mean_over_members_of_the_mean_over_views(
    bundle: Bundle, tmp_path: Path
) -> None:
    save_bundle(tmp_path / "bundle", bundle)
    picture = draw_ct(np.random.default_rng(0), 96, {}, female=False, coarse=False)
    import cv2

    cv2.imwrite(str(tmp_path / "slice.png"), picture)
    predicted = Predictor.load(tmp_path / "bundle").predict(ct=tmp_path / "slice.png")

    x = to_tensor(prepare(tmp_path / "slice.png", Modality.CT, CONFIG.preprocessing).instances)
    ensemble = bundle.unimodal[Modality.CT].model
    assert isinstance(ensemble, Ensemble)
    p = []
    with torch.no_grad():
        for member in ensemble.each():
            logits = [
                member.classify(member.pool(member.feature_map(view)))
                for view in views_of(x, CONFIG.tta)
            ]
            p.append(torch.stack(logits).mean(dim=0).softmax(dim=1))
    expected = torch.stack(p).mean(dim=0)[0]
    assert list(predicted.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-3)


def test_a_bundle_that_lacks_a_member_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path, bundle)
    state = load_file(tmp_path / "ct.safetensors")
    kept = {name: value for name, value in state.items() if not name.startswith("members.1.")}
    save_file(kept, tmp_path / "ct.safetensors")
    with pytest.raises(BundleError, match="does not fit its architecture"):
        Predictor.load(tmp_path)


def test_freezing_more_stages_than_there_are_is_found_when_the_model_is_built() -> None:
    training = TrainingConfig(frozen_stages=6)
    with pytest.raises(ConfigError, match="5 stages below its head"):
        build_model(Modality.CT, CONFIG.model_copy(update={"training": training}), 2)


def _with_sets(bundle: Bundle, **changes: object) -> Bundle:
    sets = {"ct|unimodal": {"normal": 0.999, "covid19": None}}
    changed = {"thresholds": {"ct|unimodal": 0.3}, "conformal": Conformal(0.9, sets), **changes}
    return replace(bundle, **changed)  # type: ignore[arg-type]


@pytest.fixture
def slice_file(tmp_path: Path) -> Path:
    import cv2

    picture = draw_ct(np.random.default_rng(0), 96, {}, female=False, coarse=False)
    cv2.imwrite(str(tmp_path / "slice.png"), picture)
    return tmp_path / "slice.png"


@pytest.mark.parametrize("prevalence", [0.02, 0.7])
def test_another_prevalence_moves_probability_and_threshold_and_nothing_else(
    bundle: Bundle, tmp_path: Path, slice_file: Path, prevalence: float
) -> None:
    save_bundle(tmp_path / "bundle", _with_sets(bundle))
    predictor = Predictor.load(tmp_path / "bundle")
    here, there = (predictor.predict(ct=slice_file, prevalence=v) for v in (None, prevalence))

    def odds(p: float) -> float:
        return p / (1 - p)

    # The prior of this bundle is even.
    factor = odds(prevalence)
    moved = there.probabilities["covid19"]
    assert odds(moved) == pytest.approx(odds(here.probabilities["covid19"]) * factor)
    assert there.threshold is not None
    assert odds(there.threshold) == pytest.approx(odds(0.3) * factor)
    assert there.by_modality["ct"] == there.probabilities
    assert (here.prevalence, there.prevalence) == (None, prevalence)
    for name in ("predicted", "evidence", "prediction_set", "coverage"):
        assert getattr(there, name) == getattr(here, name)


def test_the_bundles_own_prevalence_is_used_where_none_is_given(
    bundle: Bundle, tmp_path: Path, slice_file: Path
) -> None:
    save_bundle(tmp_path / "bundle", _with_sets(bundle, deployment_prevalence=0.1))
    predictor = Predictor.load(tmp_path / "bundle")
    assert predictor.predict(ct=slice_file).prevalence == 0.1
    assert predictor.predict(ct=slice_file, prevalence=0.2).prevalence == 0.2
    with pytest.raises(BundleError, match="is no share"):
        predictor.predict(ct=slice_file, prevalence=2.0)


def test_a_prediction_says_which_classes_it_cannot_exclude(
    bundle: Bundle, tmp_path: Path, slice_file: Path
) -> None:
    save_bundle(tmp_path / "bundle", _with_sets(bundle))
    found = Predictor.load(tmp_path / "bundle").predict(ct=slice_file)
    p = found.probabilities["normal"]
    assert found.prediction_set == (("normal", "covid19") if 1 - p <= 0.999 else ("covid19",))
    assert found.coverage == 0.9
    assert found.warnings == (
        "too few validation patients of covid19: every prediction set holds it",
    )
    save_bundle(tmp_path / "bundle", bundle)
    assert Predictor.load(tmp_path / "bundle").predict(ct=slice_file).prediction_set is None


def test_a_bundle_of_before_has_neither_sets_nor_kinds(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path, bundle)
    content = json.loads((tmp_path / "bundle.json").read_text())
    del content["conformal"], content["deployment_prevalence"]
    del content["unimodal"]["ct"]["calibration"]["kind"]
    (tmp_path / "bundle.json").write_text(json.dumps(content))
    loaded = load_bundle(tmp_path)
    assert loaded.conformal is None
    assert loaded.unimodal[Modality.CT].calibration == identity_calibration(2)
    content["deployment_prevalence"] = 1.5
    (tmp_path / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="no share"):
        load_bundle(tmp_path)
