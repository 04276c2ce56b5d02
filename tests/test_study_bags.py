"""Whole studies whose records are bags: volumes and slices by attention and as volumes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pulmofuse.config import parse_config
from pulmofuse.inference import Predictor, Scores
from pulmofuse.sources.synthetic import SyntheticConfig, generate
from pulmofuse.study import run_study

CONFIG = """
name: bags
question: Do whole studies bear bags?
target: {classes: [normal, covid19], positive: covid19, mapping: {normal: normal, covid19: covid19}}
sources: [{name: folder}]
split: {test: 0.3, val: 0.2}
ct:
  preprocessing: {size: 48, max_slices: 4}
  model: {weights: none, depth: 3}
  training: {epochs: 1}
cough:
  preprocessing: {duration_s: 0.5, max_windows: 3}
  model: {architecture: crnn, hidden: 8, aggregation: attention}
  training: {epochs: 1}
fusion: {patients: paired, feature: {views: 1, training: {epochs: 1}}}
evaluation: {bootstrap: 100, explain_examples: 1}
"""


@dataclass(frozen=True)
class Finished:
    """A study that ran to its end."""

    data: Path
    out: Path

    @property
    def predictions(self) -> pd.DataFrame:
        return pd.read_parquet(self.out / "predictions.parquet")

    @property
    def manifest(self) -> pd.DataFrame:
        return pd.read_parquet(self.out / "manifest.parquet").set_index("record_id")


def _draw(root: Path, modalities: tuple[str, ...]) -> None:
    """Of every second patient the CT is a volume; of every fourth there is a slice beside it."""
    generate(
        root, SyntheticConfig(patients=32, classes=("normal", "covid19"), image_size=64, seed=3)
    )
    for folder in {"ct", "cxr", "cough_audio"} - set(modalities):
        shutil.rmtree(root / folder)
    table = pd.read_csv(root / "patients.csv")
    rng = np.random.default_rng(0)
    rows = []
    for number, row in enumerate(table.itertuples(index=False)):
        path = root / row.path
        if not path.exists():
            continue
        rows.append(row._asdict())
        if path.suffix == ".png" and number % 2:
            plane = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float64)
            shades = np.linspace(0.7, 1.0, 6)
            noise = rng.normal(0, 4, (6, *plane.shape))
            volume = (shades[:, None, None] * plane + noise).clip(0, 255).astype(np.uint8)
            image = nib.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-1.0, -1.0, 3.0, 1.0]))
            nib.save(image, path.with_suffix(".nii.gz"))
            moved = {**row._asdict(), "path": str(Path(row.path).with_suffix(".nii.gz"))}
            if number % 4 == 1:
                path.unlink()
                rows.pop()
            rows.append(moved)
    pd.DataFrame(rows).to_csv(root / "patients.csv", index=False)


def _study(root: Path, modalities: tuple[str, ...], aggregation: str) -> Finished:
    data, out = root / "data", root / "out"
    _draw(data, modalities)
    run_study(parse_config(CONFIG, [f"ct.model.aggregation={aggregation}"]), data, out)
    return Finished(data, out)


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return _study(tmp_path_factory.mktemp("attention"), ("ct", "cough_audio"), "attention")


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return _study(tmp_path_factory.mktemp("volume"), ("ct",), "volume")


def _assert_parity(study: Finished, modality: str) -> list[dict[str, list[float]]]:
    """Predictions from test files equal the study's; what the attention says of each."""
    predictor = Predictor.load(study.out / "bundle")
    rows = study.predictions
    rows = rows[(rows["method"] == "per_record") & (rows["subset"] == modality)]
    rows = rows[rows["split"] == "test"].set_index("record_id")
    attention = []
    for record, row in rows.iterrows():
        path = study.data / study.manifest.loc[record, "path"]
        answer = predictor.predict(**{modality: path})
        # The only modality, under the prior of the fused patients.
        decision = predictor.bundle.decision
        p = np.full((1, len(decision.modalities), 2), 0.5)
        j = [m.value for m in decision.modalities].index(modality)
        p[0, j] = row[["p_normal", "p_covid19"]].to_numpy(dtype=float)
        assert answer.probabilities["covid19"] == pytest.approx(
            decision.rebase(p)[0, j, 1], abs=1e-5
        )
        attention.append(answer.attention)
    return attention


def test_records_of_one_and_of_several_slices_are_there(attention: Finished) -> None:
    kinds = attention.manifest.loc[attention.manifest["modality"] == "ct", "path"].str[-3:]
    assert set(kinds) == {"png", ".gz"}


def test_attention_predicts_from_files_what_the_study_predicted(attention: Finished) -> None:
    ct = _assert_parity(attention, "ct")
    assert {len(one["ct"]) for one in ct} == {1, 4}
    for one in [*ct, *_assert_parity(attention, "cough")]:
        (weights,) = one.values()
        assert sum(weights) == pytest.approx(1.0, abs=1e-6)


def test_two_modalities_by_the_feature_fusion_predict_what_the_study_predicted(
    attention: Finished,
) -> None:
    rows = attention.predictions
    rows = rows[(rows["method"] == "gated_attention") & (rows["split"] == "test")]
    predictor = Predictor.load(attention.out / "bundle")
    single = rows[rows["record_id"].str.count("&") == 1]
    for row in single.head(2).itertuples():
        ct, cough = (attention.manifest.loc[r, "path"] for r in row.record_id.split(" & "))
        answer = predictor.predict(
            ct=attention.data / ct, cough=attention.data / cough, method="gated_attention"
        )
        assert answer.probabilities["covid19"] == pytest.approx(row.p_covid19, abs=1e-5)
        assert set(answer.attention) == {"ct", "cough"}


def test_scores_keep_what_a_record_weighs(attention: Finished, volume: Finished) -> None:
    log_weight = Scores.load(attention.out / "scores", "ct").log_weight
    assert log_weight is not None
    assert np.isfinite(log_weight).all()
    assert Scores.load(volume.out / "scores", "ct").log_weight is None


def test_volumes_predict_from_files_what_the_study_predicted(volume: Finished) -> None:
    assert all(one == {} for one in _assert_parity(volume, "ct"))


@pytest.mark.parametrize("name", ["attention", "volume"])
def test_controls_probe_and_pictures_are_there(name: str, request: pytest.FixtureRequest) -> None:
    study: Finished = request.getfixturevalue(name)
    controls = pd.read_csv(study.out / "controls.csv")
    ct = controls[(controls["modality"] == "ct") & (controls["metric"] == "roc_auc")]
    assert set(ct["method"]) == {"model", "probe"}
    assert ct["value"].notna().all()
    assert (study.out / "explanations" / "ct-0-cam.png").exists()
