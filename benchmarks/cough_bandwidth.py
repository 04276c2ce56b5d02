"""What tells the recording channel of covid19-cough, before and after harmonisation.

    python benchmarks/cough_bandwidth.py studies/covid.yaml ../shared/data --cache /tmp/cache

Reads the training and validation records of the study's split only. For each setting, a logistic
regression on MFCC statistics, and one on the long-term spectrum (64 bands of 125 Hz, dB below the
loudest), tells the channel (call-center or telegram) inside the classes, and the label inside the
channels: ROC-AUC over five folds by patient, the penalty chosen on the next fold. One JSON line
per setting. docs/decisions/0011-cough-channels.md holds what came out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from pulmofuse.config import CoughPreprocessing, StudyConfig, load_config
from pulmofuse.pipeline import prepare_cohort, scan, split_cohort, without_leaks
from pulmofuse.pipeline.baselines import mfcc_statistics
from pulmofuse.pipeline.probe import regression
from pulmofuse.preprocessing import build_cache
from pulmofuse.schema import Modality, Split
from pulmofuse.statistics import FloatArray, within_auc

#: (low, high) edges in Hz, and the noise floor in dB below the peak.
SETTINGS = [
    (0, None, None), (300, 3400, None), (300, 3200, None), (300, 3000, None), (400, 3000, None),
    (0, None, 40), (0, None, 30), (300, 3400, 40), (300, 3400, 30), (400, 3000, 40),
    (400, 3000, 30), (400, 3000, 25), (500, 2800, 30),
]  # fmt: skip
FOLDS = 5
BLOCK, BANDS = 512, 64


def setting(low: int, high: int | None, floor: int | None) -> CoughPreprocessing:
    """The preprocessing of one setting, the mel bands inside the band."""
    plain = CoughPreprocessing()
    return CoughPreprocessing(
        bandwidth_hz=high,
        low_cut_hz=low,
        noise_floor_db=floor,
        f_min_hz=max(plain.f_min_hz, low),
        f_max_hz=high or plain.f_max_hz,
    )


def spectrum(windows: NDArray[np.int16]) -> FloatArray:
    """Mean power in `BANDS` bands, dB below the loudest, of windows without padding."""
    blocks = []
    for window in windows:
        sound = np.trim_zeros(window, "b").astype(np.float64)
        sound = np.pad(sound, (0, max(0, BLOCK - len(sound))))
        sound = sound[: len(sound) // BLOCK * BLOCK].reshape(-1, BLOCK)
        blocks.append(np.square(np.abs(np.fft.rfft(sound * np.hanning(BLOCK), axis=1))))
    power = np.concatenate(blocks).mean(axis=0)[: BLOCK // 2].reshape(BANDS, -1).mean(axis=1)
    return np.maximum(10.0 * np.log10(power / power.max() + 1e-12), -80.0)


def told(features: FloatArray, what: NDArray[np.intp], inside: NDArray[np.intp],
         folds: NDArray[np.intp]) -> float:  # fmt: skip
    """Out-of-fold AUC with which `what` is told, over pairs of one fold and one `inside`."""
    p = np.zeros(len(what))
    for fold in range(FOLDS):
        test, val = folds == fold, folds == (fold + 1) % FOLDS
        p[test] = regression(features, what, ~test & ~val, val, 1)[test, 1]
    return round(float(within_auc(what == 1, p, 2 * folds + inside)), 3)


def seen_records(config: StudyConfig, data_root: Path, cache: Path) -> pd.DataFrame:
    """Training and validation records of covid19-cough in the split of the study."""
    sources = tuple(source for source in config.sources if source.name == "covid19_cough")
    config = config.model_copy(update={"sources": sources})
    cohort = prepare_cohort(
        *scan(sources, data_root), config, data_root, cache, lambda _done, _total, _note: None
    )
    records = without_leaks(split_cohort(cohort, config)).records
    return records[records["split"] != Split.TEST].reset_index(drop=True)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    records = seen_records(load_config(given.study), given.data_root, given.cache)
    sick = (records["y_true"] == "covid19").to_numpy().astype(np.intp)
    site = (records["site"] == "telegram").to_numpy().astype(np.intp)
    folds = np.zeros(len(records), dtype=np.intp)
    deal = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fold, (_, rows) in enumerate(deal.split(records, 2 * sick + site, records["group"])):
        folds[rows] = fold
    for low, high, floor in SETTINGS:
        config = setting(low, high, floor)
        paths = records["path"].tolist()
        cache = build_cache(paths, given.data_root, Modality.COUGH, config, given.cache)
        rows = [cache.rows(path) for path in paths]
        placed = records.assign(start=[r.start for r in rows], stop=[r.stop for r in rows])
        found = {
            "mfcc": mfcc_statistics(placed, cache.instances, config),
            "spectrum": np.stack([spectrum(cache.instances[row]) for row in rows]),
        }
        line: dict[str, object] = {"band_hz": [low, high], "floor_db": floor, "n": len(records)}
        for name, features in found.items():
            line[f"channel from {name}"] = told(features, site, sick, folds)
            line[f"label from {name}"] = told(features, sick, site, folds)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
