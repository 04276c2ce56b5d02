"""Sets of classes: the partitions that labels support, and what a coarse probability says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulmofuse.errors import StudyError
from pulmofuse.labelsets import Partition, class_frequencies, common, set_name

ABCD = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), ("a", "b", "c", "d")),
        (("a", "d"), ("a", "b", "c", "d")),
        (("a|c",), ("a|c", "b", "d")),
        (("a|c", "a", "b"), ("a|c", "b", "d")),
        (("a|b", "c|d"), ("a|b", "c|d")),
        (("a|b", "b|d"), ("a|b|d", "c")),
        (("c|d", "a|b", "b|c"), ("a|b|c|d",)),
    ],
)
def test_the_finest_partition_that_keeps_every_label_in_one_part(
    names: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert Partition.of(names, ABCD).names == expected


def test_a_stranger_is_named() -> None:
    with pytest.raises(StudyError, match=r"'a\|x'"):
        Partition.of(["a|x"], ABCD)


def test_two_models_tell_apart_what_either_does() -> None:
    one, other = Partition.of(["a|b", "c|d"], ABCD), Partition.of(["b|c"], ABCD)
    assert Partition.meet([one, other]).is_fine
    assert Partition.meet([one, one]) == one


def test_a_name_is_found_in_its_part_or_in_none() -> None:
    partition = Partition.of(["a|b"], ABCD)
    assert partition.codes(["a", "b|a", "c", "b|c", "x", "nan"]).tolist() == [0, 0, 1, -1, -1, -1]


def test_names_are_in_class_order_and_meet() -> None:
    assert set_name(["c", "a"], ABCD) == "a|c"
    assert common(["a|b|c", "b|c", "c|b"]) == "b|c"
    assert common(["a|b", "b"]) == "b"
    assert common(["a|b", "c"]) is None


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_a_lifted_probability_sums_to_its_part_and_is_no_evidence_within_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    partition = Partition.of([["a|b"], ["a|b", "c|d"], ["a|d", "b|d"], []][seed % 4], ABCD)
    p = rng.dirichlet(np.ones(len(partition.parts)), 5)
    prior, of_parts = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(len(partition.parts)))
    lifted = partition.lift(p, prior)
    np.testing.assert_allclose(partition.collapse(lifted), p, atol=1e-12)
    evidence = lifted / partition.lift(of_parts, prior)
    np.testing.assert_allclose(
        evidence, (p / of_parts)[:, partition.codes(ABCD)], rtol=1e-9, atol=1e-12
    )


def test_a_fine_partition_changes_not_a_bit() -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(4), 5)
    fine = Partition.fine(ABCD)
    np.testing.assert_array_equal(fine.lift(p, np.full(4, 0.25)), p)
    np.testing.assert_array_equal(fine.collapse(p), p)


def test_a_set_counts_for_its_members_in_proportion() -> None:
    # With a pseudo-count each: a 2, b 4, c 1; three sets a|b are divided 1 to 2.
    found = class_frequencies(["a", "b", "b", "b", "a|b", "a|b", "a|b"], ("a", "b", "c"))
    np.testing.assert_allclose(found, np.array([3, 6, 1]) / 10, atol=1e-12)
