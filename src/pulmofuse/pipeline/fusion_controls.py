"""Controls on fusion: does joining the modalities gain what the study says, and from what?

    write_fusion_controls(patients, decision, cohort, predictions, config, out)

Noise is added as a further modality; modalities are paired anew at random within each class; models
of acquisition alone are fused by the same rules; and where validation has true pairs, the
dependence that the log-odds rule assumes away is measured on them. Beside them stand the curve
against an assumed dependence (`evaluation.rho_curve`) and the share of each modality
(`evaluation.shapley`). All is on the test patients and about the decision rules, which need no
fitting on pairs: a trained fusion would have to be trained anew for each control.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmofuse.config import StudyConfig
from pulmofuse.evaluation import UNIMODAL, fit_calibration
from pulmofuse.evaluation.questions import positive_of, questions, told
from pulmofuse.evaluation.rho_curve import COLUMNS as CURVE_COLUMNS
from pulmofuse.evaluation.rho_curve import Evidence, rho_curve
from pulmofuse.evaluation.shapley import shapley_table
from pulmofuse.evaluation.tables import class_index
from pulmofuse.files import write_csv
from pulmofuse.fusion import (
    estimate_rho,
    own_evidence,
    paired_patients,
    rho_interval,
    shuffled_within,
)
from pulmofuse.inference import DecisionFusion
from pulmofuse.labelsets import Partition
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.confounders import trait_scores
from pulmofuse.pipeline.fusing import excess_auc, fit_decision_fusion
from pulmofuse.pipeline.fusion_bench import WORDS, Bench
from pulmofuse.pipeline.predictions import PatientScores, subsets
from pulmofuse.schema import Split, subset_name
from pulmofuse.statistics import FloatArray, percentile_interval

#: What `write_fusion_controls` leaves in a study's folder.
FUSION_CONTROL_FILES = ("fusion_controls.csv", "rho_curve.csv", "shapley.csv")

#: Columns of `fusion_controls.csv`.
COLUMNS = (
    "control", "subset", "method", "metric", "value", "low", "high", "against", "n_patients",
    "simulated", "detail",
)  # fmt: skip

NOISE, SHUFFLED = "noise_modality", "shuffled_within_class"
CONFOUNDERS, DEPENDENCE = "confounders_only", "dependence"

#: Metric of the rows of `DEPENDENCE`: correlation of the evidence given the class.
RHO = "rho"

#: Modalities of noise that are tried, and other pairings: their 2.5 % points are then seen.
_DRAWS = 50

#: True pairs of a class behind an estimated correlation; with fewer its interval is nearly [-1, 1].
_LEAST_PAIRS = 10

Row = dict[str, Any]


def write_fusion_controls(
    patients: PatientScores,
    decision: DecisionFusion,
    cohort: Cohort,
    predictions: pd.DataFrame,
    config: StudyConfig,
    out: Path,
) -> str:
    """Write `FUSION_CONTROL_FILES` into `out`.

    Args:
        patients: scores of the fusion cohort.
        decision: constants of the decision rules.
        cohort: records with their splits and traits.
        predictions: as `predictions.parquet`.
        config: the study.
        out: folder of the study.

    Returns:
        A note for the person.
    """
    target = config.target
    bench = Bench(patients, decision, config, questions(predictions, target.classes))
    table = run_fusion_controls(bench, cohort)
    write_csv(out / FUSION_CONTROL_FILES[0], table)
    write_csv(out / FUSION_CONTROL_FILES[1], dependence_curve(bench))
    shares = shapley_table(
        predictions, target.classes, target.positive, decision.prior, config.evaluation, config.seed
    )
    write_csv(out / FUSION_CONTROL_FILES[2], shares)
    return f"{len(table):,} rows"


def run_fusion_controls(bench: Bench, cohort: Cohort) -> pd.DataFrame:
    """Every control on every subset that has test patients of two classes.

    Args:
        bench: the fusion.
        cohort: records with their splits and traits.

    Returns:
        The columns `COLUMNS`, and `question` where labels stand for sets of classes: the parts that
        a subset is held to (`evaluation.questions`). `against` is the figure of the real fusion on
        the same patients (of `dependence`: the correlation that the log-odds rule assumes).
        Intervals of the noise and of the pairing are over draws, those of the confounders over
        patients.
    """
    rows = [
        *noise_rows(bench),
        *shuffled_rows(bench),
        *confounder_rows(bench, cohort),
        *dependence_rows(bench, cohort),
    ]
    return _framed(rows, COLUMNS)


def _framed(rows: list[Row], columns: Sequence[str]) -> pd.DataFrame:
    """A table with these columns, and the question where rows tell one."""
    asked = any("question" in row for row in rows)
    table = pd.DataFrame(rows, columns=[*columns, *(["question"] if asked else [])])
    return table.fillna({"question": ""}) if asked else table


def dependence_curve(bench: Bench) -> pd.DataFrame:
    """The log-odds rule against an assumed dependence, for every subset of two or more."""
    rows: list[Row] = []
    decision, config = bench.decision, bench.config
    for group in bench.usable(least=2):
        columns = [bench.patients.modalities.index(m) for m in group.subset]
        ids = bench.patients.patients.iloc[group.rows][[m.value for m in group.subset]]
        evidence = Evidence(
            p=bench.patients.p[group.rows][:, columns],
            # Of records: a patient is the same one wherever the same records stand.
            real=ids.map(" ".join).to_numpy(),
            y=group.y,
            prior=decision.prior,
            modality_priors=decision.modality_priors[columns],
            best=int(np.argmax(decision.auc_weights[columns])),
            question=group.question,
        )
        curve = rho_curve(
            evidence,
            subset_name(group.subset),
            [m.value for m in group.subset],
            group.positive,
            config.evaluation,
            config.seed,
        )
        rows += [row | told(group.question) for row in curve]
    return _framed(rows, CURVE_COLUMNS)


def noise_rows(bench: Bench) -> Iterator[Row]:
    """A modality that knows nothing joins every rule; calibrated on validation as any other."""
    draws = _noise(bench)
    for group in bench.usable(least=1):
        present = np.array([*(m in group.subset for m in bench.patients.modalities), True])
        mask = np.broadcast_to(present, (len(group.rows), len(present)))
        joined = [
            (
                np.concatenate([bench.patients.p[group.rows], noise[group.rows, None]], axis=1),
                decision,
            )
            for noise, decision in draws
        ]
        for rule in bench.rules:
            real = bench.figures(
                group, bench.fused(group, rule if len(group.subset) > 1 else UNIMODAL)
            )
            found = [bench.figures(group, d.apply(rule, p, mask)) for p, d in joined]
            for metric in WORDS:
                values = np.array([figures[metric] for figures in found])
                interval = percentile_interval(values, bench.config.evaluation.confidence)
                against, mean = real[metric], float(values.mean())
                cost = (against - mean) * (1 if metric == "roc_auc" else -1)
                detail = (
                    f"with a modality of pure noise the {WORDS[metric]} is {mean:.3f} instead of"
                    f" {against:.3f} (mean of {_DRAWS} draws): {_gain(-cost, 'it')}"
                )
                yield bench.row(NOISE, group, rule, metric, (mean, *interval), against, detail)


def _noise(bench: Bench) -> list[tuple[FloatArray, DecisionFusion]]:
    """Draws of a modality of noise (patients, classes), and the rules with it as the last one."""
    rng = np.random.default_rng([bench.config.seed, 1])
    decision, table, target = bench.decision, bench.patients.patients, bench.config.target
    # The finest that the patients themselves support: a set-valued label names no class.
    partition = Partition.of(table["y_true"].unique(), target.classes)
    y, k = partition.codes(table["y_true"]), len(partition.parts)
    at = class_index(partition.names, positive_of(partition, target.positive))
    val = (table["split"] == Split.VAL).to_numpy()
    excess = []
    for j, modality in enumerate(bench.patients.modalities):
        own = bench.group((modality,), Split.VAL)
        p = own.question.collapse(bench.patients.p[own.rows, j])
        excess.append(excess_auc(own.y, p, own.positive))
    draws = []
    for _ in range(_DRAWS):
        raw = np.exp(rng.standard_normal((len(y), k)))
        raw /= raw.sum(axis=1, keepdims=True)
        noise = fit_calibration(raw[val], y[val], k).apply(raw)
        weights = np.array([*excess, excess_auc(y[val], noise[val], at)])
        priors = np.vstack([decision.modality_priors, decision.prior])
        weights /= weights.sum()
        lifted = partition.lift(noise, decision.prior)
        draws.append((lifted, replace(decision, modality_priors=priors, auc_weights=weights)))
    return draws


def shuffled_rows(bench: Bench) -> Iterator[Row]:
    """The patients' modalities paired anew at random within class."""
    rng = np.random.default_rng([bench.config.seed, 2])
    n_modalities = len(bench.patients.modalities)
    for group in bench.usable(least=2):
        p = bench.patients.p[group.rows]
        orders = [shuffled_within(group.y, n_modalities, rng) for _ in range(_DRAWS)]
        pairings = [p[order, np.arange(n_modalities)] for order in orders]
        for rule in bench.rules:
            real = bench.figures(group, bench.fused(group, rule))
            found = [bench.figures(group, bench.fused(group, rule, other)) for other in pairings]
            for metric in WORDS:
                values = np.array([figures[metric] for figures in found])
                interval = percentile_interval(values, bench.config.evaluation.confidence)
                against, mean = real[metric], float(values.mean())
                detail = _pairing_words(bench.simulated, metric, against, values)
                yield bench.row(SHUFFLED, group, rule, metric, (mean, *interval), against, detail)


def _pairing_words(simulated: bool, metric: str, real: float, values: FloatArray) -> str:
    """What other pairings within class say of the one at hand."""
    mean, sd, name = float(values.mean()), float(values.std()), WORDS[metric]
    others = f"{len(values)} random pairings within class give the {name} {mean:.3f} (sd {sd:.3f})"
    if simulated:
        return f"{others}: so much of the figure {real:.3f} is due to who was joined with whom"
    better = real - mean if metric == "roc_auc" else mean - real
    return f"{others} and the true pairs {real:.3f}: {_gain(better, 'dependence')}"


def _gain(better: float, what: str) -> str:
    """In words, whether a figure gained or lost; `better` is above 0 for a gain."""
    return f"{what} {'gains' if better > 0 else 'costs'} {abs(better):.3f}"


def confounder_rows(bench: Bench, cohort: Cohort) -> Iterator[Row]:
    """Models of acquisition traits alone, fused by the same rules on the same patients."""
    config, scores, reasons = bench.config, {}, {}
    for modality in bench.patients.modalities:
        found, reason = trait_scores(cohort, modality, config)
        if found is None:
            reasons[modality] = f"{modality.value}: {reason}"
        else:
            scores[modality] = found
    traits = None
    if scores:
        patients = PatientScores(bench.patients.patients, scores, config.target.classes)
        rules = fit_decision_fusion(patients, config, cohort)
        traits = Bench(patients, rules, config, bench.asked)
    for group in bench.usable(least=1):
        reason = "; ".join(reasons[m] for m in group.subset if m in reasons)
        resamples = bench.resample(group)
        for method in bench.methods(group.subset):
            real = bench.figures(group, bench.fused(group, method))
            values = dict.fromkeys(WORDS, (np.nan, np.nan, np.nan))
            if traits is not None and not reason:
                p = traits.fused(group, method)
                ends = traits.intervals(group, p, resamples)
                values = {m: (own, *ends[m]) for m, own in traits.figures(group, p).items()}
            for metric, figures in values.items():
                against = real[metric]
                detail = f"no model of acquisition traits ({reason})" if reason else (
                    f"acquisition traits alone reach the {WORDS[metric]} {figures[0]:.3f}, the"
                    f" models {against:.3f}"
                )  # fmt: skip
                yield bench.row(CONFOUNDERS, group, method, metric, figures, against, detail)


def dependence_rows(bench: Bench, cohort: Cohort) -> Iterator[Row]:
    """Correlation of the evidence given the class, on true pairs of the validation split."""
    columns = ["record_id", "patient_id", "modality", "split", "y_true"]
    records = cohort.records
    table = paired_patients(records.loc[records["split"] == Split.VAL, columns])
    true = replace(bench, patients=bench.patients.on(table))
    for subset in subsets(bench.patients.modalities):
        group = true.group(subset, Split.VAL)
        if len(subset) < 2 or not len(group.rows):
            continue
        places = [bench.patients.modalities.index(m) for m in subset]
        used = np.bincount(group.y)[group.y] >= _LEAST_PAIRS
        weight = bench.decision.weight(len(subset))
        assumed = (1 / weight - 1) / (len(subset) - 1)
        values = (np.nan, np.nan, np.nan)
        detail = f"{len(group.rows)} true pairs in validation, too few of every class to say"
        if used.any():
            y, p = group.y[used], true.patients.p[group.rows[used]][:, places]
            value = estimate_rho(own_evidence(group.question.collapse(p), y), y)
            confidence = bench.config.evaluation.confidence
            values = (value, *rho_interval(value, len(y), len(set(y)), confidence))
            detail = (
                f"in {len(y)} true pairs of validation the evidence of the modalities correlates"
                f" by {value:.2f} given the class; the log-odds rule assumes {assumed:.2f}"
            )
        yield true.row(DEPENDENCE, group, "log_odds", RHO, values, assumed, detail)
