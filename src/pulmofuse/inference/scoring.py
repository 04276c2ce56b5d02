"""Calibrated probabilities and features of records, one model at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pulmofuse.files import atomic_path
from pulmofuse.inference.bundle import Unimodal
from pulmofuse.models import Classifier, frozen, infer_records
from pulmofuse.schema import class_columns


@dataclass(frozen=True, eq=False)
class Scores:
    """What one modality's model says of some records.

    Attributes:
        table: indexed by record_id, columns p_<class> (calibrated) and p_raw_<class>; of a model
            with attention also log_weight.
        features: (records, feature_dim) float32 in the order of `table`.
    """

    table: pd.DataFrame
    features: np.ndarray

    @property
    def log_weight(self) -> np.ndarray | None:
        """(records,) as in `training.Inferred`; None where all records weigh the same."""
        return self.table["log_weight"].to_numpy() if "log_weight" in self.table else None

    def save(self, folder: Path, name: str) -> None:
        """Write `<name>.parquet` and `<name>.npy`."""
        with atomic_path(folder / f"{name}.parquet") as temporary:
            self.table.to_parquet(temporary)
        with atomic_path(folder / f"{name}.npy") as temporary:
            np.save(temporary, self.features, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, name: str) -> Scores:
        """Read what `save` wrote."""
        features = np.load(folder / f"{name}.npy", allow_pickle=False)
        return cls(pd.read_parquet(folder / f"{name}.parquet"), features)


def instance_rows(records: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Cache rows of all instances, record after record, and the number of each record's.

    Args:
        records: with the columns start and stop.
    """
    starts, stops = records["start"].to_numpy(), records["stop"].to_numpy()
    rows = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)])
    return rows, stops - starts


def score_records(
    part: Unimodal,
    classes: tuple[str, ...],
    records: pd.DataFrame,
    instances: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score records whose instances are in a cache.

    Args:
        part: model and calibration.
        classes: of the study, in order.
        records: with the columns record_id, start and stop.
        instances: (rows, ...) of the cache.
        progress: told (instances done, all).
    """
    rows, counts = instance_rows(records)
    seen = infer_records(frozen(part.model), instances, rows, counts, progress=progress)
    table = pd.DataFrame(
        np.hstack([part.calibrated(seen.p), part.lift(seen.p)]),
        columns=[*class_columns(classes), *class_columns(classes, raw=True)],
        index=pd.Index(records["record_id"], name="record_id"),
    )
    if seen.log_weight is not None:
        table["log_weight"] = seen.log_weight.astype(np.float64)
    return Scores(table, seen.features)


def findings_probabilities(model: Classifier, features: np.ndarray) -> np.ndarray:
    """What a model says of findings, from its features (n, feature_dim).

    Returns:
        (n, findings) float64 in the order of `model.findings`; (n, 0) where it learnt none.
    """
    if not model.findings:
        return np.empty((len(features), 0))
    device = next(model.parameters()).device
    with torch.inference_mode():
        inputs = torch.as_tensor(features, dtype=torch.float32, device=device)
        return np.asarray(model.findings_probabilities(inputs).cpu().numpy())
