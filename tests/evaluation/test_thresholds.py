"""Operating points that promise something, and the steadier Youden threshold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from pulmofuse.evaluation import (
    bagged_youden_threshold,
    sensitivity_threshold,
    specificity_threshold,
    youden_threshold,
)


def _validation(n: int, seed: int, distance: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """(y, p) of binormal scores, 40 % positive; P(score > logit t) is known."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) < 0.4 * n
    return y, 1 / (1 + np.exp(-(rng.normal(size=n) + distance * y)))


def _logit(threshold: np.ndarray) -> np.ndarray:
    inside = np.clip(threshold, 1e-9, 1 - 1e-9)
    return np.log(inside / (1 - inside))


def test_sensitivity_is_kept_on_average_and_with_confidence() -> None:
    rows = [_validation(200, seed) for seed in range(300)]
    mean = _logit(np.array([sensitivity_threshold(y, p, 0.9) for y, p in rows]))
    true = norm.sf(mean - 1.5)
    assert 0.9 - 0.005 < true.mean() < 0.9 + 1 / 80
    sure = _logit(np.array([sensitivity_threshold(y, p, 0.9, 0.95) for y, p in rows]))
    assert 0.92 < (norm.sf(sure - 1.5) >= 0.9).mean() < 0.99


def test_specificity_is_kept_on_average_and_with_confidence() -> None:
    rows = [_validation(200, seed) for seed in range(300)]
    mean = _logit(np.array([specificity_threshold(y, p, 0.9) for y, p in rows]))
    assert 0.9 - 0.005 < norm.cdf(mean).mean() < 0.9 + 1 / 120 + 0.005
    sure = _logit(np.array([specificity_threshold(y, p, 0.9, 0.95) for y, p in rows]))
    assert 0.92 < (norm.cdf(sure) >= 0.9).mean() < 0.99


@pytest.mark.parametrize(
    ("n", "confidence", "possible"),
    [(18, None, False), (19, None, True), (58, 0.95, False), (59, 0.95, True)],
)
def test_too_few_positives_call_everybody_positive(
    n: int, confidence: float | None, possible: bool
) -> None:
    p = np.linspace(0.3, 0.9, n)
    y = np.ones(n, dtype=bool)
    assert (sensitivity_threshold(np.r_[y, False], np.r_[p, 0.1], 0.95, confidence) > 0) == possible
    threshold = specificity_threshold(np.r_[~y, True], np.r_[p, 0.95], 0.95, confidence)
    assert (threshold <= 1) == possible
    assert possible or not (np.array([1.0]) >= threshold).any()


def test_thresholds_by_hand() -> None:
    y = np.array([0, 0, 0, 1, 1, 1])
    p = np.array([0.1, 0.2, 0.45, 0.3, 0.6, 0.8])
    # (3 + 1) .5 = 2: the second lowest positive, .6, half-way to .45.
    assert sensitivity_threshold(y, p, 0.5) == pytest.approx(0.525)
    # The second highest negative, .2, half-way to .3.
    assert specificity_threshold(y, p, 0.5) == pytest.approx(0.25)


def test_bagging_finds_a_better_operating_point_on_small_samples() -> None:
    plain, bagged = [], []
    for seed in range(60):
        y, p = _validation(60, seed)
        plain.append(youden_threshold(y, p))
        bagged.append(bagged_youden_threshold(y, p, np.random.default_rng(0)))

    def lost(thresholds: list[float]) -> float:
        at = _logit(np.array(thresholds))
        best = 2 * norm.cdf(0.75) - 1
        return float(best - (norm.sf(at - 1.5) + norm.cdf(at) - 1).mean())

    assert lost(bagged) < 0.7 * lost(plain)


@pytest.mark.parametrize(("y", "p"), [([1, 1], [0.2, 0.9]), ([0, 1], [0.3, 0.3]), ([], [])])
def test_bagging_of_rows_that_cannot_say(y: list[int], p: list[float]) -> None:
    assert bagged_youden_threshold(y, p, np.random.default_rng(0)) == 0.5
