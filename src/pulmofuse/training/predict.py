"""Probabilities and features of a trained model, the same code for studies and predictions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from pulmofuse.models import Classifier
from pulmofuse.preprocessing import to_tensor

_BATCH = 32


def infer(
    model: Classifier,
    instances: np.ndarray,
    rows: np.ndarray,
    *,
    augment: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run a model over instances in single precision.

    Args:
        model: a trained classifier.
        instances: (all, ...) as cached.
        rows: (n,) row numbers to run.
        augment: a batch augmentation, for features of augmented views.
        progress: told (instances done, all).

    Returns:
        Probabilities (n, classes) and features (n, feature_dim), float64 and float32.
    """
    model.eval()
    device = next(model.parameters()).device
    probabilities: list[np.ndarray] = []
    features: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            chosen = rows[start : start + _BATCH]
            batch = to_tensor(instances[chosen]).to(device)
            if augment is not None:
                batch = augment(batch)
            if batch.ndim == 4:
                batch = batch.contiguous(memory_format=torch.channels_last)
            pooled = model.features(batch)
            logits = model.classify(pooled).double()
            probabilities.append(logits.softmax(dim=1).cpu().numpy())
            features.append(pooled.float().cpu().numpy())
            if progress is not None:
                progress(min(start + _BATCH, len(rows)), len(rows))
    return np.concatenate(probabilities), np.concatenate(features)


def mean_per_record(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the instances of each record.

    Args:
        values: (instances, d), the instances of one record next to each other.
        counts: (records,) how many instances each record has, at least one.

    Returns:
        (records, d).
    """
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.asarray(np.add.reduceat(values, starts, axis=0) / counts[:, None])
