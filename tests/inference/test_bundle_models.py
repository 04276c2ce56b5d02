"""Ensembles and test-time views in a bundle: saved, loaded strictly, and the same answers."""

from __future__ import annotations

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
from pulmofuse.evaluation import identity_calibration
from pulmofuse.inference import Bundle, DecisionFusion, Predictor, Unimodal, save_bundle
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
        "two", "", ("normal", "covid19"), "covid19", {Modality.CT: part}, decision, None, {}
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
