"""The patient bootstrap: against a plain loop, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest

from pulmofuse.evaluation import METRICS, cluster_weights, percentile_interval


def test_rows_of_one_patient_are_drawn_together_and_patients_sum_to_their_number() -> None:
    patients = np.array(["a", "b", "b", "c", "c", "c"])
    weights = cluster_weights([patients], 50, seed=1)
    assert weights.shape == (50, 6)
    assert (weights[:, 1] == weights[:, 2]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()


def test_crossed_factors_weigh_by_the_product_of_independent_draws() -> None:
    ct, cough = np.repeat(np.arange(20), 20), np.tile(np.arange(20), 20)
    weights = cluster_weights([ct, cough], 400, seed=2).reshape(400, 20, 20)
    # A product of two draws is a rank-one table in every replicate.
    rows, columns = weights.sum(axis=2) / 20, weights.sum(axis=1) / 20
    assert np.allclose(weights, rows[:, :, None] * columns[:, None, :])
    correlation = np.corrcoef(rows.ravel(), columns.ravel())[0, 1]
    assert abs(correlation) < 0.05


def test_the_seed_alone_decides() -> None:
    patients = np.array(["a", "b", "c", "d"] * 3)
    first, again = (cluster_weights([patients], 20, seed=4) for _ in range(2))
    assert (first == again).all()
    assert (first != cluster_weights([patients], 20, seed=5)).any()


def test_no_factor_is_refused() -> None:
    with pytest.raises(ValueError, match="factor"):
        cluster_weights([], 10, seed=0)


def test_interval_equals_that_of_a_plain_loop_over_resampled_patients() -> None:
    rng = np.random.default_rng(7)
    patients = np.repeat(np.arange(40), 3)
    y = np.repeat(rng.integers(2, size=40), 3)
    score = 1 / (1 + np.exp(-(y + np.repeat(rng.normal(size=40), 3))))
    p = np.c_[1 - score, score]
    predicted = p.argmax(axis=1)

    loop = []
    for _ in range(1500):
        drawn = rng.integers(40, size=40)
        rows = np.concatenate([np.flatnonzero(patients == patient) for patient in drawn])
        loop.append(float(METRICS["roc_auc"](y[rows], p[rows], predicted[rows], 1, None)))
    weights = cluster_weights([patients], 1500, seed=11)
    fast = METRICS["roc_auc"](y, p, predicted, 1, weights)
    # Two sets of 1,500 replicates: the tail quantiles differ by about 0.01.
    assert percentile_interval(fast) == pytest.approx(percentile_interval(loop), abs=0.03)
    assert np.std(fast) == pytest.approx(np.std(loop), rel=0.1)


@pytest.mark.parametrize(("crossed", "least", "most"), [(False, 0.88, 0.99), (True, 0.88, 1.0)])
def test_the_95_percent_interval_covers_the_true_mean(
    crossed: bool, least: float, most: float
) -> None:
    rng = np.random.default_rng(13)
    n_studies, hits = 200, 0
    for study in range(n_studies):
        if crossed:
            a, b = np.repeat(np.arange(25), 25), np.tile(np.arange(25), 25)
            values = rng.normal(size=25)[a] + rng.normal(size=25)[b] + rng.normal(size=625)
            factors = [a, b]
        else:
            a = np.repeat(np.arange(40), 4)
            values = rng.normal(size=40)[a] + 0.3 * rng.normal(size=160)
            factors = [a]
        weights = cluster_weights(factors, 300, seed=study)
        low, high = percentile_interval(weights @ values / weights.sum(axis=1))
        hits += low <= 0.0 <= high
    assert least <= hits / n_studies <= most


def test_by_record_resampling_would_be_far_too_narrow() -> None:
    rng = np.random.default_rng(17)
    patients = np.repeat(np.arange(30), 10)
    values = rng.normal(size=30)[patients]
    widths = []
    for cluster in (patients, np.arange(300)):
        weights = cluster_weights([cluster], 500, seed=3)
        low, high = percentile_interval(weights @ values / weights.sum(axis=1))
        widths.append(high - low)
    assert widths[0] > 2 * widths[1]


def test_undefined_replicates_are_left_out_of_the_interval() -> None:
    values = np.r_[np.linspace(0, 1, 101), [np.nan] * 40]
    assert percentile_interval(values, 0.9) == pytest.approx((0.05, 0.95))
    assert np.isnan(percentile_interval(np.full(5, np.nan))).all()
