"""What a trained model says of records: the same code for studies and for predictions.

A record is a bag of instances (slices, windows). How they become one answer is the model's: the
mean of their probabilities and features, attention, or a network that sees them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pulmofuse.models.classifier import Classifier
from pulmofuse.models.memory import features_of
from pulmofuse.preprocessing import to_tensor, to_volumes

#: Instances at a time; larger images than these many pixels are fewer at a time.
_BATCH, _BATCH_PIXELS = 32, 32 * 224 * 224
_BATCH_VOLUMES = 4


@dataclass(frozen=True, eq=False)
class Inferred:
    """What a model says of some records.

    Attributes:
        p: (records, classes) float64, probabilities before calibration.
        features: (records, feature_dim) float32.
        attention: (instances,) weights that sum to 1 within each record; None without attention.
        log_weight: (records,) what a record weighs among others of its patient, as a logarithm
            (see `models.Gathered`); None without attention, where all weigh the same.
    """

    p: np.ndarray
    features: np.ndarray
    attention: np.ndarray | None = None
    log_weight: np.ndarray | None = None


def infer_records(
    model: Classifier,
    instances: np.ndarray,
    rows: np.ndarray,
    counts: np.ndarray,
    *,
    augment: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inferred:
    """Run a model over records in single precision.

    Args:
        model: a trained classifier.
        instances: (all, ...) as cached.
        rows: (n,) row numbers to run, those of one record next to each other and in order.
        counts: (records,) how many rows each record has, at least one.
        augment: a batch augmentation, for features of augmented views.
        progress: told (instances done, all).
    """
    # Walking through all parts of a network takes as long as a third of one image takes it.
    if model.training:
        model.eval()
    if model.depth is not None:
        return Inferred(*_run(model, _volumes(model, instances, rows, counts), augment, progress))
    p, features = _run(model, _instances(instances, rows), augment, progress)
    if model.attends:
        return _gather(model, features, counts)
    return Inferred(
        mean_per_record(p, counts), mean_per_record(features, counts).astype(np.float32)
    )


def model_input(model: Classifier, instances: np.ndarray, counts: np.ndarray) -> Tensor:
    """What the network reads: the instances (n, ...) themselves, or one volume of each record.

    Args:
        model: any classifier.
        instances: (n, ...) as cached, those of one record next to each other and in order.
        counts: (records,) how many instances each record has.
    """
    x = to_tensor(instances)
    return x if model.depth is None else to_volumes(x, torch.as_tensor(counts), model.depth)


#: Inputs of a model, instances done with them, and instances in all.
_Batches = Iterator[tuple[Tensor, int, int]]


def _instances(instances: np.ndarray, rows: np.ndarray) -> _Batches:
    size = _BATCH
    if instances.ndim == 3:  # images; the memory of a sound is that of its small spectrogram
        size = min(_BATCH, max(1, _BATCH_PIXELS // (instances.shape[1] * instances.shape[2])))
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        yield to_tensor(instances[chosen]), start + len(chosen), len(rows)


def _volumes(
    model: Classifier, instances: np.ndarray, rows: np.ndarray, counts: np.ndarray
) -> _Batches:
    ends = np.cumsum(counts)
    for first in range(0, len(counts), _BATCH_VOLUMES):
        sizes = counts[first : first + _BATCH_VOLUMES]
        end = int(ends[first + len(sizes) - 1])
        chosen = rows[end - int(sizes.sum()) : end]
        yield model_input(model, instances[chosen], sizes), end, len(rows)


def _run(
    model: Classifier,
    batches: _Batches,
    augment: nn.Module | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, classes) float64 and features (n, feature_dim) float32 of each input."""
    device = next(model.parameters()).device
    probabilities: list[np.ndarray] = []
    features: list[np.ndarray] = []
    pooled_of = features_of(model)
    with torch.inference_mode():
        for x, done, total in batches:
            batch = x.to(device)
            if augment is not None:
                batch = augment(batch)
            if batch.ndim == 4:
                batch = batch.contiguous(memory_format=torch.channels_last)
            # Augmented views never come twice, and are not worth remembering.
            pooled = pooled_of(batch) if augment is None else model.features(batch)
            logits = model.classify(pooled).double()
            probabilities.append(logits.softmax(dim=1).cpu().numpy())
            features.append(pooled.float().cpu().numpy())
            if progress is not None:
                progress(done, total)
    return np.concatenate(probabilities), np.concatenate(features)


def _gather(model: Classifier, features: np.ndarray, counts: np.ndarray) -> Inferred:
    """Join the features of instances (n, feature_dim) into records by the model's attention."""
    device = next(model.parameters()).device
    ends = np.cumsum(counts)
    parts: list[list[np.ndarray]] = []
    with torch.inference_mode():
        for first in range(0, len(counts), _BATCH):
            sizes = counts[first : first + _BATCH]
            end = int(ends[first + len(sizes) - 1])
            bags = torch.from_numpy(features[end - int(sizes.sum()) : end]).to(device)
            gathered = model.gather(bags, torch.as_tensor(sizes))
            logits = model.classify(gathered.features).double()
            parts.append([value.cpu().numpy() for value in (logits.softmax(dim=1), *gathered)])
    return Inferred(*(np.concatenate(part) for part in zip(*parts, strict=True)))


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
