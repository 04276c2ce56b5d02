"""How long the statistics of a comparison take.

    python benchmarks/statistics_speed.py

`evaluate` on 7 subsets x 6 methods x 10,000 test patients with 2,000 bootstrap replicates, every
metric of `METRICS` with its interval: real patients, and simulated ones, whose rows are drawn a
second time. The paired tests of the same tables. DeLong's covariance of 10 models on 100,000
patients, with ties and without. And the plain way that `evaluation.replicates` replaces, metric by
metric, on 100 replicates of one table.

Writes results/statistics_speed.json. The targets are 60 s and 5 s on two cores.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from itertools import combinations
from typing import Any

import machine
import numpy as np
import pandas as pd

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation import METRICS, comparisons, delong, evaluate
from pulmofuse.evaluation.replicates import metric_replicates
from pulmofuse.schema import JOIN, SUBSET_JOIN, Modality

CLASSES = ("not_covid19", "covid19")
METHODS = ("mean", "weighted_mean", "product", "vote", "log_odds", "gated")


def predictions(n: int, *, simulated: bool) -> pd.DataFrame:
    """Predictions of every method on every subset, single modalities too, for `n` test patients."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    names = np.array(CLASSES)
    patients = [f"p{i:05d}" for i in range(n)]
    if simulated:
        parts = [rng.permutation(n) // 2 * 2 % (n // k) + y for k in (1, 2, 5)]
        rows = zip(*parts, strict=True)
        patients = [JOIN.join(f"m{m}-{v}" for m, v in enumerate(row)) for row in rows]
    modalities = [m.value for m in Modality]
    subsets = [SUBSET_JOIN.join(c) for k in (1, 2, 3) for c in combinations(modalities, k)]
    tables = []
    for subset in subsets:
        for method in METHODS:
            p = 1 / (1 + np.exp(-(y + rng.normal(size=n) - 0.5)))
            called = names[(p >= 0.5).astype(int)]
            table = {
                "patient_id": patients,
                "split": "test",
                "subset": subset,
                "method": method,
                "simulated": simulated,
                "y_true": names[y],
                "y_pred": called,
                "p_not_covid19": 1 - p,
                "p_covid19": p,
            }
            tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Clock and processor seconds of a call, and what it returned."""
    clock, processor = time.perf_counter(), time.process_time()
    out = work()
    seconds = {
        "wall_s": round(time.perf_counter() - clock, 2),
        "cpu_s": round(time.process_time() - processor, 2),
    }
    return seconds, out


def bootstrap(n: int, replicates: int) -> dict[str, Any]:
    """`evaluate`, and `comparisons`, on real and simulated patients."""
    config = EvaluationConfig(bootstrap=replicates)
    out: dict[str, Any] = {"patients": n, "replicates": replicates, "metrics": list(METRICS)}
    for kind in ("real", "simulated"):
        table = predictions(n, simulated=kind == "simulated")
        arguments = (table, CLASSES, "covid19", config, 1)
        seconds, rows = timed(lambda a=arguments: evaluate(*a))
        _, again = timed(lambda a=arguments: evaluate(*a)) if kind == "real" else (None, rows)
        out[kind] = {
            "evaluate": seconds,
            "tables": len({(r["subset"], r["method"]) for r in rows}),
            "intervals": len(rows),
            "same_by_seed": rows == again,
        }
        seconds, tests = timed(lambda a=arguments: comparisons(*a))
        out[kind] |= {"comparisons": seconds, "tests": len(tests)}
    return out


def plain(n: int, replicates: int) -> dict[str, Any]:
    """All metrics of one table, metric by metric and in one pass; seconds per replicate."""
    rng = np.random.default_rng(0)
    y, p = np.arange(n) % 2, rng.random(n)
    both, called = np.c_[1 - p, p], (p >= 0.5).astype(int)
    weights = rng.poisson(1.0, size=(n, replicates)).astype(np.float32)
    rows = weights.T.astype(np.float64)
    slow, _ = timed(lambda: [metric(y, both, called, 1, rows) for metric in METRICS.values()])
    fast, _ = timed(lambda: metric_replicates(y, both, called, 1, weights))
    return {
        "replicates": replicates,
        "metric_by_metric": slow,
        "one_pass": fast,
        "times_faster_by_processor": round(slow["cpu_s"] / max(fast["cpu_s"], 1e-3), 1),
    }


def delong_seconds(n: int, models: int) -> dict[str, Any]:
    """Covariance of AUCs, continuous scores and scores of 100 levels."""
    rng = np.random.default_rng(0)
    positive = rng.random(n) < 0.3
    scores = rng.normal(size=(models, n)) + positive
    without, _ = timed(lambda: delong(positive, scores))
    ties, _ = timed(lambda: delong(positive, np.round(scores, 2)))
    return {"patients": n, "models": models, "without_ties": without, "with_ties": ties}


def main() -> None:
    """Measure and write."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    facts = machine.facts()
    results = {
        "bootstrap": bootstrap(10_000, 2000),
        "one_table": plain(10_000, 100),
        "delong": delong_seconds(100_000, 10),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    machine.write("statistics_speed", "python benchmarks/statistics_speed.py", results, facts)


if __name__ == "__main__":
    main()
