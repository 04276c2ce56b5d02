"""Training data of the feature-level fusion: features of patients, from whatever they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from pulmofuse.training.data import Batch, Targets


class FeatureSource(Dataset[Batch]):
    """Patients as feature vectors per modality.

    Args:
        features: modality -> (n, feature_dim); rows of absent modalities are ignored.
        present: (n, modalities) bool, columns in the order of `features`.
        y: (n,) class indexes.
    """

    def __init__(
        self, features: Mapping[str, np.ndarray], present: np.ndarray, y: np.ndarray
    ) -> None:
        self._features = {m: torch.as_tensor(f, dtype=torch.float32) for m, f in features.items()}
        self._present = torch.as_tensor(present, dtype=torch.bool)
        self.targets = Targets(torch.as_tensor(y, dtype=torch.long))

    def __len__(self) -> int:
        """Number of patients."""
        return len(self.targets.y)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Inputs (features, present) and classes of these patients."""
        chosen = torch.as_tensor(rows)
        features = {m: f[chosen] for m, f in self._features.items()}
        return (features, self._present[chosen]), self.targets.take(chosen)


def patient_features(
    patients: Sequence[Sequence[str]],
    records: Mapping[str, int],
    features: np.ndarray,
    log_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Mean feature vector of each patient's records in one modality; zeros where there are none.

    Args:
        patients: record_ids of each patient.
        records: row in `features` of each record_id.
        features: (records, feature_dim).
        log_weight: (records,) as in `Inferred`; None weighs all records alike.

    Returns:
        (patients, feature_dim) float32.
    """
    out = np.zeros((len(patients), features.shape[1]), dtype=np.float32)
    for row, record_ids in enumerate(patients):
        if len(record_ids):
            places = [records[r] for r in record_ids]
            if log_weight is None:
                out[row] = features[places].mean(axis=0)
            else:
                out[row] = record_shares(log_weight[places]) @ features[places]
    return out


def record_shares(log_weight: np.ndarray) -> np.ndarray:
    """Shares (records,) of a patient's records that sum to 1: the softmax of `log_weight`."""
    shares = np.exp(log_weight - log_weight.max())
    return np.asarray(shares / shares.sum())
