"""What a study remembers of its files: which later records are copies of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pulmofuse.curation.fingerprints import image_fingerprint
from pulmofuse.errors import StudyError
from pulmofuse.io import read_image
from pulmofuse.pipeline import copies_of_study, write_fingerprints


def picture(seed: int) -> np.ndarray:
    """(160, 160) uint8 with shapes of its own."""
    rng = np.random.default_rng(seed)
    shapes = cv2.GaussianBlur(rng.normal(0, 1, (160, 160)), (0, 0), 9)
    return cv2.normalize(shapes, None, 10, 240, cv2.NORM_MINMAX).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def record(
    name: str, pixels: np.ndarray, split: str | None, quality: int = 90
) -> dict[str, object]:
    image = read_image(jpeg(pixels, quality))
    return {
        "record_id": name,
        "modality": "cxr",
        "sha256": f"{name}-{quality}",
        "fingerprint": image_fingerprint(image),
        "split": split,
    }


@pytest.fixture
def study(tmp_path: Path) -> Path:
    splits = ["train", "val", "test", "train"] * 3
    rows = [record(f"s{n}", picture(n), split) for n, split in enumerate(splits)]
    write_fingerprints(tmp_path, pd.DataFrame(rows))
    return tmp_path


def test_copies_are_found_whatever_their_names_and_encoding(study: Path) -> None:
    later = [
        {**record("s0", picture(30), None), "sha256": "another"},
        record("x1", cv2.resize(picture(1), (128, 128)), None, 75),
        record("x2", picture(2), None, 60),
        {**record("x3", picture(31), None), "sha256": "s3-90"},
    ]
    records = pd.DataFrame(later, index=[7, 5, 3, 1])
    found = copies_of_study(study, records)
    assert found.index.tolist() == [7, 5, 3, 1]
    assert found.where(found.notna(), None).tolist() == [None, "val", "test", "train"]


def test_a_copy_in_two_splits_counts_as_the_earlier(tmp_path: Path) -> None:
    rows = [record("s0", picture(0), "test"), record("s1", picture(0), "train", 80)]
    rows += [record(f"s{n}", picture(n), "test") for n in range(2, 8)]
    write_fingerprints(tmp_path, pd.DataFrame(rows))
    found = copies_of_study(tmp_path, pd.DataFrame([record("x", picture(0), None, 70)]))
    assert found.tolist() == ["train"]


def test_a_study_without_fingerprints_knows_no_copies(tmp_path: Path) -> None:
    records = pd.DataFrame([record("x", picture(0), None)])
    assert copies_of_study(tmp_path, records).isna().all()


def test_every_copy_of_a_large_group_is_known(tmp_path: Path) -> None:
    """More copies than `MAX_GROUP`: the pairs are a star, and most of them are indirect."""
    rows = [record("s0", picture(0), "val"), record("s1", picture(1), "train")]
    write_fingerprints(tmp_path, pd.DataFrame(rows))
    later = [{**record(f"x{n:02d}", picture(0), None), "sha256": f"new {n}"} for n in range(30)]
    assert copies_of_study(tmp_path, pd.DataFrame(later)).tolist() == ["val"] * 30


def test_damaged_fingerprints_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "fingerprints.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StudyError, match="Run the study again"):
        copies_of_study(tmp_path, pd.DataFrame([record("x", picture(0), None)]))


def test_fingerprints_of_another_version_are_one_clear_error(study: Path) -> None:
    path = study / "fingerprints.parquet"
    old = pd.read_parquet(path)
    for table in (old.drop(columns="version"), old.assign(version=old["version"] - 1)):
        table.to_parquet(path)
        with pytest.raises(StudyError, match="another version of Pulmofuse"):
            copies_of_study(study, pd.DataFrame([record("x", picture(0), None)]))
