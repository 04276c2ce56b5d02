"""Cross-validation of the unimodal models, by patient and "as published" by image.

    cross_validate(load_config(Path("studies/darkcovidnet.yaml")), Path("data"), Path("runs/cv"))

Every record is tested once per seed by a model that never saw it, for every modality of the study
and no fusion. Published figures of small data sets are such figures, often with folds dealt by
image; the same models under the two deals, side by side, say how much of a figure is the leak.
Beside every figure stands what the same models reach with the disease taken out of the test
records.

The two protocols are in `pipeline.folds`, the figures in `evaluation.pooled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

import pulmofuse
from pulmofuse.config import StudyConfig, dump_config
from pulmofuse.curation import split_hash
from pulmofuse.errors import LeakageFound, StudyError
from pulmofuse.evaluation.pooled import class_pairs, figures, published_values
from pulmofuse.evaluation.questions import as_asked, questions
from pulmofuse.files import (
    read_json,
    sha256_json,
    write_csv,
    write_json,
    write_parquet,
    write_text,
)
from pulmofuse.inference import build_model
from pulmofuse.pipeline import (
    Cohort,
    Reporter,
    Silent,
    Steps,
    cells_key,
    check_classes,
    check_findings,
    checkpoint_files,
    describe_cohort,
    known_to_pretraining,
    locked,
    prepare_cohort,
    require_records,
    scan,
    training_inputs,
)
from pulmofuse.pipeline.folds import (
    NO_CONTROL,
    Deal,
    Protocol,
    count_known,
    deal_fold,
    dealt,
    healthy_controls,
    protocol_config,
    run_fold,
)
from pulmofuse.pipeline.pooling import crossval_table, pooled_rows, with_ensembles
from pulmofuse.report.crossval import leak_lines, write_crossval
from pulmofuse.schema import Modality
from pulmofuse.training import BEST, LAST, remember_features

PROTOCOLS: tuple[Protocol, ...] = ("patient", "image")

#: Folder of the prepared files, which all folds share.
_CACHE = "cache"


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What a cross-validation found.

    Attributes:
        table: `crossval.csv`; see `pipeline.pooling.crossval_table`.
        leaks: `leaks.csv`, one row per protocol, seed and modality: test records, and how many of
            them share a patient or content with training or validation of their fold, or with
            what the model was pre-trained on.
    """

    table: pd.DataFrame
    leaks: pd.DataFrame


@dataclass(frozen=True, eq=False)
class _Run:
    """What all folds have in common."""

    config: StudyConfig
    data_root: Path
    out: Path
    folds: int
    seeds: tuple[int, ...]
    reporter: Reporter
    steps: Steps

    def of(self, deal: Deal) -> StudyConfig:
        """The study of one fold."""
        return protocol_config(self.config, deal.protocol, self.folds, deal.fold, deal.seed)


def cross_validate(
    config: StudyConfig,
    data_root: Path,
    out: Path,
    *,
    folds: int = 5,
    seeds: Sequence[int] = (17, 18, 19),
    protocols: Sequence[Protocol] = PROTOCOLS,
    pairs: Sequence[str] = (),
    published: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> CrossValidation:
    """Train and test every fold of every seed under one or both protocols.

    Every (protocol, seed, fold, modality) is a step with a folder of its own; run again, it goes on
    where it was and repeats none, also with further seeds or protocols.

    Args:
        config: the study; its split, `cleaning.copies` and seed are replaced.
        data_root: folder below which the data sets lie.
        out: takes the folds, predictions.parquet, controls.parquet, metrics.json, crossval.csv,
            leaks.csv, splits.json (hashes of the deals), crossval.md and pictures.
        folds: number of folds.
        seeds: each deals the folds and starts the training anew.
        protocols: "patient", "image" or both.
        pairs: "a,b" each: classes to compare as a published two-class figure does; by default the
            positive class with each other one. For three or more classes.
        published: "figure=value" each, shown beside ours.
        reporter: shows progress.

    Raises:
        StudyError: a fold lacks a class, a pair or figure is not there, or `out` is in use.
        LeakageFound: folds by patient leak, or the starting weights have seen their records.
        PulmofuseError: the data or the configuration cannot be used at all.
    """
    reporter = reporter or Silent()
    target = config.target
    compared = class_pairs(pairs, target.classes, target.positive)
    known = published_values(published, list(figures(target.classes, target.positive, compared)))
    if not seeds or len(set(seeds)) != len(seeds):
        raise StudyError("seeds", "are none, or one stands twice", "as in --seeds 17,18,19")
    with locked(out):
        steps = Steps(out, reporter)
        run = _Run(config, data_root, out, folds, tuple(seeds), reporter, steps)
        cohorts = _collect(run, protocols)
        deals, leaks = _deal(run, cohorts)
        _train(run, cohorts, deals)
        rows = _evaluate(run, cohorts, deals, compared)
        table = crossval_table(rows, known)
        write_csv(out / "crossval.csv", table)
        write_crossval(table, leaks, pd.read_parquet(out / "predictions.parquet"), config, out)
    return CrossValidation(table, leaks)


def _collect(run: _Run, protocols: Sequence[Protocol]) -> dict[Protocol, Cohort]:
    """Scan once; read, prepare and clean as each protocol wants it."""
    config, out = run.config, run.out
    run.reporter.step("Scan the data sets")
    manifest, excluded = scan(config.sources, run.data_root)
    run.reporter.finish(f"{len(manifest):,} files, {len(excluded):,} left out")
    for modality in (Modality(name) for name in sorted(manifest["modality"].unique())):
        build_model(modality, config.of(modality), len(config.target.classes))
    write_text(out / "config.resolved.yaml", dump_config(config))
    cohorts: dict[Protocol, Cohort] = {}
    for protocol in protocols:
        run.reporter.step(f"Read and prepare the files (by {protocol})")
        own = protocol_config(config, protocol, run.folds)
        cohort = prepare_cohort(
            manifest, excluded, own, run.data_root, out / _CACHE, run.reporter.update
        )
        listed = out / f"excluded-{protocol}.csv"
        write_csv(listed, cohort.excluded)
        run.reporter.finish(describe_cohort(cohort))
        require_records(cohort, config.name, listed)
        cohorts[protocol] = cohort
    return cohorts


def _deal(run: _Run, cohorts: dict[Protocol, Cohort]) -> tuple[list[Deal], pd.DataFrame]:
    """All deals, seed after seed, and what they leak; before the first model is trained.

    Writes splits.json and leaks.csv.

    Raises:
        StudyError: training or validation of a fold lacks a class.
        LeakageFound: folds by patient leak, or the starting weights have seen their records.
    """
    run.reporter.step("Deal the folds")
    # Every record is tested in one fold of each seed, so that the question needs no deal.
    pretrained = {p: known_to_pretraining(run.config, c.records) for p, c in cohorts.items()}
    deals: list[Deal] = []
    counts: list[pd.DataFrame] = []
    hashes: dict[str, str] = {}
    for seed in run.seeds:
        for protocol, cohort in cohorts.items():
            for fold in range(run.folds):
                own = protocol_config(run.config, protocol, run.folds, fold, seed)
                deal = deal_fold(cohort, own, protocol)
                split = dealt(cohort, deal)
                check_classes(split, own.target.classes)
                check_findings(split, own)
                known = count_known(split, pretrained[protocol])
                counts.append(known.assign(protocol=protocol, seed=seed))
                deals.append(deal)
                hashes[deal.name] = split_hash(split.records)
    leaks = pd.concat(counts).groupby(["protocol", "seed", "modality"], sort=False).sum()
    leaks = leaks.reset_index()
    # Before anything can refuse them: a person must see where the leak is.
    write_json(run.out / "splits.json", {"all": sha256_json(hashes)[:16], "folds": hashes})
    write_csv(run.out / "leaks.csv", leaks)
    run.reporter.finish("; ".join(leak_lines(leaks)))
    _stop_on_leaks(leaks[leaks["protocol"] == "patient"])
    return deals, leaks


def _stop_on_leaks(leaks: pd.DataFrame) -> None:
    """Refuse folds by patient that leak.

    Raises:
        LeakageFound: they do.
    """
    if leaks["either"].any():
        raise LeakageFound(
            "the folds by patient",
            f"{leaks['either'].sum():,} test records share a patient or content with training",
            "report this as a fault of Pulmofuse",
        )
    seen = leaks[leaks["pretrained"] > 0].groupby("modality")["pretrained"].max()
    if len(seen):
        raise LeakageFound(
            f"the starting weights ({', '.join(seen.index)})",
            f"{seen.sum():,} records that the folds by patient test share a patient or content"
            " with what these weights were pre-trained on",
            "start from weights that were pre-trained on other data, or from imagenet",
        )


def _train(run: _Run, cohorts: dict[Protocol, Cohort], deals: Sequence[Deal]) -> None:
    """Train and test every fold that is not done, one modality after the other."""
    work = [(m, deal) for m in Modality for deal in deals if m in cohorts[deal.protocol].caches]
    for modality, own in groupby(enumerate(work, start=1), key=lambda numbered: numbered[1][0]):
        # Where the network itself is trained, no two folds have the same features.
        frozen = run.config.of(modality).training.trainable == "head"
        with remember_features() if frozen else nullcontext():
            for place, (_, deal) in own:
                title = (
                    f"By {deal.protocol}, seed {deal.seed}, fold {deal.fold + 1} of {run.folds}:"
                    f" {modality.value} ({place} of {len(work)})"
                )
                _one(run, dealt(cohorts[deal.protocol], deal), deal, modality, title)


def _one(run: _Run, cohort: Cohort, deal: Deal, modality: Modality, title: str) -> None:
    """Train and test one fold of one modality, unless it is done."""
    config, folder = run.of(deal), _folder(run, deal, modality)
    found = folder / "predictions.parquet"

    def work() -> str:
        table, note = run_fold(modality, cohort, config, folder, run.reporter.update)
        table = table.assign(protocol=deal.protocol, seed=deal.seed, fold=deal.fold)
        write_parquet(found, table.astype({"seed": "Int64", "fold": "Int64"}))
        own = table[table["control"] == NO_CONTROL]
        asked = questions(own, config.target.classes)[modality.value]
        own = as_asked(own, asked)
        return f"accuracy {(own['y_true'] == own['y_pred']).mean():.3f}; {note}"

    inputs = [
        *training_inputs(config, modality, cohort.of(modality)),
        config.evaluation.model_dump(mode="json", include={"threshold"}),
        config.evaluation.calibration_kinds,
        sorted(healthy_controls(modality)),
    ]
    name = f"{deal.name}-{modality.value}"
    outputs = [found, *checkpoint_files(config, modality, folder, BEST)]
    run.steps.run(name, title, inputs, outputs, work, folder)
    # A finished fold never goes on.
    for path in checkpoint_files(config, modality, folder, LAST):
        path.unlink(missing_ok=True)


def _folder(run: _Run, deal: Deal, modality: Modality) -> Path:
    return run.out / f"by-{deal.protocol}/seed-{deal.seed}/fold-{deal.fold}" / modality.value


def _evaluate(
    run: _Run,
    cohorts: dict[Protocol, Cohort],
    deals: Sequence[Deal],
    pairs: Sequence[tuple[str, str]],
) -> list[dict[str, Any]]:
    """Pool the folds; writes predictions.parquet, controls.parquet and metrics.json."""
    config, out = run.config, run.out
    found = [
        pd.read_parquet(_folder(run, deal, modality) / "predictions.parquet")
        for deal in deals
        for modality in cohorts[deal.protocol].caches
    ]
    pooled = with_ensembles(pd.concat(found, ignore_index=True), config)
    plain = pooled["control"] == NO_CONTROL
    for name, table in (("predictions", pooled[plain].drop(columns="control")),
                        ("controls", pooled[~plain])):  # fmt: skip
        write_parquet(out / f"{name}.parquet", table)

    def work() -> str:
        rows = pooled_rows(pooled, config, pairs)
        write_json(out / "metrics.json", rows)
        return f"{len(rows):,} figures"

    inputs = [
        pulmofuse.__version__,
        config.target.model_dump(mode="json"),
        config.evaluation.model_dump(mode="json"),
        config.seed,
        [list(pair) for pair in pairs],
        cells_key(pooled),
    ]
    outputs = [out / "metrics.json"]
    run.steps.run("evaluate", "Evaluate the pooled folds", inputs, outputs, work)
    rows: list[dict[str, Any]] = read_json(out / "metrics.json")
    return rows
