"""Time and memory of `pulmofuse audit MANIFEST` by the number of its records.

    python benchmarks/audit.py --prints DIR [--sizes N ...]

Runs `auditing.audit_manifest` as the command does, on a made-up manifest whose files have been
read before: contract of the manifest, what is stored of the files, search for copies, groups, every
check, and audit.json, duplicates.csv and audit.html. Each size is measured in one process of its
own; another one makes its manifest before that, and times grouping and splitting.

Three modalities, two records per patient, three sources of five sites, 16 traits. Fingerprints are
those that `benchmarks/near_duplicates.py growth` makes of real radiographs and coughs, none a copy
of another but for one picture in 200; --prints is the folder that it was given as --out.
The files themselves are empty: there is nothing to draw, so no picture of a pair is.

Prints one JSON line per size, then the exponent of the growth from the first size to the last.
`peak_gib` is the highest resident size of the whole process. On a machine that others use as well,
processor seconds say more than the clock's.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from near_duplicates_material import ONSET

from pulmofuse.auditing import audit_manifest
from pulmofuse.config import SplitConfig
from pulmofuse.curation import reading
from pulmofuse.curation.copies import patient_groups
from pulmofuse.curation.split import assign_splits
from pulmofuse.files import size_and_time
from pulmofuse.pipeline import Silent
from pulmofuse.schema import write_manifest

SIZES = (20_000, 50_000, 100_000, 200_000)
N_TRAITS = 16
SEED = 3
MANIFEST, FILES, OUT = "manifest.parquet", "files", "audit"

_Result = TypeVar("_Result")


def records_of(n: int) -> pd.DataFrame:
    """A manifest of `n` records in which nothing has to do with the class."""
    rng = np.random.default_rng(SEED)
    patient = np.arange(n) // 2
    per_patient = {
        "label": rng.choice(["covid19", "normal", "pneumonia"], n),
        "source": rng.choice(["north", "south", "west"], n),
        "age": rng.integers(20, 90, n).astype(float),
        "sex": rng.choice(["F", "M"], n),
    }
    frame = pd.DataFrame({name: values[patient] for name, values in per_patient.items()})
    # Patients are prefixed by source, as in every manifest.
    frame["patient_id"] = frame["source"] + "-" + pd.Series(patient).astype(str)
    frame["record_id"] = [f"r{i:07d}" for i in range(n)]
    frame["modality"] = rng.choice(["ct", "cxr", "cough"], n)
    frame["path"] = frame["record_id"] + frame["modality"].eq("cough").map({True: ".wav"}).fillna(
        ".png"
    )
    frame["site"] = frame["source"] + "-" + pd.Series(rng.integers(0, 5, n)).astype(str)
    frame["series_id"] = pd.Series(patient).astype(str).where(frame["modality"] == "ct", None)
    return frame.assign(patient_known=True, split=None, view=None, date=None, traits=None)


def no_pairs() -> pd.DataFrame:
    """The table of no copies: groups are then the patients and series."""
    return pd.DataFrame(columns=["record_a", "record_b", "kind", "score"])


def fingerprints_of(modality: pd.Series, prints: Path) -> list[bytes]:
    """Fingerprints of records, in order, so that the planted copies stay in one modality."""
    images, sounds = (
        np.load(prints / f"made_up_{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in ("image", "sound")
    )
    found = pd.Series(index=modality.index, dtype=object)
    first = 0
    for name in ("ct", "cxr"):
        rows = modality.index[modality == name]
        found[rows] = [bytes(row) for row in images[first : first + len(rows)]]
        first += len(rows)
    rows = modality.index[modality == "cough"]
    found[rows] = [bytes(row[1 : 1 + int(row[0]) * ONSET]) for row in sounds[: len(rows)]]
    return found.tolist()


def make(n: int, prints: Path, folder: Path) -> dict[str, float]:
    """Write a manifest, its empty files and what was seen of them; seconds of groups and split."""
    frame = records_of(n)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], _Result]) -> _Result:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        seconds[f"{name}_s"] = round(time.perf_counter() - wall, 2)
        seconds[f"{name}_cpu_s"] = round(time.process_time() - cpu, 2)
        return result

    groups = timed("groups", lambda: patient_groups(frame, no_pairs()))
    frame = timed(
        "split", lambda: assign_splits(frame, frame["label"], SplitConfig(), SEED, groups)
    )
    write_manifest(folder / MANIFEST, frame)
    (folder / FILES).mkdir()
    for path in frame["path"]:
        (folder / FILES / path).touch()
    states = [size_and_time(folder / FILES / path) for path in frame["path"]]
    numbers = np.random.default_rng(SEED).normal(size=(n, N_TRAITS)).round(3).tolist()
    seen = frame[["path", "modality"]].assign(
        sha256=frame["record_id"],  # no two alike, as of files that are no exact copies
        traits=[json.dumps({f"t{j}": x for j, x in enumerate(row)}) for row in numbers],
        fingerprint=fingerprints_of(frame["modality"], prints),
        remarks="[]",
        reason=None,
        remedy=None,
        size=[size for size, _ in states],
        mtime_ns=[mtime_ns for _, mtime_ns in states],
    )
    store = (folder / MANIFEST).with_suffix(".files")
    for number, start in enumerate(range(0, n, reading._PART_FILES), 1):
        part = seen.iloc[start : start + reading._PART_FILES]
        reading._write(store, number, part[reading._COLUMNS])
    return seconds


class Clock(Silent):
    """A reporter that keeps how long each step took, in seconds of the clock and the processor."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._step, self._begin = "", (0.0, 0.0)

    def step(self, title: str) -> None:
        """A step begins."""
        self._step = title.lower().replace(" ", "_")
        self._begin = time.perf_counter(), time.process_time()

    def finish(self, note: str) -> None:
        """The step has ended."""
        del note
        wall, cpu = self._begin
        self.seconds[f"{self._step}_s"] = round(time.perf_counter() - wall, 2)
        self.seconds[f"{self._step}_cpu_s"] = round(time.process_time() - cpu, 2)


def once(folder: Path) -> dict[str, float]:
    """The audit, in this process."""
    clock = Clock()
    wall, cpu = time.perf_counter(), time.process_time()
    audit_manifest(folder / MANIFEST, folder / FILES, folder / OUT, reporter=clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        **clock.seconds,
        "pairs": len(pd.read_csv(folder / OUT / "duplicates.csv", usecols=["kind"])),
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_gib": round(peak, 2),
    }


def in_a_process(*arguments: str) -> dict[str, float]:
    """What this script prints when it is called so."""
    command = [sys.executable, __file__, *arguments]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(out)
    return found


def main() -> None:
    """Measure each size in a fresh process and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prints", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make is not None:
        print(json.dumps(make(arguments.sizes[0], arguments.prints, arguments.make)))
        return
    if arguments.once is not None:
        print(json.dumps(once(arguments.once)))
        return
    given = ["--prints", str(arguments.prints)]
    rows = []
    for n in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            made = in_a_process(*given, "--sizes", str(n), "--make", folder)
            rows.append({"records": n, **made, **in_a_process(*given, "--once", folder)})
        print(json.dumps(rows[-1]), flush=True)
    if len(rows) > 1:
        times, sizes = (math.log(rows[-1][k] / rows[0][k]) for k in ("cpu_seconds", "records"))
        print(json.dumps({"cpu_seconds_grow_as_n_to_the": round(times / sizes, 2)}))


if __name__ == "__main__":
    main()
