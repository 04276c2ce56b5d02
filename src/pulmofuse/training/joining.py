"""Several records of one patient in one modality: one probability, one feature vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pulmofuse.training.predict import Inferred


def record_shares(log_weight: np.ndarray) -> np.ndarray:
    """Shares (records,) of a patient's records that sum to 1: the softmax of `log_weight`."""
    shares = np.exp(log_weight - log_weight.max())
    return np.asarray(shares / shares.sum())


def patient_probabilities(p: np.ndarray, log_weight: np.ndarray | None) -> np.ndarray:
    """Probabilities (classes,) of a patient from those of the records (records, classes).

    Their mean; of a model with attention the mean of log-probabilities under the records' shares.
    """
    if log_weight is None:
        return np.asarray(p.mean(axis=0))
    log_p = record_shares(log_weight) @ np.log(np.maximum(p, np.finfo(float).tiny))
    return record_shares(log_p)


def patient_vector(features: np.ndarray, log_weight: np.ndarray | None) -> np.ndarray:
    """Feature vector (feature_dim,) of a patient from those of the records (records, features)."""
    if log_weight is None:
        return np.asarray(features.mean(axis=0))
    return np.asarray(record_shares(log_weight) @ features)


def joined(records: Sequence[Inferred]) -> Inferred:
    """What a model says of one patient's records, from what it says of each.

    The attention of an instance is that inside its record times the share of the record.
    """
    weights = [r.log_weight for r in records if r.log_weight is not None]
    log_weight = np.concatenate(weights) if weights else None
    attention = None
    if log_weight is not None:
        shares = record_shares(log_weight)
        parts = [r.attention * share for r, share in zip(records, shares, strict=True)
                 if r.attention is not None]  # fmt: skip
        attention = np.concatenate(parts) if parts else None
    return Inferred(
        np.concatenate([r.p for r in records]),
        np.concatenate([r.features for r in records]),
        attention,
        log_weight,
    )
