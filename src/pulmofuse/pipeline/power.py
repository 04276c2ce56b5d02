"""The power statement of a study: whom a label file counts, and what the study claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pulmofuse.config import Target, load_config
from pulmofuse.errors import StudyError
from pulmofuse.evaluation.power_statement import Frame, power_statement
from pulmofuse.files import read_json
from pulmofuse.schema import Modality, read_manifest
from pulmofuse.sources import coswara

POWER_FILE = "power.json"


def study_power(study: Path, frame: Path | None) -> dict[str, Any]:
    """What it would take to show the gain that a finished study claims.

    Args:
        study: output folder of a study of two classes.
        frame: label file that counts whom one could recruit: a manifest, or Coswara's
            combined_data.csv.

    Returns:
        The content of `power.json`; see `evaluation.power_statement`.

    Raises:
        PulmofuseError: the study has no predictions or no two classes, or the frame cannot be used.
    """
    missing = [
        name
        for name in ("config.resolved.yaml", "predictions.parquet", "metrics.json")
        if not (study / name).is_file()
    ]
    if missing:
        why = f"has no {' and no '.join(missing)}"
        raise StudyError(study, why, "give the folder of a study that ran to its end")
    target = load_config(study / "config.resolved.yaml").target
    if target.positive is None or len(target.classes) != 2:
        raise StudyError(
            study,
            "has no positive class of two, and a prevalence and its pairs need one",
            "ask with a study whose target has two classes",
        )
    return power_statement(
        pd.read_parquet(study / "predictions.parquet"),
        read_json(study / "metrics.json"),
        target.positive,
        None if frame is None else read_frame(frame, target),
    )


def read_frame(path: Path, target: Target) -> Frame:
    """Whom one could recruit: the people of a label file, counted by the classes of a study.

    A person with records of both classes counts as positive.

    Args:
        path: a manifest (Parquet or CSV), or Coswara's combined_data.csv.
        target: of the study; a label outside its mapping is not usable.

    Raises:
        PulmofuseError: the file cannot be read, or has nobody of a class.
    """
    mapping = {label.value: name for label, name in target.truth.items()}
    if coswara.is_table(path):
        people = coswara.read_people(path)
        name, reported = coswara.SOURCE.title, people["reported_ct"]
        heard = people["recorded"].any()
        recorded = {Modality.COUGH.value: people["recorded"]} if heard else {}
    else:
        records = read_manifest(path)
        name, reported = " and ".join(sorted(records["source"].unique())), None
        people = records[["patient_id", "label"]]
        recorded = {m: records["modality"] == m for m in sorted(records["modality"].unique())}
    classes = people["label"].map(mapping)
    who, usable = people["patient_id"], classes.notna()
    positive = who[classes == target.positive].unique()
    everybody = who[usable].unique()
    if not 0 < len(positive) < len(everybody):
        lacking = "positive" if not len(positive) else "negative"
        raise StudyError(
            path,
            f"nobody in it is {lacking} by the study's target.mapping",
            "give a label file with people of both classes",
        )
    return Frame(
        name=name,
        people=int(who.nunique()),
        positive=len(positive),
        negative=len(everybody) - len(positive),
        recorded={m: int(who[usable & has].nunique()) for m, has in recorded.items()},
        reported_ct=None if reported is None else int(who[usable & reported].nunique()),
    )
