"""Pictures for the report: what the models were shown, and where they looked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from pulmofuse.config import StudyConfig
from pulmofuse.files import write_bytes, write_json
from pulmofuse.inference import Unimodal
from pulmofuse.inference.explanation import explain_instances
from pulmofuse.inference.pictures import instance_picture
from pulmofuse.labelsets import Partition, members
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.models import told_apart
from pulmofuse.schema import Modality, Split, iterate

#: Examples of each class and modality in the report.
EXAMPLES_PER_CLASS = 2

_PICTURE_PX = 224
_OVERLAY_OPACITY = 0.45


def write_examples(cohort: Cohort, config: StudyConfig, folder: Path) -> None:
    """Write training examples of every modality and class with `index.json`."""
    rng = np.random.default_rng(config.seed)
    index = []
    for modality in cohort.caches:
        records = cohort.of(modality)
        partition = told_apart(records, config.target.classes)
        parts = partition.codes(records["y_true"])
        for place, name in enumerate(partition.names):
            chosen = records[(records["split"] == Split.TRAIN) & (parts == place)]
            count = min(EXAMPLES_PER_CLASS, len(chosen))
            for i, row in enumerate(rng.choice(len(chosen), count, replace=False)):
                picture = _picture(cohort, modality, config, chosen.iloc[row])
                file = f"{modality.value}-{place}-{i}.png"
                write_png(folder / file, picture)
                index.append({"modality": modality.value, "class": name, "image": file})
    write_json(folder / "index.json", index)


def write_explanations(
    cohort: Cohort,
    parts: Mapping[Modality, Unimodal],
    predictions: pd.DataFrame,
    config: StudyConfig,
    folder: Path,
) -> None:
    """Write activation maps of test records, right and wrong ones, with `index.json`.

    The examples are drawn at random, as many of each (true class, right or wrong) as there is
    room for: pictures chosen by eye would show what one hopes to see.
    """
    index = []
    for modality, part in parts.items():
        rows = predictions[
            (predictions["method"] == "per_record")
            & (predictions["subset"] == modality.value)
            & (predictions["split"] == Split.TEST)
        ]
        records = cohort.of(modality).set_index("record_id")
        for i, row in enumerate(iterate(_drawn(rows, config))):
            record = records.loc[row["record_id"]]
            target = (part.partition or Partition.fine(config.target.classes)).index(row["y_pred"])
            own = cohort.caches[modality].instances[record["start"] : record["stop"]]
            seen = explain_instances(part, np.asarray(own), target, row["y_pred"])
            image, overlay = f"{modality.value}-{i}.png", f"{modality.value}-{i}-cam.png"
            write_png(folder / image, seen.picture)
            write_png(folder / overlay, _overlay(seen.picture, seen.heat))
            index.append(
                {
                    "modality": modality.value,
                    "record_id": row["record_id"],
                    "y_true": row["y_true"],
                    "y_pred": row["y_pred"],
                    "p": round(sum(float(row[f"p_{c}"]) for c in members(row["y_pred"])), 4),
                    "image": image,
                    "overlay": overlay,
                    "lung_share": seen.lung_share,
                }
            )
    write_json(folder / "index.json", index)


def _drawn(rows: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    """A balanced random draw of `evaluation.explain_examples` rows."""
    shuffled = rows.sample(frac=1.0, random_state=config.seed)
    turn = shuffled.groupby(["y_true", "y_pred"]).cumcount()
    order = np.argsort(turn.to_numpy(), kind="stable")
    return shuffled.iloc[order[: config.evaluation.explain_examples]]


def _shown_row(record: Any) -> int:
    """Cache row of the instance that stands for a record: the middle slice or window."""
    return (int(record["start"]) + int(record["stop"])) // 2


def _picture(cohort: Cohort, modality: Modality, config: StudyConfig, record: Any) -> np.ndarray:
    """(height, width) uint8: the middle slice, the X-ray, or the log-mel of the middle window."""
    instance = np.asarray(cohort.caches[modality].instances[_shown_row(record)])
    return instance_picture(instance, modality, config.cough.preprocessing)


def _overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(height, width, 3) BGR: the picture with the activation map in colour over it."""
    size = (_PICTURE_PX, _PICTURE_PX)
    heat = cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(cv2.resize(picture, size), cv2.COLOR_GRAY2BGR)
    colour = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    opacity = _OVERLAY_OPACITY * heat[..., None]
    return np.asarray((grey * (1 - opacity) + colour * opacity).astype(np.uint8))


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write (height, width) or (height, width, 3) uint8 as PNG, grey ones at the report's size."""
    if picture.ndim == 2:
        picture = cv2.resize(picture, (_PICTURE_PX, _PICTURE_PX), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".png", picture)
    write_bytes(path, encoded.tobytes())
