"""From readable files to split records: odd files, copies, and who must stay together."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.curation import audit
from pulmofuse.errors import StudyError
from pulmofuse.pipeline import (
    Cohort,
    prepare_cohort,
    require_records,
    split_cohort,
    without_leaks,
)
from pulmofuse.schema import exclusions_frame, manifest_frame
from pulmofuse.sources import scan_source
from pulmofuse.sources.synthetic import SyntheticConfig, generate

CONFIG = """
name: small
question: who stays together?
target: {classes: [normal, covid19], positive: covid19,
         mapping: {normal: normal, covid19: covid19}}
sources: [{name: folder}]
split: {test: 0.3, val: 0.2}
cxr: {preprocessing: {size: 64}}
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    generate(root, SyntheticConfig(patients=24, classes=("normal", "covid19"), seed=9))
    return root


def row(path: str, label: str, patient: str, split: str | None = None) -> dict[str, object]:
    return {
        "record_id": path,
        "patient_id": patient,
        "patient_known": True,
        "modality": "cxr",
        "path": path,
        "label": label,
        "source": "made",
        "split": split,
    }


def listed(root: Path) -> list[dict[str, object]]:
    """One X-ray of each of 24 patients."""
    paths = sorted(p.relative_to(root).as_posix() for p in (root / "cxr").rglob("*.png"))
    return [row(path, path.split("/")[1], f"p{n:02d}") for n, path in enumerate(paths)]


def cohort(root: Path, rows: list[dict[str, object]], tmp_path: Path, *changes: str) -> Cohort:
    return prepare_cohort(
        manifest_frame(rows), exclusions_frame([]), config(*changes), root, tmp_path / "cache",
        lambda *_: None,
    )  # fmt: skip


def config(*changes: str) -> StudyConfig:
    return parse_config(CONFIG, changes, "test")


def shrunk(source: Path, target: Path) -> None:
    picture = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
    smaller = cv2.resize(picture, None, fx=0.85, fy=0.85, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), smaller, [cv2.IMWRITE_JPEG_QUALITY, 85])


def test_a_copy_that_is_left_out_still_says_that_two_patients_are_one(
    pictures: Path, tmp_path: Path
) -> None:
    rows = listed(pictures)
    first, second = rows[0], rows[1]
    copy = pictures / "same.png"
    copy.write_bytes((pictures / str(first["path"])).read_bytes())
    rows.append({**row("same.png", str(first["label"]), str(second["patient_id"]))})
    found = cohort(pictures, rows, tmp_path)
    assert "same.png" in set(found.excluded["path"])
    assert found.copies["path"].tolist() == ["same.png"]
    group = found.records.set_index("path")["group"]
    assert group[str(first["path"])] == group[str(second["path"])]
    assert group.nunique() == len(group) - 1


def test_near_copies_stay_together_in_every_split_method(pictures: Path, tmp_path: Path) -> None:
    rows = listed(pictures)
    shrunk(pictures / str(rows[0]["path"]), pictures / "near.jpg")
    rows.append(row("near.jpg", str(rows[0]["label"]), "another"))
    for number, change in enumerate(["split.method=stratified", "split.method=kfold"]):
        changed = config(change, "split.folds=3")
        found = cohort(pictures, rows, tmp_path / str(number), change, "split.folds=3")
        split = split_cohort(found, changed).records.set_index("path")["split"]
        assert split["near.jpg"] == split[str(rows[0]["path"])]


def test_content_under_two_classes_is_left_out_unless_copies_are_kept(
    pictures: Path, tmp_path: Path
) -> None:
    rows = listed(pictures)
    other = {"normal": "covid19", "covid19": "normal"}[str(rows[0]["label"])]
    shrunk(pictures / str(rows[0]["path"]), pictures / "torn.jpg")
    rows.append(row("torn.jpg", other, "another"))
    found = cohort(pictures, rows, tmp_path)
    assert {"torn.jpg", rows[0]["path"]} <= set(found.excluded["path"])
    assert not {"torn.jpg", rows[0]["path"]} & set(found.records["path"])
    kept = cohort(pictures, rows, tmp_path, "cleaning.copies=keep")
    assert {"torn.jpg", rows[0]["path"]} <= set(kept.records["path"])
    assert len(kept.pairs) == len(found.pairs) == 1


def test_what_the_test_set_knows_leaves_training_and_is_still_shown(
    pictures: Path, tmp_path: Path
) -> None:
    rows = listed(pictures)
    for n, entry in enumerate(rows):
        entry["split"] = ("train", "val", "test")[n % 3]
    tested = rows[2]
    shrunk(pictures / str(tested["path"]), pictures / "leak.jpg")
    rows.append(row("leak.jpg", str(tested["label"]), "another", "train"))
    split = split_cohort(cohort(pictures, rows, tmp_path), config())
    clean = without_leaks(split)
    assert set(split.records["path"]) - set(clean.records["path"]) == {"leak.jpg"}
    shown = clean.audited.set_index("path")
    assert shown.loc["leak.jpg", "split"] == "train"
    assert not shown.loc["leak.jpg", "used"]
    assert shown.loc[str(tested["path"]), "used"]


def test_published_splits_keep_no_copy_where_they_are_passed_over(
    pictures: Path, tmp_path: Path
) -> None:
    rows = [{**entry, "split": "train"} for entry in listed(pictures)]
    (pictures / "again.png").write_bytes((pictures / str(rows[0]["path"])).read_bytes())
    rows.append(row("again.png", str(rows[0]["label"]), str(rows[0]["patient_id"]), "train"))
    assert len(cohort(pictures, rows, tmp_path).records) == 25
    assert len(cohort(pictures, rows, tmp_path, "split.method=kfold").records) == 24


def test_odd_files_are_left_out_as_the_configuration_says(pictures: Path, tmp_path: Path) -> None:
    rows = listed(pictures)
    drawing = np.full((300, 400), 255, np.uint8)
    for n in range(9):
        cv2.rectangle(drawing, (20 + 40 * n, 250 - 20 * n), (45 + 40 * n, 280), 90, -1)
    cv2.imwrite(str(pictures / "chart.png"), drawing)
    rows.append(row("chart.png", "normal", "another"))
    found = cohort(pictures, rows, tmp_path)
    out = found.excluded[found.excluded["path"] == "chart.png"]
    assert out["stage"].tolist() == ["clean"]
    assert out["remedy"].str.len().min() > 3
    kept = cohort(pictures, rows, tmp_path, "cleaning.exclude=[]")
    assert "chart.png" in set(kept.records["path"])
    remarks = kept.remarks[kept.remarks["path"] == "chart.png"]
    assert isinstance(remarks, pd.DataFrame)
    assert remarks["excluded"].tolist() == [False] * len(remarks)
    assert len(remarks)


def test_a_copy_with_a_label_outside_the_mapping_leaves_both_out(
    pictures: Path, tmp_path: Path
) -> None:
    rows = listed(pictures)
    wrong, agrees = str(rows[0]["path"]), str(rows[1]["path"])
    shrunk(pictures / wrong, pictures / "elsewhere.jpg")
    shrunk(pictures / agrees, pictures / "nobody-knows.jpg")
    rows.append(row("elsewhere.jpg", "tuberculosis", "q1"))
    rows.append(row("nobody-knows.jpg", "unknown", "q2"))
    found = cohort(pictures, rows, tmp_path)
    out = found.excluded.set_index("path")["reason"]
    label = str(rows[0]["label"])
    both = " and ".join(sorted([label, "tuberculosis"]))
    assert out[wrong] == f"the same content is labelled {both}"
    assert out["elsewhere.jpg"] == "label 'tuberculosis' is not in the study's target mapping"
    assert wrong not in set(found.records["path"])
    assert agrees in set(found.records["path"])
    assert set(found.copies["path"]) == {wrong, "elsewhere.jpg"}
    checks = audit(split_cohort(found, config()).audited, found.pairs, seed=1).checks
    told = next(c for c in checks if c.id == "labels.contradiction")
    assert told.verdict == "warn"
    assert wrong in told.detail
    assert "elsewhere.jpg (tuberculosis)" in told.detail


def test_published_copies_are_not_compared_with_labels_outside(
    pictures: Path, tmp_path: Path
) -> None:
    rows = listed(pictures)
    shrunk(pictures / str(rows[0]["path"]), pictures / "elsewhere.jpg")
    rows.append(row("elsewhere.jpg", "tuberculosis", "q1"))
    found = cohort(pictures, rows, tmp_path, "cleaning.copies=keep")
    assert str(rows[0]["path"]) in set(found.records["path"])


def test_one_file_under_two_modalities_is_left_out_in_both_places(
    pictures: Path, tmp_path: Path
) -> None:
    rows = listed(pictures)
    path = str(rows[0]["path"])
    (pictures / "ct (1).png").write_bytes((pictures / path).read_bytes())
    rows.append({**row("ct (1).png", str(rows[0]["label"]), "q1"), "modality": "ct"})
    found = cohort(pictures, rows, tmp_path)
    out = found.excluded[found.excluded["stage"] == "clean"].drop_duplicates(["path", "modality"])
    assert {("ct (1).png", "ct"), (path, "cxr")} <= set(
        zip(out["path"], out["modality"], strict=True)
    )
    told = found.remarks[found.remarks["path"] == path]["reason"].str.cat(sep="; ")
    assert f"{path}, among CXR, is the same file as ct (1).png, among CT" in told
    # The brackets of a name are no score.
    assert f"{path}, among CXR, is the same file as ct (1).png, among CT" in set(out["reason"])


def test_a_cohort_that_cleaning_leaves_empty_is_refused_with_the_list(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for n in range(6):
        name = f"noise ({n}).png"
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (90, 90, 3), np.uint8))
        rows.append(row(name, ("normal", "covid19")[n % 2], f"p{n}"))
    found = cohort(tmp_path, rows, tmp_path)
    assert found.records.empty
    # The scores go, the name stays: it has brackets of its own.
    assert not found.excluded["reason"].str.contains("score").any()
    with pytest.raises(StudyError, match=r"all 6 files were left out. Look at list.csv"):
        require_records(found, "mine", Path("list.csv"))


def test_a_stated_lateral_view_is_left_out_whatever_the_picture_shows(
    pictures: Path, tmp_path: Path
) -> None:
    rows = listed(pictures)
    rows[0]["view"] = "L"
    found = cohort(pictures, rows, tmp_path)
    out = found.excluded.set_index("path")["reason"]
    assert "a lateral view" in out[str(rows[0]["path"])]
    assert rows[0]["path"] not in set(found.records["path"])


@pytest.mark.data
def test_no_lateral_of_an_unknown_view_is_used(data_root: Path, tmp_path: Path) -> None:
    rows = scan_source("covid_chestxray", data_root, "covid-chestxray-dataset").records
    rows = rows[rows["modality"] == "cxr"]
    lateral = rows[rows["view"] == "L"]
    assert len(lateral) == 54
    frontal = rows[(rows["view"] == "PA") & (rows["label"] == "covid19")].head(6)
    mixed = pd.concat([lateral.assign(label="covid19"), frontal]).assign(view=None)
    found = cohort(data_root, mixed.to_dict("records"), tmp_path)
    assert not set(found.records["path"]) & set(lateral["path"])
    assert set(found.records["path"]) <= set(frontal["path"])
    assert len(found.records)
