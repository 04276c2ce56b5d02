"""How many true pairs would it take to show the gain of fusion that a study claims?

A true pair is a patient with every modality. The AUC of the fusion less that of the best modality
has, on the same patients, the variance of DeLong, DeLong & Clarke-Pearson 1988 ("Comparing the
areas under two or more correlated receiver operating characteristic curves"):

    variance(difference) = s_positive / n_positive + s_negative / n_negative

where s is the variance, over the patients of a class, of the difference of their components (the
share of the other class that a patient is ranked rightly against, by either model). s belongs to
the models and the population, not to the size of the study, so it is estimated from the study's own
test predictions and put in for any number of patients and any prevalence. N patients at prevalence
q show a gain g at the two-sided level alpha with some power if

    g >= (z_(1 - alpha / 2) + z_power) sqrt((s_positive / q + s_negative / (1 - q)) / N)

With Holm's correction over m comparisons the smallest p must be below alpha / m, so a gain that
must stand by itself needs that level.

Where patients are simulated, nothing is known of how alike the modalities err in one person. s is
then also given for assumed correlations of the two AUCs, at the same gain: `at_correlation`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pulmofuse.curation.sample_size import MIN_PATIENTS
from pulmofuse.evaluation.delong import components
from pulmofuse.statistics import ALPHA, POWER, FloatArray, power_quantiles


@dataclass(frozen=True)
class DifferenceVariance:
    """Variances of DeLong's components of two AUCs, and of their difference, per patient.

    Attributes:
        gain: AUC of the first model less that of the second.
        first, second: (among positives, among negatives) of each AUC alone.
        difference: (among positives, among negatives) of the difference.
    """

    gain: float
    first: tuple[float, float]
    second: tuple[float, float]
    difference: tuple[float, float]

    def of_one(self, prevalence: float) -> float:
        """Variance of the difference on one patient: that on N patients is this over N."""
        return _weighed(self.difference, prevalence)

    def correlation(self, prevalence: float) -> float:
        """Correlation of the two AUCs on the same patients, in [-1, 1]; NaN if one cannot vary."""
        first, second = _weighed(self.first, prevalence), _weighed(self.second, prevalence)
        both = math.sqrt(first * second)
        return (first + second - self.of_one(prevalence)) / 2 / both if both else math.nan

    def at_correlation(self, correlation: float) -> DifferenceVariance:
        """The same two AUCs and the same gain, if they were correlated like this in each class."""
        difference = tuple(
            max(a + b - 2 * correlation * math.sqrt(a * b), 0.0)
            for a, b in zip(self.first, self.second, strict=True)
        )
        return DifferenceVariance(
            self.gain, self.first, self.second, (difference[0], difference[1])
        )


def difference_variance(
    is_positive: ArrayLike, first: ArrayLike, second: ArrayLike
) -> DifferenceVariance:
    """Estimate the variance of the difference of two AUCs on the same patients.

    Args:
        is_positive: (n,) bool, two or more patients of either class.
        first: (n,) scores of one model; higher means more positive.
        second: (n,) scores of the other.

    Raises:
        ValueError: fewer than two patients of a class.
    """
    positive = np.asarray(is_positive, dtype=bool)
    if min(positive.sum(), (~positive).sum()) < 2:
        raise ValueError("a variance needs two patients of either class")
    parts = [components(positive, np.asarray(score)) for score in (first, second)]
    (up_a, down_a), (up_b, down_b) = parts

    def variance(values: FloatArray) -> float:
        return float(np.var(values, ddof=1))

    return DifferenceVariance(
        gain=float(up_a.mean() - up_b.mean()),
        first=(variance(up_a), variance(down_a)),
        second=(variance(up_b), variance(down_b)),
        difference=(variance(up_a - up_b), variance(down_a - down_b)),
    )


def pairs_needed(
    variance: DifferenceVariance,
    gain: float,
    prevalence: float,
    alpha: float = ALPHA,
    power: float = POWER,
) -> int:
    """Patients with all modalities that show a gain.

    Args:
        variance: of the two models.
        gain: AUC of the fusion less that of the best modality, > 0.
        prevalence: share of positives among the patients, in (0, 1).
        alpha: two-sided level, in (0, 1); divided by m for the first of Holm's m comparisons.
        power: chance to show the gain if it is there, in (0, 1).

    Returns:
        Their number, at least so many that `MIN_PATIENTS` are expected of either class: below that
        the normal distribution, on which all this stands, is none.
    """
    if not gain > 0 or not 0 < prevalence < 1:
        raise ValueError("a gain must be above 0, and a prevalence between 0 and 1")
    spread = sum(power_quantiles(alpha, power))
    enough = spread**2 * variance.of_one(prevalence) / gain**2
    return math.ceil(max(enough, MIN_PATIENTS / min(prevalence, 1 - prevalence)))


def smallest_gain(
    variance: DifferenceVariance,
    n_positive: int,
    n_negative: int,
    alpha: float = ALPHA,
    power: float = POWER,
) -> float:
    """Smallest AUC gain that so many patients with all modalities show; see `pairs_needed`."""
    n = n_positive + n_negative
    spread = sum(power_quantiles(alpha, power))
    return spread * math.sqrt(variance.of_one(n_positive / n) / n)


def _weighed(variances: tuple[float, float], prevalence: float) -> float:
    return variances[0] / prevalence + variances[1] / (1 - prevalence)
