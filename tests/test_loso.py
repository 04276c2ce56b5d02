"""Leave one source out: every part is tested by a model that never saw it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pulmofuse import loso
from pulmofuse.config import StudyConfig, load_config, parse_config
from pulmofuse.errors import StudyError
from pulmofuse.loso import COLUMNS, leave_one_source_out
from pulmofuse.schema import read_manifest
from pulmofuse.sources.synthetic import SyntheticConfig, generate

CONFIG = """
name: small
question: Does it hold elsewhere?
target:
  classes: [normal, covid19]
  positive: covid19
  mapping: {normal: normal, covid19: covid19}
sources: [{name: synthetic}]
split: {test: 0.3, val: 0.3}
cough:
  preprocessing: {duration_s: 1.0, max_windows: 1}
  model: {architecture: mfcc_lstm, hidden: 8}
  training: {epochs: 1}
evaluation: {bootstrap: 100, explain_examples: 0, controls: false}
cleaning: {exclude: []}
audit: {on_leak: accept}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coughs of 45 patients at three sites: a and b with both classes, c with the ill only."""
    root = tmp_path_factory.mktemp("data")
    generate(root, SyntheticConfig(patients=45, classes=("normal", "covid19"), seed=3))
    for folder in ("ct", "cxr"):
        shutil.rmtree(root / folder)
    patients = pd.read_csv(root / "patients.csv")
    patients = patients[patients["path"].str.startswith("cough_audio/")].reset_index(drop=True)
    ill = patients["path"].str.contains("covid19")
    site = np.where(np.arange(len(patients)) % 2 == 0, "site a", "site b")
    third = ill & (np.arange(len(patients)) % 3 == 0)
    patients["site"] = np.where(third, "site c", site)
    patients.to_csv(root / "patients.csv", index=False)
    return root


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return parse_config(CONFIG)


@pytest.fixture(scope="module")
def done(data: Path, config: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("loso")
    leave_one_source_out(config, data, out, "site")
    return out


def test_every_site_is_tested_by_a_model_that_never_saw_it(done: Path) -> None:
    table = pd.read_csv(done / "loso.csv")
    assert tuple(table.columns) == COLUMNS
    assert set(table["held_out"]) == {"site a", "site b", "site c"}
    for name in ("site a", "site b", "site c"):
        manifest = read_manifest(done / name.replace(" ", "_") / "manifest.parquet")
        assert set(manifest.loc[manifest["split"] == "test", "site"]) == {name}
        assert name not in set(manifest.loc[manifest["split"] != "test", "site"])


def test_a_stranger_can_recompute_the_table_from_the_predictions(done: Path) -> None:
    table = pd.read_csv(done / "loso.csv")
    row = table[(table["held_out"] == "site a") & (table["method"] == "per_record")].iloc[0]
    predictions = pd.read_parquet(done / "site_a" / "predictions.parquet")
    test = predictions[(predictions["split"] == "test") & (predictions["method"] == "per_record")]
    ill = test["y_true"] == "covid19"
    called = test["y_pred"] == "covid19"
    assert row["n"] == len(test)
    assert row["n_positive"] == ill.sum()
    assert row["roc_auc"] == pytest.approx(roc_auc_score(ill, test["p_covid19"]))
    assert row["roc_auc_low"] <= row["roc_auc"] <= row["roc_auc_high"]
    assert row["sensitivity"] == pytest.approx(called[ill].mean())
    assert row["specificity"] == pytest.approx((~called)[~ill].mean())


def test_a_site_of_one_class_has_no_auc_and_says_why(done: Path) -> None:
    table = pd.read_csv(done / "loso.csv")
    row = table[(table["held_out"] == "site c") & (table["method"] == "per_record")].iloc[0]
    assert row["n_positive"] == row["n"]
    assert pd.isna(row["roc_auc"])
    assert 0 <= row["sensitivity"] <= 1
    assert pd.isna(row["specificity"])
    assert row["reason"] == "held out were only covid19"


def test_the_studies_share_one_cache(done: Path) -> None:
    tables = list(done.rglob("index.parquet"))
    assert [path.parent.parent for path in tables] == [done / "cache"]
    listed = {p for m in done.glob("*/manifest.parquet") for p in read_manifest(m)["path"]}
    assert set(pd.read_parquet(tables[0])["path"]) >= listed


def test_the_picture_is_there(done: Path) -> None:
    assert (done / "loso.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_goes_on_with_the_very_same_studies(
    done: Path, data: Path, config: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_csv(done / "loso.csv")
    asked: dict[str, StudyConfig] = {}
    monkeypatch.setattr(
        loso, "run_study", lambda study, _root, out, *_: asked.update({out.name: study})
    )
    again = leave_one_source_out(config, data, done, "site")
    # The same configuration in the same folder is what lets a study find its finished steps.
    for folder, study in asked.items():
        assert load_config(done / folder / "config.resolved.yaml") == study
    assert set(asked) == {"site_a", "site_b", "site_c"}
    assert again["roc_auc"].to_list() == pytest.approx(table["roc_auc"].to_list(), nan_ok=True)


def test_one_source_cannot_be_left_out(data: Path, config: StudyConfig, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="have 1 source"):
        leave_one_source_out(config, data, tmp_path)


def test_a_part_that_training_cannot_do_without_is_a_row_with_the_reason(
    config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = pd.DataFrame(
        {
            "source": ["clinic", "crowd"],
            "site": None,
            "modality": ["ct", "cough"],
            "label": ["normal", "covid19"],
        }
    )
    asked: list[StudyConfig] = []

    def refuse(study: StudyConfig, *_: object) -> None:
        asked.append(study)
        raise StudyError("cough records", "none of class covid19 is left", "add data")

    monkeypatch.setattr(loso, "scan", lambda *_: (records, None))
    monkeypatch.setattr(loso, "run_study", refuse)
    table = leave_one_source_out(config, tmp_path, tmp_path / "out")
    assert table["held_out"].tolist() == ["clinic", "crowd"]
    assert table["reason"].str.contains("none of class covid19 is left").all()
    assert table["roc_auc"].isna().all()
    assert [study.split.held_out for study in asked] == [("clinic",), ("crowd",)]
    assert not (tmp_path / "out" / "loso.png").exists()


@pytest.mark.parametrize(
    "names",
    [["a/b", "a b"], ["..", "."], ["Köln", "köln"], ["x" * 300, "x" * 301], ["A", "a"], ["Cache"]],
)
def test_every_name_has_a_folder_of_its_own(names: list[str]) -> None:
    folders = loso._folders(names)
    assert len({folder.lower() for folder in folders}) == len(names)
    for folder in folders:
        assert len(folder) < 60
        assert not set(folder) & set("/\\ ")
        assert folder.strip(".")
        assert folder.lower() != "cache"
