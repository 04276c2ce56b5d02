"""How high an AUC do features reach that tell nothing of the class?

The answer is a distribution under the null hypothesis: the classes are shuffled between patients
and the measurement is done again, a few hundred times (permutation test, Ojala & Garriga 2010,
"Permutation tests for studying classifier performance", JMLR 11). A random forest would take hours
for that, so a classifier is used that answers for hundreds of shufflings in one matrix product:
naive Bayes over the quantiles of each feature. A feature's evidence is shrunk by its chi-square, as
James and Stein shrink a mean (positive part), which silences features that tell nothing.

The statistic is the larger of two macro AUCs: that of this classifier on all features
(cross-validated), and that of the best single feature, ranked by its value alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulmofuse.statistics import FloatArray

Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]
_Float32 = NDArray[np.float32]

#: Shufflings for the null's 95th percentile: its rank is then known to about 3 in 199.
_SHUFFLINGS = 199

#: Shufflings where the first ones leave a doubt: p is then known to .001.
_MORE_SHUFFLINGS = 999

#: Up to so many of the first shufflings as good as the real classes are a doubt (p <= .025).
_DOUBT = 4

#: Quantiles of a feature with many values; four of five cut points lie where a shift of the whole
#: distribution moves the counts most, and 300 records still give 60 to each.
_QUANTILES = 5

#: A feature of up to so many values (sites, formats, bit depths) is not cut into quantiles.
_CATEGORIES = 20

#: Shufflings answered at once: 3,000 records and 16 features then need about 30 MiB.
_AT_ONCE = 200


@dataclass(frozen=True)
class Chance:
    """What shuffled classes reach: `p_value` of the real ones, and the null's 95th percentile."""

    p_value: float
    high: float


def chance(
    X: FloatArray, y: NDArray[np.intp], patients: NDArray[Any], folds: Folds, seed: int
) -> Chance:
    """Compare the real classes with shuffled ones.

    Args:
        X: (n, features), NaN where absent; at least one feature.
        y: (n,) class codes 0 ... k-1.
        patients: (n,) ids; all records of a patient are given the class of another patient.
        folds: (training rows, test rows) of the cross-validation.
        seed: of the shuffling.

    Returns:
        p = (1 + shufflings that do as well) / (1 + shufflings), by which a real effect is never 0.
    """
    rng = np.random.default_rng(seed)
    one_hot, sizes = _one_hot(X)
    ranks = _ranks(np.where(np.isnan(X), -np.inf, X))
    by_patient, patient = class_of_patients(y, patients)
    n_classes = int(y.max()) + 1

    def reached(classes: NDArray[np.intp]) -> FloatArray:
        return _statistic(one_hot, sizes, ranks, classes, n_classes, folds)

    def null(count: int) -> FloatArray:
        parts = []
        for start in range(0, count, _AT_ONCE):
            size = min(_AT_ONCE, count - start)
            shuffled = rng.permuted(np.tile(by_patient, (size, 1)), axis=1)
            parts.append(reached(shuffled[:, patient].T))
        return np.concatenate(parts)

    real = reached(y[:, None])[0]
    found = null(_SHUFFLINGS)
    if int((found >= real).sum()) <= _DOUBT:
        found = np.concatenate([found, null(_MORE_SHUFFLINGS - _SHUFFLINGS)])
    as_good = int((found >= real).sum())
    return Chance((1 + as_good) / (1 + len(found)), float(np.quantile(found, 0.95)))


def rank_auc(ranks: NDArray[Any], positive: NDArray[Any]) -> FloatArray:
    """AUCs of ranked scores (Mann & Whitney 1947).

    Args:
        ranks: (n, columns), 1 ... n, ties averaged.
        positive: (n, columns) 0 or 1; broadcast against `ranks`.

    Returns:
        (columns,) in [0, 1]; .5 where there is one class only.
    """
    n_positive = positive.sum(axis=0)
    return _from_rank_sum((ranks * positive).sum(axis=0), n_positive, len(positive))


def _statistic(
    one_hot: _Float32,
    sizes: NDArray[np.intp],
    ranks: _Float32,
    classes: NDArray[np.intp],
    n_classes: int,
    folds: Folds,
) -> FloatArray:
    """Larger of the two macro AUCs for each column of class codes (n, columns) -> (columns,)."""
    together = np.zeros(classes.shape[1])
    single = np.zeros((ranks.shape[1], classes.shape[1]))
    # Of two classes one suffices: the AUC of the other is the same.
    asked = range(n_classes) if n_classes > 2 else (1,)
    for c in asked:
        positive = (classes == c).astype(np.float32)
        score = np.zeros_like(positive)
        for train, test in folds:
            score[test] = _naive_bayes(one_hot[train], positive[train], one_hot[test], sizes)
        together += rank_auc(_ranks(score), positive)
        sums = np.asarray(ranks.T @ positive, dtype=np.float64)
        single += np.abs(_from_rank_sum(sums, positive.sum(axis=0), len(positive)) - 0.5) + 0.5
    return np.asarray(np.maximum(together, single.max(axis=0)) / len(asked))


def _naive_bayes(
    train: _Float32, positive: _Float32, test: _Float32, sizes: NDArray[np.intp]
) -> _Float32:
    """Log-odds of the class for test rows, for each column of labels at once.

    Args:
        train: (n_train, bins) one-hot, the bins of all features side by side.
        positive: (n_train, columns) 0 or 1.
        test: (n_test, bins).
        sizes: bins of each feature.

    Returns:
        (n_test, columns). The prior is left out: it is the same for all rows.
    """
    n, n_positive = len(train), positive.sum(axis=0)
    inside = train.sum(axis=0)[:, None]
    hits = train.T @ positive
    # A rare class may be absent from a fold, and its share must not become a logarithm of nothing.
    share = np.clip(n_positive / n, 1 / (n + 1), n / (n + 1)).astype(np.float32)
    expected = inside * share
    variance = np.maximum(expected * (1 - share), np.finfo(np.float32).tiny)
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    chi_square = np.add.reduceat((hits - expected) ** 2 / variance, starts, axis=0)
    freedom = (sizes - 1)[:, None]
    weight = np.maximum(0, 1 - freedom / np.maximum(chi_square, np.finfo(np.float32).tiny))
    # One record of prior weight per bin (Laplace), divided as the classes are.
    log_odds = np.log((hits + share) / (n_positive + 1))
    log_odds -= np.log((inside - hits + 1 - share) / (n - n_positive + 1))
    return np.asarray(test @ (np.repeat(weight, sizes, axis=0) * log_odds), dtype=np.float32)


def _one_hot(X: FloatArray) -> tuple[_Float32, NDArray[np.intp]]:
    """Bins of all features side by side (n, bins), and the number of bins of each feature."""
    parts = []
    for x in X.T:
        present = np.unique(x[~np.isnan(x)])
        if len(present) > _CATEGORIES:
            inner = np.linspace(0, 1, _QUANTILES + 1)[1:-1]
            cuts = np.unique(np.nanquantile(x, inner))
        else:
            cuts = present[1:]
        code = np.where(np.isnan(x), -1, np.searchsorted(cuts, x, side="right"))
        values, code = np.unique(code, return_inverse=True)
        parts.append(np.eye(len(values), dtype=np.float32)[code])
    return np.hstack(parts), np.array([part.shape[1] for part in parts], dtype=np.intp)


def class_of_patients(
    y: NDArray[np.intp], patients: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Most frequent class of each patient, and the patient's position for each record."""
    names, patient = np.unique(patients, return_inverse=True)
    counts = np.zeros((len(names), int(y.max()) + 1), dtype=np.intp)
    np.add.at(counts, (patient, y), 1)
    return counts.argmax(axis=1), patient


def _ranks(values: NDArray[Any]) -> _Float32:
    """Ranks within each column, ties averaged."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=0), dtype=np.float32)


def _from_rank_sum(rank_sum: NDArray[Any], n_positive: NDArray[Any], n: int) -> FloatArray:
    """AUC from the sum of the positives' ranks."""
    positive = np.asarray(n_positive, dtype=np.float64)
    pairs = positive * (n - positive)
    above = np.asarray(rank_sum, dtype=np.float64) - positive * (positive + 1) / 2
    return np.asarray(np.where(pairs > 0, above / np.maximum(pairs, 1), 0.5))
