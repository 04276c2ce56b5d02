"""Which channel of covid19-cough's two-channel calls holds the cough, and what the other one tells.

    python benchmarks/cough_channels.py runs/covid/manifest.parquet ../shared/data

Reads the call-center recordings of the training and validation splits only, and prints JSON: how
the channels differ, where coughs are found, and the ROC-AUC with which a logistic regression on
MFCC statistics tells the label from the mean of the channels, from the louder one and from the
quieter one (training -> validation, and five-fold over both), once on all recordings and once on
those whose channels share no sound.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pulmofuse.config import CoughPreprocessing
from pulmofuse.curation.coughs import find_coughs
from pulmofuse.io import Sound, read_sound
from pulmofuse.preprocessing.coughs import prepare_cough
from pulmofuse.preprocessing.features import Mfcc

Wave: TypeAlias = NDArray[np.float32]

#: Largest normalised cross-correlation, at any lag, of channels that share no sound (no echo).
NO_ECHO = 0.04
C = 0.01
REPEATS = 5
BOOTSTRAP = 1000
CONFIG = CoughPreprocessing()


def echo(channels: Wave) -> float:
    """Largest normalised cross-correlation of two channels (2, n) at any lag, 0 to 1."""
    spectrum = np.fft.rfft(channels, 2 * channels.shape[1])
    at_lags = np.fft.irfft(spectrum[0] * np.conj(spectrum[1]))
    energy = np.square(channels, dtype=np.float64).sum(axis=1)
    return float(np.abs(at_lags).max() / np.sqrt(energy.prod()))


def mfcc_statistics(mfcc: Mfcc, samples: Wave, rate: int) -> NDArray[np.float64]:
    """Mean and spread of each coefficient, and spread of its steps, of the padless windows."""
    rows = []
    for window in prepare_cough(Sound(samples[None], rate, {}), CONFIG, "channel"):
        used = np.flatnonzero(window)
        frames = max(10, (used[-1] + 1 if len(used) else len(window)) // CONFIG.hop_length)
        with torch.no_grad():
            found = mfcc(torch.from_numpy(window[None].astype(np.float32) / 32768))[0].numpy()
        found = found[:, :frames]
        rows.append(np.r_[found.mean(1), found.std(1), np.diff(found, axis=1).std(1)])
    return np.mean(rows, axis=0)


def reader() -> Pipeline:
    """The same simple reader for every channel."""
    regression = LogisticRegression(C=C, class_weight="balanced", max_iter=3000)
    return make_pipeline(StandardScaler(), regression)


def auc(seen: NDArray[np.float64], sick: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """Mean five-fold ROC-AUC, and each recording's mean out-of-fold score."""
    scores = []
    for seed in range(REPEATS):
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        scores.append(cross_val_predict(reader(), seen, sick, cv=folds, method="decision_function"))
    return float(np.mean([roc_auc_score(sick, s) for s in scores])), np.mean(scores, axis=0)


def measure(records: pd.DataFrame, data_root: Path) -> dict[str, object]:
    """All figures of these recordings."""
    mfcc = Mfcc(CONFIG)
    rows, seen = [], {"mean": [], "louder": [], "quieter": []}
    for path in records["path"]:
        sound = read_sound(data_root / path)
        louder = int(np.argmax(sound.samples.var(axis=1)))
        level_db = 10 * np.log10(sound.samples.var(axis=1))
        coughs = [len(find_coughs(x, sound.sample_rate_hz)) > 0 for x in sound.samples]
        correlation = np.corrcoef(sound.samples)[0, 1]
        rows.append((louder, abs(level_db[1] - level_db[0]), *coughs, correlation,
                     echo(sound.samples)))  # fmt: skip
        mean = sound.samples.mean(axis=0)
        for name, samples in (("mean", mean), ("louder", sound.samples[louder]),
                              ("quieter", sound.samples[1 - louder])):  # fmt: skip
            seen[name].append(mfcc_statistics(mfcc, samples, sound.sample_rate_hz))
    table = pd.DataFrame(rows, columns=["louder", "step_db", "in_0", "in_1", "r", "echo"])
    arrays = {name: np.array(values) for name, values in seen.items()}
    return channel_figures(table) | label_figures(records, table, arrays)


def channel_figures(table: pd.DataFrame) -> dict[str, object]:
    """Where the coughs are found, and how the channels differ."""
    in_0, in_1 = table["in_0"].to_numpy(bool), table["in_1"].to_numpy(bool)
    places = {"channel 0": in_0 & ~in_1, "channel 1": in_1 & ~in_0, "both": in_0 & in_1,
              "none": ~in_0 & ~in_1}  # fmt: skip
    of_louder = np.where(table["louder"] == 1, in_1, in_0)
    return {
        "recordings": len(table),
        "coughs found in": {name: round(float(v.mean()), 3) for name, v in places.items()},
        "coughs found in the louder channel": round(float(of_louder.mean()), 3),
        "channel 1 is the louder": round(float(table["louder"].mean()), 3),
        "louder above quieter, dB, quartiles": table["step_db"].quantile([0.25, 0.5, 0.75])
        .round(1).tolist(),
        "correlation, percentiles 1 50 99": table["r"].quantile([0.01, 0.5, 0.99])
        .round(3).tolist(),
    }  # fmt: skip


def label_figures(
    records: pd.DataFrame, table: pd.DataFrame, seen: dict[str, NDArray[np.float64]]
) -> dict[str, object]:
    """What the label can be told from, channel by channel."""
    sick = (records["label"] == "covid19").to_numpy()
    learned = (records["split"] == "train").to_numpy()
    apart = (table["echo"] < NO_ECHO).to_numpy()
    figures: dict[str, object] = {"recordings without echo": int(apart.sum())}
    scores = {}
    for name, values in seen.items():
        fitted = reader().fit(values[learned], sick[learned])
        whole, scores[name] = auc(values, sick)
        figures[f"AUC, {name}"] = {
            "train to val": round(
                float(roc_auc_score(sick[~learned], fitted.decision_function(values[~learned]))), 3
            ),
            "five-fold": round(whole, 3),
            "five-fold, no echo": round(auc(values[apart], sick[apart])[0], 3),
        }
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(sick), len(sick)) for _ in range(BOOTSTRAP)]
    gain = [
        roc_auc_score(sick[d], scores["louder"][d]) - roc_auc_score(sick[d], scores["mean"][d])
        for d in draws
    ]
    figures["AUC, louder less mean, five-fold, 95 %"] = [
        round(float(x), 3) for x in np.percentile(gain, [2.5, 97.5])
    ]
    return figures


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, help="manifest.parquet of a study of covid19-cough")
    parser.add_argument("data_root", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = pd.read_parquet(given.manifest)
    mine = (rows["source"] == "covid19_cough") & (rows["site"] == "call-center")
    mine &= rows["split"].isin(["train", "val"])
    print(json.dumps(measure(rows[mine], given.data_root), indent=1))


if __name__ == "__main__":
    main()
