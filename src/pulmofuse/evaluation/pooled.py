"""Figures of a cross-validation, over the pooled predictions of folds that were held back.

Every record is predicted once per seed, by a model that never saw it; the predictions of all folds
make one table, and a figure is that of the whole table. With several seeds a figure is the mean
over seeds of each seed's own, and its interval that of this mean: patients are drawn with
replacement, and a drawn patient brings the predictions of all seeds along. So the interval says how
much other patients would change the figure, and the range over seeds how much another deal and
another start of training do.

Beside it stands the *seed ensemble*: the mean of a record's probabilities over the seeds.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulmofuse.config import EvaluationConfig
from pulmofuse.errors import StudyError
from pulmofuse.evaluation.intervals import difference_interval, logit_interval
from pulmofuse.evaluation.metrics import METRICS, IntArray
from pulmofuse.evaluation.resampling import Replicates, Resamples, resample, transposed
from pulmofuse.labelsets import Partition
from pulmofuse.schema import class_columns
from pulmofuse.statistics import FloatArray, divide, weighted_auc

#: Method of the rows whose probabilities are the mean over seeds.
ENSEMBLE = "seed_ensemble"

#: Metrics of the whole table, of the positive class of two or the macro mean of more.
_WHOLE = ("accuracy", "precision", "recall", "f1", "roc_auc")

#: Mean of the accuracies of the folds, which is what papers print.
FOLD_ACCURACY = "fold_accuracy"

Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Scored:
    """Out-of-fold predictions of one seed (or the ensemble): n records.

    y, predicted, fold (n,) int; p (n, k), rows sum to 1. `fold` is None where records have several.
    """

    y: IntArray
    p: FloatArray
    predicted: IntArray
    fold: IntArray | None


#: A figure of `Scored` under weights None, giving (), or (replicates, n), giving (replicates,).
Figure = Callable[[Scored, FloatArray | None], FloatArray]


def figures(
    classes: Sequence[str], positive: str | None, pairs: Sequence[Pair]
) -> dict[str, Figure]:
    """Figures of a cross-validation by name.

    Args:
        classes: in the order of the model's outputs.
        positive: the positive class of two, or None.
        pairs: classes (a, b) to compare as published two-class figures do; a is the positive one.

    Returns:
        accuracy, precision, recall, f1, roc_auc; fold_accuracy; for three or more classes
        `roc_auc.<class>-rest`, and `accuracy.<a>-<b>` and `roc_auc.<a>-<b>` of each pair: on the
        records of these two classes only, with their two probabilities scaled to sum to 1.
    """
    index = None if positive is None else list(classes).index(positive)
    out: dict[str, Figure] = {name: _whole(name, index) for name in _WHOLE}
    out[FOLD_ACCURACY] = _fold_accuracy
    if len(classes) > 2:
        out |= {f"roc_auc.{name}-rest": _one_class(i) for i, name in enumerate(classes)}
        for a, b in pairs:
            places = list(classes).index(a), list(classes).index(b)
            for metric in ("accuracy", "roc_auc"):
                out[f"{metric}.{a}-{b}"] = _of_two(metric, *places)
    return out


def class_pairs(
    wanted: Sequence[str], classes: Sequence[str], positive: str | None
) -> tuple[Pair, ...]:
    """Pairs of classes from "a,b" texts; without any, the positive class against each other one.

    Raises:
        StudyError: not two different classes of the study; the nearest name is told.
    """
    if not wanted:
        every = combinations(classes, 2)
        if positive is None:
            return tuple(every)
        return tuple((positive, name) for name in classes if name != positive)
    pairs: list[Pair] = []
    for text in wanted:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            _require(name, classes, f"pair {text}", "class")
        if len(names) != 2 or names[0] == names[1]:
            remedy = f"give two of {', '.join(classes)}, as in --pair {','.join(classes[:2])}"
            raise StudyError(f"pair {text}", "is not two different classes", remedy)
        pairs.append((names[0], names[1]))
    return tuple(dict.fromkeys(pairs))


def published_values(wanted: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Published values from "figure=value" texts.

    Raises:
        StudyError: no such figure (the nearest name is told), or not a number from 0 to 1.
    """
    out: dict[str, float] = {}
    for text in wanted:
        name, _, number = text.partition("=")
        _require(name.strip(), names, f"published {text}", "figure")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not 0 <= value <= 1:
            remedy = "give a share, as in --published accuracy=0.8702"
            raise StudyError(f"published {text}", "is not a number from 0 to 1", remedy)
        out[name.strip()] = value
    return out


def _require(name: str, known: Sequence[str], what: str, kind: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        remedy = f"the nearest is {near[0]}; there are {', '.join(known)}"
        raise StudyError(what, f"{name!r} is no {kind} of this study", remedy)


def ensemble_rows(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    question: Partition | None = None,
) -> pd.DataFrame:
    """The mean of each record's probabilities over the seeds, as further rows.

    The class is the most probable one; for two classes with a positive one, the positive class
    where its mean probability reaches the mean of the thresholds that the record met.

    Args:
        predictions: rows of several seeds, each record once per seed; `threshold` is null where
            classes are called by argmax.
        classes: in the order of the model's outputs.
        positive: the positive class of two, or None.
        question: the parts of the classes of which the most probable one is called, where labels
            stand for sets of classes.

    Returns:
        Rows like those of the first seed, with method `ENSEMBLE`, and no seed nor fold.
    """
    numbers = [*class_columns(classes), *class_columns(classes, raw=True), "threshold"]
    mean = predictions.groupby("record_id", sort=True)[numbers].mean()
    first = predictions.drop_duplicates("record_id").set_index("record_id").loc[mean.index]
    p = mean[class_columns(classes)].to_numpy()
    asked = question or Partition.fine(classes)
    called = np.array(asked.names, dtype=object)[asked.collapse(p).argmax(axis=1)]
    if positive is not None and len(classes) == 2:
        i = list(classes).index(positive)
        called = np.where(p[:, i] >= mean["threshold"], classes[i], classes[1 - i])
    new = first.assign(**{name: mean[name] for name in numbers})
    none = pd.array([None] * len(new), dtype="Int64")
    new = new.assign(method=ENSEMBLE, y_pred=called, seed=none, fold=none).reset_index()
    return new[list(predictions.columns)]


@dataclass(frozen=True, eq=False)
class Pool:
    """The predictions of one protocol, modality and control.

    Attributes:
        records: (n,) record_id, sorted.
        patients: (n,) patient_id of each.
        seeds: what each seed says of them.
        ensemble: what the mean over seeds says; None with one seed.
    """

    records: NDArray[np.object_]
    patients: NDArray[np.object_]
    seeds: dict[int, Scored]
    ensemble: Scored | None

    @classmethod
    def of(
        cls, predictions: pd.DataFrame, classes: Sequence[str], among: Sequence[str] | None = None
    ) -> Pool:
        """Read rows of all seeds, and the ensemble's where they are there.

        Args:
            predictions: rows of one protocol, modality and control.
            classes: in the order of the model's outputs.
            among: record_id to keep; None: all.
        """
        table = predictions.sort_values("record_id", kind="stable")
        if among is not None:
            table = table[table["record_id"].isin(set(among))]
        single = table[table["method"] != ENSEMBLE]
        parts = {int(str(seed)): part for seed, part in single.groupby("seed", sort=True)}
        first = next(iter(parts.values()))
        mean = table[table["method"] == ENSEMBLE]
        return cls(
            first["record_id"].to_numpy(dtype=object),
            first["patient_id"].astype(str).to_numpy(dtype=object),
            {seed: _scored(part, classes) for seed, part in parts.items()},
            _scored(mean, classes) if len(mean) else None,
        )

    def resample(self, n_boot: int, seed: int) -> Resamples:
        """Bootstrap weights of the records, drawn by patient."""
        return resample((self.patients,), None, n_boot, seed)

    def replicates(self, figure: Figure, resamples: Resamples) -> dict[int, Replicates]:
        """Replicates of the figure of each seed."""
        return {seed: _drawn(figure, scored, resamples) for seed, scored in self.seeds.items()}


def pool_rows(
    pool: Pool, wanted: dict[str, Figure], config: EvaluationConfig, seed: int
) -> Iterator[dict[str, Any]]:
    """Every figure of a pool: by seed, their mean, and the ensemble's.

    Args:
        pool: the predictions.
        wanted: of `figures`.
        config: number of replicates and confidence of the intervals.
        seed: of the bootstrap.

    Yields:
        `{seed, method, metric, value, low, high, lowest, highest}`: `method` is "per_record" (one
        seed), "seed_mean" (seed is null; lowest and highest of the seeds) or `ENSEMBLE`.
    """
    resamples = pool.resample(config.bootstrap, seed)

    def row(
        method: str, value: float, drawn: Replicates, seed: int | None = None
    ) -> dict[str, Any]:
        error = float(drawn.standard_error())
        ends = logit_interval(value, error, config.confidence, degrees=drawn.degrees)
        return _row(name, method, value, ends, seed)

    for name, figure in wanted.items():
        values = {s: float(figure(scored, None)) for s, scored in pool.seeds.items()}
        drawn = pool.replicates(figure, resamples)
        for s, value in values.items():
            yield row("per_record", value, drawn[s], s)
        found = list(values.values())
        span = {"lowest": _null(min(found)), "highest": _null(max(found))}
        yield row("seed_mean", float(np.mean(found)), _mean(drawn)) | span
        if pool.ensemble is not None and name != FOLD_ACCURACY:
            value = float(figure(pool.ensemble, None))
            yield row(ENSEMBLE, value, _drawn(figure, pool.ensemble, resamples))


def difference_rows(
    first: Pool, second: Pool, wanted: dict[str, Figure], config: EvaluationConfig, seed: int
) -> Iterator[dict[str, Any]]:
    """Mean over seeds of `first` less that of `second`, on the same records, drawn together.

    Both see the same bootstrap weights, so what the patients have in common cancels.

    Raises:
        ValueError: the pools are not of the same records.
    """
    if list(first.records) != list(second.records):
        raise ValueError("a paired difference needs the same records on both sides")
    resamples = first.resample(config.bootstrap, seed)
    for name, figure in wanted.items():
        values, drawn = [], []
        for pool in (first, second):
            values.append(np.mean([float(figure(s, None)) for s in pool.seeds.values()]))
            drawn.append(_mean(pool.replicates(figure, resamples)))
        value, difference = float(values[0] - values[1]), drawn[0] - drawn[1]
        error = float(difference.standard_error())
        ends = difference_interval(value, error, config.confidence, difference.degrees)
        yield _row(name, "seed_mean", value, ends)


def _drawn(figure: Figure, scored: Scored, resamples: Resamples) -> Replicates:
    return resamples.of(transposed(lambda weights: figure(scored, weights)))


def _mean(drawn: Mapping[int, Replicates]) -> Replicates:
    """Replicates of the mean over seeds."""
    first = next(iter(drawn.values()))
    return replace(first, patients=np.mean([own.patients for own in drawn.values()], axis=0))


def _whole(name: str, positive: int | None) -> Figure:
    metric = METRICS[name]

    def figure(s: Scored, weights: FloatArray | None) -> FloatArray:
        return metric(s.y, s.p, s.predicted, positive, weights)

    return figure


def _one_class(i: int) -> Figure:
    def figure(s: Scored, weights: FloatArray | None) -> FloatArray:
        return weighted_auc(s.y == i, s.p[:, i], weights)

    return figure


def _of_two(name: str, a: int, b: int) -> Figure:
    """A metric of class a against b on their records alone; the more probable one is called."""
    metric = METRICS[name]

    def figure(s: Scored, weights: FloatArray | None) -> FloatArray:
        rows = (s.y == a) | (s.y == b)
        both = s.p[rows][:, [a, b]]
        p = divide(both, both.sum(axis=1, keepdims=True), empty=0.5)
        own = None if weights is None else weights[..., rows]
        return metric((s.y[rows] == b).astype(np.intp), p, p.argmax(axis=1), 0, own)

    return figure


def _fold_accuracy(s: Scored, weights: FloatArray | None) -> FloatArray:
    """Mean over folds of the accuracy of each; NaN where a fold has no weight."""
    if s.fold is None:
        return np.full(() if weights is None else weights.shape[:-1], np.nan)
    right, parts = s.y == s.predicted, []
    for fold in np.unique(s.fold):
        rows = s.fold == fold
        own = np.ones(len(s.y)) if weights is None else weights
        parts.append(divide(own[..., rows] @ right[rows], own[..., rows].sum(axis=-1), np.nan))
    return np.asarray(np.mean(parts, axis=0))


def _scored(table: pd.DataFrame, classes: Sequence[str]) -> Scored:
    codes = pd.Index(list(classes))
    folds = table["fold"]
    return Scored(
        codes.get_indexer(pd.Index(table["y_true"])),
        table[class_columns(classes)].to_numpy(dtype=np.float64),
        codes.get_indexer(pd.Index(table["y_pred"])),
        None if folds.isna().any() else folds.to_numpy(dtype=np.intp),
    )


def _row(
    name: str,
    method: str,
    value: float,
    ends: tuple[float, float],
    seed: int | None = None,
) -> dict[str, Any]:
    low, high = ends
    return {
        "seed": seed, "method": method, "metric": name, "value": _null(value),
        "low": _null(low), "high": _null(high), "lowest": None, "highest": None,
    }  # fmt: skip


def _null(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
