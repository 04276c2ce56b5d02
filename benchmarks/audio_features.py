"""Log-mel and MFCC against librosa: many clips in a running process, and one file in a new one.

    python benchmarks/audio_features.py

*Warm*: drawn coughs of 4 s, already in memory. librosa takes them one by one, as it must; ours in
batches of 32, as training does, and one by one.

*Cold*: a new process from the file (WAV, 48 kHz) to MFCC at 16 kHz, interpreter and imports
included. librosa compiles with numba when it is first used and keeps what it compiled where it may
write: "no cache" is a fresh installation, container or read-only one, "cached" every later process.
Ours: `pulmofuse.spectra` (numpy), and the way to a model (`prepare` and `Mfcc`, torch).
Processor seconds say more than the clock's where others use the machine.

*Error*: the largest difference from librosa on those clips, dB for log-mel, against librosa fed
float32 (as `librosa.load` gives it) and float64. MFCC are sums over bands, so theirs is larger.
Writes benchmarks/results/audio_features.json.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import soundfile
import soxr
import torch
from machine import facts, write

from pulmofuse import spectra
from pulmofuse.config import CoughPreprocessing
from pulmofuse.preprocessing import LogMel, Mfcc
from pulmofuse.sources.phantom import SAMPLE_RATE_HZ, draw_cough

CONFIG = CoughPreprocessing()
CLIPS, BATCH, ROUNDS = 96, 32, 5
FILE_RATE_HZ = 48_000

_FRAMES = f"""n_fft={CONFIG.n_fft}, hop_length={CONFIG.hop_length}, \
win_length={CONFIG.win_length}, n_mels={CONFIG.n_mels}, fmin={CONFIG.f_min_hz}, \
fmax={CONFIG.f_max_hz}"""
COLD = {
    "librosa": f"""
import sys, librosa
sound, rate = librosa.load(sys.argv[1], sr={CONFIG.sample_rate_hz})
librosa.feature.mfcc(y=sound, sr=rate, n_mfcc={CONFIG.n_mfcc}, {_FRAMES})
""",
    "spectra": """
import sys, soxr
from pathlib import Path
from pulmofuse.config import CoughPreprocessing
from pulmofuse.io import read_sound
from pulmofuse.spectra import mfcc
config, sound = CoughPreprocessing(), read_sound(Path(sys.argv[1]))
mfcc(soxr.resample(sound.loudest, sound.sample_rate_hz, config.sample_rate_hz), config)
""",
    "torch": """
import sys
from pathlib import Path
from pulmofuse.config import CoughPreprocessing
from pulmofuse.preprocessing import Mfcc, prepare, to_tensor
from pulmofuse.schema import Modality
config = CoughPreprocessing()
Mfcc(config)(to_tensor(prepare(Path(sys.argv[1]), Modality.COUGH, config).instances))
""",
}


def clips() -> np.ndarray:
    """Drawn coughs (CLIPS, samples) float32 in [-1, 1] at the sample rate of CONFIG."""
    rng = np.random.default_rng(0)
    n = round(CONFIG.duration_s * CONFIG.sample_rate_hz)
    drawn = [draw_cough(rng, {}, female=bool(i % 2), coarse=bool(i % 3)) for i in range(CLIPS)]
    return np.stack([np.resize(d, n) for d in drawn]).astype(np.float32) / 32768


def librosa_log_mel(sound: np.ndarray) -> np.ndarray:
    """Log-mel of one clip, (n_mels, frames)."""
    power = librosa.feature.melspectrogram(
        y=sound,
        sr=CONFIG.sample_rate_hz,
        n_fft=CONFIG.n_fft,
        hop_length=CONFIG.hop_length,
        win_length=CONFIG.win_length,
        n_mels=CONFIG.n_mels,
        fmin=CONFIG.f_min_hz,
        fmax=CONFIG.f_max_hz,
    )
    return np.asarray(librosa.power_to_db(power))


def librosa_mfcc(sound: np.ndarray) -> np.ndarray:
    """MFCC of one clip, (n_mfcc, frames)."""
    return np.asarray(librosa.feature.mfcc(S=librosa_log_mel(sound), n_mfcc=CONFIG.n_mfcc))


def warm(sounds: np.ndarray) -> dict[str, Any]:
    """Milliseconds per clip, the fastest of several rounds that take turns."""
    tensor = torch.from_numpy(sounds)
    out: dict[str, Any] = {}
    for name, module, reference in (
        ("log_mel", LogMel(CONFIG), librosa_log_mel),
        ("mfcc", Mfcc(CONFIG), librosa_mfcc),
    ):
        ways: dict[str, Callable[[], list[Any]]] = {
            "librosa": lambda f=reference: [f(s) for s in sounds],  # type: ignore[misc]
            "ours_batched": lambda m=module: [m(b) for b in tensor.split(BATCH)],  # type: ignore[misc]
            "ours_one_by_one": lambda m=module: [m(b) for b in tensor.split(1)],  # type: ignore[misc]
        }
        best = dict.fromkeys(ways, float("inf"))
        with torch.inference_mode():
            for _ in range(ROUNDS):
                for way, work in ways.items():
                    begin = time.perf_counter()
                    work()
                    best[way] = min(best[way], time.perf_counter() - begin)
        out[name] = {
            "ms_per_clip": {way: round(1e3 * s / len(sounds), 3) for way, s in best.items()},
            "times_faster_batched": round(best["librosa"] / best["ours_batched"], 2),
            "times_faster_one_by_one": round(best["librosa"] / best["ours_one_by_one"], 2),
        }
    return out


def errors(sounds: np.ndarray) -> dict[str, Any]:
    """Largest differences from librosa over all clips."""
    with torch.inference_mode():
        ours = {
            "log_mel_db": LogMel(CONFIG)(torch.from_numpy(sounds)).numpy(),
            "mfcc": Mfcc(CONFIG)(torch.from_numpy(sounds)).numpy(),
        }
    by_numpy = {"log_mel_db": spectra.log_mel(sounds, CONFIG), "mfcc": spectra.mfcc(sounds, CONFIG)}
    found: dict[str, Any] = {}
    for kind in (np.float32, np.float64):
        reference = {
            "log_mel_db": np.stack([librosa_log_mel(s.astype(kind)) for s in sounds]),
            "mfcc": np.stack([librosa_mfcc(s.astype(kind)) for s in sounds]),
        }
        for way, features in (("torch", ours), ("spectra", by_numpy)):
            found[f"{way} against librosa in {kind.__name__}"] = {
                name: float(f"{np.abs(features[name] - reference[name]).max():.3g}")
                for name in reference
            }
    return found


def process(code: str, path: Path, **environment: str) -> dict[str, float]:
    """Seconds of the clock and of the processor of a new interpreter that runs `code`."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, env=os.environ | environment
    )
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)}


def fastest(runs: list[dict[str, float]]) -> dict[str, float]:
    """The least of each figure."""
    return {name: min(run[name] for run in runs) for name in runs[0]}


def cold(sounds: np.ndarray, rounds: int) -> dict[str, Any]:
    """Seconds of new processes; the first run of each, which fills the page cache, is not used."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, kept = folder / "cough.wav", str(folder / "kept")
        loud = soxr.resample(sounds[0], SAMPLE_RATE_HZ, FILE_RATE_HZ)
        soundfile.write(path, loud, FILE_RATE_HZ)
        process(COLD["librosa"], path, NUMBA_CACHE_DIR=kept)
        out = {
            "librosa_no_cache": fastest(
                [
                    process(COLD["librosa"], path, NUMBA_CACHE_DIR=str(folder / f"new{i}"))
                    for i in range(rounds)
                ]
            ),
            "librosa_cached": fastest(
                [process(COLD["librosa"], path, NUMBA_CACHE_DIR=kept) for _ in range(rounds)]
            ),
        }
        for way in ("spectra", "torch"):
            out[f"ours_{way}"] = fastest([process(COLD[way], path) for _ in range(rounds + 1)][1:])
    out["times_faster"] = {
        f"{way} against {reference}": {
            figure: round(out[reference][figure] / out[way][figure], 2)
            for figure in ("wall_s", "cpu_s")
        }
        for way in ("ours_spectra", "ours_torch")
        for reference in ("librosa_no_cache", "librosa_cached")
    }
    return out


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="new processes of each kind")
    arguments = parser.parse_args()
    machine, sounds = facts(), clips()
    results = {
        "clips": len(sounds),
        "clip_s": CONFIG.duration_s,
        "batch": BATCH,
        "warm": warm(sounds),
        "largest_difference": errors(sounds),
        "cold": cold(sounds, arguments.rounds),
    }
    write("audio_features", "python benchmarks/audio_features.py", results, machine)


if __name__ == "__main__":
    main()
