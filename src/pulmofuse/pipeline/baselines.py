"""What every cough model has to beat: a logistic regression on statistics of the MFCC.

The classic of cough classification before networks (as in Brown et al. 2020, "Exploring automatic
diagnosis of COVID-19 from crowdsourced respiratory sound data", and Coppock et al. 2024): no time,
no shape, only how the coefficients and their slopes are distributed over a recording.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from pulmofuse.config import CoughPreprocessing
from pulmofuse.models.audio_model import delta
from pulmofuse.pipeline.models import codes
from pulmofuse.pipeline.probe import regression
from pulmofuse.preprocessing import Mfcc, to_tensor
from pulmofuse.schema import Split
from pulmofuse.statistics import FloatArray

#: Of each coefficient over the frames, beside mean and standard deviation.
PERCENTILES = (10, 25, 50, 75, 90)

#: Fewer frames than the slopes of the coefficients reach over describe nothing.
_LEAST_FRAMES = 9


def mfcc_statistics(
    records: pd.DataFrame,
    instances: np.ndarray,
    config: CoughPreprocessing,
    progress: Callable[[int, int], None] | None = None,
) -> FloatArray:
    """Mean, deviation and percentiles of MFCC and their slopes, of each recording.

    Args:
        records: with the columns start and stop.
        instances: int16 (all, samples) of the cache.
        config: that they were made with.
        progress: told (recordings done, all).

    Returns:
        (records, 2 * n_mfcc * (2 + percentiles)): all statistics of the coefficients, then of the
        slopes. The frames of a recording's windows count together; padding does not.
    """
    mfcc = Mfcc(config)
    out = []
    for done, (start, stop) in enumerate(zip(records["start"], records["stop"], strict=True)):
        windows = np.asarray(instances[start:stop])
        with torch.inference_mode():
            coefficients = mfcc(to_tensor(windows))
            both = torch.cat((coefficients, delta(coefficients)), dim=1).numpy()
        used = [_frames(window, config.hop_length, both.shape[2]) for window in windows]
        frames = np.concatenate([b[:, :n] for b, n in zip(both, used, strict=True)], axis=1)
        out.append(_statistics(frames.astype(np.float64)))
        if progress is not None:
            progress(done + 1, len(records))
    return np.stack(out)


def mfcc_regression(
    records: pd.DataFrame,
    instances: np.ndarray,
    config: CoughPreprocessing,
    classes: tuple[str, ...],
    positive: str | None,
) -> FloatArray:
    """Probabilities (records, classes) of the regression, trained and chosen as any other model.

    Nothing in it is random.

    Args:
        records: with the columns y_true, split, start and stop; those of the training split are
            learned from, and the penalty is chosen on those of validation.
        instances: int16 (all, samples) of the cache.
        config: that they were made with.
        classes: names of the classes; training and validation hold all of them.
        positive: the positive class of two, or None for the macro mean.
    """
    return regression(
        mfcc_statistics(records, instances, config),
        codes(records["y_true"], classes),
        (records["split"] == Split.TRAIN).to_numpy(),
        (records["split"] == Split.VAL).to_numpy(),
        None if positive is None else classes.index(positive),
    )


def _frames(window: np.ndarray, hop: int, most: int) -> int:
    """Frames of a window (samples,) that do not lie in the zeros it was padded with."""
    used = np.flatnonzero(window)
    n_samples = int(used[-1]) + 1 if len(used) else 0
    return min(most, max(_LEAST_FRAMES, 1 + n_samples // hop))


def _statistics(frames: FloatArray) -> FloatArray:
    """(values, frames) -> (values * statistics,)."""
    parts = [frames.mean(axis=1), frames.std(axis=1), *np.percentile(frames, PERCENTILES, axis=1)]
    return np.stack(parts, axis=1).ravel()
