"""A study that learns findings beside the classes, from two data sets that say different things."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pulmofuse.config import parse_config
from pulmofuse.errors import BundleError, StudyError
from pulmofuse.findings import findings_text, parse_findings
from pulmofuse.inference import Predictor
from pulmofuse.schema import read_manifest
from pulmofuse.sources.synthetic import SyntheticConfig, generate
from pulmofuse.study import run_study

CONFIG = """
name: two clinics
question: Do findings of two clinics train together?
target:
  classes: [normal, covid19]
  positive: covid19
  mapping: {normal: normal, covid19: covid19}
sources: [{name: table}]
split: {test: 0.4, val: 0.2}
cxr:
  preprocessing: {size: 64}
  model: {backbone: resnet18, weights: none, findings_weight: 0.5}
  training: {epochs: 1}
evaluation: {bootstrap: 100, explain_examples: 0, controls: false}
"""


def _stated(number: int, sick: bool) -> dict[str, int]:
    """North speaks of COVID-19 and hernias, south of opacities; every fifth record of nothing."""
    if number % 5 == 0:
        return {}
    return {"covid19": int(sick), "hernia": 0} if number % 2 else {"lung_opacity": int(sick)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clinics")
    generate(root, SyntheticConfig(patients=40, classes=("normal", "covid19"), seed=5))
    rows = []
    for number, path in enumerate(sorted((root / "cxr").rglob("*.png"))):
        label = path.parent.name
        rows.append(
            {
                "path": path.relative_to(root).as_posix(),
                "label": label,
                "modality": "cxr",
                "patient_id": f"p{number:02d}",
                "source": ("south", "north")[number % 2],
                "findings": findings_text(_stated(number, label == "covid19")),  # type: ignore[arg-type]
            }
        )
    pd.DataFrame(rows).to_csv(root / "table.csv", index=False)
    return root


@pytest.fixture(
    scope="module",
    params=[
        pytest.param([], id="one model"),
        pytest.param(["cxr.training.members=2"], id="ensemble"),
        pytest.param(["cxr.training.trainable=head", "cxr.training.probe_views=1"], id="probe"),
    ],
)
def out(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("study")
    run_study(parse_config(CONFIG, request.param), data, folder)
    return folder


def test_each_finding_is_judged_on_the_test_records_that_say(out: Path) -> None:
    manifest = read_manifest(out / "manifest.parquet")
    tested = manifest[manifest["split"] == "test"]
    stated = [parse_findings(text) if text else {} for text in tested["findings"]]
    predictions = pd.read_parquet(out / "findings.parquet")
    table = pd.read_csv(out / "findings.csv").set_index("finding")
    # Nobody has a hernia, so there was nothing to learn of it.
    assert set(table.index) == {"covid19", "lung_opacity"}
    assert set(predictions["record_id"]) == set(tested["record_id"])
    for finding, row in table.iterrows():
        said = [s[finding] for s in stated if finding in s]  # type: ignore[index]
        known = predictions[predictions["finding"] == finding].dropna(subset="y_true")
        assert (row["n"], row["n_positive"]) == (len(said), sum(said))
        assert row["roc_auc"] == pytest.approx(roc_auc_score(known["y_true"], known["p"]))


def test_a_prediction_from_a_file_has_the_findings_of_the_study(data: Path, out: Path) -> None:
    predictor = Predictor.load(out / "bundle")
    predictions = pd.read_parquet(out / "findings.parquet")
    paths = read_manifest(out / "manifest.parquet").set_index("record_id")["path"]
    for record_id, rows in list(predictions.groupby("record_id"))[:3]:
        found = predictor.predict(cxr=data / paths[record_id]).to_dict()["findings"]
        assert found == pytest.approx(dict(zip(rows["finding"], rows["p"], strict=True)), abs=1e-5)


@pytest.mark.parametrize(
    ("findings", "why"),
    [([], "does not fit"), (["covid19"], "does not fit"), (["covid19", "flu"], "is damaged")],
)
def test_a_bundle_whose_findings_do_not_fit_is_refused(
    out: Path, tmp_path: Path, findings: list[str], why: str
) -> None:
    shutil.copytree(out / "bundle", tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    content = json.loads(path.read_text())
    content["unimodal"]["cxr"]["findings"] = findings
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=why):
        Predictor.load(tmp_path / "bundle")


def test_findings_that_nobody_states_are_refused_before_training(
    data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    table = pd.read_csv(tmp_path / "data" / "table.csv")
    table.assign(findings=np.nan).to_csv(tmp_path / "data" / "table.csv", index=False)
    with pytest.raises(StudyError, match=r"cxr\.model\.findings_weight: no finding is present"):
        run_study(parse_config(CONFIG), tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoints").exists()
