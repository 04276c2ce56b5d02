"""Decision rules: exact Bayes where it applies, and the same answer however it is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pulmofuse.errors import ConfigError
from pulmofuse.fusion import RULES, fuse

seeds = st.integers(0, 2**32 - 1)
every_rule = pytest.mark.parametrize("rule", RULES)


def case(seed: int, n: int = 20) -> dict[str, Any]:
    """Random probabilities, subsets, priors and weights of one to four modalities."""
    rng = np.random.default_rng(seed)
    modalities, classes = rng.integers(1, 5), rng.integers(2, 5)
    return {
        "p": rng.dirichlet(np.ones(classes), (n, modalities)),
        "present": rng.random((n, modalities)) < 0.6,
        "prior": rng.dirichlet(np.ones(classes)),
        "modality_priors": rng.dirichlet(np.ones(classes) * 5, modalities),
        "weights": rng.random(modalities) + 0.1,
    }


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_log_odds_is_the_exact_posterior_of_independent_modalities(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes, modalities, symbols = 3, 3, 4
    prior = rng.dirichlet(np.ones(classes) * 3)
    # Each modality's data had a prior of its own: that is what p_m assumes.
    own_priors = rng.dirichlet(np.ones(classes) * 3, modalities)
    likelihood = rng.dirichlet(np.ones(symbols) * 2, (modalities, classes))
    likelihood = 0.98 * likelihood + 0.02 / symbols  # no probability reaches the clip
    seen = rng.integers(0, symbols, (30, modalities))
    present = rng.random((30, modalities)) < 0.7
    p_seen = likelihood[np.arange(modalities), :, seen]  # (n, modalities, classes)
    posterior = own_priors * p_seen
    posterior /= posterior.sum(axis=2, keepdims=True)
    assume(min(prior.min(), own_priors.min(), posterior.min()) > 1e-5)
    expected = prior * np.where(present[:, :, None], p_seen, 1.0).prod(axis=1)
    expected /= expected.sum(axis=1, keepdims=True)
    fused = fuse(
        "log_odds",
        posterior,
        present,
        prior=prior,
        modality_priors=own_priors,
        weights=np.ones(modalities),
    )
    np.testing.assert_allclose(fused, expected, atol=1e-10)


@every_rule
@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_rows_are_distributions(rule: str, seed: int) -> None:
    fused = fuse(rule, **case(seed))
    assert (fused >= 0).all()
    np.testing.assert_allclose(fused.sum(axis=1), 1.0, atol=1e-12)


@every_rule
@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_the_order_of_modalities_does_not_matter(rule: str, seed: int) -> None:
    given_ = case(seed)
    order = np.random.default_rng(seed).permutation(len(given_["weights"]))
    turned = fuse(
        rule,
        given_["p"][:, order],
        given_["present"][:, order],
        prior=given_["prior"],
        modality_priors=given_["modality_priors"][order],
        weights=given_["weights"][order],
    )
    np.testing.assert_allclose(turned, fuse(rule, **given_), atol=1e-12)


@every_rule
@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_absent_is_the_same_as_left_out(rule: str, seed: int) -> None:
    given_ = case(seed)
    given_["p"][~given_["present"]] = np.nan
    fused = fuse(rule, **given_)
    for row, subset in enumerate(given_["present"]):
        alone = fuse(
            rule,
            given_["p"][row : row + 1, subset],
            np.ones((1, subset.sum()), dtype=bool),
            prior=given_["prior"],
            modality_priors=given_["modality_priors"][subset],
            weights=given_["weights"][subset],
        )
        np.testing.assert_allclose(fused[row], alone[0], atol=1e-12)


@every_rule
def test_nothing_gives_the_prior(rule: str) -> None:
    given_ = case(3)
    given_["present"][:] = False
    expected = np.broadcast_to(given_["prior"], (20, len(given_["prior"])))
    np.testing.assert_allclose(fuse(rule, **given_), expected, atol=1e-12)


@pytest.mark.parametrize("rule", ["mean", "weighted_mean", "product"])
def test_means_and_products_of_one_modality_return_it(rule: str) -> None:
    given_ = case(4)
    given_["present"][:] = False
    given_["present"][:, 0] = True
    np.testing.assert_allclose(fuse(rule, **given_), given_["p"][:, 0], atol=1e-12)


P = np.array([[[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]])


@pytest.mark.parametrize(
    ("rule", "present", "weights", "expected"),
    [
        ("mean", [1, 1, 1], [5, 1, 1], 1.7 / 3),
        ("mean", [1, 0, 1], [5, 1, 1], 0.55),
        ("weighted_mean", [1, 1, 1], [2, 1, 1], 0.65),
        ("weighted_mean", [0, 1, 1], [2, 1, 3], 0.3),
        ("weighted_mean", [0, 1, 0], [2, 0, 3], 0.5),
        ("product", [1, 1, 1], [5, 1, 1], 3.375 / 4.375),
        ("product", [0, 1, 1], [5, 1, 1], 1.5 * 0.25 / (1 + 1.5 * 0.25)),
        ("vote", [1, 1, 1], [1, 1, 5], 2 / 3),
        ("vote", [1, 0, 1], [1, 1, 5], 0.5),
        ("vote", [0, 0, 1], [1, 1, 5], 0.0),
        # Odds multiply: 9 * 1.5 * 0.25 = 3.375.
        ("log_odds", [1, 1, 1], [1, 1, 1], 3.375 / 4.375),
        # sqrt(9) * 1.5 ** 0.5 = 3.674.
        ("log_odds", [1, 1, 0], [0.5, 0.5, 0.5], 3 * 1.5**0.5 / (1 + 3 * 1.5**0.5)),
    ],
)
def test_worked_examples(
    rule: str, present: list[int], weights: list[float], expected: float
) -> None:
    fused = fuse(
        rule,
        P,
        np.array([present], dtype=bool),
        prior=np.array([0.5, 0.5]),
        modality_priors=np.full((3, 2), 0.5),
        weights=np.array(weights, dtype=float),
    )
    assert fused[0, 0] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_kittlers_product_rule_is_log_odds_and_the_plain_product_counts_priors_again(
    seed: int,
) -> None:
    # Kittler et al. 1998, eq. 7: P(c)^-(R-1) * product of P(c | x_m); all assume one prior.
    given_ = case(seed)
    k, modalities = len(given_["prior"]), len(given_["weights"])
    given_["p"] = 0.99 * given_["p"] + 0.01 / k  # no probability reaches the clip
    given_["present"][:] = True
    given_["modality_priors"] = np.tile(given_["prior"], (modalities, 1))
    given_["weights"] = np.ones(modalities)
    kittler = given_["p"].prod(axis=1) * given_["prior"] ** (1.0 - modalities)
    kittler /= kittler.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fuse("log_odds", **given_), kittler, atol=1e-10)
    plain = given_["p"].prod(axis=1)
    np.testing.assert_allclose(
        fuse("product", **given_), plain / plain.sum(axis=1, keepdims=True), atol=1e-10
    )


def test_equally_probable_classes_share_a_vote() -> None:
    third = 1 / 3
    fused = fuse(
        "vote",
        np.array([[[0.4, 0.4 * (1 + 1e-12), 0.2], [third, third, third], [0.1, 0.2, 0.7]]]),
        np.ones((1, 3), dtype=bool),
        prior=np.full(3, third),
        modality_priors=np.full((3, 3), third),
        weights=np.array([0.0, 1.0, 2.0]),
    )
    np.testing.assert_allclose(fused[0], [5 / 18, 5 / 18, 8 / 18], atol=1e-12)


def test_log_odds_shifts_the_prior() -> None:
    # A model trained with half the patients ill says 0.8; one in ten is ill where it is used.
    fused = fuse(
        "log_odds",
        np.array([[[0.2, 0.8]]]),
        np.array([[True]]),
        prior=np.array([0.9, 0.1]),
        modality_priors=np.array([[0.5, 0.5]]),
        weights=np.ones(1),
    )
    assert fused[0, 1] == pytest.approx(0.8 * 0.1 / (0.8 * 0.1 + 0.2 * 0.9), abs=1e-12)


def test_certainty_is_clipped_not_infinite() -> None:
    fused = fuse(
        "log_odds",
        np.array([[[0.0, 1.0], [1.0, 0.0]]]),
        np.array([[True, True]]),
        prior=np.array([0.7, 0.3]),
        modality_priors=np.full((2, 2), 0.5),
        weights=np.ones(2),
    )
    np.testing.assert_allclose(fused, [[0.7, 0.3]], atol=1e-12)


def test_an_unknown_rule_lists_the_right_ones() -> None:
    with pytest.raises(ConfigError, match="mean, weighted_mean, product, vote, log_odds"):
        fuse("sum", **case(0))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("p", np.ones((20, 2))),
        ("prior", np.ones(9)),
        ("weights", np.ones(9)),
        ("modality_priors", np.ones((9, 9))),
        ("present", np.ones((3, 3), dtype=bool)),
    ],
)
def test_shapes_must_belong_together(key: str, value: np.ndarray) -> None:
    with pytest.raises(ValueError, match=key):
        fuse("mean", **{**case(0), key: value})


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.5])
def test_a_present_probability_must_be_one(bad: float) -> None:
    given_ = case(1)
    given_["present"][:] = True
    given_["p"][3, 0, 0] = bad
    with pytest.raises(ValueError, match="outside"):
        fuse("mean", **given_)


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_a_weight_must_not_be_negative(bad: float) -> None:
    given_ = case(1)
    given_["weights"][0] = bad
    with pytest.raises(ValueError, match="negative"):
        fuse("weighted_mean", **given_)
