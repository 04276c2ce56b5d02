"""Simulations behind docs/calibration.md: kinds of map, operating points, prediction sets.

    python benchmarks/calibration.py [kinds] [youden] [conformal] [fused] [--seeds 100]

Every figure is an average over simulated validation sets of what is known exactly or on 20,000 new
rows. Nothing here needs data; one core takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from pulmofuse.evaluation import (
    bagged_youden_threshold,
    conformal_sets,
    ece,
    fit_calibration,
    fit_conformal,
    log_loss,
    youden_threshold,
)
from pulmofuse.evaluation.calibration import KINDS

RESULTS = Path(__file__).parent / "results" / "calibration.json"
SIZES = (50, 100, 200, 500)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _two(score: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - score, score])


#: What a model makes of the true logit; the last two are out of reach of a temperature and a bias.
DISTORTIONS = {
    "right": lambda z: z,
    "too sure (x 2.5)": lambda z: 2.5 * z,
    "too sure and shifted": lambda z: 2.5 * z + 1.5,
    "one end too sure": lambda z: np.where(z > 0, 4 * z, z),
    "plateau": lambda z: np.sign(z) * np.minimum(np.abs(z) * 0.2, 0.2) + np.maximum(z - 1.5, 0) * 2,
}


def _logits(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(logit of the true posterior, y): two normal classes, AUC .856, 40 % positive."""
    y = (rng.random(n) < 0.4).astype(int)
    x = rng.normal(size=n) + 1.5 * (y - 0.5)
    return 1.5 * x + np.log(0.4 / 0.6), y


def kinds(seeds: int) -> Iterator[dict[str, Any]]:
    """Log loss on new rows less that of the true posterior, per kind; and ECE before and after."""
    for name, distort in DISTORTIONS.items():
        z, truth = _logits(np.random.default_rng(10**6), 20_000)
        new, floor = _two(_sigmoid(distort(z))), log_loss(truth, _two(_sigmoid(z)))
        for n in SIZES:
            rows = []
            for seed in range(seeds):
                z, y = _logits(np.random.default_rng(seed), n)
                p = _two(_sigmoid(distort(z)))
                row = {"none": new}
                for kind in KINDS:
                    row[kind] = fit_calibration(p, y, kind=kind).apply(new)
                row["auto"] = fit_calibration(p, y, kind=KINDS).apply(new)
                rows.append(
                    [log_loss(truth, q) - floor for q in row.values()]
                    + [float(ece(truth, row[k], None, 1)) for k in ("none", "vector", "auto")]
                )
            mean = np.mean(rows, axis=0).round(4).tolist()
            names = ["none", *KINDS, "auto", "ece_none", "ece_vector", "ece_auto"]
            yield {"truth": name, "n_val": n, **dict(zip(names, mean, strict=True))}


def youden(seeds: int) -> Iterator[dict[str, Any]]:
    """True sensitivity + specificity lost against the best threshold; 30 % positive."""
    for spread in (1.0, 2.0):
        for auc in (0.65, 0.75, 0.85, 0.95):
            distance = norm.ppf(auc) * np.hypot(1, spread)
            grid = np.linspace(-15, 15, 6001)
            best = (norm.sf(grid, distance, spread) + norm.cdf(grid)).max()
            for n in (60, 100, 200, 500):
                found = []
                for seed in range(seeds):
                    rng = np.random.default_rng(seed)
                    y = np.arange(n) < 0.3 * n
                    score = np.where(y, rng.normal(distance, spread, n), rng.normal(size=n))
                    p = _sigmoid(score)
                    found.append([youden_threshold(y, p), bagged_youden_threshold(y, p, rng)])
                at = np.clip(np.array(found), 1e-9, 1 - 1e-9)
                at = np.log(at / (1 - at))
                value = norm.sf(at, distance, spread) + norm.cdf(at)
                plain, bagged = (best - value.mean(axis=0)).round(4).tolist()
                yield {"spread": spread, "auc": auc, "n_val": n, "plain": plain, "bagged": bagged}


def conformal(seeds: int) -> Iterator[dict[str, Any]]:
    """Coverage and set size at 90 %, the map fitted on the same rows, on others, or not at all."""
    shares = {2: np.array([0.6, 0.4]), 3: np.array([0.5, 0.3, 0.2])}
    for k, prior in shares.items():
        for n in (60, 100, 200, 500):
            for kind in (None, "vector", "beta", "isotonic"):
                covered, size = [], []
                for seed in range(seeds):
                    rng = np.random.default_rng(seed)
                    (p, y), (new, truth) = _patients(rng, n, prior), _patients(rng, 2000, prior)
                    if kind is not None:
                        fitted = fit_calibration(p, y, kind=kind)
                        p, new = fitted.apply(p), fitted.apply(new)
                    inside = conformal_sets(fit_conformal(p, y, 0.9), new)
                    covered.append([inside[truth == c, c].mean() for c in range(k)])
                    size.append(inside.sum(axis=1).mean())
                yield {
                    "classes": k,
                    "n_val": n,
                    "map": kind or "none",
                    "coverage": np.mean(covered, axis=0).round(4).tolist(),
                    "mean_size": round(float(np.mean(size)), 3),
                }


def fused(seeds: int) -> Iterator[dict[str, Any]]:
    """Coverage at 90 % of two modalities joined by log-odds, each mapped on the same rows."""
    prior = np.array([0.6, 0.4])
    for n in (60, 100, 200, 500):
        for kind in (None, "vector", "beta", "isotonic"):
            covered = []
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                y, truth = (rng.choice(2, size=size, p=prior) for size in (n, 2000))
                joined, new = np.zeros((n, 2)), np.zeros((2000, 2))
                for _ in range(2):
                    p, q = (_overconfident(rng, labels, 2) for labels in (y, truth))
                    if kind is not None:
                        fitted = fit_calibration(p, y, kind=kind)
                        p, q = fitted.apply(p), fitted.apply(q)
                    joined += np.log(np.clip(p, 1e-6, 1))
                    new += np.log(np.clip(q, 1e-6, 1))
                joined, new = (_two(_sigmoid(x[:, 1] - x[:, 0])) for x in (joined, new))
                inside = conformal_sets(fit_conformal(joined, y, 0.9), new)
                covered.append([inside[truth == c, c].mean() for c in range(2)])
            coverage = np.mean(covered, axis=0).round(4).tolist()
            yield {"n_val": n, "map": kind or "none", "coverage": coverage}


def _patients(rng: np.random.Generator, n: int, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(p, y) of a model that is too sure of itself."""
    y = rng.choice(len(prior), size=n, p=prior)
    return _overconfident(rng, y, len(prior)), y


def _overconfident(rng: np.random.Generator, y: np.ndarray, k: int) -> np.ndarray:
    """Probabilities (n, k) of patients with classes y (n,)."""
    logits = 3 * (rng.normal(size=(len(y), k)) + 1.2 * np.eye(k)[y])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


PARTS = {"kinds": kinds, "youden": youden, "conformal": conformal, "fused": fused}


def main() -> None:
    """Run the parts named, print their lines and keep them in `RESULTS`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--seeds", type=int, default=100)
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in given.parts or PARTS:
        lines = []
        for line in PARTS[name](given.seeds):
            print(name, *(f"{key}={value}" for key, value in line.items()), flush=True)
            lines.append(line)
        results[name] = {"seeds": given.seeds, "lines": lines}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
