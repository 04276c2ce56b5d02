"""Batches for training and prediction, in an order that depends on nothing but seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from pulmofuse.preprocessing import to_tensor, to_volumes
from pulmofuse.training.sampling import draw_epoch, draw_weighted


class Targets(NamedTuple):
    """What is known of the rows of a batch.

    Attributes:
        y: (batch,) int64, class index.
        site: (batch,) int64, index of the site or channel it was recorded at, -1 if not known;
            None where no loss asks for it.
        findings: (batch, findings) float, 1 present, 0 absent, NaN where the data set does not
            say; None where no loss asks for it.
    """

    y: torch.Tensor
    site: torch.Tensor | None = None
    findings: torch.Tensor | None = None

    @classmethod
    def of(
        cls, y: np.ndarray, site: np.ndarray | None = None, findings: np.ndarray | None = None
    ) -> Targets:
        """From arrays of the same shapes."""
        return cls(
            torch.as_tensor(y, dtype=torch.long),
            None if site is None else torch.as_tensor(site, dtype=torch.long),
            None if findings is None else torch.as_tensor(findings, dtype=torch.float32),
        )

    def take(self, rows: torch.Tensor) -> Targets:
        """The same of some rows (n,), in their order."""
        site, findings = (None if part is None else part[rows] for part in self[1:])
        return Targets(self.y[rows], site, findings)


#: Positional inputs of a model, and what is known of each row.
Batch = tuple[tuple[object, ...], Targets]


class BatchSource(Protocol):
    """Anything that can hand out a batch by row numbers.

    Attributes:
        targets: what is known of all rows.
    """

    targets: Targets

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Inputs and classes of these rows."""
        ...


@runtime_checkable
class Weighted(Protocol):
    """A source whose rows are not to be drawn equally often.

    Attributes:
        weights: (rows,) how often each row is drawn, relative to the others.
        epoch_rows: rows of an epoch.
    """

    weights: np.ndarray
    epoch_rows: int


class InstanceSource(Dataset[Batch]):
    """Instances of a cache with the class of the record they belong to.

    Args:
        instances: (rows, ...) as cached, possibly memory-mapped.
        rows: (n,) row numbers to use.
        y: (n,) class index of each of them.
        site, findings: as in `Targets`, for all n.
    """

    def __init__(
        self,
        instances: np.ndarray,
        rows: np.ndarray,
        y: np.ndarray,
        *,
        site: np.ndarray | None = None,
        findings: np.ndarray | None = None,
    ) -> None:
        self.instances = instances
        self.rows = rows
        self.targets = Targets.of(y, site, findings)

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.rows)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Inputs `(batch, ...)` as models take them, and what is known of each row."""
        chosen = np.asarray(rows)
        known = self.targets.take(torch.as_tensor(chosen))
        return (to_tensor(self.instances[self.rows[chosen]]),), known


class BagSource(Dataset[Batch]):
    """Bags of instances, each with one class: the slices of a patient, the windows of a cough.

    Args:
        instances: (rows, ...) as cached, possibly memory-mapped.
        rows: (n,) row numbers to use, those of one bag next to each other.
        counts: (bags,) how many rows each bag has, at least one.
        y: (bags,) class index of each bag.
        site, findings: as in `Targets`, for all bags.
    """

    def __init__(
        self,
        instances: np.ndarray,
        rows: np.ndarray,
        counts: np.ndarray,
        y: np.ndarray,
        *,
        site: np.ndarray | None = None,
        findings: np.ndarray | None = None,
    ) -> None:
        self.targets = Targets.of(y, site, findings)
        self._instances = instances
        self._bags = np.split(rows, np.cumsum(counts)[:-1])

    @property
    def mean_size(self) -> float:
        """Instances of a bag, on average."""
        return sum(map(len, self._bags)) / len(self._bags)

    def __len__(self) -> int:
        """Number of bags."""
        return len(self._bags)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Inputs x (instances of these bags, ...) and counts (bags,), and what is known of each."""
        return self._read(rows), self.targets.take(torch.as_tensor(np.asarray(rows)))

    def _read(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = [self._bags[row] for row in rows]
        counts = torch.tensor([len(bag) for bag in chosen])
        return to_tensor(self._instances[np.concatenate(chosen)]), counts


class VolumeSource(BagSource):
    """Bags of slices as volumes.

    Args:
        instances, rows, counts, y, site, findings: as in `BagSource`.
        depth: slices of each volume.
    """

    def __init__(
        self,
        instances: np.ndarray,
        rows: np.ndarray,
        counts: np.ndarray,
        y: np.ndarray,
        *,
        depth: int,
        site: np.ndarray | None = None,
        findings: np.ndarray | None = None,
    ) -> None:
        super().__init__(instances, rows, counts, y, site=site, findings=findings)
        self._depth = depth

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Inputs `(bags, depth, height, width)`, and what is known of each bag."""
        volumes = to_volumes(*self._read(rows), self._depth)
        return (volumes,), self.targets.take(torch.as_tensor(np.asarray(rows)))


#: Batch normalisation cannot train on one row.
_LEAST_ROWS = 2


class EpochBatches(Sampler[list[int]]):
    """Random batches; they are a function of (seed, epoch), so that a resumed run repeats them.

    Where several processes train together, each gets its part of every batch. The last batch is
    dropped where it leaves a process a single row: batch normalisation cannot train on it.

    Args:
        n: rows to draw from, and rows of an epoch.
        batch_size: rows of a batch, in all processes together.
        seed: decides the draws together with the epoch.
        epoch: the first one that is asked for.
        cells: as in `draw_epoch`; None takes every row once.
        weights: as in `draw_weighted`, which then makes the draws; `n` are rows of an epoch only.
        rank, ranks: number of this process, of how many.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        epoch: int = 0,
        *,
        cells: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._n = n
        self._cells = cells
        self._weights = weights
        self._batch_size = batch_size
        self._seed = seed
        self._rank, self._ranks = rank, ranks
        # Lightning does not call `set_epoch` before the first epoch of a resumed run.
        self._epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Number of batches."""
        full, rest = divmod(self._n, self._batch_size)
        return full + (rest >= _LEAST_ROWS * self._ranks)

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of this epoch, as far as they are this process's."""
        rng = np.random.default_rng([self._seed, self._epoch])
        if self._weights is None:
            order = draw_epoch(self._n, self._cells, rng)
        else:
            order = draw_weighted(self._weights, self._n, rng)
        for start in range(0, len(self) * self._batch_size, self._batch_size):
            yield order[start : start + self._batch_size][self._rank :: self._ranks].tolist()


class OrderedBatches(Sampler[list[int]]):
    """Batches in row order, for validation and prediction."""

    def __init__(self, n: int, batch_size: int) -> None:
        self._n = n
        self._batch_size = batch_size

    def __len__(self) -> int:
        """Number of batches."""
        return (self._n + self._batch_size - 1) // self._batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """All batches."""
        for start in range(0, self._n, self._batch_size):
            yield list(range(start, min(start + self._batch_size, self._n)))


def loader(source: BatchSource, sampler: Sampler[list[int]]) -> DataLoader[Batch]:
    """A loader that asks `source` for whole batches.

    There are no worker processes: a batch is one read from a memory map, cheaper than sending it.
    """
    return DataLoader(source, sampler=sampler, batch_size=None)  # type: ignore[arg-type]
