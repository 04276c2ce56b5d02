"""How often 95 % intervals cover the truth, over simulated studies of a known truth.

    python benchmarks/interval_coverage.py [--studies 500] [--more 2000] [--seed 1]

Scores are binormal: a modality's are N(0, 1) in the well and N(d, 1) in the ill, given the class
independent of the other modalities'. The fusion adds log-likelihood ratios, so that its AUC in the
population is known: Phi(sqrt(sum d^2 / 2)). Simulated patients are joined as
`fusion.simulated_patients` joins them: within a class, whole permutations of each modality's
patients, as many rows as the modality with most patients has.

Ways of making an interval:

    ours         `evaluation.resampling` and the intervals made of it, as in metrics.json
    additive     the same without taking out what the rows are counted too often
    pigeonhole   percentiles under products of the modalities' counts (Owen 2007)
    rows         percentiles, simulated patients drawn as if they were people
    percentile   percentiles, patients drawn (one modality only)
    rejoin       percentiles of the patients drawn anew and joined anew

Writes results/interval_coverage.json, or with another seed than 1 results/
interval_coverage_seed_<seed>.json: the studies of seed 1 were looked at while the intervals were
made, and what they say of them has to be repeated on others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import machine
import numpy as np
from scipy.stats import norm

from pulmofuse.evaluation.intervals import difference_interval, logit_interval
from pulmofuse.evaluation.metrics import METRICS
from pulmofuse.evaluation.replicates import metric_replicates
from pulmofuse.evaluation.resampling import Replicates, resample
from pulmofuse.statistics import FloatArray, cluster_counts, percentile_interval, weighted_auc

AUC, ACCURACY = list(METRICS).index("roc_auc"), list(METRICS).index("accuracy")
Interval = tuple[float, float]


@dataclass(frozen=True)
class Scenario:
    """`patients`: (well, ill) of each modality; `d`: how far the ill lie from the well."""

    patients: tuple[tuple[int, int], ...]
    d: tuple[float, ...]


#: Of the studies that were seen while the intervals were made.
_SEEN = 1

#: Simulated patients: uneven, very uneven (another modality leads in each class), equal, two.
SIMULATED = {
    "three, uneven": Scenario(((100, 100), (60, 50), (40, 30)), (1.0, 0.8, 1.2)),
    "three, very uneven": Scenario(((101, 98), (300, 60), (60, 25)), (1.5, 1.2, 0.5)),
    "three, equal": Scenario(((50, 50), (50, 50), (50, 50)), (1.0, 1.0, 1.0)),
    "three, large": Scenario(((400, 300), (200, 250), (120, 100)), (1.2, 1.0, 0.4)),
    "two": Scenario(((40, 40), (120, 120)), (1.0, 0.5)),
}

#: Real patients: number, shift, most records of one.
ORDINARY = {
    "120 patients": (120, 1.3, 1),
    "300 patients": (300, 1.0, 1),
    "80 patients, 1 to 6 records": (80, 1.2, 6),
}


@dataclass(frozen=True)
class Study:
    """Class (n,), log-likelihood ratios (modalities, n) and patients (modalities, n) of rows."""

    y: np.ndarray
    scores: np.ndarray
    patients: np.ndarray


def draw(scenario: Scenario, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Log-likelihood ratios of each modality's patients by class, [class][modality]."""
    return [
        [
            d * (rng.normal(size=counts[c]) + d * c) - d**2 / 2
            for counts, d in zip(scenario.patients, scenario.d, strict=True)
        ]
        for c in (0, 1)
    ]


def join(people: list[list[np.ndarray]], rng: np.random.Generator) -> Study:
    """Simulated patients of real ones."""
    y, scores, patients = [], [], []
    for c, of_class in enumerate(people):
        n = max(len(score) for score in of_class)
        chosen = []
        for score in of_class:
            rounds = -(-n // len(score))
            chosen.append(np.concatenate([rng.permutation(len(score)) for _ in range(rounds)])[:n])
        y.append(np.full(n, c))
        scores.append([score[at] for score, at in zip(of_class, chosen, strict=True)])
        patients.append([at + 10_000 * c for at in chosen])
    return Study(np.concatenate(y), np.concatenate(scores, 1), np.concatenate(patients, 1))


def figures(y: np.ndarray, log_ratio: np.ndarray) -> Callable[[np.ndarray], FloatArray]:
    """All metrics under weights (n, replicates)."""
    p = 0.5 * (1 + np.tanh(log_ratio / 2))
    table = np.c_[1 - p, p]
    called = (log_ratio >= 0).astype(int)
    return lambda weights: metric_replicates(y, table, called, 1, weights)


def simulated_study(
    scenario: Scenario, n_boot: int, rng: np.random.Generator, *, others: bool, rejoin: bool
) -> dict[tuple[str, str], Interval]:
    """Intervals {(figure, way)} of one study of simulated patients; `others`: not ours alone."""
    people = draw(scenario, rng)
    study = join(people, rng)
    best = int(np.argmax(scenario.d))
    fusion, single = figures(study.y, study.scores.sum(0)), figures(study.y, study.scores[best])
    one = np.ones((len(study.y), 1))
    value, alone = fusion(one)[:, 0], single(one)[:, 0]
    seed = int(rng.integers(2**31))
    every = resample(list(study.patients), study.y, n_boot, seed)
    of_one = resample([study.patients[best]], study.y, n_boot, seed)
    fused, reference = every.of(fusion), every.of(single)
    gain = value[AUC] - alone[AUC]
    out = {
        ("single auc", "ours"): logit(alone, of_one.of(single), AUC),
        ("fusion auc", "ours"): logit(value, fused, AUC),
        ("fusion accuracy", "ours"): logit(value, fused, ACCURACY),
        ("gain", "ours"): normal(gain, fused - reference),
        ("fusion auc", "additive"): logit(value, uncorrected(fused), AUC),
        ("gain", "additive"): normal(gain, uncorrected(fused - reference)),
    }
    if not others:
        return {key: interval for key, interval in out.items() if key[1] == "ours"}
    crossed = products(list(study.patients), n_boot, seed)
    rows = products([np.arange(len(study.y))], n_boot, seed)
    for way, weights in (("pigeonhole", crossed), ("rows", rows)):
        found, other = fusion(weights.T)[AUC], single(weights.T)[AUC]
        out["fusion auc", way] = percentile_interval(found)
        out["gain", way] = percentile_interval(found - other)
    alone_weights = products([study.patients[best]], n_boot, seed)
    out["single auc", "percentile"] = percentile_interval(single(alone_weights.T)[AUC])
    if rejoin:
        again = [rejoined(people, best, rng) for _ in range(n_boot)]
        out["fusion auc", "rejoin"] = percentile_interval([auc for auc, _ in again])
        out["gain", "rejoin"] = percentile_interval([auc - other for auc, other in again])
    return out


def products(patients: list[np.ndarray], n_boot: int, seed: int) -> FloatArray:
    """Weights (replicates, n): the product of how often each of a row's patients was drawn."""
    rng = np.random.default_rng(seed)
    return np.prod([cluster_counts(names, n_boot, rng) for names in patients], axis=0)


def rejoined(
    people: list[list[np.ndarray]], best: int, rng: np.random.Generator
) -> tuple[float, float]:
    """AUC of the fusion and of the best modality after drawing and joining anew."""
    drawn = [[rng.choice(score, len(score)) for score in of_class] for of_class in people]
    study = join(drawn, rng)
    ill = study.y == 1
    fused, alone = study.scores.sum(0), study.scores[best]
    return float(weighted_auc(ill, fused)), float(weighted_auc(ill, alone))


def ordinary_study(
    n: int, d: float, most: int, n_boot: int, rng: np.random.Generator
) -> dict[tuple[str, str], Interval]:
    """Intervals of one study of real patients, 45 % of them ill, with 1 to `most` records each."""
    ill = (rng.random(n) < 0.45).astype(int)
    patients = np.repeat(np.arange(n), rng.integers(1, most + 1, size=n))
    shared = 0.6 if most > 1 else 0.0
    noise = np.sqrt(shared) * rng.normal(size=n)[patients]
    noise += np.sqrt(1 - shared) * rng.normal(size=len(patients))
    y = ill[patients]
    of = figures(y, d * (noise + d * y) - d**2 / 2)
    value = of(np.ones((len(y), 1)))[:, 0]
    seed = int(rng.integers(2**31))
    drawn = resample([patients], None, n_boot, seed).of(of)
    out: dict[tuple[str, str], Interval] = {}
    for name, at in (("auc", AUC), ("accuracy", ACCURACY)):
        out[name, "ours"] = logit(value, drawn, at)
        out[name, "percentile"] = percentile_interval(drawn.patients[at])
    return out


def logit(values: FloatArray, drawn: Replicates, at: int) -> Interval:
    """Our interval of one metric."""
    return logit_interval(
        float(values[at]), float(drawn[at].standard_error()), degrees=drawn.degrees
    )


def normal(gain: float, drawn: Replicates) -> Interval:
    """Our interval of a difference of AUCs."""
    return difference_interval(
        float(gain), float(drawn[AUC].standard_error()), degrees=drawn.degrees
    )


def uncorrected(drawn: Replicates) -> Replicates:
    """Replicates that count a row once per modality."""
    return replace(drawn, cells=None, correction=drawn.factors**2)


def truths(scenario: Scenario) -> dict[str, float]:
    """Figures of the population."""
    total, best = float(np.sqrt(np.square(scenario.d).sum())), max(scenario.d)
    single, fusion = norm.cdf(best / np.sqrt(2)), norm.cdf(total / np.sqrt(2))
    return {
        "single auc": float(single),
        "fusion auc": float(fusion),
        "fusion accuracy": float(norm.cdf(total / 2)),
        "gain": float(fusion - single),
    }


def cover(
    one: Callable[[np.random.Generator], dict[tuple[str, str], Interval]],
    truth: dict[str, float],
    studies: int,
    seed: int,
) -> list[dict[str, object]]:
    """Share of studies whose interval holds the truth, by figure and way.

    Args:
        one: a study's intervals from a random generator.
        truth: of each figure.
        studies: how many.
        seed: of all of them.

    Returns:
        `{figure, way, truth, coverage, truth_below, truth_above, width}`: shares of studies whose
        interval held the truth, lay above it, lay below it; mean width.
    """
    found: dict[tuple[str, str], list[Interval]] = {}
    for child in np.random.SeedSequence(seed).spawn(studies):
        for key, interval in one(np.random.default_rng(child)).items():
            found.setdefault(key, []).append(interval)
    rows: list[dict[str, object]] = []
    for (figure, way), intervals in found.items():
        low, high = np.array(intervals).T
        below, above = truth[figure] < low, truth[figure] > high
        rows.append(
            {
                "figure": figure,
                "way": way,
                "truth": round(truth[figure], 4),
                "coverage": round(float(1 - below.mean() - above.mean()), 4),
                "truth_below": round(float(below.mean()), 4),
                "truth_above": round(float(above.mean()), 4),
                "width": round(float((high - low).mean()), 4),
            }
        )
    return rows


def main() -> None:
    """Run all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=500, help="with all ways")
    parser.add_argument("--more", type=int, default=2000, help="other studies, with ours alone")
    parser.add_argument("--seed", type=int, default=_SEEN, help="decides which studies")
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--rejoin", action="store_true", help="measure `rejoin` too (slow)")
    arguments = parser.parse_args()
    facts, n_boot = machine.facts(), arguments.replicates
    options = [f"--{k} {v}" for k, v in vars(arguments).items() if k != "rejoin"]
    results: dict[str, object] = {"replicates": n_boot}
    for key, studies, seed, others in (
        ("all_ways", arguments.studies, arguments.seed, True),
        ("ours_in_other_studies", arguments.more, arguments.seed + 2, False),
    ):
        if not studies:
            continue
        started = time.process_time()
        rejoin = others and arguments.rejoin
        rows = everything(studies, n_boot, seed, others=others, rejoin=rejoin)
        results[key] = {
            "studies": studies,
            "standard_error_of_a_coverage_of_95_percent": round(np.sqrt(0.95 * 0.05 / studies), 4),
            "cpu_s": round(time.process_time() - started, 1),
            "coverage": rows,
        }
    command = " ".join(["python benchmarks/interval_coverage.py", *options])
    name = "interval_coverage"
    if arguments.seed != _SEEN:
        name += f"_seed_{arguments.seed}"
    machine.write(name, command, results, facts)


def everything(
    studies: int, n_boot: int, seed: int, *, others: bool, rejoin: bool
) -> list[dict[str, object]]:
    """Coverage in every scenario; without `others`, of our intervals alone."""
    rows: list[dict[str, object]] = []
    for name, scenario in SIMULATED.items():

        def one(
            rng: np.random.Generator, s: Scenario = scenario
        ) -> dict[tuple[str, str], Interval]:
            return simulated_study(s, n_boot, rng, others=others, rejoin=rejoin)

        found = cover(one, truths(scenario), studies, seed)
        rows += [{"patients": "simulated", "scenario": name, **row} for row in found]
        print(name, flush=True)
    for name, (n, d, most) in ORDINARY.items():
        truth = {"auc": float(norm.cdf(d / np.sqrt(2))), "accuracy": float(norm.cdf(d / 2))}
        found = cover(partial(ordinary_study, n, d, most, n_boot), truth, studies, seed + 1)
        kept = [row for row in found if others or row["way"] == "ours"]
        rows += [{"patients": "real", "scenario": name, **row} for row in kept]
    return rows


if __name__ == "__main__":
    main()
