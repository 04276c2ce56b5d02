"""What could be learnt from frozen features: a logistic regression on them (Alain & Bengio 2017).

A regression with an L2 penalty has no weight outside the space that its training records span
(the representer theorem, Kimeldorf & Wahba 1971), and neither penalty nor loss change when that
space is turned. Of 2,560 features and 200 records, 200 columns therefore give the same
probabilities, in a third of the time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pulmofuse.evaluation import roc_auc
from pulmofuse.schema import Split
from pulmofuse.statistics import FloatArray

#: Penalties that are tried, scikit-learn's C, from almost none of 2,560 features to all of them.
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_ITERATIONS = 500


def probe(
    features: np.ndarray, y: np.ndarray, splits: Mapping[Split, np.ndarray], positive: int | None
) -> FloatArray:
    """Learn the classes from the training records, and predict the test records.

    Args:
        features: (n, d).
        y: (n,) class codes from 0.
        splits: (n,) bool of each split; training and validation hold every class.
        positive: code of the positive class of two, or None for the macro mean.

    Returns:
        Probabilities (n_test, classes) with the penalty that reaches the best AUC on validation.
    """
    p = regression(features, y, splits[Split.TRAIN], splits[Split.VAL], positive)
    return np.asarray(p[splits[Split.TEST]])


def regression(
    features: np.ndarray, y: np.ndarray, train: np.ndarray, val: np.ndarray, positive: int | None
) -> FloatArray:
    """Learn the classes from the training records, and predict all records.

    Args:
        features: (n, d).
        y: (n,) class codes from 0; those of other records than `train` and `val` are not used.
        train: (n,) bool, learned from; holds every class.
        val: (n,) bool, where the penalty is chosen; holds every class.
        positive: code of the positive class of two, or None for the macro mean.

    Returns:
        Probabilities (n, classes) with the penalty that reaches the best AUC on validation.
    """
    from sklearn.linear_model import LogisticRegression

    turned = _turned(features, train)
    best, answer = -np.inf, np.empty(0)
    for penalty in _PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=_ITERATIONS, class_weight="balanced")
        p = np.asarray(model.fit(turned[train], y[train]).predict_proba(turned))
        auc = float(roc_auc(y[val], p[val], None, positive))
        if auc > best:
            best, answer = auc, p
    return answer


def _turned(features: np.ndarray, train: np.ndarray) -> FloatArray:
    """Standardised features in axes of the space that the training records span.

    Args:
        features: (n, d).
        train: (n,) bool, the m records that mean, deviation and axes are taken from.

    Returns:
        (n, min(m, d)).
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features[train].astype(np.float64))
    scaled = np.asarray(scaler.transform(features.astype(np.float64)))
    if train.sum() >= scaled.shape[1]:
        return scaled
    axes, _ = np.linalg.qr(scaled[train].T)
    return np.asarray(scaled @ axes)
