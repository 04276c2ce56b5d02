"""What each modality is worth within a fusion: exact Shapley values (Shapley 1953).

A modality's gain depends on what is there already: the second of two alike adds little. Its Shapley
value is what it adds to the modalities before it, averaged over all orders in which they can come;
it is the only division in which the parts add up to the whole, equals get the same, and a modality
that adds nothing to any subset gets nothing. With three modalities the eight subsets are simply
all computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.intervals import symmetrical_interval
from pulmofuse.evaluation.metrics import roc_auc
from pulmofuse.evaluation.questions import common_question, positive_of, questions, told
from pulmofuse.evaluation.reliability import log_loss
from pulmofuse.evaluation.replicates import auc_replicates, log_loss_replicates
from pulmofuse.evaluation.resampling import Replicates, Resamples, Weights
from pulmofuse.evaluation.tables import (
    PER_RECORD,
    UNIMODAL,
    Table,
    class_index,
    modalities_of,
    paired_tables,
)
from pulmofuse.schema import SUBSET_JOIN, Split
from pulmofuse.statistics import FloatArray

#: Columns of `shapley_table`.
COLUMNS = ("method", "metric", "modality", "value", "low", "high", "share")

#: What is divided: AUC above .5, and nats of log loss below that of the prior.
AUC_GAIN, LOG_LOSS_GAIN = "roc_auc", "log_loss"
METRICS = (AUC_GAIN, LOG_LOSS_GAIN)


def shapley_values(worth: Mapping[frozenset[str], ArrayLike]) -> dict[str, FloatArray]:
    """Exact Shapley value of every player, by enumeration of the 2^k coalitions.

    Args:
        worth: value of each coalition of k players, the empty one included; any common shape, such
            as () or (replicates,).

    Returns:
        Values of that shape by player, sorted by name. They sum to the worth of all less that of
        none.

    Raises:
        ValueError: a coalition has no worth.
    """
    players = sorted(set().union(*worth))
    sizes = range(len(players) + 1)
    coalitions = {frozenset(c) for size in sizes for c in combinations(players, size)}
    if missing := coalitions - set(worth):
        raise ValueError(f"no worth is given for {sorted(map(sorted, missing))}")
    out: dict[str, FloatArray] = {}
    for player in players:
        total = np.zeros(np.shape(worth[frozenset()]))
        for coalition in coalitions:
            if player not in coalition:
                gain = np.asarray(worth[coalition | {player}]) - np.asarray(worth[coalition])
                total = total + gain / (len(players) * comb(len(players) - 1, len(coalition)))
        out[player] = np.asarray(total, dtype=np.float64)
    return out


def shapley_table(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    prior: ArrayLike,
    config: EvaluationConfig,
    seed: int,
) -> pd.DataFrame:
    """Shapley share of each modality, on the test patients who have all of them.

    A coalition is worth what its subset's predictions reach by the method: AUC less .5, and log
    loss of the prior less log loss. The empty one is worth 0, as the answer without any modality is
    the prior. Where labels stand for sets of classes, all subsets are held to the one question that
    each of them can answer (`evaluation.questions`).

    Args:
        predictions: as `predictions.parquet`.
        classes: class names in the order of the model's outputs.
        positive: the positive class of two, or None.
        prior: (classes,) of the fused population (`DecisionFusion.prior`).
        config: number of replicates and confidence of the intervals.
        seed: of the bootstrap; the weights are those of `evaluate` for the same patients.

    Returns:
        The columns `COLUMNS`, one row per method, metric and modality; `share` is of the worth of
        all modalities, and None where that is not above 0. `question` is there too where it is not
        about all classes. Empty with one modality, where no test patient has all, or where the
        subsets have no question in common.
    """
    rows = list(_rows(predictions, list(classes), positive, np.asarray(prior, float), config, seed))
    asked = ["question"] if any("question" in row for row in rows) else []
    return pd.DataFrame(rows, columns=[*COLUMNS, *asked])


@dataclass(frozen=True, eq=False)
class _Worth:
    """Worth of one subset's predictions: () by metric, and (metrics, replicates)."""

    figures: dict[str, float]
    drawn: Replicates


def _rows(
    predictions: pd.DataFrame,
    classes: list[str],
    positive: str | None,
    prior: FloatArray,
    config: EvaluationConfig,
    seed: int,
) -> Iterator[dict[str, Any]]:
    tested = predictions[
        (predictions["split"] == Split.TEST) & (predictions["method"] != PER_RECORD)
    ]
    full = modalities_of(tested)
    modalities = full.split(SUBSET_JOIN)
    coalitions = [
        c for size in range(1, len(modalities) + 1) for c in combinations(modalities, size)
    ]
    present = tested[["subset", "method"]].drop_duplicates().itertuples(index=False, name=None)
    known = {(str(subset), str(method)): None for subset, method in present}
    keys: dict[str, dict[tuple[str, ...], tuple[str, str]]] = {}
    for subset, method in known:
        if subset != full or method == UNIMODAL:
            continue
        own = {c: (SUBSET_JOIN.join(c), method if len(c) > 1 else UNIMODAL) for c in coalitions}
        # A method that does not answer for every subset has no shares.
        if set(own.values()) <= set(known):
            keys[method] = own
    names = list(map(SUBSET_JOIN.join, coalitions))
    question = common_question(questions(predictions, classes), names, classes)
    if not keys or len(question.parts) < 2:
        return
    # The whole first: of its rows, those that every subset has.
    pairs = list(dict.fromkeys(pair for own in keys.values() for pair in reversed(own.values())))
    tables = dict(zip(pairs, paired_tables(tested, pairs, question, Split.TEST), strict=True))
    first = tables[pairs[0]]
    if not len(first.y):
        return
    resamples = first.resample(config.bootstrap, seed)
    at = class_index(question.names, positive_of(question, positive))
    nothing = question.collapse(prior)
    found = {pair: _worth(table, at, nothing, resamples) for pair, table in tables.items()}
    for method, own in keys.items():
        worth = {frozenset(coalition): found[pair] for coalition, pair in own.items()}
        for metric in METRICS:
            for row in _shares(method, metric, modalities, worth, config):
                yield row | told(question)


def _shares(
    method: str,
    metric: str,
    modalities: Sequence[str],
    worth: Mapping[frozenset[str], _Worth],
    config: EvaluationConfig,
) -> Iterator[dict[str, Any]]:
    at = METRICS.index(metric)
    drawn = {coalition: own.drawn[at] for coalition, own in worth.items()}
    values = _divided({coalition: own.figures[metric] for coalition, own in worth.items()})
    patients = _divided({coalition: own.patients for coalition, own in drawn.items()})
    rows = {coalition: own.cells for coalition, own in drawn.items() if own.cells is not None}
    cells = _divided(rows) if rows else {}
    whole = frozenset(modalities)
    total = worth[whole].figures[metric]
    for modality in modalities:
        value = float(values[modality])
        own = replace(drawn[whole], patients=patients[modality], cells=cells.get(modality))
        error = float(own.standard_error())
        low, high = symmetrical_interval(value, error, config.confidence, own.degrees)
        row = {"method": method, "metric": metric, "modality": modality}
        yield row | {
            "value": value, "low": low, "high": high,
            "share": value / total if total > 0 else None,
        }  # fmt: skip


def _divided(worth: Mapping[frozenset[str], ArrayLike]) -> dict[str, FloatArray]:
    """Shapley values where no modality at all is worth 0."""
    nothing = np.zeros(np.shape(next(iter(worth.values()))))
    return shapley_values({**worth, frozenset(): nothing})


def _worth(table: Table, positive: int | None, prior: FloatArray, resamples: Resamples) -> _Worth:
    """Worth of the predictions of a table."""
    y, p = table.y, table.p
    nothing = np.broadcast_to(prior, p.shape)

    def statistic(weights: Weights) -> FloatArray:
        auc = auc_replicates(y, p, positive, weights) - 0.5
        gain = log_loss_replicates(y, nothing, weights) - log_loss_replicates(y, p, weights)
        return np.array([auc, gain])

    values = {
        AUC_GAIN: float(roc_auc(y, p, None, positive)) - 0.5,
        LOG_LOSS_GAIN: float(log_loss(y, nothing) - log_loss(y, p)),
    }
    return _Worth(values, resamples.of(statistic))
