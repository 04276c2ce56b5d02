"""Several runs of one study with different seeds: each, their mean, and their ensemble.

    python benchmarks/seeds.py runs/covid_ct-17 runs/covid_ct-18 runs/covid_ct-19

Figures of single records of one modality on the test split. The ensemble is the mean of the
probabilities of the records that every run tested; two classes are told apart at the mean of the
runs' operating points, which come from validation. Intervals by drawing patients.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmofuse.config import StudyConfig, load_config
from pulmofuse.evaluation import METRICS
from pulmofuse.evaluation.intervals import patient_interval
from pulmofuse.pipeline import decide
from pulmofuse.schema import Split, class_columns

FIGURES = ("roc_auc", "accuracy", "f1", "recall", "specificity")


def main() -> None:
    """Print the table; write it with --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--modality", default="ct")
    parser.add_argument("--split", default=Split.TEST.value, choices=[s.value for s in Split])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = load_config(options.runs[0] / "config.resolved.yaml")
    tables = [records(run, options.modality, options.split) for run in options.runs]
    rows = [
        {"run": run.name, **figures(table, config)}
        for run, table in zip(options.runs, tables, strict=True)
    ]
    rows.append({"run": "ensemble", **figures(ensemble(tables, config), config)})
    for row in rows:
        parts = [
            f"{name} {value:.3f} [{low:.3f}, {high:.3f}]"
            for name, (value, low, high) in ((name, row[name]) for name in FIGURES)
        ]
        print(f"{row['run']:<24}", f"n {row['n']}", *parts, sep="  ")
    for name in FIGURES:
        values = [row[name][0] for row in rows[:-1]]
        print(f"{name}: mean {np.mean(values):.3f}, from {min(values):.3f} to {max(values):.3f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def records(run: Path, modality: str, split: str) -> pd.DataFrame:
    """Prediction rows of single records, with the threshold that the run used."""
    table = pd.read_parquet(run / "predictions.parquet")
    chosen = (table["subset"] == modality) & (table["method"] == "per_record")
    thresholds = json.loads((run / "bundle" / "bundle.json").read_text("utf-8"))["thresholds"]
    threshold = thresholds.get(f"{modality}|per_record", np.nan)
    return (
        table[chosen & (table["split"] == split)]
        .assign(threshold=threshold)
        .set_index("record_id")
        .sort_index()
    )


def ensemble(tables: list[pd.DataFrame], config: StudyConfig) -> pd.DataFrame:
    """One table with the mean probabilities, of the records that are in all."""
    classes, positive = config.target.classes, config.target.positive
    common = sorted(set.intersection(*(set(t.index) for t in tables)))
    columns = [*class_columns(classes), "threshold"]
    out = tables[0].loc[common].copy()
    out[columns] = np.mean([t.loc[common, columns].to_numpy() for t in tables], axis=0)
    key, threshold = f"{out['subset'].iloc[0]}|per_record", float(out["threshold"].iloc[0])
    return decide(out.reset_index(), classes, positive, {key: threshold})


def figures(table: pd.DataFrame, config: StudyConfig) -> dict[str, Any]:
    """(value, low, high) of each figure, and the number of records."""
    classes, positive = config.target.classes, config.target.positive
    y, predicted = (
        pd.Categorical(table[name], categories=list(classes)).codes.astype(np.int64)
        for name in ("y_true", "y_pred")
    )
    p = table[class_columns(classes)].to_numpy()
    index = None if positive is None else classes.index(positive)
    out: dict[str, Any] = {"n": len(table)}
    for name in FIGURES:

        def statistic(weights: Any, name: str = name) -> Any:
            return METRICS[name](y, p, predicted, index, weights)

        low, high = patient_interval(statistic, table["patient_id"], config.evaluation, config.seed)
        out[name] = (float(statistic(None)), low, high)
    return out


if __name__ == "__main__":
    main()
