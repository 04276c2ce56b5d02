"""Pre-training for a study: what it sees, what it writes, and that the audit holds it to that."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import pandas as pd
import pytest
import torch

from pulmofuse import cli
from pulmofuse.config import StudyConfig, dump_config, parse_config
from pulmofuse.errors import ConfigError, LeakageFound, StudyError, WeightsError
from pulmofuse.external import evaluate_external
from pulmofuse.files import read_json, sha256_file
from pulmofuse.models.backbones import build_backbone
from pulmofuse.pipeline import FINGERPRINTS, Silent, weights_key
from pulmofuse.pretraining import pretrain_backbone
from pulmofuse.schema import Modality, read_manifest
from pulmofuse.sources.synthetic import SyntheticConfig, generate
from pulmofuse.study import run_study

CONFIG = """
name: small
question: Does pre-training leak?
target: {classes: [normal, covid19], positive: covid19,
         mapping: {normal: normal, covid19: covid19}}
sources: [{name: folder, root: own}]
split: {test: 0.3, val: 0.2}
cxr: {preprocessing: {size: 32}, model: {weights: none}, training: {epochs: 1}}
pretrain: {epochs: 2, size: 32, batch_size: 16, hidden: 16, projection: 8}
evaluation: {bootstrap: 100, explain_examples: 0, controls: false}
"""
FILES = (
    "backbone.safetensors", "fingerprints.parquet", "pretrain.json", "history.csv", "excluded.csv",
)  # fmt: skip


@dataclass(frozen=True)
class Pretrained:
    """A finished pre-training with a further source that holds copies of the study's images."""

    config: StudyConfig
    data: Path
    out: Path
    cache: Path

    @property
    def weights(self) -> Path:
        return self.out / "backbone.safetensors"

    def study(self, *settings: str) -> StudyConfig:
        """The study that starts from these weights."""
        chosen = [f"cxr.model.weights={self.weights}", *settings]
        return parse_config(dump_config(self.config), chosen)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


class KilledInEpoch2(Silent):
    """A reporter of a run that is killed."""

    def update(self, done: int, total: int, note: str = "") -> None:
        if note.startswith("epoch 2"):
            raise Killed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """X-rays of 40 patients in own/; 8 others in strangers/, and with copies of own/ in extra/."""
    root = tmp_path_factory.mktemp("data")
    for name, patients, seed in (("own", 40, 3), ("strangers", 8, 4)):
        classes = ("normal", "covid19")
        generate(root / name, SyntheticConfig(patients=patients, classes=classes, seed=seed))
        for folder in ("ct", "cough_audio"):
            shutil.rmtree(root / name / folder)
        (root / name / "patients.csv").unlink()
    shutil.copytree(root / "strangers", root / "extra")
    copies = root / "extra" / "cxr" / "unknown"
    copies.mkdir()
    for place, path in enumerate(sorted((root / "own").rglob("*.png"))):
        target = copies / f"{path.parent.name}-{path.name}"
        if place % 2:
            shutil.copy(path, target)
        else:
            image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(target.with_suffix(".jpg")), image, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return root


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    out = tmp_path_factory.mktemp("pretrained")
    config = parse_config(CONFIG, ["pretrain.extra=[{name: folder, root: extra}]"])
    weights = pretrain_backbone(config, Modality.CXR, data, out, cache=out / "cache")
    assert weights == out / "backbone.safetensors"
    return Pretrained(config, data, out, out / "cache")


@pytest.fixture(scope="module")
def studied(pretrained: Pretrained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that started from the pre-trained weights, with its own split."""
    out = tmp_path_factory.mktemp("study")
    run_study(pretrained.study(), pretrained.data, out, cache=pretrained.cache)
    return out


@pytest.fixture(scope="module")
def split(studied: Path) -> pd.Series:
    """Split of each record of the study."""
    return read_manifest(studied / "manifest.parquet").set_index("record_id")["split"]


def test_it_leaves_every_file_and_says_how_they_were_made(pretrained: Pretrained) -> None:
    assert all((pretrained.out / name).is_file() for name in FILES)
    facts = read_json(pretrained.out / "pretrain.json")
    assert facts["epochs"] == len(facts["history"]) == 2
    assert facts["seed"] == pretrained.config.seed
    assert facts["sha256"] == {n: sha256_file(pretrained.out / n) for n in FILES[:2]}
    history = pd.read_csv(pretrained.out / "history.csv")
    assert history["loss"].tolist() == [row["loss"] for row in facts["history"]]


def test_the_backbone_is_loaded_strictly_and_is_not_the_one_it_started_from(
    pretrained: Pretrained,
) -> None:
    backbone = build_backbone("efficientnet_lite0", str(pretrained.weights))
    torch.manual_seed(pretrained.config.seed)
    fresh = build_backbone("efficientnet_lite0", "none")
    assert not torch.equal(backbone.body.stem[0].weight, fresh.body.stem[0].weight)
    with pytest.raises(WeightsError, match="does not fit"):
        build_backbone("efficientnet_lite1", str(pretrained.weights))


def test_only_training_images_and_strangers_are_seen(
    pretrained: Pretrained, split: pd.Series
) -> None:
    seen = pd.read_parquet(pretrained.out / "fingerprints.parquet")
    own = seen[seen["record_id"].isin(split.index)]
    train = set(split.index[split == "train"])
    assert set(own["record_id"]) == train
    others = seen[~seen["record_id"].isin(split.index)]["record_id"]
    named = others.str.extract(r"unknown/(?P<label>\w+)-(?P<name>P\d+)").dropna()
    assert others[~others.index.isin(named.index)].size == 8
    copied = set(named["label"] + "/" + named["name"])
    assert copied
    assert copied <= {"/".join(r.removesuffix(".png").split("/")[-2:]) for r in train}


def test_copies_of_tested_images_are_listed_with_their_reason(
    pretrained: Pretrained, split: pd.Series
) -> None:
    excluded = pd.read_csv(pretrained.out / "excluded.csv")
    reasons = excluded.loc[excluded["path"].str.contains("/unknown/"), "reason"]
    tested = int((split != "train").sum())
    assert len(reasons) == tested
    assert set(reasons.str.extract(r"(copy|nearly the same)")[0]) == {"copy", "nearly the same"}


def test_a_study_of_the_same_split_passes(pretrained: Pretrained, studied: Path) -> None:
    checks = read_json(studied / "audit.json")["checks"]
    (check,) = [c for c in checks if c["id"] == "leakage.pretraining"]
    assert (check["verdict"], check["modality"]) == ("pass", "cxr")
    n_seen = len(pd.read_parquet(pretrained.out / "fingerprints.parquet"))
    assert f"{n_seen} files" in check["detail"]


def test_what_was_seen_in_pretraining_is_no_external_data(
    pretrained: Pretrained, studied: Path, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="trained on every one"):
        evaluate_external(studied, "folder:strangers", pretrained.data, tmp_path)


@pytest.mark.parametrize(
    "setting", ["seed=5", "split.method=kfold", "split={method: kfold, folds: 3, fold: 2}"]
)
def test_a_study_of_another_split_is_stopped(
    pretrained: Pretrained, tmp_path: Path, setting: str
) -> None:
    with pytest.raises(LeakageFound, match=r"leakage\.pretraining .*pulmofuse pretrain"):
        run_study(pretrained.study(setting), pretrained.data, tmp_path, cache=pretrained.cache)


def test_weights_without_their_fingerprints_are_refused(
    pretrained: Pretrained, tmp_path: Path
) -> None:
    moved = tmp_path / "backbone.safetensors"
    shutil.copy(pretrained.weights, moved)
    config = pretrained.study(f"cxr.model.weights={moved}")
    with pytest.raises(WeightsError, match="not beside it"):
        run_study(config, pretrained.data, tmp_path / "a", cache=pretrained.cache)
    table = pd.read_parquet(pretrained.out / "fingerprints.parquet")
    table.head(3).to_parquet(tmp_path / "fingerprints.parquet")
    with pytest.raises(WeightsError, match="not the one beside it"):
        run_study(config, pretrained.data, tmp_path / "b", cache=pretrained.cache)


def test_other_weights_in_the_same_place_are_audited_and_trained_from_anew(
    pretrained: Pretrained, studied: Path
) -> None:
    part = pretrained.study().cxr
    assert weights_key(part) == [
        sha256_file(pretrained.out / name) for name in ("backbone.safetensors", FINGERPRINTS)
    ]
    assert weights_key(pretrained.config.cxr) == []


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    pretrained: Pretrained, tmp_path: Path
) -> None:
    arguments = (pretrained.config, Modality.CXR, pretrained.data, tmp_path)
    with pytest.raises(Killed):
        pretrain_backbone(*arguments, KilledInEpoch2(), cache=pretrained.cache)
    assert not (tmp_path / "backbone.safetensors").exists()
    resumed = pretrain_backbone(*arguments, cache=pretrained.cache)
    assert sha256_file(resumed) == sha256_file(pretrained.weights)
    written = resumed.stat().st_mtime_ns
    pretrain_backbone(*arguments, KilledInEpoch2(), cache=pretrained.cache)
    assert resumed.stat().st_mtime_ns == written


def test_weights_that_go_on_from_others_have_seen_what_those_saw(
    pretrained: Pretrained, tmp_path: Path
) -> None:
    config = pretrained.study("pretrain.extra=[]", "pretrain.epochs=1")
    pretrain_backbone(config, Modality.CXR, pretrained.data, tmp_path, cache=pretrained.cache)
    before, after = (
        set(pd.read_parquet(out / FINGERPRINTS)["sha256"]) for out in (pretrained.out, tmp_path)
    )
    assert after == before
    other = pretrained.study("seed=5", "pretrain.extra=[]")
    with pytest.raises(LeakageFound, match="Start from weights"):
        pretrain_backbone(other, Modality.CXR, pretrained.data, tmp_path, cache=pretrained.cache)


@pytest.mark.parametrize(
    ("modality", "settings", "named"),
    [
        ("ct", [], "has no usable ct record. It has cxr"),
        ("cxr", ["pretrain.extra=[{name: folder, root: own}]"], "is in the study already"),
        ("cough", [], "give ct or cxr"),
        ("ct", ["ct.model.aggregation=volume"], "volume has no backbone"),
        ("cxr", ["cxr.model.backbone=resnet18+resnet50"], "resnet18+resnet50 is several backbones"),
        ("cxr", ["pretrain.crop=[0.9, 0.2]"], "lower bound first"),
        ("cxr", ["cxr.model.weights=nowhere.safetensors"], "nowhere.safetensors"),
        ("cxr", ["OUT"], "cannot be written"),
    ],
)
def test_bad_usage_is_one_clear_error(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    modality: str,
    settings: list[str],
    named: str,
) -> None:
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    study.write_text(CONFIG + "ct: {model: {weights: none}}\n")
    if settings == ["OUT"]:
        out.write_text("a file, no folder")
    words = ["pretrain", str(study), "--modality", modality, "--data-root", str(data)]
    words += ["--out", str(out), *(f"--set={s}" for s in settings if "=" in s)]
    monkeypatch.setattr(sys, "argv", ["pulmofuse", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert named in " ".join(capsys.readouterr().err.split())
    assert not (out / "backbone.safetensors").exists()


@pytest.mark.parametrize(
    ("modality", "setting"),
    [
        (Modality.CT, "ct.model.aggregation=volume"),
        (Modality.CXR, "cxr.model.backbone=efficientnet_lite0+efficientnet_lite1"),
    ],
)
def test_a_model_that_no_pretrained_file_can_start_is_refused_before_any_work(
    tmp_path: Path, modality: Modality, setting: str
) -> None:
    with pytest.raises(ConfigError):
        pretrain_backbone(parse_config(CONFIG, [setting]), modality, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
