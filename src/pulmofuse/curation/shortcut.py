"""How well do features that say nothing of disease predict the class?

A random forest sees the features of some patients and predicts others (cross-validation grouped by
patient). An AUC well above .5 means that a network can be right for the wrong reason
(DeGrave, Janizek & Lee 2021, "AI for radiographic COVID-19 detection selects shortcuts over
signal"). Which feature does it is found by permutation (Breiman 2001): shuffle one feature of the
patients predicted, and see how much AUC is lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulmofuse.statistics import (
    FloatArray,
    cluster_counts,
    percentile_interval,
    weighted_auc,
)

#: Usual number of folds; fewer where a class has fewer patients.
_FOLDS = 5

#: Trees of the forest: AUC varies by less than .01 between seeds at 300 records.
_TREES = 50

#: Small trees on half of the features. On made-up traits (one that tells among 15 that do not)
#: this lost .01 of the AUC that can be had, full-grown trees lost .03 and took twice as long.
_TREE_LEAVES, _FEATURE_SHARE = 16, 0.5

#: Records of a leaf: at least 10, or a tenth of few records.
_LEAF, _LEAF_SHARE = 10, 0.1

#: Leaves of the tree that sees one feature alone: enough for a range in the middle, too few to
#: remember records.
_SINGLE_LEAVES = 8

#: Larger data sets are sampled by patient: an AUC from 3,000 records is known to about .02.
_MAX_RECORDS = 3000

#: Replicates of the patient bootstrap; enough for two digits.
_REPLICATES = 500


@dataclass(frozen=True)
class Feature:
    """One feature: AUC lost without it (`importance`), and reached by it `alone`."""

    name: str
    importance: float
    alone: float


@dataclass(frozen=True)
class Shortcut:
    """Cross-validated macro AUC with its 95 % interval, and the features, most telling first."""

    auc: float
    low: float
    high: float
    features: tuple[Feature, ...]


def trait_table(traits: pd.Series) -> pd.DataFrame:
    """Numeric columns from JSON texts, one row per record.

    Booleans become 0/1, texts the rank of their value, lists and objects are left out. A trait
    that a record does not have is NaN, which itself may tell.
    """
    rows = [_scalars(text) for text in traits]
    return encode(pd.DataFrame(rows, index=traits.index))


def encode(table: pd.DataFrame) -> pd.DataFrame:
    """Columns as float: numbers as they are, others by the rank of their value, absent as NaN.

    Columns that hold a single value are dropped: they tell nothing.
    """
    out: dict[str, NDArray[np.float64]] = {}
    for name in sorted(map(str, table.columns)):
        column = table[name]
        present = column[column.notna()]
        if all(isinstance(value, int | float | np.number) for value in present):
            out[name] = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
        else:
            codes = pd.Categorical(column.where(column.isna(), column.astype(str))).codes
            out[name] = np.where(codes < 0, np.nan, codes.astype(np.float64))
    frame = pd.DataFrame(out, index=table.index)
    telling = [name for name, column in frame.items() if len(column.unique()) > 1]
    return frame[telling]


def measure_shortcut(
    features: pd.DataFrame, target: pd.Series, patients: pd.Series, seed: int
) -> Shortcut | None:
    """Cross-validated AUC of the class from `features` alone.

    Args:
        features: (n, features) float, NaN where absent; as `encode` gives it.
        target: (n,) class names.
        patients: (n,) patient ids; no patient is both learned from and predicted.
        seed: of folds, forest and bootstrap; the order of rows matters too.

    Returns:
        None if there are no two classes with at least two patients each. Without any feature the
        AUC is .5.
    """
    keep = _sample(patients, seed)
    features, target, patients = features[keep], target[keep], patients[keep]
    names, y = np.unique(target.to_numpy(dtype=str), return_inverse=True)
    per_class = [patients.to_numpy()[y == c] for c in range(len(names))]
    n_folds = min([_FOLDS, *(len(set(own)) for own in per_class)])
    if len(names) < 2 or n_folds < 2:
        return None
    if features.shape[1] == 0:
        return Shortcut(0.5, 0.5, 0.5, ())
    X, groups = features.to_numpy(dtype=np.float64), patients.to_numpy(dtype=str)
    folds = _folds(y, groups, n_folds, seed)
    p, permuted = _forest(X, y, folds, seed)
    auc = float(_macro_auc(y, p))
    weights = cluster_counts(groups, _REPLICATES, np.random.default_rng(seed))
    low, high = percentile_interval(_macro_auc(y, p, weights))
    found = [
        Feature(
            str(name),
            auc - float(_macro_auc(y, permuted[j])),
            float(_macro_auc(y, _single(X[:, [j]], y, folds, seed))),
        )
        for j, name in enumerate(features.columns)
    ]
    # Of twins such as width and height neither is missed, so what one reaches alone decides next.
    found.sort(key=lambda feature: (-round(feature.importance, 2), -feature.alone))
    return Shortcut(auc, low, high, tuple(found))


Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]


def _folds(y: NDArray[np.intp], groups: NDArray[Any], n: int, seed: int) -> Folds:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros((len(y), 1)), y, groups))


def _forest(
    X: FloatArray, y: NDArray[np.intp], folds: Folds, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Out-of-fold probabilities (n, k), and with each feature shuffled (features, n, k)."""
    from sklearn.ensemble import RandomForestClassifier

    n, n_features, k = len(y), X.shape[1], int(y.max()) + 1
    rng = np.random.default_rng(seed)
    p, permuted = np.zeros((n, k)), np.zeros((n_features, n, k))
    for train, test in folds:
        forest = RandomForestClassifier(
            _TREES,
            max_leaf_nodes=_TREE_LEAVES,
            max_features=_FEATURE_SHARE,
            min_samples_leaf=_leaf(len(train)),
            random_state=seed,
            n_jobs=1,
        )
        forest.fit(X[train], y[train])
        copies = np.repeat(X[test][None], n_features + 1, axis=0)
        for j in range(n_features):
            copies[j + 1, :, j] = rng.permutation(copies[j + 1, :, j])
        # One call for all copies: a forest's overhead per call is larger than its work here.
        answer = np.zeros((len(copies) * len(test), k))
        answer[:, forest.classes_] = forest.predict_proba(copies.reshape(-1, n_features))
        by_copy = answer.reshape(len(copies), len(test), k)
        p[test], permuted[:, test] = by_copy[0], by_copy[1:]
    return p, permuted


def _single(x: FloatArray, y: NDArray[np.intp], folds: Folds, seed: int) -> FloatArray:
    """Out-of-fold probabilities (n, k) of a small tree on one feature (n, 1)."""
    from sklearn.tree import DecisionTreeClassifier

    p = np.zeros((len(y), int(y.max()) + 1))
    for train, test in folds:
        tree = DecisionTreeClassifier(
            max_leaf_nodes=_SINGLE_LEAVES,
            min_samples_leaf=_leaf(len(train)),
            random_state=seed,
        )
        tree.fit(x[train], y[train])
        p[np.ix_(test, tree.classes_)] = tree.predict_proba(x[test])
    return p


def _leaf(n: int) -> int:
    """Least records of a leaf when learning from `n`."""
    return max(1, min(_LEAF, int(n * _LEAF_SHARE)))


def _macro_auc(y: NDArray[np.intp], p: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Mean over classes of the AUC of each against the rest."""
    aucs = [weighted_auc(y == c, p[:, c], weights) for c in range(p.shape[1])]
    return np.asarray(np.mean(aucs, axis=0))


def _sample(patients: pd.Series, seed: int) -> NDArray[np.bool_]:
    """Mask (n,) of the records of randomly drawn patients, `_MAX_RECORDS` or a few less."""
    if len(patients) <= _MAX_RECORDS:
        return np.ones(len(patients), dtype=bool)
    counts = patients.value_counts().sort_index()
    order = np.random.default_rng(seed).permutation(len(counts))
    within = counts.to_numpy()[order].cumsum() <= _MAX_RECORDS
    return patients.isin(counts.index[order[within]]).to_numpy()


def _scalars(text: object) -> dict[str, Any]:
    """Scalar entries of a JSON object; none where the text is absent or is no object."""
    if not isinstance(text, str):
        return {}
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        str(name): float(value) if isinstance(value, bool) else value
        for name, value in content.items()
        if isinstance(value, bool | int | float | str)
    }
