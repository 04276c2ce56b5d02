"""The fast replicates equal the metrics, row of weights by row of weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.evaluation import METRICS, log_loss
from pulmofuse.evaluation.replicates import (
    auc_replicates,
    log_loss_replicates,
    metric_replicates,
)


def _table(seed: int, n: int, k: int, levels: int):
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(k), rng.integers(k, size=n - k)]
    p = rng.integers(levels, size=(n, k)) / levels
    weights = rng.integers(0, 4, size=(n, 9))
    weights[:, 0] = y == 0  # a replicate of one class
    weights[:, 1] = 0
    return y, p, p.argmax(axis=1), weights


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(3, 400),
    k=st.sampled_from([2, 3]),
    levels=st.sampled_from([1, 3, 40, 10**6]),
    positive=st.sampled_from([None, 0, 1]),
    counts=st.booleans(),
)
def test_equal_every_metric(seed, n, k, levels, positive, counts) -> None:
    y, p, predicted, weights = _table(seed, n, k, levels)
    fast = metric_replicates(y, p, predicted, positive, weights.astype(np.float64))
    if counts:
        fast = metric_replicates(y, p, predicted, positive, weights.astype(np.float32))
    for row, (name, metric) in zip(fast, METRICS.items(), strict=True):
        plain = metric(y, p, predicted, positive, weights.T.astype(float))
        tolerance = 2e-6 if counts else 1e-12
        np.testing.assert_allclose(row, plain, atol=tolerance, err_msg=name)
    auc = auc_replicates(y, p, positive, weights.astype(np.float64))
    np.testing.assert_allclose(auc, fast[list(METRICS).index("roc_auc")], atol=2e-6)


def test_equals_the_log_loss() -> None:
    y, p, _, weights = _table(1, 300, 3, 40)
    weights[:, 1] = weights[:, 2]  # without the replicate of no weight
    plain = log_loss(y, p, weights.T.astype(float))
    np.testing.assert_allclose(log_loss_replicates(y, p, weights.astype(float)), plain, rtol=1e-12)


def test_counts_in_single_precision_give_the_exact_auc() -> None:
    y, p, predicted, weights = _table(0, 5000, 2, 300)
    fast = metric_replicates(y, p, predicted, 1, weights.astype(np.float32))
    auc = METRICS["roc_auc"](y, p, predicted, 1, weights.T.astype(float))
    np.testing.assert_allclose(fast[list(METRICS).index("roc_auc")], auc, atol=1e-14)


@pytest.mark.parametrize("n", [0, 1])
def test_of_nothing_is_undefined(n: int) -> None:
    empty = metric_replicates(
        np.zeros(n, int), np.zeros((n, 2)), np.zeros(n, int), 1, np.ones((n, 3), np.float32)
    )
    auc = empty[list(METRICS).index("roc_auc")]
    assert auc.shape == (3,)
    assert np.isnan(auc).all()
