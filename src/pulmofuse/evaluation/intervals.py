"""The patient-clustered interval of any statistic that takes bootstrap weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.bootstrap import cluster_weights, percentile_interval
from pulmofuse.statistics import FloatArray

#: Weights handed over at once; 4 million float64 are 32 MB per intermediate array.
_BLOCK = 4_000_000


def patient_interval(
    statistic: Callable[[FloatArray], FloatArray],
    patients: ArrayLike,
    config: EvaluationConfig,
    seed: int,
) -> tuple[float, float]:
    """Percentile interval of a statistic, patients drawn with replacement.

    Args:
        statistic: weights (replicates, n) -> (replicates,); NaN where undefined.
        patients: (n,) patient of each row.
        config: number of replicates and confidence.
        seed: of the draws; equal to `evaluate`'s for the same patients, so intervals compare.

    Returns:
        (low, high); NaN if no replicate is defined.
    """
    names = np.asarray(patients)
    weights = cluster_weights((names,), config.bootstrap, seed)
    step = max(1, _BLOCK // max(1, len(names)))
    blocks = [statistic(weights[start : start + step]) for start in range(0, len(weights), step)]
    return percentile_interval(np.concatenate(blocks), config.confidence)
