"""DeLong against its definition, against published figures, and its intervals' coverage."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk

from pulmofuse.evaluation.delong import delong

#: The worked example of DeLong, DeLong & Clarke-Pearson (1988) as printed in the SAS/STAT User's
#: Guide, "Comparing Receiver Operating Characteristic Curves": albumin, total protein, K-G score,
#: outcome, of the 43 patients with all three tests. The event is outcome 0.
PUBLISHED = """
3.0 5.8 10 0  3.2 6.3  5 1  3.9 6.8  3 1  2.8 4.8  6 0  3.2 5.8  3 1  0.9 4.0  5 0  2.5 5.7  8 0
1.6 5.6  5 1  3.8 5.7  5 1  3.7 6.7  6 1  3.2 5.4  4 1  3.8 6.6  6 1  4.1 6.6  5 1  3.6 5.7  5 1
4.3 7.0  4 1  3.6 6.7  4 0  2.3 4.4  6 1  4.2 7.6  4 0  4.0 6.6  6 0  3.5 5.8  6 1  3.8 6.8  7 1
3.0 4.7  8 0  4.5 7.4  5 1  3.7 7.4  5 1  3.1 6.6  6 1  4.1 8.2  6 1  4.3 7.0  5 1  4.3 6.5  4 1
3.2 5.1  5 1  2.6 4.7  6 1  3.3 6.8  6 0  1.7 4.0  7 0  3.7 6.1  5 1  3.3 6.3  7 1  4.2 7.7  6 1
3.5 6.2  5 1  2.9 5.7  9 0  2.1 4.8  7 1  2.8 6.2  8 0  4.0 7.0  7 1  3.3 5.7  6 1  3.7 6.9  5 1
3.6 6.6  5 1
"""


def _components(positive, score):
    """Structural components by their definition: every pair."""
    up, down = score[positive][:, None], score[~positive][None, :]
    won = (up > down) + 0.5 * (up == down)
    return won.mean(axis=1), won.mean(axis=0)


def _brute_force(positive, scores):
    gained, lost = zip(*[_components(positive, score) for score in scores], strict=True)
    auc = np.array([g.mean() for g in gained])
    m, n = positive.sum(), (~positive).sum()
    return auc, np.atleast_2d(np.cov(gained) / m + np.cov(lost) / n)


def test_equals_the_definition_on_1000_random_cases_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        n, k = rng.integers(4, 30), rng.integers(1, 5)
        positive = np.r_[[True, True, False, False], rng.random(n - 4) < 0.5]
        levels = rng.choice([2, 4, 1000])
        scores = rng.integers(levels, size=(k, n)) / levels
        auc, covariance = _brute_force(positive, scores)
        found = delong(positive, scores)
        np.testing.assert_allclose(found.auc, auc, atol=1e-12)
        np.testing.assert_allclose(found.covariance, covariance, atol=1e-12)
        assert found.auc[0] == pytest.approx(sk.roc_auc_score(positive, scores[0]), abs=1e-12)


class TestPublished:
    """Figures to the four decimals that the manual prints."""

    columns = np.array(PUBLISHED.split(), dtype=float).reshape(43, 4).T
    # Lower albumin and protein, and a lower 10 - score, speak for the event as the manual has it.
    found = delong(columns[3] == 0, np.array([-columns[0], columns[2], -columns[1]]))

    def test_areas_and_standard_errors(self) -> None:
        areas = {"albumin": (0.7366, 0.0927), "kg": (0.7258, 0.1028), "protein": (0.6478, 0.1000)}
        for i, (auc, se) in enumerate(areas.values()):
            assert self.found.auc[i] == pytest.approx(auc, abs=5e-5)
            assert np.sqrt(self.found.covariance[i, i]) == pytest.approx(se, abs=5e-5)

    @pytest.mark.parametrize(
        ("model", "expected"),
        [(0, (0.0108, -0.1761, 0.1976, 0.9102)), (2, (-0.0780, -0.2830, 0.1271, 0.4561))],
    )
    def test_differences_from_the_kg_score(self, model: int, expected: tuple[float, ...]) -> None:
        assert self.found.difference(model, 1) == pytest.approx(expected, abs=1e-4)

    def test_of_all_three(self) -> None:
        chi2, degrees, p = self.found.test([[1, -1, 0], [0, -1, 1]])
        assert (chi2, degrees, p) == pytest.approx((2.5340, 2, 0.2817), abs=5e-5)


def test_the_test_does_not_depend_on_how_the_contrasts_are_written() -> None:
    rng = np.random.default_rng(1)
    found = delong(np.arange(40) % 2 == 0, rng.random((3, 40)))
    one = found.test([[1, -1, 0], [0, 1, -1]])
    other = found.test([[1, 0, -1], [1, -1, 0], [0, 1, -1]])
    assert one == pytest.approx(other)


def test_a_model_against_itself_and_perfect_ranks() -> None:
    positive = np.arange(20) >= 10
    found = delong(positive, [np.arange(20), np.arange(20) * 2.0])
    assert found.difference(0, 1) == (0.0, 0.0, 0.0, 1.0)
    assert found.interval(0) == (1.0, 1.0)


def test_without_two_of_each_class_there_is_no_variance() -> None:
    assert np.isnan(delong([True] * 3, [0.1, 0.2, 0.3]).auc).all()
    one = delong([True, False, False], [0.9, 0.2, 0.3])
    assert one.auc[0] == 1.0
    assert np.isnan(one.covariance).all()
    assert np.isnan(one.difference(0, 0)).tolist() == [False, True, True, True]


def test_p_values_are_uniform_where_two_models_are_equally_good() -> None:
    rng = np.random.default_rng(2)
    y = np.arange(120) % 2 == 0
    p = []
    for _ in range(1000):
        shared = rng.normal(size=120) + y
        p.append(delong(y, shared + 0.7 * rng.normal(size=(2, 120))).difference(0, 1)[3])
    # 1,000 studies: the standard error of a share of .05 is .007.
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07
