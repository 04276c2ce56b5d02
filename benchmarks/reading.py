"""How much slower is `data scan` than decoding alone?

    python benchmarks/reading.py [--data-root DIR] [--files 300]

Reads the same files twice in one run: decoded only (`io.read_image`, `io.read_sound`, as many
threads as `data scan` takes), and with everything that `data scan` does on top: content hash,
traits, fingerprint, remarks. Each is timed several times in turn, and the medians are compared:
those of the clock, and those of the processor, which say more on a machine that others use as well.
Prints JSON. With --data-root the public data sets that are there; without it, files made for it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import soundfile

from pulmofuse.curation import read_files
from pulmofuse.curation.reading import _MAX_THREADS
from pulmofuse.io import read_image, read_sound
from pulmofuse.sources import scan_source

ROUNDS = 3
PUBLIC = {
    "covid_ct": "covid-ct",
    "darkcovidnet": "darkcovidnet",
    "covid19_cough": "covid19-cough",
}


def made_up(folder: Path, n: int) -> dict[str, pd.DataFrame]:
    """PNG of 1,024 px, JPEG of 512 px and 5 s of WAV at 48 kHz."""
    rng = np.random.default_rng(0)
    tables = {}
    for kind, modality in (("png-1024", "cxr"), ("jpeg-512", "cxr"), ("wav-5s", "cough")):
        paths = []
        for i in range(n):
            path = f"{kind}-{i}.{kind.split('-')[0].replace('jpeg', 'jpg')}"
            if modality == "cough":
                envelope = np.exp(-np.arange(240_000) % 48_000 / 6_000)
                soundfile.write(folder / path, rng.normal(0, 0.2, 240_000) * envelope, 48_000)
            else:
                side = int(kind.split("-")[1])
                # Smooth shapes under the noise of a detector, as in a radiograph.
                shapes = cv2.GaussianBlur(rng.normal(0, 1, (side, side)), (0, 0), side / 25)
                smooth = cv2.normalize(shapes, None, 20, 230, cv2.NORM_MINMAX)
                picture = smooth + rng.normal(0, 2, (side, side))
                cv2.imwrite(str(folder / path), picture.clip(0, 255).astype(np.uint8))
            paths.append(path)
        tables[kind] = pd.DataFrame({"path": paths, "modality": modality})
    return tables


def decode_only(table: pd.DataFrame, root: Path) -> None:
    """Decode every file and throw it away."""

    def one(row: tuple[str, str]) -> None:
        (read_sound if row[1] == "cough" else read_image)(root / row[0])

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        list(pool.map(one, zip(table["path"], table["modality"], strict=True)))


def compare(table: pd.DataFrame, root: Path) -> dict[str, float]:
    """Files per second and processor time of both, and their ratios."""
    readable = read_files(table, root, None, lambda *_: None)
    table = table[readable["reason"].isna().to_numpy()]
    alone, scan = [], []
    for _ in range(ROUNDS):
        alone.append(timed(lambda: decode_only(table, root)))
        scan.append(timed(lambda: read_files(table, root, None, lambda *_: None)))
    (fast, fast_cpu), (slow, slow_cpu) = (np.median(runs, axis=0) for runs in (alone, scan))
    return {
        "files": len(table),
        "decoding_files_per_s": round(len(table) / fast, 1),
        "scan_files_per_s": round(len(table) / slow, 1),
        "share_of_decoding_speed": round(fast / slow, 3),
        "decoding_cpu_ms_per_file": round(1e3 * fast_cpu / len(table), 2),
        "scan_cpu_ms_per_file": round(1e3 * slow_cpu / len(table), 2),
        "share_by_cpu": round(fast_cpu / slow_cpu, 3),
    }


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of the processor, all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--files", type=int, default=300)
    arguments = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    if arguments.data_root is not None:
        for name, root in PUBLIC.items():
            if (arguments.data_root / root).is_dir():
                records = scan_source(name, arguments.data_root, root).records
                chosen = records.sample(min(arguments.files, len(records)), random_state=0)
                found[name] = compare(chosen[["path", "modality"]], arguments.data_root)
    with tempfile.TemporaryDirectory() as folder:
        for kind, table in made_up(Path(folder), min(arguments.files, 100)).items():
            found[kind] = compare(table, Path(folder))
    print(json.dumps({"cpus": os.cpu_count(), "results": found}, indent=2))


if __name__ == "__main__":
    main()
