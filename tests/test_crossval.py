"""Cross-validation: every record tested once, the leak where it is meant, nothing done twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score, roc_auc_score
from typer.testing import CliRunner

from pulmofuse import crossval
from pulmofuse.cli import app
from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.crossval import CrossValidation, cross_validate
from pulmofuse.curation.fingerprints import image_fingerprint
from pulmofuse.errors import LeakageFound, StudyError, WeightsError
from pulmofuse.files import sha256_file
from pulmofuse.io import read_image
from pulmofuse.models import Classifier, build_backbone
from pulmofuse.pipeline import MARK, folds, write_fingerprints
from pulmofuse.preprocessing.controls import Control
from pulmofuse.schema import Modality
from pulmofuse.study import run_study
from pulmofuse.training import infer_records

CONFIG = """
name: small
question: Does it hold?
target:
  classes: [normal, pneumonia, covid19]
  positive: covid19
  mapping: {normal: normal, pneumonia: pneumonia, covid19: covid19}
sources: [{name: folder}]
split: {val: 0.2}
cough:
  preprocessing: {duration_s: 0.5, max_windows: 1}
  model: {architecture: mfcc_lstm, hidden: 8}
  training: {epochs: 2}
evaluation: {bootstrap: 100}
cleaning: {exclude: []}
"""
CLASSES = ("normal", "pneumonia", "covid19")
RATE = 16_000
SEEDS = (1, 2)


class StopAt:
    """A reporter that stops the work in the middle of a step."""

    def __init__(self, words: str | None = None) -> None:
        self.notes: dict[str, str] = {}
        self._words, self._title = words, ""

    def step(self, title: str) -> None:
        self._title = title

    def update(self, done: int, total: int, note: str = "") -> None:
        if self._words is not None and self._words in self._title and note.startswith("epoch 2"):
            raise KeyboardInterrupt

    def finish(self, note: str) -> None:
        self.notes[self._title] = note


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of 18 patients, two each, and one copy under another patient's name."""
    root, rng, rows = tmp_path_factory.mktemp("data"), np.random.default_rng(3), []
    for name in CLASSES:
        folder = root / "cough_audio" / name
        folder.mkdir(parents=True)
        for i in range(12):
            # A melody of its own: recordings that sound alike would count as copies.
            pitch = np.repeat(rng.uniform(200, 6000, size=20), RATE // 20)
            sound = 0.4 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
            sound += 0.02 * rng.normal(size=RATE)
            sf.write(folder / f"{i:02}.wav", sound, RATE)
            rows.append((f"cough_audio/{name}/{i:02}.wav", f"{name}-{i // 2}"))
    copy = root / "cough_audio" / "normal" / "copy.wav"
    copy.write_bytes((root / "cough_audio" / "normal" / "00.wav").read_bytes())
    rows.append(("cough_audio/normal/copy.wav", "normal-5"))
    pd.DataFrame(rows, columns=["path", "patient_id"]).to_csv(root / "patients.csv", index=False)
    return root


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return parse_config(CONFIG)


@dataclass(frozen=True)
class Done:
    """A cross-validation that was killed once, and went on."""

    out: Path
    found: CrossValidation
    notes: dict[str, str]
    trained: list[str]

    @property
    def predictions(self) -> pd.DataFrame:
        return pd.read_parquet(self.out / "predictions.parquet")

    def single(self) -> pd.DataFrame:
        return self.predictions[self.predictions["method"] == "per_record"]


def counted(trained: list[str]) -> Callable[..., tuple[pd.DataFrame, str]]:
    """`run_fold`, which writes down where it was called."""

    def run_fold(modality, cohort, config, folder, progress):
        trained.append("/".join(folder.parts[-4:]))
        return folds.run_fold(modality, cohort, config, folder, progress)

    return run_fold


@pytest.fixture(scope="module")
def done(data: Path, config: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Done:
    out, trained, reporter = tmp_path_factory.mktemp("crossval"), [], StopAt()
    arguments = {"folds": 2, "seeds": SEEDS, "published": ["accuracy=0.87"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crossval, "run_fold", counted(trained))
        killer = StopAt("By patient, seed 1, fold 2")
        with pytest.raises(KeyboardInterrupt):
            cross_validate(config, data, out, reporter=killer, **arguments)
        found = cross_validate(config, data, out, reporter=reporter, **arguments)
    return Done(out, found, reporter.notes, trained)


@pytest.mark.parametrize(("protocol", "n"), [("patient", 36), ("image", 37)])
def test_every_record_is_tested_once_per_seed(done: Done, protocol: str, n: int) -> None:
    # Folds by patient leave the surplus copy out, as a study does.
    rows = done.single()
    for seed in SEEDS:
        own = rows[(rows["protocol"] == protocol) & (rows["seed"] == seed)]
        assert len(own) == own["record_id"].nunique() == n
        assert set(own["split"]) == {"test"}
        assert set(own["fold"]) == {0, 1}


def test_seeds_deal_differently(done: Done) -> None:
    rows = done.single()
    patient = rows[rows["protocol"] == "patient"].pivot_table("fold", "record_id", "seed")
    assert (patient[1] != patient[2]).any()


def test_every_deal_has_a_hash_of_its_own(done: Done) -> None:
    found = json.loads((done.out / "splits.json").read_text(encoding="utf-8"))
    assert len(found["folds"]) == len(SEEDS) * 2 * 2
    assert len(set(found["folds"].values())) == len(found["folds"])


def test_by_patient_nobody_is_on_both_sides(done: Done) -> None:
    rows = done.single()
    own = rows[rows["protocol"] == "patient"]
    assert (own.groupby(["seed", "patient_id"])["fold"].agg(lambda f: len(set(f))) == 1).all()
    leaks = done.found.leaks.set_index("protocol")
    assert (leaks.loc["patient", ["same_patient", "copy", "either"]] == 0).all(axis=None)


def test_by_image_the_leak_is_counted_and_said(done: Done) -> None:
    rows = done.single()
    leaks = done.found.leaks.set_index(["protocol", "seed"])
    for seed in SEEDS:
        own = rows[(rows["protocol"] == "image") & (rows["seed"] == seed)]
        # A test record is known where its patient has a record of another fold.
        known = sum(
            (own.loc[own["patient_id"] == patient, "fold"] != fold).any()
            for patient, fold in zip(own["patient_id"], own["fold"], strict=True)
        )
        row = leaks.loc[("image", seed)]
        assert row["n_test"] == 37
        assert row["same_patient"] == known > 0
        folds_of = own.set_index(own["record_id"].str.rsplit("/", n=1).str[1])["fold"]
        normal = own["record_id"].str.contains("/normal/")
        folds_of = folds_of[normal.to_numpy()]
        assert row["copy"] == 2 * (folds_of["00.wav"] != folds_of["copy.wav"])
    page = (done.out / "crossval.md").read_text()
    assert "folds by patient: training or validation knows none of the 36 test records" in page
    assert "of the 37 test records" in page
    assert "what the leak is worth" in page


def test_a_stranger_can_recompute_the_table(done: Done) -> None:
    rows, table = done.single(), pd.read_csv(done.out / "crossval.csv")
    metrics = pd.DataFrame(json.loads((done.out / "metrics.json").read_text()))
    p = [f"p_{name}" for name in sorted(CLASSES)]
    for protocol in ("patient", "image"):
        by_seed = [rows[(rows["protocol"] == protocol) & (rows["seed"] == s)] for s in SEEDS]
        accuracy = [accuracy_score(own["y_true"], own["y_pred"]) for own in by_seed]
        auc = [roc_auc_score(own["y_true"], own[p], multi_class="ovr") for own in by_seed]
        line = table[table["protocol"] == protocol].set_index("metric")
        assert line.loc["accuracy", "value"] == pytest.approx(np.mean(accuracy))
        assert line.loc["accuracy", "published"] == 0.87
        assert line.loc["roc_auc", "value"] == pytest.approx(np.mean(auc))
        assert line.loc["roc_auc", "highest"] == pytest.approx(max(auc))
        flat = metrics.query(
            f"protocol == '{protocol}' and control == 'none' and metric == 'roc_auc'"
        )
        assert sorted(flat.loc[flat["seed"].notna(), "value"]) == pytest.approx(sorted(auc))
    assert {"accuracy.covid19-normal", "roc_auc.covid19-pneumonia"} <= set(table["metric"])


def test_controls_are_pooled_alike(done: Done) -> None:
    controls = pd.read_parquet(done.out / "controls.parquet")
    table = pd.read_csv(done.out / "crossval.csv").set_index(["protocol", "metric"])
    assert set(controls["control"]) == {"between_coughs"}
    single = controls[(controls["method"] == "per_record") & (controls["protocol"] == "image")]
    right = single["y_true"] == single["y_pred"]
    found = table.loc[("image", "accuracy"), "between_coughs"]
    assert found == pytest.approx(right.groupby(single["seed"]).mean().mean())


def test_the_difference_is_on_common_records(done: Done) -> None:
    rows, table = done.single(), done.found.table
    line = table[(table["protocol"] == "image-patient") & (table["metric"] == "accuracy")].iloc[0]
    by = dict(list(rows.groupby("protocol")))
    image = by["image"][by["image"]["record_id"].isin(set(by["patient"]["record_id"]))]
    right = [
        (own["y_true"] == own["y_pred"]).groupby(own["seed"]).mean().mean()
        for own in (image, by["patient"])
    ]
    assert line["n"] == 36
    assert line["value"] == pytest.approx(right[0] - right[1])
    assert np.isnan(line["published"])


def test_a_killed_run_repeats_no_finished_fold(done: Done) -> None:
    names = [
        f"by-{protocol}/seed-{seed}/fold-{fold}/cough"
        for protocol in ("patient", "image")
        for seed in SEEDS
        for fold in (0, 1)
    ]
    killed = "by-patient/seed-1/fold-1/cough"
    assert sorted(done.trained) == sorted([*names, killed])
    assert "(done before)" in done.notes["By patient, seed 1, fold 1 of 2: cough (1 of 8)"]


def test_and_gives_what_an_undisturbed_run_gives(
    done: Done, data: Path, config: StudyConfig, tmp_path: Path
) -> None:
    cross_validate(config, data, tmp_path, folds=2, seeds=(1,), protocols=("patient",))
    for fold in (0, 1):
        path = f"by-patient/seed-1/fold-{fold}/cough"
        for name in ("predictions.parquet", "best.safetensors"):
            assert (tmp_path / path / name).read_bytes() == (done.out / path / name).read_bytes()
    assert not list(tmp_path.rglob("last.safetensors"))
    table = pd.read_csv(tmp_path / "crossval.csv")
    assert set(table["protocol"]) == {"patient"}
    assert table["ensemble"].isna().all()


def test_a_second_run_trains_nothing_and_writes_the_same(
    done: Done, data: Path, config: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in done.out.glob("*.*") if path.is_file()}
    monkeypatch.setattr(crossval, "run_fold", None)
    monkeypatch.setattr(crossval, "pooled_rows", None)
    cross_validate(config, data, done.out, folds=2, seeds=SEEDS, published=["accuracy=0.87"])
    assert {path: path.read_bytes() for path in before} == before
    assert {"crossval.png", "confusion_image.png", "confusion_patient.png"} <= {
        path.name for path in before
    }


def test_the_command_prints_the_tables_and_the_leak(done: Done, data: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(CONFIG)
    words = ["cross-validate", str(tmp_path / "small.yaml"), "--data-root", str(data), "--out"]
    words += [str(done.out), "--folds", "2", "--seeds", "1,2", "--published", "accuracy=0.87"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert "cough, folds by image: 37 records of 18 patients" in told.stdout
    assert "folds by image: training or validation knows" in told.stdout
    assert "0.870" in told.stdout


@pytest.mark.parametrize(
    ("option", "words"),
    [(["--by", "slice"], "patient, image or both"), (["--seeds", "a"], "17,18")],
)
def test_a_wrong_option_is_told(tmp_path: Path, option: list[str], words: str) -> None:
    told = CliRunner().invoke(app, ["cross-validate", str(tmp_path / "none.yaml"), *option])
    assert told.exit_code == 2
    assert words in told.output


def test_a_control_that_alters_nothing_says_what_the_model_says(
    data: Path, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = Control((Modality.COUGH,), lambda instances, _: instances, "as it is")
    monkeypatch.setattr(folds, "healthy_controls", lambda _: {"same": same})
    monkeypatch.setattr(crossval, "healthy_controls", lambda _: {"same": same})
    monkeypatch.setattr(folds, "_BLOCK_RECORDS", 5)
    cross_validate(config, data, tmp_path, folds=2, seeds=(1,), protocols=("image",))
    plain, altered = (
        pd.read_parquet(tmp_path / f"{name}.parquet").set_index("record_id")
        for name in ("predictions", "controls")
    )
    columns = [f"p_{name}" for name in CLASSES]
    assert altered[columns].to_numpy() == pytest.approx(
        plain.loc[altered.index, columns].to_numpy(), abs=1e-6
    )


def test_a_set_counts_for_the_question_that_it_answers(data: Path, tmp_path: Path) -> None:
    """One set of recordings says only "normal or pneumonia"; the rest name their class."""
    root = tmp_path / "data"
    shutil.copytree(data, root)
    names = pd.read_csv(root / "patients.csv")
    (root / "cough_audio" / "not_covid19").mkdir()
    for i in range(6):  # of three of the patients
        old, new = (f"cough_audio/{folder}/{i:02}.wav" for folder in ("pneumonia", "not_covid19"))
        (root / old).rename(root / new)
        names["path"] = names["path"].replace(old, new)
    names.to_csv(root / "patients.csv", index=False)
    text = CONFIG.replace("{normal: normal,", "{not_covid19: [normal, pneumonia], normal: normal,")
    found = cross_validate(
        parse_config(text), root, tmp_path / "out", folds=2, seeds=SEEDS, pairs=["covid19,normal"]
    )
    rows = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert set(rows["y_true"]) == {"normal", "pneumonia", "normal|pneumonia", "covid19"}
    assert set(rows["y_pred"]) <= {"normal|pneumonia", "covid19"}
    table = found.table
    assert set(table["question"]) == {"normal|pneumonia, covid19"}
    # Two parts are left: no class against the rest, and no pair of what is not told apart.
    assert not table["metric"].str.contains(".", regex=False).any()
    own = rows[(rows["protocol"] == "patient") & (rows["method"] == "seed_ensemble")]
    of_patients = table[table["protocol"] == "patient"].set_index("metric")
    ill = own["y_true"] == "covid19"
    auc = roc_auc_score(ill, own["p_covid19"])
    assert of_patients.loc["roc_auc", "ensemble"] == pytest.approx(auc)
    right = ill == (own["y_pred"] == "covid19")
    assert of_patients.loc["accuracy", "ensemble"] == pytest.approx(right.mean())
    page = (tmp_path / "out" / "crossval.md").read_text(encoding="utf-8")
    assert "about normal or pneumonia / COVID-19." in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pairs": ["covid,normal"]}, "nearest is covid19"),
        ({"published": ["acc=0.9"]}, "nearest is accuracy"),
        ({"seeds": (1, 1)}, "one stands twice"),
        ({"folds": 7}, "7 folds need one each"),
    ],
)
def test_what_cannot_be_done_is_refused_before_training(
    data: Path, config: StudyConfig, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(StudyError, match=words):
        cross_validate(config, data, tmp_path, **change)
    assert not list(tmp_path.glob("by-*"))


def test_the_audit_stops_a_study_of_records(
    data: Path, config: StudyConfig, tmp_path: Path
) -> None:
    leaking = folds.protocol_config(config, "image", 2)
    with pytest.raises(LeakageFound, match=r"leakage\.patient"):
        run_study(leaking, data, tmp_path)


class Reached(BaseException):
    """The first model would be trained now."""


def stop(*_: object) -> None:
    """Stands for `run_fold`."""
    raise Reached


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CT slices of 18 patients, one each, and recordings of as many."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(5)
    for name in CLASSES:
        for kind in ("ct", "cough_audio"):
            (root / kind / name).mkdir(parents=True)
        for i in range(6):
            noise = cv2.GaussianBlur(rng.normal(0, 1, (160, 160)), (0, 0), 9)
            grey = cv2.normalize(noise, None, 10, 240, cv2.NORM_MINMAX).astype(np.uint8)
            cv2.imwrite(str(root / "ct" / name / f"{i}.png"), grey)
            pitch = np.repeat(rng.uniform(200, 6000, size=20), RATE // 20)
            sound = 0.4 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
            sf.write(root / "cough_audio" / name / f"{i}.wav", sound, RATE)
    rows = [
        (f"{kind}/{name}/{i}.{end}", f"{name}-{i}")
        for kind, end in (("ct", "png"), ("cough_audio", "wav"))
        for name in CLASSES
        for i in range(6)
    ]
    pd.DataFrame(rows, columns=["path", "patient_id"]).to_csv(root / "patients.csv", index=False)
    return root


def pretrained(folder: Path, root: Path, seen: dict[str, str]) -> Path:
    """Weights as `pulmofuse pretrain` leaves them, of pictures by path -> patient."""
    rows = [
        {
            "record_id": path,
            "patient_id": patient,
            "modality": "ct",
            "sha256": sha256_file(root / path),
            "fingerprint": image_fingerprint(read_image((root / path).read_bytes())),
            "split": "train",
        }
        for path, patient in seen.items()
    ]
    write_fingerprints(folder, pd.DataFrame(rows), ["patient_id"])
    weights, mark = folder / "backbone.safetensors", folder / "fingerprints.parquet"
    state = build_backbone("efficientnet_lite0", "none").state_dict()
    save_file(state, weights, metadata={MARK: sha256_file(mark)})
    return weights


@pytest.fixture
def weights(pictures: Path, tmp_path: Path) -> Path:
    """They saw three pictures of the study, one of them under a patient of the study."""
    seen = {"ct/normal/0.png": "x", "ct/covid19/1.png": "y", "ct/covid19/2.png": "covid19-2"}
    return pretrained(tmp_path, pictures, seen)


def test_by_patient_starting_weights_that_saw_the_records_end_it(
    pictures: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossval, "run_fold", stop)
    config = parse_config(CONFIG, [f"ct.model.weights={weights}"])
    out = tmp_path / "out"
    with pytest.raises(LeakageFound, match=r"starting weights \(ct\).*3 records"):
        cross_validate(config, pictures, out, folds=2, seeds=SEEDS, protocols=("patient",))
    # Where the leak is stands beside the deals, although the run ended.
    leaks = pd.read_csv(out / "leaks.csv").set_index(["modality", "seed"])
    assert leaks["pretrained"].to_dict() == {
        ("ct", 1): 3, ("ct", 2): 3, ("cough", 1): 0, ("cough", 2): 0
    }  # fmt: skip
    assert (leaks["either"] == 0).all()


def test_by_image_what_the_starting_weights_saw_is_counted_and_said(
    pictures: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossval, "run_fold", stop)
    config, reporter = parse_config(CONFIG, [f"ct.model.weights={weights}"]), StopAt()
    out = tmp_path / "out"
    arguments = {"folds": 2, "seeds": (1,), "protocols": ("image",), "reporter": reporter}
    with pytest.raises(Reached):
        cross_validate(config, pictures, out, **arguments)
    leaks = pd.read_csv(out / "leaks.csv").set_index("modality")
    assert leaks["pretrained"].to_dict() == {"ct": 3, "cough": 0}
    assert "starting weights know 3 of the 18 test records" in reporter.notes["Deal the folds"]


def test_starting_weights_that_saw_other_patients_are_welcome(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossval, "run_fold", stop)
    shown = tmp_path / "elsewhere.png"
    cv2.imwrite(str(shown), np.tile(np.arange(160, dtype=np.uint8), (160, 1)))
    weights = pretrained(tmp_path, tmp_path, {"elsewhere.png": "x"})
    config = parse_config(CONFIG, [f"ct.model.weights={weights}"])
    out = tmp_path / "out"
    with pytest.raises(Reached):
        cross_validate(config, pictures, out, folds=2, seeds=(1,), protocols=("patient",))
    weights.with_name("fingerprints.parquet").unlink()
    with pytest.raises(WeightsError, match="not beside it"):
        cross_validate(config, pictures, out, folds=2, seeds=(1,), protocols=("patient",))


def test_what_folds_by_patient_leak_is_written_before_it_ends_the_run(
    data: Path, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_image = folds.protocol_config(config, "image", 2)
    monkeypatch.setattr(crossval, "protocol_config", lambda *_: by_image)
    with pytest.raises(LeakageFound, match="folds by patient"):
        cross_validate(config, data, tmp_path, folds=2, seeds=(1,), protocols=("patient",))
    assert (pd.read_csv(tmp_path / "leaks.csv")["either"] > 0).all()


@pytest.mark.parametrize(("trainable", "looks"), [("all", [1, 1]), ("head", [1])])
def test_features_are_remembered_for_frozen_networks_alone(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trainable: str,
    looks: list[int],
) -> None:
    looked: list[int] = []
    trained: list[Modality] = []

    class Counting(Classifier):
        """A model that notes how many instances it looks at."""

        def feature_map(self, x: torch.Tensor) -> torch.Tensor:
            looked.append(len(x))
            return x.mean(dim=-1, keepdim=True)[:, None, None]

    def run_fold(modality: Modality, *_: object) -> None:
        model = Counting(feature_dim=1, n_classes=2, dropout=0.0)
        for _again in range(2):
            one = np.ones(1, dtype=np.int64)
            infer_records(model, np.ones((1, 8), dtype=np.int16), np.zeros(1, dtype=np.int64), one)
        trained.append(modality)
        raise Reached

    monkeypatch.setattr(crossval, "run_fold", run_fold)
    overrides = ["ct.model.weights=none", f"ct.training.trainable={trainable}"]
    config = parse_config(CONFIG, [*overrides, "cough.training.trainable=head"])
    with pytest.raises(Reached):
        cross_validate(config, pictures, tmp_path, folds=2, seeds=(1,), protocols=("patient",))
    assert trained == [Modality.CT]
    assert looked == looks


def test_several_probes_of_a_frozen_network_can_be_members(data: Path, tmp_path: Path) -> None:
    probes = ["cough.training.trainable=head", "cough.training.members=2"]
    config = parse_config(CONFIG, probes)
    arguments = {"folds": 2, "seeds": (1,), "protocols": ("patient",)}
    cross_validate(config, data, tmp_path, **arguments)
    assert pd.read_parquet(tmp_path / "predictions.parquet")["record_id"].nunique() == 36
    assert len(list(tmp_path.glob("by-patient/*/*/cough/member-1/best.safetensors"))) == 2
