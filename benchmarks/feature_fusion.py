"""Feature-level fusions against a zero-filled network, on simulated features of true pairs.

    python benchmarks/feature_fusion.py [--seeds 10]

No images: the features themselves are drawn, so that the best attainable AUC is known. 600
training, 200 validation and 2,000 test patients, two classes, modalities ct, cxr and cough, in two
worlds:

- *additive*: 16 normal features each, whose means differ by class, independent given the class;
  what each modality says of the class adds up. Their common mean is 1 standard deviation and not 0
  (the pooled activations that a study fuses have a median of 0.4 to 0.9).
- *interaction*: 4 features each; the log-odds hold the product of a direction of ct and one of cxr,
  each of which says little by itself.

Conditions: *complete*, everybody has all modalities; *missing*, 30 % of the modalities are missing
at random in training, validation and test (a patient keeps at least one); *missing_at_test*, the
same but training and validation are complete; *noise*, complete with a fourth modality that knows
nothing. Every network is trained with the settings that studies have by default, the zero-filled
control too, modality dropout included; `zero_filled_plain` is the control as it is common, without
modality dropout. The loop is the recipe of `training.fit` (batches, AdamW, one cycle, averaged
weights, best epoch by validation AUC) without its checkpoints and logs, which would take most of
the time of 260 such trainings.

Intervals are Student's t over the seeds, each of which draws all patients anew; differences are
paired by seed. `gain` is the AUC of the fusion of all less the AUC of the best single modality by
the true likelihood ratio, which no model of that modality can beat: known in the additive world.
Writes benchmarks/results/feature_fusion.json.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from machine import facts, write
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import cross_entropy

from pulmofuse.config import FusionTraining
from pulmofuse.models import FUSION_CONTROLS, FUSIONS, FusionHead, build_fusion
from pulmofuse.models.unfreezing import learning_groups
from pulmofuse.training import FeatureSource, class_weights, fair_weights
from pulmofuse.training.data import EpochBatches
from pulmofuse.training.module import one_cycle, step_seed

N_TRAIN, N_VAL, N_TEST = 600, 200, 2000
DIMS = {"additive": 16, "interaction": 4}
MISSING = 0.3
#: Distance of the class means in each modality, in standard deviations: AUC .77, .71 and .61.
DISTANCE = {"ct": 1.05, "cxr": 0.8, "cough": 0.4}
#: World and condition -> controls beside the fusions.
RUNS = {
    ("additive", "complete"): ("zero_filled",),
    ("additive", "missing"): ("zero_filled", "zero_filled_plain"),
    ("additive", "missing_at_test"): ("zero_filled", "zero_filled_plain"),
    ("additive", "noise"): (),
    ("interaction", "complete"): ("zero_filled",),
}


@dataclass(frozen=True)
class Patients:
    """Features (n, dim) per modality, who has which (n, modalities), classes, and log-odds.

    `evidence` is the true log-likelihood ratio of each modality (n,), where it is known.
    """

    features: dict[str, np.ndarray]
    present: np.ndarray
    y: np.ndarray
    evidence: dict[str, np.ndarray]

    def source(self, *, fair: bool) -> FeatureSource:
        """As rows to train on or to choose the epoch on."""
        weights = fair_weights(self.present, self.y, balance=True) if fair else None
        return FeatureSource(self.features, self.present, self.y, weights)


def main() -> None:
    """Run all seeds, print the tables, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the networks are too small to share
    machine, rows = facts(), []
    started = time.perf_counter()
    for seed in range(options.seeds):
        rows += [row for case in RUNS for row in run(*case, seed)]
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    table = pd.DataFrame(rows)
    results = {
        "seeds": options.seeds,
        "auc": summary(table, "auc"),
        "gain_over_best_modality": summary(table, "gain"),
        "over_zero_filled": differences(table, "zero_filled"),
        "over_zero_filled_plain": differences(table, "zero_filled_plain"),
        "noise_modality": noise_cost(table),
        "seconds": summary(table, "seconds"),
    }
    write("feature_fusion", "python benchmarks/feature_fusion.py", results, machine)
    show(results)


def run(world: str, condition: str, seed: int) -> list[dict[str, Any]]:
    """One row for each method."""
    # One draw for all conditions of a world, so that they are paired too.
    rng = np.random.default_rng([seed, list(RUNS).index((world, "complete"))])
    everyone = simulate(world, N_TRAIN + N_VAL + N_TEST, rng)
    lossy = lose(everyone, rng) if "missing" in condition else everyone
    if condition == "missing":
        everyone = lossy
    if condition == "noise":
        everyone = with_noise(everyone, rng)
    train, val, test = split(everyone)
    if condition == "missing_at_test":
        test = split(lossy)[2]
    scores, seconds = {}, {}
    for method in (*FUSIONS, *RUNS[world, condition]):
        begin = time.perf_counter()
        scores[method] = train_and_score(method, train, val, test, seed)
        seconds[method] = time.perf_counter() - begin
    best = np.nan
    if test.evidence:
        said = np.stack(list(test.evidence.values()), axis=1)
        scores["attainable"] = (said * test.present[:, : said.shape[1]]).sum(axis=1)
        if "missing" not in condition:
            best = max(roc_auc_score(test.y, e) for e in said.T)
    return [
        {
            "world": world,
            "condition": condition,
            "method": method,
            "seed": seed,
            "auc": roc_auc_score(test.y, score),
            "gain": roc_auc_score(test.y, score) - best,
            "seconds": seconds.get(method, np.nan),
        }
        for method, score in scores.items()
    ]


def simulate(world: str, n: int, rng: np.random.Generator) -> Patients:
    """Patients with all modalities."""
    dim = DIMS[world]
    noise = {m: rng.normal(size=(n, dim)) for m in DISTANCE}
    directions = {m: _unit(rng.normal(size=dim)) for m in DISTANCE}
    mixing = {
        m: np.linalg.qr(rng.normal(size=(dim, dim)))[0] * rng.uniform(0.5, 1.5, dim)
        for m in DISTANCE
    }
    present = np.ones((n, len(DISTANCE)), dtype=bool)
    if world == "additive":
        y = rng.integers(0, 2, n)
        # Whitened features z have the class means -d/2 and +d/2: the log-likelihood ratio is d.z.
        white = {m: noise[m] + np.outer(y - 0.5, d * directions[m]) for m, d in DISTANCE.items()}
        evidence = {m: d * (white[m] @ directions[m]) for m, d in DISTANCE.items()}
    else:
        white = noise
        ct, cxr, cough = (white[m] @ directions[m] for m in DISTANCE)
        log_odds = 1.5 * ct * cxr + 0.4 * (ct + cxr + cough)
        y = (rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(int)
        evidence = {}
    return Patients({m: 1 + white[m] @ mixing[m].T for m in DISTANCE}, present, y, evidence)


def lose(patients: Patients, rng: np.random.Generator) -> Patients:
    """30 % of the modalities missing at random, never all of a patient; NaN in their place."""
    draws = rng.random(patients.present.shape)
    present = (draws >= MISSING) | (draws == draws.max(axis=1, keepdims=True))
    features = {
        m: np.where(present[:, [i]], f, np.nan)
        for i, (m, f) in enumerate(patients.features.items())
    }
    return Patients(features, present, patients.y, patients.evidence)


def with_noise(patients: Patients, rng: np.random.Generator) -> Patients:
    """A modality more that knows nothing."""
    n = len(patients.y)
    features = {**patients.features, "noise": 1 + rng.normal(size=(n, DIMS["additive"]))}
    return Patients(features, np.ones((n, len(features)), bool), patients.y, patients.evidence)


def split(patients: Patients) -> tuple[Patients, Patients, Patients]:
    """Training, validation and test patients."""
    ends = np.cumsum([N_TRAIN, N_VAL])
    rows = np.split(np.arange(len(patients.y)), ends)
    return tuple(  # type: ignore[return-value]
        Patients(
            {m: f[r] for m, f in patients.features.items()},
            patients.present[r],
            patients.y[r],
            {m: e[r] for m, e in patients.evidence.items()},
        )
        for r in rows
    )


def train_and_score(
    method: str, train: Patients, val: Patients, test: Patients, seed: int
) -> np.ndarray:
    """Log-odds (n,) of the test patients by the averaged weights of the best epoch."""
    settings = FusionTraining()
    config = settings.training
    torch.manual_seed(seed)
    model = network(method, {m: f.shape[1] for m, f in train.features.items()}, settings)
    source = train.source(fair=True)
    if isinstance(model, FusionHead):
        model.learn_scale(source.features, source.present)
    average = copy.deepcopy(model).eval()
    pairs = list(average.parameters()), list(model.parameters())
    weight = class_weights(train.y, 2, source.weights)
    optimizer = torch.optim.AdamW(learning_groups(model, config), fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    batches = EpochBatches(source.epoch_rows, config.batch_size, seed, weights=source.weights)
    step, best, waited, chosen = 0, -1.0, 0, np.empty(0)
    for epoch in range(config.epochs):
        batches.set_epoch(epoch)
        for rows in batches:
            torch.manual_seed(step_seed(seed, step))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                total = config.epochs * len(batches)
                group["lr"] = rate * one_cycle(step, total, config.warmup)
            inputs, targets = source[rows]
            loss = cross_entropy(
                model(*inputs), targets.y, weight, label_smoothing=config.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
            optimizer.step()
            step += 1
            with torch.no_grad():
                decay = min(config.ema_decay, (1 + step) / (10 + step))
                torch._foreach_lerp_(*pairs, 1 - decay)
        auc = roc_auc_score(val.y, log_odds(average, val))
        waited += 1
        if auc > best:
            best, waited, chosen = auc, 0, log_odds(average, test)
        if waited >= config.patience:
            break
    return chosen


def log_odds(model: nn.Module, patients: Patients) -> np.ndarray:
    """(n,) of class 1."""
    inputs = {m: torch.as_tensor(f, dtype=torch.float32) for m, f in patients.features.items()}
    with torch.inference_mode():
        logits = model(inputs, torch.as_tensor(patients.present)).numpy()
    return np.asarray(logits[:, 1] - logits[:, 0])


def network(method: str, dims: Mapping[str, int], settings: FusionTraining) -> nn.Module:
    """A fusion or a control, untrained."""
    dropout = 0.0 if method == "zero_filled_plain" else settings.modality_dropout
    arguments = (dims, 2, settings.hidden, settings.dropout, dropout)
    if method in FUSIONS:
        return build_fusion(method, *arguments)
    return FUSION_CONTROLS["zero_filled"](*arguments)


def summary(table: pd.DataFrame, column: str) -> list[dict[str, Any]]:
    """Mean over the seeds with its interval, for each world, condition and method."""
    keys = ["world", "condition", "method"]
    groups = table.dropna(subset=[column]).groupby(keys, sort=False)[column]
    return [
        {**dict(zip(keys, key, strict=True)), **_mean(values.to_numpy())} for key, values in groups
    ]


def differences(table: pd.DataFrame, control: str) -> list[dict[str, Any]]:
    """AUC of each fusion less that of a control, paired by seed."""
    wide = table.pivot_table(index=["world", "condition", "seed"], columns="method", values="auc")
    return [
        {
            "world": world,
            "condition": condition,
            "method": m,
            **_mean((rows[m] - rows[control]).to_numpy()),
        }
        for (world, condition), rows in wide.groupby(level=["world", "condition"])
        for m in FUSIONS
        if rows[control].notna().all()
    ]


def noise_cost(table: pd.DataFrame) -> list[dict[str, Any]]:
    """AUC without the noise modality less that with it (additive world), paired by seed."""
    table = table[table["world"] == "additive"]
    wide = table.pivot_table(index=["method", "seed"], columns="condition", values="auc")
    wide = wide.dropna(subset=["complete", "noise"])
    return [
        {"method": method, **_mean((rows["complete"] - rows["noise"]).to_numpy())}
        for method, rows in wide.groupby(level="method")
        if method != "attainable"
    ]


def show(results: Mapping[str, Any]) -> None:
    """Print each list of results as lines."""
    for name, rows in results.items():
        if isinstance(rows, list):
            print(f"\n{name}")
            for row in rows:
                key = "  ".join(f"{v:<18}" for v in row.values() if isinstance(v, str))
                print(f"  {key} {row['mean']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]")


def _mean(values: np.ndarray) -> dict[str, float]:
    """Mean and 95 % interval by Student's t."""
    mean, n = float(values.mean()), len(values)
    half = float(student.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    return {
        "mean": round(mean, 5), "low": round(mean - half, 5), "high": round(mean + half, 5)
    }  # fmt: skip


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))


if __name__ == "__main__":
    main()
