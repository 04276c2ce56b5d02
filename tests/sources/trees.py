"""Small made-up data sets in the published layouts: empty files, real tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd


def touch(root: Path, *paths: str) -> Path:
    """Make empty files below `root`."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def covid_ct_tree(root: Path) -> Path:
    """COVID-CT with six images: names with "%", a table name without suffix, an odd age."""
    splits = {
        "COVID": {"train": ["a%0.png", "a%1.png"], "val": ["b.10.1-p2.png"], "test": ["c.png"]},
        "NonCOVID": {"train": ["0.jpg"], "val": ["1%0.jpg"], "test": ["12.png"]},
    }
    for group, parts in splits.items():
        for split, names in parts.items():
            folder = root / "Data-split" / group
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{split}CT_{group}.txt").write_text("\n".join(names) + "\n\n")
            touch(root, *(f"Images-processed/CT_{group}/{name}" for name in names))
    pd.DataFrame(
        [
            ("a%0.png", "Patient 1", "41", "M"),
            ("a%1.png", "Patient 1 ", "40+", "F "),
            ("b.10.1-p2", "Patient 2", "Young Child", None),
            (None, None, None, None),
        ],
        columns=["File name", "Patient ID", "Age", "Gender"],
    ).to_excel(root / "COVID-CT-MetaInfo.xlsx", index=False)
    (root / "NonCOVID-CT-MetaInfo.csv").write_text(
        ",image name,patient id\n0,0.jpg,crawled_patient_0\n1,1%0.jpg,crawled_patient_1\n"
        "2,12.png,medpix_patient_7\n"
    )
    return root


COHEN_COLUMNS = (
    "patientid",
    "sex",
    "age",
    "finding",
    "view",
    "modality",
    "location",
    "folder",
    "filename",
)


def cohen_tree(root: Path, rows: Iterable[tuple[str, ...]], missing: Iterable[str] = ()) -> Path:
    """covid-chestxray-dataset with the rows given, in the order of COHEN_COLUMNS."""
    table = pd.DataFrame(list(rows), columns=list(COHEN_COLUMNS))
    (root / "images").mkdir(parents=True, exist_ok=True)
    table.to_csv(root / "metadata.csv", index=False)
    for folder, name in zip(table["folder"], table["filename"], strict=True):
        if name not in missing:
            touch(root, f"{folder}/{name}")
    return root


def cough_tree(root: Path, rows: Iterable[Mapping[str, object]], files: Iterable[str]) -> Path:
    """covid19-cough with the table rows and the recordings given."""
    (root / "raw").mkdir(parents=True, exist_ok=True)
    (root / "metadata.json").write_text(json.dumps(list(rows)), encoding="utf-8")
    return touch(root, *(f"raw/{name}" for name in files))
