"""The baseline: statistics of a recording's frames, and a regression that always says the same."""

from __future__ import annotations

import librosa
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pulmofuse.config import CoughPreprocessing
from pulmofuse.pipeline.baselines import PERCENTILES, mfcc_regression, mfcc_statistics

CONFIG = CoughPreprocessing(duration_s=0.5)
CLASSES = ("not_covid19", "covid19")
N_STATISTICS = 2 + len(PERCENTILES)


@pytest.fixture(scope="module")
def cohort() -> tuple[pd.DataFrame, np.ndarray]:
    """90 recordings of one or two windows; one class decays faster."""
    rng = np.random.default_rng(0)
    sick = np.arange(90) % 2 == 0
    counts = 1 + np.arange(90) % 3 // 2
    stops = np.cumsum(counts)
    time = np.arange(8000) / 16000
    decay = np.repeat(np.where(sick, 30.0, 18.0) + rng.normal(0, 3, 90), counts)
    sounds = rng.normal(0, 6000, (stops[-1], 8000)) * np.exp(-decay[:, None] * time)
    records = pd.DataFrame(
        {
            "y_true": np.where(sick, "covid19", "not_covid19"),
            "split": np.tile(["train", "train", "val", "val", "test", "test"], 15),
            "start": stops - counts,
            "stop": stops,
        }
    )
    return records, sounds.astype(np.int16)


def test_statistics_are_those_of_the_frames() -> None:
    windows = np.random.default_rng(1).normal(0, 3000, (2, 8000)).astype(np.int16)
    windows[0, -1] = 1
    windows[1, 3200:] = 0  # padding, whose frames do not count
    records = pd.DataFrame({"start": [0], "stop": [2]})
    (found,) = mfcc_statistics(records, windows, CONFIG)
    frames = []
    for window, n_frames in zip(windows, (51, 21), strict=True):
        mel = librosa.feature.melspectrogram(
            y=window / 32767, sr=16000, n_fft=512, hop_length=160, win_length=400, fmin=50,
            fmax=8000, n_mels=64, pad_mode="constant",
        )  # fmt: skip
        mfcc = librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=20)
        slopes = librosa.feature.delta(mfcc, mode="nearest")
        frames.append(np.vstack([mfcc, slopes])[:, :n_frames])
    both = np.hstack(frames)
    expected = [both.mean(1), both.std(1), *np.percentile(both, PERCENTILES, axis=1)]
    np.testing.assert_allclose(found.reshape(40, N_STATISTICS), np.transpose(expected), atol=2e-2)


def test_it_learns_and_says_the_same_again(cohort: tuple[pd.DataFrame, np.ndarray]) -> None:
    records, instances = cohort
    first = mfcc_regression(records, instances, CONFIG, CLASSES, "covid19")
    again = mfcc_regression(records, instances, CONFIG, CLASSES, "covid19")
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first.sum(axis=1), 1)
    test = (records["split"] == "test").to_numpy()
    sick = records["y_true"] == "covid19"
    assert roc_auc_score(sick[test], first[test, 1]) > 0.8


def test_test_records_are_not_learned_from(cohort: tuple[pd.DataFrame, np.ndarray]) -> None:
    records, instances = cohort
    lie = records.copy()
    test = lie["split"] == "test"
    lie.loc[test, "y_true"] = lie.loc[test, "y_true"].map(
        dict(zip(CLASSES, CLASSES[::-1], strict=True))
    )
    np.testing.assert_array_equal(
        mfcc_regression(records, instances, CONFIG, CLASSES, "covid19"),
        mfcc_regression(lie, instances, CONFIG, CLASSES, "covid19"),
    )
