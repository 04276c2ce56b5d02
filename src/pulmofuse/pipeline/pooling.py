"""From the predictions of all folds to the rows of `metrics.json` and the table `crossval.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pulmofuse.config import StudyConfig
from pulmofuse.evaluation.pooled import (
    ENSEMBLE,
    Pair,
    Pool,
    difference_rows,
    ensemble_rows,
    figures,
    pool_rows,
)
from pulmofuse.pipeline.folds import NO_CONTROL
from pulmofuse.schema import Split

#: The protocol of the rows that say what the leak is worth.
DIFFERENCE = "image-patient"

#: Columns of `crossval.csv` before those of the negative controls, one each.
COLUMNS = (
    "protocol", "modality", "metric", "value", "low", "high", "lowest", "highest", "ensemble",
    "ensemble_low", "ensemble_high", "published", "n", "n_patients", "seeds",
)  # fmt: skip


def with_ensembles(predictions: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    """The predictions and, where there are several seeds, their means over seeds.

    Args:
        predictions: protocol, seed, fold, control and the columns of `predictions.parquet`.
        config: the study.
    """
    target = config.target
    parts = [predictions]
    for _, group in predictions.groupby(["protocol", "subset", "control"], sort=False):
        if len(set(group["seed"])) > 1:
            parts.append(ensemble_rows(group, target.classes, target.positive))
    return pd.concat(parts, ignore_index=True)


def pooled_rows(
    predictions: pd.DataFrame, config: StudyConfig, pairs: Sequence[Pair]
) -> list[dict[str, Any]]:
    """Every figure of every protocol, modality and control, and what the leak is worth.

    Args:
        predictions: of `with_ensembles`.
        config: classes, and the statistics of the intervals.
        pairs: of `evaluation.pooled.class_pairs`.

    Returns:
        Rows with the keys of `evaluation.evaluate`'s and protocol, control, seed, lowest, highest
        (of the seeds), n. The rows of protocol `DIFFERENCE` are on the records that both have.
    """
    target, rows = config.target, []
    wanted = figures(target.classes, target.positive, pairs)
    settings = (wanted, config.evaluation, config.seed)
    keys = ["protocol", "subset", "control"]
    for (protocol, subset, control), group in predictions.groupby(keys, sort=False):
        pool = Pool.of(group, target.classes)
        about = {"protocol": protocol, "subset": subset, "control": control}
        rows += [_complete(about, row, pool) for row in pool_rows(pool, *settings)]
    plain = predictions[predictions["control"] == NO_CONTROL]
    for subset, group in plain.groupby("subset", sort=False):
        parts = {str(name): part for name, part in group.groupby("protocol", sort=False)}
        if len(parts) < 2:
            continue
        common = sorted(set.intersection(*(set(part["record_id"]) for part in parts.values())))
        pools = {name: Pool.of(part, target.classes, common) for name, part in parts.items()}
        about = {"protocol": DIFFERENCE, "subset": subset, "control": NO_CONTROL}
        found = difference_rows(pools["image"], pools["patient"], *settings)
        rows += [_complete(about, row, pools["patient"]) for row in found]
    return rows


def _complete(about: Mapping[str, Any], row: Mapping[str, Any], pool: Pool) -> dict[str, Any]:
    rest = {
        "split": Split.TEST.value,
        "site": "",
        "n": len(pool.records),
        "n_patients": len(set(pool.patients)),
        "simulated": False,
    }
    return {**about, **row, **rest}


def crossval_table(
    rows: Sequence[Mapping[str, Any]], published: Mapping[str, float]
) -> pd.DataFrame:
    """One line per protocol, modality and figure: the columns `COLUMNS`, then one per control.

    `value`, `low`, `high` are the mean over seeds and its interval, `lowest` and `highest` the
    seeds'; the column of a control is what the same models reach under it.

    Args:
        rows: of `pooled_rows`.
        published: value of a figure that a paper prints.
    """
    table = pd.DataFrame(rows)
    plain = table[table["control"] == NO_CONTROL]
    key = ["protocol", "subset", "metric"]
    means = plain[plain["method"] == "seed_mean"]
    n_seeds = plain[plain["seed"].notna()].groupby(key)["seed"].nunique().rename("seeds")
    ensemble = plain[plain["method"] == ENSEMBLE].set_index(key)[["value", "low", "high"]]
    ensemble.columns = pd.Index(["ensemble", "ensemble_low", "ensemble_high"])
    out = means.set_index(key).join(n_seeds).join(ensemble)
    altered = table[(table["control"] != NO_CONTROL) & (table["method"] == "seed_mean")]
    controls = list(dict.fromkeys(altered["control"]))
    for control in controls:
        own = altered[altered["control"] == control].set_index(key)
        out[control] = own["value"].reindex(out.index)
    out = out.reset_index().rename(columns={"subset": "modality"})
    # A difference of two protocols has no published value.
    known = out["metric"].map(dict(published)).astype(float)
    out["published"] = known.where(out["protocol"] != DIFFERENCE)
    numbers = [*COLUMNS[3:12], *controls]
    return (
        out[[*COLUMNS, *controls]].astype(dict.fromkeys(numbers, float)).astype({"seeds": "Int64"})
    )
