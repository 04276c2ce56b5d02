"""A whole study in which the CT data set says only "not COVID-19" of two of three classes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.errors import BundleError
from pulmofuse.external import evaluate_external
from pulmofuse.inference import Predictor
from pulmofuse.schema import Label, read_manifest, write_manifest
from pulmofuse.sources.synthetic import SyntheticConfig, generate
from pulmofuse.study import run_study

CLASSES = ["normal", "pneumonia", "covid19"]
CONFIG = """
name: sets
question: Does a coarse label help a fine one?
target:
  classes: [normal, pneumonia, covid19]
  positive: covid19
  mapping:
    {normal: normal, pneumonia: pneumonia, covid19: covid19, not_covid19: [normal, pneumonia]}
sources: [{name: table}]
split: {test: 0.3, val: 0.25}
ct: {preprocessing: {size: 64}, training: {epochs: 1}}
cxr: {preprocessing: {size: 64}, training: {epochs: 1}}
fusion:
  patients: simulated
  feature: {views: 1, methods: [gated_attention], training: {epochs: 1}}
evaluation: {bootstrap: 100, explain_examples: 2}
"""


@dataclass(frozen=True)
class Finished:
    """A study that ran to its end."""

    config: StudyConfig
    data: Path
    out: Path
    predictions: pd.DataFrame


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("sets")
    data, out = root / "data", root / "out"
    labels = (Label.NORMAL, Label.PNEUMONIA, Label.COVID19)
    records = generate(data, SyntheticConfig(patients=54, classes=labels, seed=5)).records
    records = records[records["modality"] != "cough"].assign(split=None)
    coarse = (records["modality"] == "ct") & (records["label"] != "covid19")
    records["label"] = records["label"].mask(coarse, "not_covid19")
    write_manifest(data / "manifest.csv", records)
    config = parse_config(CONFIG)
    run_study(config, data, out)
    return Finished(config, data, out, pd.read_parquet(out / "predictions.parquet"))


def test_the_coarse_model_adds_no_evidence_within_its_set(finished: Finished) -> None:
    ct = finished.predictions[finished.predictions["subset"] == "ct"]
    for _, rows in ct.groupby("method"):
        ratio = rows["p_normal"] / rows["p_pneumonia"]
        np.testing.assert_allclose(ratio, ratio.iloc[0], rtol=1e-6)
    assert set(ct["y_true"]) == {"normal|pneumonia", "covid19"}
    assert set(ct["y_pred"]) <= {"normal|pneumonia", "covid19"}


def test_fused_rows_are_held_to_what_their_records_say(finished: Finished) -> None:
    fused = finished.predictions[finished.predictions["subset"] == "ct+cxr"]
    assert set(fused["y_true"]) == set(CLASSES)
    assert set(fused["method"]) >= {"log_odds", "product", "vote", "gated_attention"}


def test_each_subset_is_evaluated_on_what_it_can_answer(finished: Finished) -> None:
    metrics = pd.read_json(finished.out / "metrics.json")
    test = metrics[(metrics["split"] == "test") & (metrics["site"] == "")]
    ct = test[(test["subset"] == "ct") & (test["method"] == "per_record")].set_index("metric")
    assert set(ct["question"]) == {"normal|pneumonia, covid19"}
    assert test.loc[test["subset"] == "cxr", "question"].isna().all()
    rows = finished.predictions
    rows = rows[
        (rows["subset"] == "ct") & (rows["method"] == "per_record") & (rows["split"] == "test")
    ]
    ill = rows["y_true"] == "covid19"
    assert ct.loc["roc_auc", "value"] == pytest.approx(roc_auc_score(ill, rows["p_covid19"]))
    right = (rows["y_true"] == rows["y_pred"]).mean()
    assert ct.loc["accuracy", "value"] == pytest.approx(right)


def test_paired_tests_name_what_both_sides_can_answer(finished: Finished) -> None:
    table = pd.read_csv(finished.out / "comparisons.csv", keep_default_na=False)
    of_ct = (table["subset_b"] == "ct") | (table["subset_a"] == "ct")
    assert set(table.loc[of_ct, "question"]) == {"normal|pneumonia, covid19"}
    assert set(table.loc[~of_ct, "question"]) == {""}
    html = (finished.out / "report.html").read_text(encoding="utf-8")
    assert "<td>normal or pneumonia, COVID-19</td>" in html


def test_the_fusion_is_controlled_on_what_each_subset_can_answer(finished: Finished) -> None:
    controls, curve, shares = (
        pd.read_csv(finished.out / name, keep_default_na=False, na_values=[""])
        for name in ("fusion_controls.csv", "rho_curve.csv", "shapley.csv")
    )
    metrics = pd.read_json(finished.out / "metrics.json")
    test = metrics[(metrics["split"] == "test") & (metrics["site"] == "")]
    known = test[test["metric"] == "roc_auc"].set_index(["subset", "method"])["value"]
    acquisition = controls[
        (controls["control"] == "confounders_only") & (controls["metric"] == "roc_auc")
    ]
    assert set(acquisition["subset"]) == {"ct", "cxr", "ct+cxr"}
    for row in acquisition.itertuples():
        assert row.against == pytest.approx(known[row.subset, row.method], abs=1e-12)
        assert row.low <= row.value <= row.high
    asked = controls.set_index("subset")["question"]
    assert set(asked["ct"]) == {"normal|pneumonia, covid19"}
    assert asked[["cxr", "ct+cxr"]].isna().all()
    assert set(curve["subset"]) == {"ct+cxr"}
    assert curve["value"].notna().all()
    # The shares are in what CT can answer too: COVID-19 or not.
    rows = finished.predictions
    rows = rows[(rows["subset"] == "ct+cxr") & (rows["split"] == "test")]
    for method, own in shares[shares["metric"] == "roc_auc"].groupby("method"):
        fused = rows[rows["method"] == method]
        auc = roc_auc_score(fused["y_true"] == "covid19", fused["p_covid19"])
        assert own["value"].sum() == pytest.approx(auc - 0.5, abs=1e-9)


@pytest.mark.parametrize("method", ["unimodal", "log_odds", "vote", "gated_attention"])
def test_a_prediction_from_files_equals_the_study_within_1e_5(
    finished: Finished, method: str
) -> None:
    predictor = Predictor.load(finished.out / "bundle")
    paths = read_manifest(finished.out / "manifest.parquet").set_index("record_id")["path"]
    subset = "ct" if method == "unimodal" else "ct+cxr"
    rows = finished.predictions
    rows = rows[(rows["subset"] == subset) & (rows["method"] == method) & (rows["split"] == "test")]
    for row in rows.head(3).to_dict("records"):
        files = [finished.data / paths[record] for record in row["record_id"].split(" & ")]
        asked = {} if method == "unimodal" else {"method": method}
        found = predictor.predict(**dict(zip(subset.split("+"), files, strict=True)), **asked)
        assert found.predicted == row["y_pred"]
        for name in CLASSES:
            assert found.probabilities[name] == pytest.approx(row[f"p_{name}"], abs=1e-5)


def test_a_partition_that_was_tampered_with_is_refused(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.out / "bundle", tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["unimodal"]["ct"]["partition"] = [["normal"], ["covid19"]]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match="every class once"):
        Predictor.load(tmp_path / "bundle")


def test_its_bundle_reads_other_data(finished: Finished, tmp_path: Path) -> None:
    table = evaluate_external(finished.out, "table:.", finished.data, tmp_path)
    ours = pd.read_parquet(tmp_path / "predictions.parquet")
    both = ours.merge(finished.predictions, on=["record_id", "subset", "method"])
    ct = both[both["subset"] == "ct"]
    assert len(ct) == (ours["subset"] == "ct").sum() > 0
    assert (ct["y_true_x"] == ct["y_true_y"]).all()
    assert (ct["y_pred_x"] == ct["y_pred_y"]).all()
    questions = table.set_index(["subset", "method"])["question"]
    assert questions["ct", "per_record"] == "normal|pneumonia, covid19"
    assert questions["cxr", "per_record"] == ""
