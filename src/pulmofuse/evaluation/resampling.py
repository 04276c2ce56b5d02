"""Bootstrap standard errors by patient, also where a row is made of several patients.

Ordinary rows belong to one patient each, and patients are drawn. A simulated patient joins a CT
patient, an X-ray patient and a cough patient who each recur in other rows. Its modalities' patients
are drawn separately, class by class (the mix of simulated classes is by design, not by chance), one
fewer than there are (Rao & Wu 1988, doi:10.1080/01621459.1988.10478591, so that few patients do
not look too certain). A row weighs the *mean* of its patients' counts. With f modalities the spread
of a figure under these weights, times f, is the sum of what each modality's patients contribute,
with the part that belongs to the row as such counted f times instead of once; a second draw, of the
rows, gives the part that is f - 1 times too much. This is the multiway cluster variance of
Cameron, Gelbach & Miller (2011, doi:10.1198/jbes.2010.07136), written as a bootstrap and therefore
at hand for any figure. Why not the product of the counts: docs/decisions/0014.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmofuse.statistics import FloatArray

#: Weights of rows: (n, replicates), so that the rows of a rank follow each other in memory.
#: Counts below 2^24 are exact in float32.
Weights = NDArray[np.float32]

#: Weights that a statistic of rows of weights is given at once; 4 million float64 are 32 MB.
_BLOCK = 4_000_000

#: Drawn at once: the counts of so many replicates stay in the processor's cache.
_REPLICATES = 64


@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap weights of n rows.

    Attributes:
        patients: (n, replicates), the mean over the row's patients of how often each was drawn.
        cells: (n, replicates) of the combinations of patients; None with one factor.
        factors: modalities drawn.
        correction: factor of the variance for the patients' small number.
        degrees: of freedom of a standard error, at least 1: patients of the modality with fewest,
            less the classes that they are drawn within (Cameron, Gelbach & Miller 2011 advise so).
    """

    patients: Weights
    cells: Weights | None
    factors: int
    correction: float
    degrees: int

    def of(self, statistic: Callable[[Weights], FloatArray]) -> Replicates:
        """The replicates of a statistic.

        Args:
            statistic: weights (n, replicates) -> (..., replicates); NaN where undefined.
        """
        cells = None if self.cells is None else statistic(self.cells)
        return Replicates(
            statistic(self.patients), cells, self.factors, self.correction, self.degrees
        )


@dataclass(frozen=True, eq=False)
class Replicates:
    """Values (..., replicates) of a figure under the weights of `Resamples`."""

    patients: FloatArray
    cells: FloatArray | None
    factors: int
    correction: float
    degrees: int

    def __sub__(self, other: Replicates) -> Replicates:
        """Replicates of the difference of two figures of the same resamples."""
        cells = None
        if self.cells is not None and other.cells is not None:
            cells = self.cells - other.cells
        return replace(self, patients=self.patients - other.patients, cells=cells)

    def __getitem__(self, key: int) -> Replicates:
        """Replicates of one of several figures."""
        cells = None if self.cells is None else self.cells[key]
        return replace(self, patients=self.patients[key], cells=cells)

    def map(self, figure: Callable[[FloatArray], FloatArray]) -> Replicates:
        """Replicates of a figure that is made of these, replicate by replicate."""
        cells = None if self.cells is None else figure(self.cells)
        return replace(self, patients=figure(self.patients), cells=cells)

    def standard_error(self) -> FloatArray:
        """Standard error of the figure, (...,); NaN where no two replicates are defined."""
        variance = _variance(self.patients)
        if self.cells is not None:
            of_rows = _variance(self.cells)
            # A row repeats no less than its own part, whatever two noisy figures say.
            variance = self.factors**2 * np.maximum(
                variance - (self.factors - 1) * of_rows, of_rows
            )
        error: FloatArray = np.sqrt(variance * self.correction)
        return error


def transposed(statistic: Callable[[FloatArray], FloatArray]) -> Callable[[Weights], FloatArray]:
    """A statistic of weights (replicates, n) -> (replicates,) as `Resamples.of` wants it."""

    def of(weights: Weights) -> FloatArray:
        step = max(1, _BLOCK // max(1, len(weights)))
        blocks = [weights[:, i : i + step].T for i in range(0, weights.shape[1], step)]
        return np.concatenate([statistic(block.astype(np.float64)) for block in blocks])

    return of


def resample(
    factors: Sequence[ArrayLike], y: ArrayLike | None, n_boot: int, seed: int
) -> Resamples:
    """Draw the patients of a table.

    Args:
        factors: one (n,) array of patients per modality behind a row; one array where a row is of
            one patient.
        y: None for real patients. For simulated ones the class (n,) within which each modality's
            patients are drawn; a patient of several classes is drawn among those of the same ones.
        n_boot: number of replicates.
        seed: of the draws. The same patients get the same draws whatever table they stand in.
    """
    names = [np.asarray(factor).astype(str) for factor in factors]
    if not names:
        raise ValueError("factors needs at least one array of patients")
    classes = None if y is None else np.asarray(y)
    joined = names[0]
    for more in names[1:]:
        joined = np.char.add(np.char.add(joined, "\n"), more)
    cells = _Key.of(joined, classes)
    # A modality whose patients stand in one row each contributes just what the rows take out.
    keys = [key for factor in names if (key := _Key.of(factor, classes)).degrees < cells.degrees]
    keys = keys or [cells]
    degrees, f = max(1, min(key.degrees for key in keys)), len(keys)
    drawn = [_counts(key, n_boot, seed) for key in keys]
    correction = (degrees + 1) / degrees if classes is None else 1.0
    if f == 1:
        return Resamples(drawn[0], None, 1, correction, degrees)
    patients = drawn[0].copy()
    for more_counts in drawn[1:]:
        patients += more_counts
    patients /= f
    # As gentle as the mean of f counts, so that both spreads are those of small changes.
    of_rows = _counts(cells, n_boot, seed) + np.float32(f - 1)
    of_rows /= f
    return Resamples(patients, of_rows, f, correction, degrees)


@dataclass(frozen=True)
class _Key:
    """Clusters of rows and strata of clusters as bytes, to look draws up by.

    `codes` (n,) is the cluster of each row; `strata` (clusters,) the stratum of each cluster, empty
    if clusters are drawn from all; `name` seeds the draws; `degrees`: clusters less strata.
    """

    codes: bytes
    strata: bytes
    name: int
    degrees: int

    @classmethod
    def of(cls, clusters: NDArray[np.str_], y: NDArray[np.integer] | None) -> _Key:
        names, codes = np.unique(clusters, return_inverse=True)
        strata = b""
        if y is not None:
            bits = np.zeros(len(names), dtype=np.int64)
            np.bitwise_or.at(bits, codes, 1 << y.astype(np.int64))
            strata = bits.tobytes()
        groups = len(np.unique(np.frombuffer(strata, dtype=np.int64))) if strata else 1
        name = zlib.crc32("\n".join(names).encode())
        return cls(codes.astype(np.int64).tobytes(), strata, name, len(names) - groups)


@lru_cache(maxsize=4)  # the modalities of a cohort and their rows: what a table needs at once
def _counts(key: _Key, n_boot: int, seed: int) -> Weights:
    """How often the cluster of each row is drawn, (n, n_boot); read-only, as tables share it.

    Without strata n of n clusters are drawn. Within a stratum n - 1 of n are, and a count stands
    for n / (n - 1); a stratum of one cluster keeps it.
    """
    codes = np.frombuffer(key.codes, dtype=np.int64)
    rng = np.random.default_rng([seed, key.name])
    size = int(codes.max()) + 1 if len(codes) else 0
    strata = np.frombuffer(key.strata, dtype=np.int64) if key.strata else np.zeros(size, np.int64)
    counts = np.empty((size, n_boot), dtype=np.float32)
    for stratum in np.unique(strata):
        at = np.flatnonzero(strata == stratum)
        n = len(at)
        draws = n - 1 if key.strata else n
        if draws == 0:
            counts[at] = 1
            continue
        for start in range(0, n_boot, _REPLICATES):
            step = min(_REPLICATES, n_boot - start)
            cells = rng.integers(n, size=(step, draws)) + n * np.arange(step)[:, None]
            drawn = np.bincount(cells.ravel(), minlength=step * n).reshape(step, n)
            counts[at, start : start + step] = drawn.T * (n / draws)
    weights: Weights = counts[codes]
    weights.flags.writeable = False
    return weights


def _variance(replicates: FloatArray) -> FloatArray:
    """Variance over the last axis of the replicates that are defined; NaN for fewer than two."""
    values = np.asarray(replicates, dtype=np.float64)
    defined = np.isfinite(values)
    n = defined.sum(axis=-1)
    clean = np.where(defined, values, 0.0)
    mean = clean.sum(axis=-1, keepdims=True) / np.maximum(n, 1)[..., None]
    squares = (np.where(defined, clean - mean, 0.0) ** 2).sum(axis=-1)
    out: FloatArray = np.where(n > 1, squares / np.maximum(n - 1, 1), np.nan)
    return out
