"""How a fusion of unpaired data would do if the modalities did depend on each other.

Simulated patients are independent given the class, because a label is all that joined them. What
real patients would be like nobody knows, so the whole range is drawn: virtual patients are made of
the test patients' evidence, paired inside each class by a Gaussian copula of correlation rho over
the ranks of the evidence for the true class (`fusion.copula_ranks`). Every rho uses the same
patients equally often, so nothing changes along the curve but who stands with whom.

In two classes a weight common to all modalities changes no order, so both rules share their AUC;
what the weight mends is the calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.intervals import metric_interval
from pulmofuse.evaluation.metrics import IntArray, brier, roc_auc
from pulmofuse.evaluation.reliability import ece, log_loss
from pulmofuse.evaluation.resampling import Replicates
from pulmofuse.fusion import copula_ranks, discount, fuse, own_evidence
from pulmofuse.labelsets import Partition
from pulmofuse.statistics import FloatArray

#: Columns of the rows.
COLUMNS = (
    "subset", "rho", "weight_rule", "weight", "metric", "value", "low", "high", "best_modality",
    "best_value",
)  # fmt: skip

#: Correlations that are assumed.
RHOS = tuple(round(0.1 * i, 1) for i in range(10))

#: Rules of the weight: independence, and `fusion.discount`.
ONE, DEPENDENCE = "one", "dependence"

#: Virtual patients behind a value: by pairing alone an AUC of .8 then varies by .002.
_VIRTUAL = 20_000

#: Virtual patients per replicate for each test patient, and their bounds.
_PER_PATIENT, _LEAST, _MOST = 2, 300, 2000

#: Replicates of the patients: a standard error is then known to within 7 % of itself.
_REPLICATES = 100

METRICS = ("roc_auc", "brier", "ece", "log_loss")


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the models say of the test patients that have every modality of a subset.

    Attributes:
        p: (n, k, classes) calibrated probabilities.
        real: (n, k) names of the real patients behind them.
        y: (n,) codes of the parts of the question.
        prior: (classes,) of the fused population.
        modality_priors: (k, classes) that the probabilities assume.
        best: the modality (0 to k - 1) that did best on validation.
        question: the parts of the classes that the patients are held to, where their labels stand
            for sets of classes; None: the classes.
    """

    p: FloatArray
    real: NDArray[Any]
    y: IntArray
    prior: FloatArray
    modality_priors: FloatArray
    best: int
    question: Partition | None = None

    def asked(self, p: FloatArray) -> FloatArray:
        """Probabilities (..., classes) as those of the parts of the question."""
        return p if self.question is None else self.question.collapse(p)


def rho_curve(
    evidence: Evidence,
    subset: str,
    modalities: Sequence[str],
    positive: int | None,
    config: EvaluationConfig,
    seed: int,
    rhos: Sequence[float] = RHOS,
) -> list[dict[str, Any]]:
    """Figures of the log-odds rule against the assumed dependence, with w = 1 and with a discount.

    Args:
        evidence: of two modalities or more.
        subset: name of the subset.
        modalities: names of its k modalities, in the order of the evidence.
        positive: code of the positive part of two, or None.
        config: confidence of the intervals.
        seed: of the pairing and of the bootstrap.
        rhos: correlations in [0, 1].

    Returns:
        Rows with the keys `COLUMNS`. `metric` is one of `METRICS`; `weight` that of each modality's
        evidence. Intervals are those of simulated patients elsewhere (docs/decisions/0014), only
        that the patients drawn are paired anew, which here costs little; they hold nothing of how
        sure rho is. `best_value` is what the best
        modality (on validation) reaches alone, which is the same at every rho.
    """
    rng = np.random.default_rng(seed)
    pools = _pools(evidence)
    few = int(np.clip(_PER_PATIENT * len(evidence.y), _LEAST, _MOST))
    cohorts = _Pairing.of(evidence, _VIRTUAL, rng), _Pairing.of(evidence, few, rng)
    drawn = [_resampled(pools, rng) for _ in range(_REPLICATES)]
    k, several = len(modalities), positive is None or evidence.asked(evidence.prior).size > 2
    best = _figures(
        evidence,
        cohorts[0].y,
        _joined(pools, cohorts[0].ranks(0.0)),
        np.where(np.arange(k) == evidence.best, 1.0, 0.0),
        positive,
    )
    rows: list[dict[str, Any]] = []
    for rho in rhos:
        rules = {ONE: 1.0, DEPENDENCE: discount(k, rho)}
        weights = [np.full(k, weight) for weight in rules.values()]
        found = _lines(evidence, pools, drawn, cohorts, rho, weights, positive)
        for (rule, weight), (values, replicates) in zip(rules.items(), found, strict=True):
            errors = replicates.standard_error()
            for i, metric in enumerate(METRICS):
                value, error = float(values[i]), float(errors[i])
                low, high = metric_interval(
                    metric, value, error, config.confidence, replicates.degrees, several=several
                )
                rows.append(
                    {
                        "subset": subset, "rho": rho, "weight_rule": rule, "weight": weight,
                        "metric": metric, "value": value, "low": low, "high": high,
                        "best_modality": modalities[evidence.best], "best_value": float(best[i]),
                    }
                )  # fmt: skip
    return rows


#: By class, by modality: (patients, classes) probabilities, the most misleading patient first.
_Pools = list[list[FloatArray]]


def _pools(evidence: Evidence) -> _Pools:
    """Each real patient once, in the order of the evidence for the own class."""
    ranks = own_evidence(evidence.asked(evidence.p), evidence.y)
    out = []
    for c in np.unique(evidence.y):
        rows = np.flatnonzero(evidence.y == c)
        parts = []
        for j in range(evidence.p.shape[1]):
            _, first = np.unique(evidence.real[rows, j].astype(str), return_index=True)
            own = rows[first]
            parts.append(evidence.p[own[np.argsort(ranks[own, j], kind="stable")], j])
        out.append(parts)
    return out


def _resampled(pools: _Pools, rng: np.random.Generator) -> _Pools:
    """The patients of each class and modality, drawn with replacement, one fewer than there are."""
    return [
        [part[np.sort(rng.integers(len(part), size=max(1, len(part) - 1)))] for part in parts]
        for parts in pools
    ]


def _degrees(pools: _Pools) -> int:
    """Degrees of freedom: patients of the modality with fewest, less the classes; at least 1."""
    return max(1, min(sum(len(part) - 1 for part in parts) for parts in zip(*pools, strict=True)))


@dataclass(frozen=True, eq=False)
class _Pairing:
    """Draws behind the pairing of a virtual cohort: y (n,), and (n_c, 1 + k) for each class."""

    y: IntArray
    normal: list[NDArray[np.float64]]

    @classmethod
    def of(cls, evidence: Evidence, n: int, rng: np.random.Generator) -> _Pairing:
        """A cohort of about `n` in which classes are as frequent as in the evidence."""
        codes, counts = np.unique(evidence.y, return_counts=True)
        sizes = np.maximum(1, np.round(n * counts / counts.sum())).astype(np.intp)
        draws = [rng.standard_normal((size, 1 + evidence.p.shape[1])) for size in sizes]
        return cls(np.repeat(codes, sizes), draws)

    def ranks(self, rho: float) -> list[NDArray[np.intp]]:
        """Who stands with whom: ranks (n_c, k) for each class."""
        return [copula_ranks(normal, rho) for normal in self.normal]


def _lines(
    evidence: Evidence,
    pools: _Pools,
    drawn: Sequence[_Pools],
    cohorts: tuple[_Pairing, _Pairing],
    rho: float,
    weights: Sequence[FloatArray],
    positive: int | None,
) -> list[tuple[FloatArray, Replicates]]:
    """Of each weights: (metrics,) of the large cohort, (metrics, replicates) of drawn patients."""
    paired = [cohort.ranks(rho) for cohort in cohorts]

    def figures(pools: _Pools, i: int) -> FloatArray:
        p = _joined(pools, paired[i])
        return np.array([_figures(evidence, cohorts[i].y, p, w, positive) for w in weights])

    values = figures(pools, 0)
    found = np.array([figures(pool, 1) for pool in drawn])
    degrees = _degrees(pools)
    return [
        (values[i], Replicates(found[:, i].T, None, 1, 1.0, degrees)) for i in range(len(weights))
    ]


def _joined(pools: _Pools, ranks: Sequence[NDArray[np.intp]]) -> FloatArray:
    """Probabilities (n, k, classes) of virtual patients, class after class."""
    blocks = []
    for of_class, parts in zip(ranks, pools, strict=True):
        places = [of_class[:, j] * len(part) // len(of_class) for j, part in enumerate(parts)]
        blocks.append(np.stack([part[at] for part, at in zip(parts, places, strict=True)], axis=1))
    return np.concatenate(blocks)


def _figures(
    evidence: Evidence, y: IntArray, p: FloatArray, weights: FloatArray, positive: int | None
) -> FloatArray:
    """`METRICS` of the log-odds rule on virtual patients: (metrics,)."""
    fused = evidence.asked(
        fuse(
            "log_odds",
            p,
            np.broadcast_to(weights > 0, p.shape[:2]),
            prior=evidence.prior,
            modality_priors=evidence.modality_priors,
            weights=weights,
        )
    )
    values = (
        roc_auc(y, fused, None, positive),
        brier(y, fused, None, positive),
        ece(y, fused, None, positive),
        log_loss(y, fused),
    )
    return np.array([float(value) for value in values])
