"""Training data of the feature-level fusion: features of patients, from whatever they have.

Rows are of any subset of the modalities, and there are many more of some than of others. Drawn as
they come, they would teach two wrong things: the modality with most patients, and that what is
missing tells the disease, where one data set has other class frequencies than the next.
`fair_weights` draws them so that neither is in the batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from pulmofuse.training.data import Batch, Targets
from pulmofuse.training.joining import patient_vector

#: Rows of an epoch at most: the fusion of 100,000 patients has to be learnt in minutes.
_EPOCH_ROWS = 16_384

#: Patients that a cell of few borrows from an even mixture of classes: one patient alone must not
#: be drawn a hundred times an epoch to stand for a class.
_PSEUDO_PATIENTS = 5.0


class FeatureSource(Dataset[Batch]):
    """Patients as feature vectors per modality.

    Args:
        features: modality -> (n, feature_dim); rows of absent modalities are ignored.
        present: (n, modalities) bool, columns in the order of `features`.
        y: (n,) class indexes.
        weights: (n,) how often each row is drawn in training; None draws all alike.
    """

    def __init__(
        self,
        features: Mapping[str, np.ndarray],
        present: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None = None,
    ) -> None:
        self.weights = np.ones(len(y)) if weights is None else weights
        self.epoch_rows = min(len(y), _EPOCH_ROWS)
        self.features = {m: torch.as_tensor(f, dtype=torch.float32) for m, f in features.items()}
        self.present = torch.as_tensor(present, dtype=torch.bool)
        self.targets = Targets(torch.as_tensor(y, dtype=torch.long))

    def __len__(self) -> int:
        """Number of patients."""
        return len(self.targets.y)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Inputs (features, present) and classes of these patients."""
        chosen = torch.as_tensor(rows)
        features = {m: f[chosen] for m, f in self.features.items()}
        return (features, self.present[chosen]), self.targets.take(chosen)


def fair_weights(present: np.ndarray, y: np.ndarray, *, balance: bool) -> np.ndarray:
    """How often each row is drawn, so that no modality swamps the others.

    A row counts as the mean, over its modalities, of one over the number of rows that have them:
    with single-modality rows alone, each modality has the same total. With `balance`, classes are
    drawn equally often inside each set of modalities, so that which modality is missing says
    nothing of the class; cells of few patients are drawn towards it only as far as
    `_PSEUDO_PATIENTS` allows.

    Args:
        present: (n, modalities) bool; rows without any have weight 0.
        y: (n,) class indexes.
        balance: whether to balance the classes too.

    Returns:
        (n,) float64 with mean 1.
    """
    share = present / np.maximum(present.sum(axis=0), 1)
    weights = share.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    if balance:
        k = int(y.max()) + 1
        _, pattern = np.unique(present, axis=0, return_inverse=True)
        for i in np.unique(pattern):
            rows = pattern.reshape(-1) == i
            counts = np.bincount(y[rows], minlength=k)
            factor = (rows.sum() / k + _PSEUDO_PATIENTS) / (counts + _PSEUDO_PATIENTS)
            scaled = weights[rows] * factor[y[rows]]
            # The set of modalities keeps its share of the draws.
            weights[rows] = scaled * (weights[rows].sum() / max(scaled.sum(), 1e-300))
    return np.asarray(weights / weights.mean())


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
            weights = None if log_weight is None else log_weight[places]
            out[row] = patient_vector(features[places], weights)
    return out
