"""Starting weights against a study's tested records: copies, patients, and weights of silence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.curation.fingerprints import image_fingerprint
from pulmofuse.io import read_image
from pulmofuse.pipeline import pretraining_checks, write_fingerprints


def record(number: int, split: str, patient: str, quality: int = 90) -> dict[str, object]:
    """A picture of its own for each number, as JPEG."""
    rng = np.random.default_rng(number)
    shapes = cv2.GaussianBlur(rng.normal(0, 1, (160, 160)), (0, 0), 9)
    pixels = cv2.normalize(shapes, None, 10, 240, cv2.NORM_MINMAX).astype(np.uint8)
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return {
        "record_id": f"r{number}",
        "path": f"r{number}.jpg",
        "patient_id": patient,
        "modality": "ct",
        "sha256": f"{number}-{quality}",
        "fingerprint": image_fingerprint(read_image(encoded)),
        "split": split,
    }


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    text = "name: a\nquestion: b\nsources: [{name: folder}]\n"
    return parse_config(text, [f"ct.model.weights={tmp_path / 'backbone.safetensors'}"])


@pytest.fixture
def records() -> pd.DataFrame:
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    return pd.DataFrame([record(n, split, f"p{n}") for n, split in enumerate(splits)])


@pytest.mark.parametrize(
    ("seen", "value"),
    [
        ([record(n, "train", f"p{n}") for n in range(6)], 0),
        ([record(20, "train", "q"), record(9, "train", "q")], 1),
        ([record(20, "train", "q"), record(9, "train", "q", 60), record(7, "train", "q", 70)], 2),
        ([record(20, "train", "p11"), record(21, "train", "p1")], 1),
        ([record(20, "train", "q"), record(9, "train", "p9"), record(21, "train", "p8")], 2),
    ],
    ids=["own training", "exact copy", "near copies", "patient", "copy and patient"],
)
def test_tested_records_that_were_seen_fail(
    config: StudyConfig,
    records: pd.DataFrame,
    tmp_path: Path,
    seen: list[dict[str, object]],
    value: int,
) -> None:
    write_fingerprints(tmp_path, pd.DataFrame(seen), ["patient_id"])
    (check,) = pretraining_checks(config, records)
    assert (check.id, check.modality) == ("leakage.pretraining", "ct")
    assert check.value == value
    assert check.verdict == ("fail" if value else "pass")
    assert f"{len(seen)} files" in check.detail


def test_weights_that_do_not_say_what_they_saw_pass_with_words(
    config: StudyConfig, records: pd.DataFrame
) -> None:
    (check,) = pretraining_checks(config, records)
    assert (check.verdict, check.value) == ("pass", None)
    assert "cannot be checked" in check.detail


@pytest.mark.parametrize("weights", ["imagenet", "none", "https://example.org/a.safetensors"])
def test_weights_of_a_package_or_a_url_have_no_check(
    config: StudyConfig, records: pd.DataFrame, weights: str
) -> None:
    tree = config.model_dump(mode="json")
    tree["ct"]["model"]["weights"] = weights
    assert pretraining_checks(StudyConfig.model_validate(tree), records) == []


def test_a_model_without_records_has_no_check(config: StudyConfig, records: pd.DataFrame) -> None:
    assert pretraining_checks(config, records.assign(modality="cxr")) == []
