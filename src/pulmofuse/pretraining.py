"""Pre-train the image backbone of a study without labels, on nothing that the study tests.

    pretrain_backbone(load_config(Path("studies/covid.yaml")), Modality.CT, Path("data"), out)

`ct.model.weights: <out>/backbone.safetensors` then starts the study's model from it. The study's
audit compares the fingerprints beside the weights with its own split, whatever that is by then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file

import pulmofuse
from pulmofuse.config import CtConfig, CxrConfig, StudyConfig
from pulmofuse.curation import split_hash
from pulmofuse.errors import ConfigError, LeakageFound
from pulmofuse.files import atomic_path, sha256_file, write_csv, write_json
from pulmofuse.inference import instance_rows
from pulmofuse.models.backbones import Backbone, build_backbone
from pulmofuse.pipeline import (
    FINGERPRINTS,
    MARK,
    Reporter,
    Silent,
    Steps,
    Unlabelled,
    describe_cohort,
    locked,
    prepare_cohort,
    pretraining_checks,
    require_records,
    rows_hash,
    scan,
    seen_in_pretraining,
    split_cohort,
    unlabelled_images,
    versions,
    weights_key,
    without_leaks,
    write_fingerprints,
)
from pulmofuse.preprocessing.prepare import PREPROCESSING_VERSION
from pulmofuse.schema import Modality
from pulmofuse.training.pretrain import pretrain

WEIGHTS, _FACTS, _HISTORY = "backbone.safetensors", "pretrain.json", "history.csv"


def pretrain_backbone(
    config: StudyConfig,
    modality: Modality,
    data_root: Path,
    out: Path,
    reporter: Reporter | None = None,
    cache: Path | None = None,
) -> Path:
    """Adapt the backbone of one modality to the study's training images, or finish a stopped run.

    Args:
        config: the study; `pretrain` says how, `<modality>.model` with what to start.
        modality: CT or CXR.
        data_root: folder below which the data sets lie.
        out: takes backbone.safetensors, fingerprints.parquet, pretrain.json, history.csv and
            excluded.csv.
        reporter: shows progress.
        cache: folder of the prepared files, `out/cache` by default.

    Returns:
        Path of `backbone.safetensors`.

    Raises:
        ConfigError: the model of the modality does not have one image backbone.
        PulmofuseError: with what else is wrong, why, and what to do about it.
    """
    reporter = reporter or Silent()
    part = _trainable_part(config, modality)
    with locked(out):
        # A wrong backbone must not cost a reading of all files; `weights: none` draws its own.
        torch.manual_seed(config.seed)
        backbone = build_backbone(part.model.backbone, part.model.weights)
        images, split = _collect(config, modality, data_root, out, cache or out / "cache", reporter)
        inputs = [
            pulmofuse.__version__,
            PREPROCESSING_VERSION,
            config.seed,
            modality.value,
            part.preprocessing.model_dump(mode="json"),
            part.augmentation.flip_horizontal,
            part.model.backbone,
            part.model.weights,
            weights_key(part),
            config.pretrain.model_dump(mode="json"),
            rows_hash(images.records, ["record_id", "sha256"]),
        ]
        checkpoints = out / "checkpoints"

        def work() -> str:
            # No older weights may stand beside the fingerprints of these.
            (out / WEIGHTS).unlink(missing_ok=True)
            history = pretrain(
                backbone,
                images.instances,
                instance_rows(images.records)[0],
                config=config.pretrain,
                flip=part.augmentation.flip_horizontal,
                seed=config.seed,
                folder=checkpoints,
                progress=reporter.update,
            )
            _write(out, config, modality, backbone, images, split, history)
            last = history.iloc[-1]
            return (
                f"loss {history['loss'].iloc[0]:.3f} to {last['loss']:.3f},"
                f" spread {last['spread']:.2f}, {history['seconds'].mean():.1f} s an epoch"
            )

        outputs = [out / name for name in (WEIGHTS, FINGERPRINTS, _FACTS, _HISTORY)]
        title = f"Pre-train the {modality.value} backbone"
        Steps(out, reporter).run("pretrain", title, inputs, outputs, work, workspace=checkpoints)
    return out / WEIGHTS


def _trainable_part(config: StudyConfig, modality: Modality) -> CtConfig | CxrConfig:
    """The part of a study that has one image backbone, which a file of weights can start.

    Raises:
        ConfigError: the modality is not of images, or its model has no backbone, or several.
    """
    part = config.of(modality)
    if not isinstance(part, CtConfig | CxrConfig):
        why = "is not a modality of images, and only their backbones can be pre-trained"
        raise ConfigError(f"modality {modality.value}", why, "give ct or cxr")
    if isinstance(part, CtConfig) and part.model.aggregation == "volume":
        raise ConfigError(
            "ct.model.aggregation",
            "volume has no backbone, so the study could not start from what is pre-trained",
            "set it to mean or attention, or train without `pulmofuse pretrain`",
        )
    if "+" in part.model.backbone:
        raise ConfigError(
            f"{modality.value}.model.backbone",
            f"{part.model.backbone} is several backbones, and a file of weights is for one",
            "name one of them",
        )
    return part


def _collect(
    config: StudyConfig,
    modality: Modality,
    data_root: Path,
    out: Path,
    cache: Path,
    reporter: Reporter,
) -> tuple[Unlabelled, str]:
    """The images to learn from, and the hash of the split they were chosen by.

    Cleaning and split are the study's own, over all its modalities: a patient is in one split.

    Raises:
        LeakageFound: the weights to start from have seen a validation or test record.
    """
    reporter.step("Scan the data sets")
    manifest, excluded = scan(config.sources, data_root)
    reporter.finish(f"{len(manifest):,} files, {len(excluded):,} left out")
    reporter.step("Read and prepare the files")
    cohort = prepare_cohort(manifest, excluded, config, data_root, cache, reporter.update)
    write_csv(out / "excluded.csv", cohort.excluded)
    reporter.finish(describe_cohort(cohort))
    require_records(cohort, config.name, out / "excluded.csv")
    cohort = split_cohort(cohort, config)
    if config.audit.on_leak == "drop":
        cohort = without_leaks(cohort)
    for check in pretraining_checks(config, cohort.records):
        if check.verdict == "fail" and check.modality == modality.value:
            remedy = "start from weights that were pre-trained on this split, or from imagenet"
            raise LeakageFound(f"{modality.value}.model.weights", check.detail, remedy)
    reporter.step("Leave out what validation and test know")
    images = unlabelled_images(cohort, config, modality, data_root, cache, reporter.update)
    write_csv(out / "excluded.csv", images.excluded)
    counts = images.records["source"].value_counts()
    reporter.finish(", ".join(f"{n:,} {source}" for source, n in counts.items()))
    return images, split_hash(cohort.records)


def _write(
    out: Path,
    config: StudyConfig,
    modality: Modality,
    backbone: Backbone,
    images: Unlabelled,
    split: str,
    history: pd.DataFrame,
) -> None:
    """Write the weights after their fingerprints, so that there are never weights without."""
    columns = ["record_id", "patient_id", "modality", "sha256", "fingerprint", "split"]
    # What the weights to start from have seen, these have seen too.
    before = seen_in_pretraining(config, [modality])
    before = before[~before["sha256"].isin(images.records["sha256"])]
    seen = [table for table in (images.records[columns], before) if len(table)]
    write_fingerprints(out, pd.concat(seen, ignore_index=True), ["patient_id"])
    write_csv(out / _HISTORY, history)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in backbone.state_dict().items()}
    with atomic_path(out / WEIGHTS) as temporary:
        save_file(state, temporary, metadata={MARK: sha256_file(out / FINGERPRINTS)})
    write_json(out / _FACTS, _facts(out, config, modality, images, split, history))


def _facts(
    out: Path,
    config: StudyConfig,
    modality: Modality,
    images: Unlabelled,
    split: str,
    history: pd.DataFrame,
) -> dict[str, Any]:
    """What pretrain.json says of a run."""
    part = config.of(modality)
    return {
        "method": "BYOL (Grill et al. 2020, arXiv:2006.07733)",
        "study": config.name,
        "modality": modality.value,
        "model": part.model.model_dump(mode="json"),
        "preprocessing": part.preprocessing.model_dump(mode="json"),
        "pretrain": config.pretrain.model_dump(mode="json"),
        "seed": config.seed,
        "split_hash": split,
        "epochs": len(history),
        "files": {str(k): int(n) for k, n in images.records["source"].value_counts().items()},
        "instances": int((images.records["stop"] - images.records["start"]).sum()),
        "patients": int(images.records["patient_id"].nunique()),
        "sha256": {name: sha256_file(out / name) for name in (WEIGHTS, FINGERPRINTS)},
        "versions": versions(),
        "history": history.to_dict("records"),
    }
