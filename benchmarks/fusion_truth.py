"""What the fusion and its controls say where the truth is known: Gaussian evidence, no images.

    python benchmarks/fusion_truth.py

Every patient has a latent of each modality, Normal(+-d/2, 1) by class, correlated by rho given the
class (as in `sources.latents`). A model says a distorted posterior of its latent and is calibrated
on validation patients. The rules, the Bayes-optimal score and the controls are then compared on
test patients, several seeds and correlations; figures are means over seeds with their range.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from machine import facts, write

from pulmofuse.config import parse_config
from pulmofuse.evaluation import fit_calibration, fusion_gain, roc_auc
from pulmofuse.evaluation.reliability import ece, log_loss
from pulmofuse.fusion import discount, estimate_rho, fuse, own_evidence
from pulmofuse.inference import Scores
from pulmofuse.pipeline import Cohort, PatientScores, decide, fit_decision_fusion, fusion_patients
from pulmofuse.pipeline.fusion_bench import Bench
from pulmofuse.pipeline.fusion_controls import dependence_curve, run_fusion_controls
from pulmofuse.pipeline.predictions import decision_predictions
from pulmofuse.schema import Modality

CLASSES = ("normal", "covid19")
STRENGTHS = {"equal": (1.2, 1.2, 1.2), "unequal": (1.5, 1.2, 1.0)}  # the latter: `latents`' own
CORRELATIONS = (0.0, 0.3, 0.5, 0.8)
#: Patients of the first part; the standard error of an AUC of .9 is then about .001.
N_VAL, N_TEST = 600, 40_000
#: Patients of the controls: a study of usual size.
N_STUDY = 900
STUDY = """
name: truth
question: Do the controls say what is true?
target: {classes: [normal, covid19], positive: covid19, mapping: {normal: normal, covid19: covid19}}
sources: [{name: synthetic}]
evaluation: {bootstrap: 500}
"""


def main() -> None:
    """Write and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    machine = facts()
    results = {
        "rules": [
            rules(name, strength, rho, options.seeds)
            for name, strength in STRENGTHS.items()
            for rho in CORRELATIONS
        ],
        "controls": [controls(rho, min(3, options.seeds)) for rho in (0.0, 0.5)],
    }
    write("fusion_truth", "python benchmarks/fusion_truth.py", results, machine)


def draw(
    strength: tuple[float, ...], rho: float, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Class (n,) and latents (n, k)."""
    y = rng.integers(2, size=n)
    own, common = rng.standard_normal((n, len(strength))), rng.standard_normal((n, 1))
    z = np.where(y[:, None] == 1, 0.5, -0.5) * np.array(strength)
    return y, z + np.sqrt(rho) * common + np.sqrt(1 - rho) * own


def posterior(z: np.ndarray, strength: tuple[float, ...], factor: float = 1.0) -> np.ndarray:
    """(n, k, 2) probabilities of each modality alone; exact for a factor of 1."""
    p = 1 / (1 + np.exp(-factor * z * np.array(strength)))
    return np.stack([1 - p, p], axis=2)


def rules(name: str, strength: tuple[float, ...], rho: float, seeds: int) -> dict[str, Any]:
    """The log-odds rule against Bayes, with exact and with calibrated posteriors."""
    k = len(strength)
    sigma = np.full((k, k), rho) + (1 - rho) * np.eye(k)
    best = np.linalg.solve(sigma, np.array(strength))
    w = discount(k, rho)
    found: list[dict[str, float]] = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        (y_val, z_val), (y, z) = (draw(strength, rho, n, rng) for n in (N_VAL, N_TEST))
        bayes = 1 / (1 + np.exp(-z @ best))
        exact = posterior(z, strength)
        raw_val, raw = (posterior(part, strength, 3.0) for part in (z_val, z))
        calibrated = np.stack(
            [fit_calibration(raw_val[:, j], y_val).apply(raw[:, j]) for j in range(k)], axis=1
        )
        line = {"auc_bayes": auc(y, bayes), "log_loss_bayes": loss(y, bayes)}
        line["auc_best_modality"] = max(auc(y, exact[:, j, 1]) for j in range(k))
        for kind, p in (("exact", exact), ("calibrated", calibrated)):
            for rule, weight in (("one", 1.0), ("dependence", w)):
                q = fuse(
                    "log_odds", p, np.ones(p.shape[:2], bool), prior=np.full(2, 0.5),
                    modality_priors=np.full((k, 2), 0.5), weights=np.full(k, weight),
                )  # fmt: skip
                line |= {
                    f"auc_{kind}_{rule}": auc(y, q[:, 1]),
                    f"ece_{kind}_{rule}": float(ece(y, q, None, 1)),
                    f"log_loss_{kind}_{rule}": float(log_loss(y, q)),
                }
            line[f"auc_loss_{kind}"] = line["auc_bayes"] - line[f"auc_{kind}_one"]
        line["rho_estimated"] = estimate_rho(own_evidence(raw_val, y_val), y_val)
        found.append(line)
    return {"strengths": name, "rho": rho, "weight": round(w, 4), **spread(found)}


def controls(rho: float, seeds: int) -> dict[str, Any]:
    """The gain and the controls of studies of true pairs."""
    config = parse_config(STUDY)
    found = []
    for seed in range(seeds):
        bench, cohort = study(STRENGTHS["unequal"], rho, seed, config)
        tables = decision_predictions(bench.patients, bench.decision, config.fusion.rules)
        predictions = decide(pd.concat(tables, ignore_index=True), CLASSES, "covid19", {})
        gains = fusion_gain(predictions, CLASSES, "covid19", config.evaluation, config.seed)
        gain = next(row for row in gains if row["method"] == "log_odds")
        line = {"gain": gain["value"], "gain_low": gain["low"], "gain_high": gain["high"]}
        table = run_fusion_controls(bench, cohort)
        full = table[(table["subset"] == "ct+cxr+cough") & (table["method"] == "log_odds")]
        for control in ("noise_modality", "shuffled_within_class", "confounders_only"):
            for metric in ("roc_auc", "log_loss"):
                row = full[(full["control"] == control) & (full["metric"] == metric)].iloc[0]
                line[f"{control}_{metric}_less_real"] = row["value"] - row["against"]
        noise = table[(table["control"] == "noise_modality") & (table["metric"] == "roc_auc")]
        line["noise_modality_most_auc_lost"] = float((noise["against"] - noise["value"]).max())
        line["rho_estimated"] = full[full["control"] == "dependence"]["value"].iloc[0]
        curve = dependence_curve(bench)
        curve = curve[(curve["subset"] == "ct+cxr+cough") & (curve["rho"] == 0.5)]
        for rule in ("one", "dependence"):
            of = curve[curve["weight_rule"] == rule].set_index("metric")["value"]
            line[f"curve_auc_at_.5_{rule}"] = of["roc_auc"]
            line[f"curve_ece_at_.5_{rule}"] = of["ece"]
        found.append(line)
    return {"patients": N_STUDY, "rho": rho, **spread(found)}


def study(strength: tuple[float, ...], rho: float, seed: int, config: Any) -> tuple[Bench, Cohort]:
    """A fusion of true pairs whose traits tell nothing, without images."""
    y, z = draw(strength, rho, N_STUDY, np.random.default_rng(seed))
    split = np.array(["train", "val", "test"])[np.arange(N_STUDY) % 3]
    rng = np.random.default_rng([seed, 1])
    frames, scores = [], {}
    for j, modality in enumerate(Modality):
        frame = pd.DataFrame({"patient_id": [f"p{i}" for i in range(N_STUDY)], "split": split})
        frame["record_id"] = [f"{modality.value}{i}" for i in range(N_STUDY)]
        frame["modality"], frame["y_true"] = modality.value, np.array(CLASSES)[y]
        frame["traits"] = [f'{{"width": {w}}}' for w in rng.integers(100, 500, N_STUDY)]
        raw = posterior(z, strength, 3.0)[:, j]
        val = split == "val"
        p = fit_calibration(raw[val], y[val]).apply(raw)
        columns = [f"p_{c}" for c in CLASSES] + [f"p_raw_{c}" for c in CLASSES]
        table = pd.DataFrame(np.hstack([p, raw]), columns=columns, index=frame["record_id"])
        scores[modality] = Scores(table, np.zeros((N_STUDY, 0), np.float32))
        frames.append(frame)
    records = pd.concat(frames, ignore_index=True)
    cohort = Cohort(records, pd.DataFrame(), {})
    table = fusion_patients(records, "paired", CLASSES, seed)
    patients = PatientScores(table, scores, CLASSES)
    return Bench(patients, fit_decision_fusion(patients, config, cohort), config), cohort


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """AUC of a score (n,)."""
    return float(roc_auc(y, np.stack([1 - score, score], axis=1), None, 1))


def loss(y: np.ndarray, p: np.ndarray) -> float:
    """Log loss of the probability of class 1."""
    return float(log_loss(y, np.stack([1 - p, p], axis=1)))


def spread(lines: list[dict[str, float]]) -> dict[str, list[float]]:
    """[mean, least, greatest] over seeds of each figure."""
    out = {}
    for name in lines[0]:
        values = [line[name] for line in lines]
        out[name] = [round(float(f(values)), 4) for f in (np.mean, np.min, np.max)]
    return out


if __name__ == "__main__":
    main()
