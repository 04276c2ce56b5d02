"""A study claims one fusion, and which one does not depend on any figure."""

from __future__ import annotations

import itertools

import pytest

from pulmofuse.evaluation.claim import claimed


@pytest.mark.parametrize(
    ("fusions", "expected"),
    [
        ([], None),
        ([("ct", "unimodal"), ("ct", "log_odds")], None),
        ([("ct+cxr", "vote"), ("ct+cxr", "stacking")], None),
        ([("ct+cxr", "mean"), ("ct+cxr", "log_odds")], ("ct+cxr", "log_odds")),
        ([("ct+cxr", "log_odds"), ("ct+cxr+cough", "mean")], ("ct+cxr+cough", "mean")),
        ([("cxr+cough", "mean"), ("ct+cough", "mean")], ("ct+cough", "mean")),
    ],
)
def test_the_largest_subset_and_the_rule_named_first(
    fusions: list[tuple[str, str]], expected: tuple[str, str] | None
) -> None:
    for order in itertools.permutations(fusions):
        assert claimed(order) == expected
