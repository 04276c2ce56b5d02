"""From the predictions of all folds to the rows of `metrics.json` and the table `crossval.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pulmofuse.config import StudyConfig
from pulmofuse.errors import StudyError
from pulmofuse.evaluation.pooled import (
    ENSEMBLE,
    Pair,
    Pool,
    difference_rows,
    ensemble_rows,
    figures,
    pool_rows,
)
from pulmofuse.evaluation.questions import as_asked, positive_of, questions, told
from pulmofuse.labelsets import Partition
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
    parts, asked = [predictions], questions(predictions, target.classes)
    keys = ["protocol", "subset", "control"]
    for (_, subset, _), group in predictions.groupby(keys, sort=False):
        if len(set(group["seed"])) > 1:
            parts.append(ensemble_rows(group, target.classes, target.positive, asked[str(subset)]))
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
        Where labels stand for sets of classes, a modality's figures are about the parts of the
        classes that all its records support, which `question` names.

    Raises:
        StudyError: the records of a modality support no two parts.
    """
    asked, keys = questions(predictions, config.target.classes), ["protocol", "subset", "control"]
    rows: list[dict[str, Any]] = []
    for subset, of_modality in predictions.groupby("subset", sort=False):
        question = asked[str(subset)]
        rows += _of_modality(str(subset), as_asked(of_modality, question), question, config, pairs)
    order = {tuple(key): i for i, key in enumerate(predictions[keys].drop_duplicates().to_numpy())}
    # Protocol by protocol as ever, the differences at the end.
    return sorted(rows, key=lambda row: order.get(tuple(row[key] for key in keys), len(order)))


def _of_modality(
    subset: str,
    predictions: pd.DataFrame,
    question: Partition,
    config: StudyConfig,
    pairs: Sequence[Pair],
) -> list[dict[str, Any]]:
    """The rows of one modality, whose predictions have the question's parts for classes."""
    names = question.names
    rows: list[dict[str, Any]] = []
    if len(names) < 2:
        raise StudyError(
            f"labels of {subset}",
            "stand for sets that tell no two classes apart over all folds",
            "send the labels in `target.mapping` to narrower sets, or leave them out",
        )
    answered = [pair for pair in pairs if set(pair) <= set(names)]
    wanted = figures(names, positive_of(question, config.target.positive), answered)
    settings = (wanted, config.evaluation, config.seed)
    for (protocol, control), group in predictions.groupby(["protocol", "control"], sort=False):
        pool = Pool.of(group, names)
        about = {"protocol": protocol, "subset": subset, "control": control, **told(question)}
        rows += [_complete(about, row, pool) for row in pool_rows(pool, *settings)]
    plain = predictions[predictions["control"] == NO_CONTROL]
    parts = {str(name): part for name, part in plain.groupby("protocol", sort=False)}
    if len(parts) > 1:
        common = sorted(set.intersection(*(set(part["record_id"]) for part in parts.values())))
        pools = {name: Pool.of(part, names, common) for name, part in parts.items()}
        about = {"protocol": DIFFERENCE, "subset": subset, "control": NO_CONTROL, **told(question)}
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
    seeds'; the column of a control is what the same models reach under it. After `modality` stands
    `question` where labels stand for sets of classes, "" for all classes.

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
    names = list(COLUMNS)
    if "question" in out:
        out["question"] = out["question"].fillna("")
        names.insert(names.index("modality") + 1, "question")
    return out[[*names, *controls]].astype(dict.fromkeys(numbers, float)).astype({"seeds": "Int64"})
