"""What the training of a model depends on, and the files that it leaves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import pulmofuse
from pulmofuse.config import StudyConfig
from pulmofuse.pipeline.findings import findings_weight
from pulmofuse.pipeline.models import member_folders
from pulmofuse.pipeline.pretrained import weights_key
from pulmofuse.pipeline.steps import rows_hash
from pulmofuse.preprocessing.prepare import PREPROCESSING_VERSION
from pulmofuse.schema import Modality

#: Of the records. Bags are made by patient, and predictions name them.
_COLUMNS = ("record_id", "patient_id", "split", "y_true", "sha256", "source", "site")


def training_inputs(config: StudyConfig, modality: Modality, records: pd.DataFrame) -> list[object]:
    """Everything that makes a trained model another one, for `Steps.run`.

    Args:
        config: the study.
        modality: whose model.
        records: of this modality, split.
    """
    part = config.of(modality)
    stated = ["findings"] if findings_weight(part) else []
    return [
        pulmofuse.__version__,
        PREPROCESSING_VERSION,
        config.seed,
        config.target.model_dump(mode="json"),
        part.model_dump(mode="json"),
        rows_hash(records, [*_COLUMNS, *stated]),
        *weights_key(part),
    ]


def checkpoint_files(
    config: StudyConfig, modality: Modality, folder: Path, name: str
) -> list[Path]:
    """A file of this name beside the checkpoints of each member of a modality's model."""
    return [place / name for place in member_folders(folder, config.of(modality).training.members)]
