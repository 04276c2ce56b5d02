"""The whole study on a small synthetic cohort: every file, every promise of design.md."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from pulmofuse.cli import app
from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.errors import BundleError, PulmofuseError, StudyError, UnreadableFile
from pulmofuse.external import evaluate_external
from pulmofuse.fusion import RULES
from pulmofuse.inference import Predictor
from pulmofuse.models import FUSIONS
from pulmofuse.schema import read_manifest
from pulmofuse.sources.synthetic import SyntheticConfig, generate
from pulmofuse.study import run_study

CONFIG = """
name: small
question: Does the spine hold?
target:
  classes: [normal, covid19]
  positive: covid19
  mapping: {normal: normal, covid19: covid19}
sources: [{name: synthetic}]
split: {test: 0.3, val: 0.2}
ct: {preprocessing: {size: 64}, training: {epochs: 2}}
cxr: {preprocessing: {size: 64}, training: {epochs: 2}}
cough:
  preprocessing: {duration_s: 1.0, max_windows: 1}
  model: {architecture: mfcc_lstm}
  training: {epochs: 2}
fusion: {patients: paired, feature: {views: 1, training: {epochs: 2}}}
evaluation: {bootstrap: 100, explain_examples: 2}
"""


class Recorder:
    """A reporter that remembers."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.notes: dict[str, str] = {}
        self._title = ""
        self._stop_at = stop_at

    def step(self, title: str) -> None:
        self._title = title

    def update(self, done: int, total: int, note: str = "") -> None:
        if self._stop_at == self._title and done >= 2:
            raise KeyboardInterrupt

    def finish(self, note: str) -> None:
        self.notes[self._title] = note


@dataclass(frozen=True)
class Finished:
    """A study that ran to its end."""

    config: StudyConfig
    data: Path
    out: Path
    notes: dict[str, str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("study")
    data, out = root / "data", root / "out"
    generate(data, SyntheticConfig(patients=60, classes=("normal", "covid19"), seed=3))
    (data / "ct" / "normal" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    config = parse_config(CONFIG)
    recorder = Recorder()
    run_study(config, data, out, recorder)
    return Finished(config, data, out, recorder.notes)


def test_a_study_leaves_every_file_that_the_design_names(finished: Finished) -> None:
    for name in (
        "manifest.parquet", "audit.json", "config.resolved.yaml", "checkpoints", "excluded.csv",
        "predictions.parquet", "metrics.json", "comparison.csv", "comparisons.csv", "figures",
        "decision_curves.csv", "prevalence.csv", "report.html",
        "model_card.md", "bundle/bundle.json", "study.json", "examples/index.json",
        "fusion_controls.csv", "rho_curve.csv", "shapley.csv",
        "calibration.csv", "calibration_measures.csv", "conformal.csv",
    ):  # fmt: skip
        assert (finished.out / name).exists(), name
    assert not list(finished.out.rglob("*.pkl"))
    assert not list(finished.out.rglob("*.ckpt"))


def test_findings_that_were_not_asked_for_leave_no_trace(finished: Finished) -> None:
    assert not list(finished.out.glob("findings.*"))
    content = json.loads((finished.out / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    assert [part["findings"] for part in content["unimodal"].values()] == [[], [], []]


def test_the_broken_file_is_named_in_the_table_and_in_the_report(finished: Finished) -> None:
    excluded = pd.read_csv(finished.out / "excluded.csv")
    assert excluded.loc[excluded["stage"] == "read", "path"].tolist() == ["ct/normal/broken.png"]
    assert "broken.png" in (finished.out / "report.html").read_text()


def test_the_comparison_has_seven_subsets_and_every_method(finished: Finished) -> None:
    table = pd.read_csv(finished.out / "comparison.csv")
    assert set(table["subset"]) == {
        "ct", "cxr", "cough", "ct+cxr", "ct+cough", "cxr+cough", "ct+cxr+cough",
    }  # fmt: skip
    for subset, rows in table.groupby("subset"):
        methods = {*RULES, "stacking", *FUSIONS}
        expected = methods if "+" in str(subset) else {"per_record", "unimodal"}
        assert set(rows["method"]) == expected
    assert not table["simulated"].any()


def test_a_stranger_can_recompute_the_auc_from_the_predictions(finished: Finished) -> None:
    predictions = pd.read_parquet(finished.out / "predictions.parquet")
    metrics = pd.read_json(finished.out / "metrics.json")
    aucs = metrics[
        (metrics["metric"] == "roc_auc") & (metrics["split"] == "test") & (metrics["site"] == "")
    ]
    assert len(aucs) > 10
    for row in aucs.itertuples():
        part = predictions[
            (predictions["subset"] == row.subset)
            & (predictions["method"] == row.method)
            & (predictions["split"] == "test")
        ]
        expected = roc_auc_score(part["y_true"] == "covid19", part["p_covid19"])
        assert row.value == pytest.approx(expected, abs=1e-9)


def test_the_study_says_what_the_stacking_learned_from(finished: Finished) -> None:
    noted = json.loads((finished.out / "study.json").read_text(encoding="utf-8"))["stacking"]
    content = json.loads((finished.out / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    stored = content["decision"]["stacking"]
    assert not stored["simulated"]
    assert noted == f"stacking on {stored['n_patients']} true pairs in validation"


def test_no_patient_stands_in_two_splits(finished: Finished) -> None:
    manifest = read_manifest(finished.out / "manifest.parquet")
    assert manifest.groupby("patient_id")["split"].nunique().max() == 1


def test_a_second_run_repeats_no_finished_step_and_changes_no_figure(finished: Finished) -> None:
    before = (finished.out / "metrics.json").read_bytes()
    recorder = Recorder()
    run_study(finished.config, finished.data, finished.out, recorder)
    again = {title for title, note in recorder.notes.items() if not note.endswith("(done before)")}
    assert {t for t in again if "Train" in t or "Score" in t or "Controls" in t} == set()
    assert (finished.out / "metrics.json").read_bytes() == before
    assert json.loads((finished.out / "study.json").read_text())["test_opened"] == 1


def test_a_study_stopped_in_three_places_ends_with_the_same_figures(
    finished: Finished, tmp_path: Path
) -> None:
    titles = ("Train the ct model", "Train the cough model", "Train the fusion by bilinear")
    for title in titles:
        with pytest.raises(KeyboardInterrupt):
            run_study(finished.config, finished.data, tmp_path, Recorder(stop_at=title))
    run_study(finished.config, finished.data, tmp_path)
    assert (tmp_path / "metrics.json").read_text() == (finished.out / "metrics.json").read_text()


@pytest.fixture(scope="module")
def predictor(finished: Finished) -> Predictor:
    return Predictor.load(finished.out / "bundle")


def _test_files(finished: Finished) -> pd.DataFrame:
    manifest = read_manifest(finished.out / "manifest.parquet")
    test = manifest[manifest["split"] == "test"]
    return test.pivot_table(index="patient_id", columns="modality", values="path", aggfunc="first")


@pytest.mark.parametrize(
    ("given", "method", "expected"),
    [
        (("ct",), "log_odds", "unimodal"),
        (("cxr",), "log_odds", "unimodal"),
        (("cough",), "log_odds", "unimodal"),
        (("ct", "cough"), "log_odds", "log_odds"),
        (("ct", "cxr", "cough"), "mean", "mean"),
        (("ct", "cxr", "cough"), "weighted_mean", "weighted_mean"),
        (("ct", "cxr"), "product", "product"),
        (("ct", "cxr", "cough"), "vote", "vote"),
        (("ct", "cough"), "stacking", "stacking"),
        (("ct", "cxr", "cough"), "stacking", "stacking"),
        *((("cxr", "cough"), method, method) for method in FUSIONS),
        *((("ct", "cxr", "cough"), method, method) for method in FUSIONS),
    ],
)
def test_a_prediction_from_files_equals_the_study_within_1e_5(
    finished: Finished,
    predictor: Predictor,
    given: tuple[str, ...],
    method: str,
    expected: str,
) -> None:
    predictions = pd.read_parquet(finished.out / "predictions.parquet")
    rows = predictions[
        (predictions["subset"] == "+".join(given)) & (predictions["method"] == expected)
    ].set_index("patient_id")
    for patient, files in _test_files(finished).head(3).iterrows():
        answer = predictor.predict(
            **{name: finished.data / files[name] for name in given}, method=method
        )
        row = rows.loc[patient]
        assert answer.probabilities["covid19"] == pytest.approx(row["p_covid19"], abs=1e-5)
        assert answer.predicted == row["y_pred"]
        assert answer.subset == "+".join(given)


def test_a_prediction_takes_bytes_as_well_as_paths(
    finished: Finished, predictor: Predictor
) -> None:
    path = finished.data / _test_files(finished)["cough"].iloc[0]
    assert predictor.predict(cough=path.read_bytes()) == predictor.predict(cough=str(path))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, BundleError, "no file was given"),
        ({"ct": b""}, UnreadableFile, "empty"),
        ({"ct": Path("absent.png")}, UnreadableFile, "absent.png"),
        ({"ct": b"x", "method": "sum"}, BundleError, "stacking"),
    ],
)
def test_a_prediction_that_cannot_be_made_says_why(
    predictor: Predictor, arguments: dict[str, object], error: type[PulmofuseError], words: str
) -> None:
    with pytest.raises(error, match=words):
        predictor.predict(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ct.safetensors", "fusion-bilinear.safetensors", "bundle.json"])
@pytest.mark.parametrize("fault", ["missing", "cut"])
def test_a_damaged_bundle_is_refused(
    finished: Finished, tmp_path: Path, name: str, fault: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(finished.out / "bundle", folder)
    if fault == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    with pytest.raises(BundleError):
        Predictor.load(folder)


@pytest.mark.parametrize(
    ("key", "words"),
    [("format_version", "format version 0"), ("preprocessing_version", "prepared by rules 0")],
)
def test_a_bundle_of_another_version_is_refused(
    finished: Finished, tmp_path: Path, key: str, words: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(finished.out / "bundle", folder)
    content = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    (folder / "bundle.json").write_text(json.dumps(content | {key: 0}), encoding="utf-8")
    with pytest.raises(BundleError, match=words):
        Predictor.load(folder)


def test_weights_of_another_architecture_are_refused(finished: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(finished.out / "bundle", folder)
    shutil.copy(folder / "cough.safetensors", folder / "ct.safetensors")
    with pytest.raises(BundleError, match="does not fit"):
        Predictor.load(folder)


def test_predict_prints_json_and_an_unreadable_file_exits_with_2(
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = str(finished.out / "bundle")
    cough = str(finished.data / _test_files(finished)["cough"].iloc[0])
    result = CliRunner().invoke(app, ["predict", bundle, "--cough", cough, "--json"])
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0)
    assert answer["research_use_only"] is True

    from pulmofuse import cli

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    monkeypatch.setattr("sys.argv", ["pulmofuse", "predict", bundle, "--ct", str(broken)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "broken.png" in message
    assert message.count("\n") == 1
    assert "Traceback" not in message


def test_an_external_evaluation_leaves_out_what_the_study_trained_on(
    finished: Finished, tmp_path: Path
) -> None:
    table = evaluate_external(finished.out, "synthetic:.", finished.data, tmp_path)
    assert set(table["subset"]) >= {"ct", "cxr", "cough", "ct+cxr+cough"}
    ours = pd.read_parquet(tmp_path / "predictions.parquet")
    theirs = pd.read_parquet(finished.out / "predictions.parquet")
    theirs = theirs[theirs["split"] == "test"]
    both = ours.merge(theirs, on=["record_id", "subset", "method"])
    assert len(both) == len(ours) == len(theirs)
    assert np.allclose(both["p_covid19_x"], both["p_covid19_y"], atol=1e-5)
    assert (both["y_pred_x"] == both["y_pred_y"]).all()
    excluded = pd.read_csv(tmp_path / "excluded.csv")
    used = read_manifest(finished.out / "manifest.parquet")
    assert excluded["reason"].str.contains("trained on").sum() == (used["split"] != "test").sum()


def test_an_external_evaluation_of_training_data_only_is_refused(
    finished: Finished, tmp_path: Path
) -> None:
    manifest = read_manifest(finished.out / "manifest.parquet")
    manifest[manifest["split"] == "train"].to_parquet(tmp_path / "train.parquet")
    with pytest.raises(StudyError, match="trained on"):
        evaluate_external(
            finished.out, str(tmp_path / "train.parquet"), finished.data, tmp_path / "out"
        )


def test_an_external_evaluation_without_a_known_modality_says_so(
    finished: Finished, tmp_path: Path
) -> None:
    manifest = read_manifest(finished.out / "manifest.parquet")
    manifest.head(0).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(StudyError, match="no modality"):
        evaluate_external(
            finished.out, str(tmp_path / "empty.parquet"), finished.data, tmp_path / "out"
        )


def test_simulated_patients_are_marked_on_every_row(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.out, tmp_path, dirs_exist_ok=True)
    config = parse_config(CONFIG, ["fusion.patients=simulated", "fusion.feature=null"])
    run_study(config, finished.data, tmp_path)
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    fused = predictions[predictions["method"] != "per_record"]
    assert fused["simulated"].all()
    assert not predictions[predictions["method"] == "per_record"]["simulated"].any()
    # The cohort has true pairs, and it is those that the stacking learns from.
    assert "stacking" in set(fused["method"])
    assert "simulated" in (tmp_path / "report.html").read_text().lower()


def test_a_class_without_records_is_one_clear_error(finished: Finished, tmp_path: Path) -> None:
    text = CONFIG.replace(
        "classes: [normal, covid19]", "classes: [normal, covid19, tuberculosis]"
    ).replace(
        "mapping: {normal: normal, covid19: covid19}",
        "mapping: {normal: normal, covid19: covid19, tuberculosis: tuberculosis}",
    )
    with pytest.raises(StudyError, match="tuberculosis"):
        run_study(parse_config(text), finished.data, tmp_path)


def test_the_power_statement_is_written_where_its_label_file_is_there(
    finished: Finished, tmp_path: Path
) -> None:
    out, frame = tmp_path / "out", finished.data / "labels" / "frame.parquet"
    shutil.copytree(finished.out, out)
    changes = {"power_frame": "labels/frame.parquet", "controls": False, "explain_examples": 0}
    evaluation = finished.config.evaluation.model_copy(update=changes)
    config = finished.config.model_copy(update={"evaluation": evaluation})
    title, recorder = "Ask how many true pairs the gain would take", Recorder()
    run_study(config, finished.data, out, recorder)
    assert recorder.notes[title].startswith("left out: the label file")
    assert not (out / "power.json").exists()
    frame.parent.mkdir()
    shutil.copy(finished.out / "manifest.parquet", frame)
    run_study(config, finished.data, out, recorder)
    written = json.loads((out / "power.json").read_text(encoding="utf-8"))
    assert written["sentence"] == recorder.notes[title]
    assert written["frame"]["people"] == written["frame"]["recorded"]["cough"]
