"""Time and memory of the audit of a manifest, and of grouping and splitting it, by its size.

    python benchmarks/audit.py [SIZE ...]

Each size is measured in a process of its own, on a made-up manifest: three modalities, two records
per patient, three sources of five sites, 16 traits and one pair of near copies in 200 records.
Prints one JSON line per size, then the exponent of the growth from the first size to the last.
`peak_mib` is the highest resident size of the whole process, made-up table included.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pandas as pd

from pulmofuse.config import SplitConfig
from pulmofuse.curation.audit import audit
from pulmofuse.curation.copies import patient_groups
from pulmofuse.curation.split import assign_splits

SIZES = (20_000, 50_000, 100_000, 200_000)
N_TRAITS = 16
RECORDS_PER_PAIR = 200
SEED = 3

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
    frame["path"] = frame["record_id"] + ".png"
    frame["modality"] = rng.choice(["ct", "cxr", "cough"], n)
    frame["site"] = frame["source"] + "-" + pd.Series(rng.integers(0, 5, n)).astype(str)
    frame["series_id"] = pd.Series(patient).astype(str).where(frame["modality"] == "ct", None)
    numbers = rng.normal(size=(n, N_TRAITS)).round(3).tolist()
    frame["traits"] = [json.dumps({f"t{j}": x for j, x in enumerate(row)}) for row in numbers]
    return frame.assign(
        patient_known=True, split=None, view=None, date=None, y_true=frame["label"], used=True
    )


def pairs_of(frame: pd.DataFrame) -> pd.DataFrame:
    """One near pair per `RECORDS_PER_PAIR` records, of random records."""
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(len(frame), size=(len(frame) // RECORDS_PER_PAIR, 2), replace=False)
    names = np.sort(frame["record_id"].to_numpy(dtype=object)[chosen], axis=1)
    return pd.DataFrame(
        {"record_a": names[:, 0], "record_b": names[:, 1], "kind": "near", "score": 0.97}
    )


def measure(n: int) -> dict[str, float]:
    """Wall-clock and processor seconds of each step, and the peak of the process."""
    frame = records_of(n)
    pairs = pairs_of(frame)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], _Result]) -> _Result:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        seconds[f"{name}_s"] = round(time.perf_counter() - wall, 2)
        seconds[f"{name}_cpu_s"] = round(time.process_time() - cpu, 2)
        return result

    groups = timed("groups", lambda: patient_groups(frame, pairs))
    split = timed(
        "split", lambda: assign_splits(frame, frame["y_true"], SplitConfig(), SEED, groups)
    )
    timed("audit", lambda: audit(split, pairs, SEED))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"records": n, **seconds, "peak_mib": round(peak)}


def main() -> None:
    """Measure each size in a fresh process and print."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    sizes = [int(text) for text in sys.argv[1:]] or list(SIZES)
    rows = []
    for n in sizes:
        command = [sys.executable, __file__, "--one", str(n)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(out))
        print(out.strip(), flush=True)
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        growth = math.log(last["audit_cpu_s"] / first["audit_cpu_s"]) / math.log(
            sizes[-1] / sizes[0]
        )
        print(json.dumps({"audit_cpu_grows_as_n_to_the": round(growth, 2)}))


if __name__ == "__main__":
    main()
