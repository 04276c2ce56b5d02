"""What each modality is worth within a fusion: exact Shapley values (Shapley 1953).

A modality's gain depends on what is there already: the second of two alike adds little. Its Shapley
value is what it adds to the modalities before it, averaged over all orders in which they can come;
it is the only division in which the parts add up to the whole, equals get the same, and a modality
that adds nothing to any subset gets nothing. With three modalities the eight subsets are simply
all computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.bootstrap import cluster_weights, percentile_interval
from pulmofuse.evaluation.metrics import IntArray, roc_auc
from pulmofuse.evaluation.reliability import log_loss
from pulmofuse.evaluation.tables import PER_RECORD, UNIMODAL, real_patients
from pulmofuse.schema import SUBSET_JOIN, Modality, Split, class_columns
from pulmofuse.statistics import FloatArray

#: Columns of `shapley_table`.
COLUMNS = ("method", "metric", "modality", "value", "low", "high", "share")

#: What is divided: AUC above .5, and nats of log loss below that of the prior.
AUC_GAIN, LOG_LOSS_GAIN = "roc_auc", "log_loss"

#: Weights held at once by one metric; 4 million float64 are 32 MB per intermediate array.
_BLOCK = 4_000_000


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
    the prior.

    Args:
        predictions: as `predictions.parquet`.
        classes: class names in the order of the model's outputs.
        positive: the positive class of two, or None.
        prior: (classes,) of the fused population (`DecisionFusion.prior`).
        config: number of replicates and confidence of the intervals.
        seed: of the bootstrap; the weights are those of `evaluate` for the same patients.

    Returns:
        The columns `COLUMNS`, one row per method, metric and modality; `share` is of the worth of
        all modalities, and None where that is not above 0. Empty with one modality, or where no
        test patient has all.
    """
    rows = list(_rows(predictions, list(classes), positive, np.asarray(prior, float), config, seed))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(
    predictions: pd.DataFrame,
    classes: list[str],
    positive: str | None,
    prior: FloatArray,
    config: EvaluationConfig,
    seed: int,
) -> Iterator[dict[str, Any]]:
    table = predictions[
        (predictions["split"] == Split.TEST) & (predictions["method"] != PER_RECORD)
    ]
    names = {name for subset in set(table["subset"]) for name in subset.split(SUBSET_JOIN)}
    modalities = [m.value for m in Modality if m.value in names]
    coalitions = [c for size in range(1, len(names) + 1) for c in combinations(modalities, size)]
    frames = {
        (str(subset), str(method)): part.set_index(["patient_id", "y_true"])
        for (subset, method), part in table.groupby(["subset", "method"], sort=False)
    }
    full = SUBSET_JOIN.join(modalities)
    methods = [method for subset, method in frames if subset == full and method != UNIMODAL]
    if not methods:
        return
    whole = frames[full, methods[0]]
    y = pd.Index(classes).get_indexer(whole.index.get_level_values("y_true"))
    ids = pd.Series(whole.index.get_level_values("patient_id").astype(str))
    simulated = bool(whole["simulated"].any())
    factors = real_patients(ids, full, full) if simulated else (ids.to_numpy(),)
    weights = cluster_weights(factors, config.bootstrap, seed)
    at = None if positive is None else classes.index(positive)
    found: dict[tuple[str, str], dict[str, FloatArray]] = {}
    for method in methods:
        keys = {c: (SUBSET_JOIN.join(c), method if len(c) > 1 else UNIMODAL) for c in coalitions}
        if not set(keys.values()) <= set(frames):
            continue  # a method that does not answer for every subset has no shares
        for key in set(keys.values()) - set(found):
            p = frames[key].loc[whole.index, class_columns(classes)].to_numpy(dtype=np.float64)
            found[key] = _worth(y, p, at, prior, weights)
        for metric in (AUC_GAIN, LOG_LOSS_GAIN):
            worth = {frozenset(c): found[key][metric] for c, key in keys.items()}
            worth[frozenset()] = np.zeros(1 + config.bootstrap)
            yield from _shares(method, metric, modalities, worth, config)


def _shares(
    method: str,
    metric: str,
    modalities: Sequence[str],
    worth: Mapping[frozenset[str], FloatArray],
    config: EvaluationConfig,
) -> Iterator[dict[str, Any]]:
    values = shapley_values(worth)
    total = float(worth[frozenset(modalities)][0])
    for modality in modalities:
        value = float(values[modality][0])
        low, high = percentile_interval(values[modality][1:], config.confidence)
        row = {"method": method, "metric": metric, "modality": modality}
        yield row | {
            "value": value, "low": low, "high": high,
            "share": value / total if total > 0 else None,
        }  # fmt: skip


def _worth(
    y: IntArray, p: FloatArray, positive: int | None, prior: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    """Worth of predictions (n, k): the value, then one per replicate of the weights (r, n)."""
    nothing = np.broadcast_to(prior, p.shape)
    plain = np.ones((1, len(y)))
    step = max(1, _BLOCK // max(1, len(y)))
    blocks = [plain, *(weights[i : i + step] for i in range(0, len(weights), step))]
    auc = [roc_auc(y, p, None, positive, block) - 0.5 for block in blocks]
    gain = [log_loss(y, nothing, block) - log_loss(y, p, block) for block in blocks]
    return {AUC_GAIN: np.concatenate(auc), LOG_LOSS_GAIN: np.concatenate(gain)}
