"""Balanced sampling: every cell has its share, an epoch its size, and chance its seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.errors import StudyError
from pulmofuse.training.data import EpochBatches
from pulmofuse.training.sampling import balanced_cells, draw_epoch

# Sites of unequal mixture: class 1 is common at site 1 and rare at site 0.
Y = np.repeat([0, 1, 0, 1], [60, 5, 10, 45])
SITE = np.repeat([0, 0, 1, 1], [60, 5, 10, 45])


def drawn(sampling: str, epoch: int = 0) -> np.ndarray:
    cells = balanced_cells(sampling, Y, SITE)  # type: ignore[arg-type]
    return np.concatenate(list(EpochBatches(len(Y), 16, 7, epoch, cells=cells)))


def test_shuffled_takes_every_row_once() -> None:
    assert sorted(drawn("shuffled")) == list(range(120))


def test_balanced_draws_as_many_rows_of_every_class() -> None:
    rows = drawn("balanced")
    assert np.bincount(Y[rows]).tolist() == [60, 60]
    # Class 0 has 70 rows for 60 places: none is taken twice.
    assert np.bincount(rows, minlength=120)[Y == 0].max() == 1


def test_with_balanced_sites_the_site_says_nothing_about_the_class() -> None:
    rows = drawn("balanced_sites")
    table = np.zeros((2, 2), int)
    np.add.at(table, (Y[rows], SITE[rows]), 1)
    assert table.tolist() == [[30, 30], [30, 30]]


def test_an_epoch_depends_on_seed_and_epoch_only() -> None:
    assert drawn("balanced", 3).tolist() == drawn("balanced", 3).tolist()
    assert drawn("balanced", 3).tolist() != drawn("balanced", 4).tolist()


@settings(max_examples=60, deadline=None)
@given(cells=st.lists(st.integers(0, 4), min_size=5, max_size=60), seed=st.integers(0, 1000))
def test_shares_are_equal_but_for_one_row_and_no_row_waits_for_another(
    cells: list[int], seed: int
) -> None:
    numbered = np.unique(cells, return_inverse=True)[1]
    rows = draw_epoch(len(cells), numbered, np.random.default_rng(seed))
    shares = np.bincount(numbered[rows], minlength=numbered.max() + 1)
    assert len(rows) == len(cells)
    assert shares.max() - shares.min() <= 1
    times = np.bincount(rows, minlength=len(cells))
    for cell in range(numbered.max() + 1):
        assert np.ptp(times[numbered == cell]) <= 1


def test_which_cell_gets_the_odd_row_is_left_to_chance() -> None:
    cells = np.array([0] * 6 + [1] * 5)
    first = [
        np.bincount(cells[draw_epoch(11, cells, np.random.default_rng(i))])[0] for i in range(200)
    ]
    assert np.mean(first) == pytest.approx(5.5, abs=0.15)


def test_sites_that_nobody_knows_are_an_error() -> None:
    with pytest.raises(StudyError, match="have no sites"):
        balanced_cells("balanced_sites", Y, None)


@pytest.mark.parametrize("cells", [None, Y])
def test_processes_share_every_batch_of_one(cells: np.ndarray | None) -> None:
    whole = list(EpochBatches(120, 15, 3, cells=cells))
    parts = [list(EpochBatches(120, 15, 3, cells=cells, rank=r, ranks=2)) for r in range(2)]
    assert len(parts[0]) == len(parts[1]) == len(whole)
    for batch, first, second in zip(whole, *parts, strict=True):
        assert sorted(first + second) == sorted(batch)
        assert (len(first), len(second)) == (8, 7)


def test_a_last_batch_that_leaves_a_process_one_row_is_left_out() -> None:
    assert len(EpochBatches(19, 16, 1)) == 2
    assert len(EpochBatches(19, 16, 1, ranks=2)) == 1
    assert len(EpochBatches(20, 16, 1, ranks=2)) == 2
