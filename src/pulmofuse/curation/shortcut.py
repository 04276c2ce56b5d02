"""How well do features that say nothing of disease predict the class?

A random forest sees the features of some patients and predicts others (cross-validation grouped by
patient). An AUC well above .5 means that a network can be right for the wrong reason
(DeGrave, Janizek & Lee 2021, "AI for radiographic COVID-19 detection selects shortcuts over
signal"). Which feature does it is found by permutation (Breiman 2001): shuffle one feature of the
patients predicted, and see how much AUC is lost. A single feature can tell more than a forest
learns from few records, so the better of the two counts; what that better one reaches when the
classes mean nothing is found by shuffling them (`chance`).
"""

from __future__ import annotations

import bisect
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from pulmofuse.curation.chance import Folds, chance, class_of_patients, rank_auc
from pulmofuse.statistics import (
    FloatArray,
    cluster_counts,
    percentile_interval,
    weighted_auc,
)

#: Usual number of folds; fewer where a class has fewer patients.
_FOLDS = 5

#: Trees of the forest: at 300 records the AUC's standard deviation between seeds is below .01.
_TREES = 25

#: Small trees on half of the features. On made-up traits (one that tells among 15 that do not)
#: this lost .01 of the AUC that can be had, full-grown trees lost .03 and took twice as long.
_TREE_LEAVES, _FEATURE_SHARE = 16, 0.5

#: Records of a leaf: at least 10, or a tenth of few records.
_LEAF, _LEAF_SHARE = 10, 0.1

#: Leaves of the tree that sees one feature alone: enough for a range in the middle, too few to
#: remember records.
_SINGLE_LEAVES = 8

#: Larger tables are sampled, patient by patient: an AUC from 3,000 records is known to about .02.
MAX_RECORDS = 3000

#: The forest computes in float32 and sums columns; a trait beyond this is taken for this, which
#: leaves sums of a hundred million records within float32's range.
_LARGEST = 1e30

#: Patients that a class needs: one to learn from, one to predict.
_MIN_PATIENTS = 2

#: Replicates of the patient bootstrap; enough for two digits.
_REPLICATES = 500


@dataclass(frozen=True)
class Feature:
    """One feature: AUC lost without it (`importance`), and reached by it `alone`."""

    name: str
    importance: float
    alone: float


@dataclass(frozen=True)
class OneClass:
    """One class against all others: AUC, the low end of its 95 % interval, and its patients."""

    name: str
    auc: float
    low: float
    n_patients: int


@dataclass(frozen=True)
class Shortcut:
    """How well features tell the classes apart.

    Attributes:
        auc: cross-validated macro AUC: of the forest, or of the best single feature if that is
            higher.
        low, high: its 95 % interval.
        features: most telling first.
        p_value: share of shuffled classes that do as well; None without features.
        null_95: 95th percentile of a simpler classifier's AUC under shuffled classes (`chance`);
            None without features.
        left_out: classes with one patient, whom no fold can both learn from and predict.
        by_class: each class against all others, from what `auc` is of.
    """

    auc: float
    low: float
    high: float
    features: tuple[Feature, ...]
    p_value: float | None = None
    null_95: float | None = None
    left_out: tuple[str, ...] = ()
    by_class: tuple[OneClass, ...] = ()


def draw_patients(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """All records, or about `MAX_RECORDS` of randomly drawn patients, shared among them.

    Every class gets an equal room, and a class that does not fill it leaves the rest to the larger
    ones: of 200,000 records with 100 of a rare class those 100 are kept. Inside a class as many
    patients as possible are kept, because an AUC is as sure as there are patients, not slices: a
    patient of a thousand slices gives some of them.

    Args:
        records: patient_id, y_true.
        seed: of the draw; the order of rows does not matter for who is drawn, only for which of
            their records.
    """
    if len(records) <= MAX_RECORDS:
        return records
    rng = np.random.default_rng(seed)
    names, y = np.unique(records["y_true"].to_numpy(dtype=str), return_inverse=True)
    _, patient = np.unique(records["patient_id"].to_numpy(dtype=str), return_inverse=True)
    # A unit is the records of one class of one patient, who may have several classes.
    codes, unit, sizes = np.unique(
        patient * len(names) + y, return_inverse=True, return_counts=True
    )
    order = rng.permutation(len(records))
    place = pd.Series(unit[order], index=order).groupby(unit[order]).cumcount().sort_index()
    totals = np.bincount(codes % len(names), weights=sizes)
    caps, left = np.zeros_like(sizes), MAX_RECORDS
    for n_left, c in zip(range(len(names), 0, -1), np.argsort(totals, kind="stable"), strict=True):
        room = max(1, left // n_left)
        drawn = rng.permutation(np.flatnonzero(codes % len(names) == c))[:room]
        caps[drawn] = _records_each(sizes[drawn], room)
        left -= int(np.minimum(sizes, caps)[drawn].sum())
    chosen: pd.DataFrame = records[place.to_numpy() < caps[unit]]
    return chosen


def _records_each(sizes: NDArray[np.intp], room: int) -> int:
    """Most records per patient (at least 1) with which patients of `sizes` fit into `room`."""
    caps = range(1, int(sizes.max()) + 1)
    fit = bisect.bisect_right(caps, room, key=lambda cap: int(np.minimum(sizes, cap).sum()))
    return max(1, fit)


def trait_table(traits: pd.Series) -> pd.DataFrame:
    """Numeric columns from JSON texts, one row per record.

    Booleans become 0/1, texts the rank of their value, lists and objects are left out. A trait
    that a record does not have is NaN, which itself may tell.
    """
    rows = [_scalars(text) for text in traits]
    return encode(pd.DataFrame(rows, index=traits.index))


def encode(table: pd.DataFrame) -> pd.DataFrame:
    """Columns as float: numbers as they are, others by the rank of their value, absent as NaN.

    Columns that hold a single value are dropped: they tell nothing. Numbers beyond
    `_LARGEST`, which a forest cannot take, become that.
    """
    out: dict[str, NDArray[np.float64]] = {}
    for name in sorted(map(str, table.columns)):
        column = table[name]
        present = column[column.notna()]
        if all(isinstance(value, int | float | np.number) for value in present):
            out[name] = np.array([_bounded(value) for value in column], dtype=np.float64)
        else:
            codes = pd.Categorical(column.where(column.isna(), column.astype(str))).codes
            out[name] = np.where(codes < 0, np.nan, codes.astype(np.float64))
    frame = pd.DataFrame(out, index=table.index)
    telling = [name for name, column in frame.items() if len(column.unique()) > 1]
    return frame[telling]


def _bounded(value: Any) -> float:
    """A number as float, NaN where absent. Python's integers may be too large even for float64."""
    return math.nan if pd.isna(value) else float(min(max(value, -_LARGEST), _LARGEST))


def measure_shortcut(
    features: pd.DataFrame, target: pd.Series, patients: pd.Series, seed: int
) -> Shortcut | None:
    """Cross-validated AUC of the class from `features` alone.

    Args:
        features: (n, features) float, NaN where absent; as `encode` gives it.
        target: (n,) class names.
        patients: (n,) patient ids; no patient is both learned from and predicted.
        seed: of folds, forest, shuffling and bootstrap; the order of rows matters too.

    Returns:
        None if there are no two classes with at least two patients each; other classes are left
        out. Without any feature the AUC is .5.
    """
    n_patients = patients.astype(str).groupby(target.astype(str).to_numpy()).nunique()
    left_out = tuple(map(str, n_patients.index[n_patients < _MIN_PATIENTS]))
    n_patients = n_patients.drop(list(left_out))
    if len(n_patients) < 2:
        return None
    if features.shape[1] == 0:
        return Shortcut(0.5, 0.5, 0.5, (), left_out=left_out)
    kept = ~target.astype(str).isin(left_out).to_numpy()
    names, y = np.unique(target.to_numpy(dtype=str)[kept], return_inverse=True)
    groups = patients.to_numpy(dtype=str)[kept]
    X = features.to_numpy(dtype=np.float64)[kept]
    n_folds = min(_FOLDS, int(n_patients.min()))
    folds = _folds(y, groups, n_folds, seed)
    p, permuted = _forest(X, y, folds, seed)
    whole = float(_macro_auc(y, p))
    singles = [_single(X[:, [j]], y, folds, seed) for j in range(X.shape[1])]
    alone = [float(_macro_auc(y, single)) for single in singles]
    found = [
        Feature(str(name), whole - float(_macro_auc(y, permuted[j])), alone[j])
        for j, name in enumerate(features.columns)
    ]
    # Of twins such as width and height neither is missed, so what one reaches alone decides next.
    found.sort(key=lambda feature: (-round(feature.importance, 2), -feature.alone))
    best = p if whole >= max(alone) else singles[int(np.argmax(alone))]
    weights = cluster_counts(groups, _REPLICATES, np.random.default_rng(seed))
    low, high = percentile_interval(_macro_auc(y, best, weights))
    null = chance(X, y, groups, folds, seed)
    auc = max(whole, *alone)
    by_class = tuple(
        OneClass(
            str(name),
            float(weighted_auc(y == c, best[:, c])),
            percentile_interval(weighted_auc(y == c, best[:, c], weights))[0],
            int(n_patients[name]),
        )
        for c, name in enumerate(names)
    )
    return Shortcut(auc, low, high, tuple(found), null.p_value, null.high, left_out, by_class)


def _folds(y: NDArray[np.intp], groups: NDArray[Any], n: int, seed: int) -> Folds:
    """Rows to learn from and rows to predict of `n` folds, by patient, stratified by class.

    The patients of each class are dealt in turn, those with most records first, so that folds are
    alike in classes and in size. (scikit-learn's StratifiedGroupKFold does the same, but took half
    of an audit's time at 3,000 records.)
    """
    by_patient, patient = class_of_patients(y, groups)
    sizes = np.bincount(patient)
    shuffled = np.random.default_rng(seed).permutation(len(by_patient))
    # lexsort's last key counts first; of equal patients the shuffled order stays.
    order = shuffled[np.lexsort((-sizes[shuffled], by_patient[shuffled]))]
    fold = np.empty(len(order), dtype=np.intp)
    fold[order] = np.arange(len(order)) % n
    return [(np.flatnonzero(fold[patient] != f), np.flatnonzero(fold[patient] == f))
            for f in range(n)]  # fmt: skip


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
    """Out-of-fold scores (n, k) from one feature (n, 1): of a small tree, or of its plain value.

    A tree finds a range in the middle. A few hundred records are too few for it where the class
    merely goes up or down with the feature: there the value itself is the better score, its
    direction learned from the training folds.
    """
    from sklearn.tree import DecisionTreeClassifier

    k = int(y.max()) + 1
    tree_p, plain = np.zeros((len(y), k)), np.zeros((len(y), k))
    value = np.where(np.isnan(x[:, 0]), -np.inf, x[:, 0])
    order = rankdata(value)
    for train, test in folds:
        tree = DecisionTreeClassifier(
            max_leaf_nodes=_SINGLE_LEAVES,
            min_samples_leaf=_leaf(len(train)),
            random_state=seed,
        )
        tree.fit(x[train], y[train])
        tree_p[np.ix_(test, tree.classes_)] = tree.predict_proba(x[test])
        is_class = y[train, None] == np.arange(k)
        up = rank_auc(rankdata(value[train])[:, None], is_class) >= 0.5
        plain[test] = np.where(up, 1.0, -1.0) * order[test, None]
    return plain if _macro_auc(y, plain) > _macro_auc(y, tree_p) else tree_p


def _leaf(n: int) -> int:
    """Least records of a leaf when learning from `n`."""
    return max(1, min(_LEAF, int(n * _LEAF_SHARE)))


def _macro_auc(y: NDArray[np.intp], p: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Mean over classes of the AUC of each against the rest."""
    aucs = [weighted_auc(y == c, p[:, c], weights) for c in range(p.shape[1])]
    return np.asarray(np.mean(aucs, axis=0))


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
