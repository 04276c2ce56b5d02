"""A whole study, from the data sets to the report; read it from top to bottom.

    run_study(load_config(Path("studies/covid.yaml")), Path("data"), Path("runs/covid"))

Every step leaves files in the output folder and is not run again unless its inputs changed, so a
study that was killed goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd

import pulmofuse
from pulmofuse.config import StudyConfig, dump_config
from pulmofuse.curation import split_hash, stop_on_leaks
from pulmofuse.evaluation import (
    Conformal,
    comparison_table,
    comparisons,
    decision_curves,
    evaluate,
    fusion_gain,
    prevalence_table,
)
from pulmofuse.evaluation.matching import CONFOUNDERS
from pulmofuse.files import (
    read_json,
    sha256_file,
    write_csv,
    write_json,
    write_parquet,
    write_text,
)
from pulmofuse.inference import (
    Bundle,
    DecisionFusion,
    FeatureFusion,
    Scores,
    Unimodal,
    build_model,
    save_bundle,
    score_records,
)
from pulmofuse.pipeline import (
    AUDIT_FILES,
    CALIBRATION_FILES,
    FINDINGS_FILES,
    FUSION_CONTROL_FILES,
    POWER_FILE,
    Cohort,
    PatientScores,
    Reporter,
    Silent,
    Steps,
    cells_key,
    check_classes,
    check_findings,
    checkpoint_files,
    decide,
    decision_predictions,
    describe_cohort,
    describe_rows,
    feature_predictions,
    fit_decision_fusion,
    fit_feature_fusion,
    fit_gates,
    fit_prediction_sets,
    fusion_patients,
    fusion_source,
    locked,
    operating_points,
    prepare_cohort,
    pretraining_checks,
    record_predictions,
    record_truth,
    require_records,
    rows_hash,
    run_controls,
    scan,
    seen_in_pretraining,
    split_cohort,
    study_power,
    subset_partitions,
    table_hash,
    train_unimodal,
    training_inputs,
    training_patients,
    versions,
    weights_key,
    with_stacking,
    without_leaks,
    write_audit,
    write_calibration,
    write_examples,
    write_explanations,
    write_findings,
    write_fingerprints,
    write_fusion_controls,
    write_views,
)
from pulmofuse.report import write_report
from pulmofuse.schema import MANIFEST_COLUMNS, Modality, Split, write_manifest
from pulmofuse.sources.synthetic import read_truth
from pulmofuse.training import BEST, FeatureSource

#: What the evaluation writes, besides what calibration has of its own.
EVALUATION_FILES = (
    "metrics.json",
    "comparison.csv",
    "comparisons.csv",
    "decision_curves.csv",
    "prevalence.csv",
)


@dataclass(eq=False)
class _Run:
    """What the steps of one run hand on to each other."""

    config: StudyConfig
    data_root: Path
    out: Path
    cache: Path
    reporter: Reporter
    steps: Steps
    keys: dict[Modality, str] = field(default_factory=dict)
    parts: dict[Modality, Unimodal] = field(default_factory=dict)
    scores: dict[Modality, Scores] = field(default_factory=dict)
    patients: PatientScores | None = None
    decision: DecisionFusion | None = None
    stacking: str = ""
    feature: dict[str, FeatureFusion] = field(default_factory=dict)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    thresholds: dict[str, float] = field(default_factory=dict)
    conformal: Conformal | None = None


def run_study(
    config: StudyConfig,
    data_root: Path,
    out: Path,
    reporter: Reporter | None = None,
    cache: Path | None = None,
) -> Path:
    """Run a study, or finish one that was stopped.

    Args:
        config: what to do.
        data_root: folder below which the data sets lie.
        out: output folder; docs/decisions/0001-shape.md lists its files.
        reporter: shows progress.
        cache: folder of the prepared files, `out/cache` by default; studies of the same files can
            share one.

    Returns:
        Path of `report.html`.

    Raises:
        PulmofuseError: with what is wrong, why, and what to do about it.
    """
    reporter = reporter or Silent()
    with locked(out):
        run = _Run(config, data_root, out, cache or out / "cache", reporter, Steps(out, reporter))
        cohort = _collect(run)
        _audit(run, cohort)
        for modality in cohort.caches:
            _train(run, cohort, modality)
        _fuse(run, cohort)
        _evaluate(run)
        _power(run)
        _findings(run, cohort)
        _control(run, cohort)
        _control_fusion(run, cohort)
        _illustrate(run, cohort)
        _bundle(run, cohort)
        return _report(run, cohort)


def _collect(run: _Run) -> Cohort:
    """Scan, read, clean and split; writes manifest.parquet, excluded.csv and remarks.csv."""
    config, out = run.config, run.out
    run.reporter.step("Scan the data sets")
    manifest, excluded = scan(config.sources, run.data_root)
    run.reporter.finish(f"{len(manifest):,} files, {len(excluded):,} left out")
    # A wrong backbone must not cost a reading of all files, nor touch what an earlier run wrote.
    modalities = [Modality(name) for name in sorted(manifest["modality"].unique())]
    for modality in modalities:
        build_model(modality, config.of(modality), len(config.target.classes))
    before = seen_in_pretraining(config, modalities)
    write_text(out / "config.resolved.yaml", dump_config(config))
    run.reporter.step("Read and prepare the files")
    cohort = prepare_cohort(
        manifest, excluded, config, run.data_root, run.cache, run.reporter.update
    )
    # Before anything can refuse the cohort: a person must see why so little is left.
    write_csv(out / "excluded.csv", cohort.excluded)
    write_csv(out / "remarks.csv", cohort.remarks)
    run.reporter.finish(describe_cohort(cohort))
    require_records(cohort, config.name, out / "excluded.csv")
    run.reporter.step("Split by patient")
    cohort = split_cohort(cohort, config)
    if config.audit.on_leak == "drop":
        cohort = without_leaks(cohort)
        write_csv(out / "excluded.csv", cohort.excluded)
    counts = cohort.records["split"].value_counts()
    run.reporter.finish(", ".join(f"{counts.get(s.value, 0):,} {s.value}" for s in Split))
    write_manifest(out / "manifest.parquet", cohort.records)
    # What the models start from is not external data to this study either.
    before = before[~before["sha256"].isin(cohort.records["sha256"])]
    seen = [table for table in (cohort.records, before) if len(table)]
    write_fingerprints(out, pd.concat(seen, ignore_index=True))
    check_classes(cohort, config.target.classes)
    check_findings(cohort, config)
    return cohort


def _audit(run: _Run, cohort: Cohort) -> None:
    """Audit the records; writes audit.json, duplicates.csv and audit.html. May end the study."""
    config, out, records = run.config, run.out, cohort.audited

    def work() -> str:
        found = write_audit(
            records,
            cohort.pairs,
            config.seed,
            run.data_root,
            out,
            out / "manifest.parquet",
            config.name,
            run.reporter.update,
            pretraining_checks(config, cohort.records),
        )
        failed = list(dict.fromkeys(c.id for c in found.checks if c.verdict == "fail"))
        return f"verdict: {found.verdict}{' (' + ', '.join(failed) + ')' if failed else ''}"

    columns = [*MANIFEST_COLUMNS, "y_true", "sha256", "used"]
    excluded = cohort.excluded
    inputs = [
        pulmofuse.__version__,
        config.name,
        config.seed,
        rows_hash(records, columns),
        table_hash(cohort.pairs),
        table_hash(excluded[excluded["stage"] == "read"]),
        table_hash(cohort.remarks),
        *(key for modality in cohort.caches for key in weights_key(config.of(modality))),
    ]
    outputs = [out / name for name in AUDIT_FILES]
    run.steps.run("audit", "Audit splits and shortcuts", inputs, outputs, work)
    if config.audit.on_leak != "accept":
        stop_on_leaks(read_json(out / "audit.json")["checks"], out / "audit.html")


def _train(run: _Run, cohort: Cohort, modality: Modality) -> None:
    """Train one modality's model and score all its records."""
    config, records = run.config, cohort.of(modality)
    folder = run.out / "checkpoints" / modality.value
    inputs = training_inputs(config, modality, records)
    trained: list[Unimodal] = []

    def work() -> str:
        part, note = train_unimodal(modality, cohort, config, folder, run.reporter.update)
        trained.append(part)
        return note

    title = f"Train the {modality.value} model"
    names = (BEST, "history.csv")
    outputs = [file for name in names for file in checkpoint_files(config, modality, folder, name)]
    key = run.steps.run(f"train-{modality.value}", title, inputs, outputs, work, workspace=folder)
    if not trained:
        # Done before: `fit` finds the finished checkpoint and only loads it.
        trained.append(train_unimodal(modality, cohort, config, folder, run.reporter.update)[0])
    run.parts[modality], run.keys[modality] = trained[0], key
    instances, scores = cohort.caches[modality].instances, run.out / "scores"

    def score() -> str:
        scored = score_records(
            trained[0], config.target.classes, records, instances, run.reporter.update
        )
        scored.save(scores, modality.value)
        return f"{len(records):,} records"

    outputs = [scores / f"{modality.value}.parquet", scores / f"{modality.value}.npy"]
    title = f"Score the {modality.value} records"
    within = trained[0].within
    inputs = [key, config.evaluation.calibration_kinds]
    if within is not None:
        inputs.append(within.tolist())
    run.steps.run(f"score-{modality.value}", title, inputs, outputs, score)
    run.scores[modality] = Scores.load(scores, modality.value)


def _fuse(run: _Run, cohort: Cohort) -> None:
    """Join the modalities by every method; writes predictions.parquet."""
    config, classes = run.config, run.config.target.classes
    tables = [
        record_predictions(cohort.of(m), scores, m, classes) for m, scores in run.scores.items()
    ]
    columns = ["record_id", "patient_id", "modality", "split", "y_true"]
    table = fusion_patients(cohort.records[columns], config.fusion.patients, classes, config.seed)
    truth = record_truth(cohort.records, classes)
    run.patients = patients = PatientScores(table, run.scores, classes, truth)
    run.reporter.step("Fit the decision rules")
    run.decision, run.stacking = with_stacking(
        fit_decision_fusion(patients, config, cohort),
        patients,
        run.scores,
        cohort.records[columns],
        config,
    )
    run.reporter.finish(run.stacking)
    tables += decision_predictions(patients, run.decision, config.fusion.rules)
    _fuse_features(run, cohort, patients, columns)
    tables += feature_predictions(patients, run.feature)
    joined = pd.concat(tables, ignore_index=True)
    positive = config.target.positive
    run.thresholds = operating_points(joined, classes, positive, config.evaluation.threshold)
    partitions = subset_partitions(run.parts, classes)
    run.predictions = decide(joined, classes, positive, run.thresholds, partitions)
    if config.evaluation.conformal is not None:
        coverage = config.evaluation.conformal.coverage
        run.conformal = fit_prediction_sets(run.predictions, classes, coverage)
    write_parquet(run.out / "predictions.parquet", run.predictions)


def _fuse_features(run: _Run, cohort: Cohort, patients: PatientScores, columns: list[str]) -> None:
    """Train every feature-level fusion; writes fusion_rows.csv, what they are trained on."""
    config, settings, out = run.config, run.config.fusion.feature, run.out
    if settings is None or len(run.parts) < 2:
        (out / "fusion_rows.csv").unlink(missing_ok=True)
        return
    folder = out / "checkpoints" / "fusion"
    rows = training_patients(patients.patients, cohort.records[columns])
    write_csv(out / "fusion_rows.csv", describe_rows(rows, patients.modalities, config))
    seen = [pulmofuse.__version__, rows_hash(cohort.records, [*columns, "sha256"]), run.keys]
    for modality, part in run.parts.items():
        path = folder / "views" / f"{modality.value}.safetensors"
        run.steps.run(
            f"views-{modality.value}",
            f"Augmented views of the {modality.value} records",
            [*seen[:2], run.keys[modality], settings.views],
            [path],
            lambda path=path, part=part: write_views(  # type: ignore[misc]
                path, part, cohort, settings.views, config.seed, run.reporter.update
            ),
        )

    @cache
    def source() -> FeatureSource:
        return fusion_source(rows, run.scores, folder / "views", cohort, config)

    for method in settings.methods:

        def train(method: str = method) -> str:
            run.feature[method], note = fit_feature_fusion(
                method,
                patients,
                source,
                run.parts,
                config,
                settings,
                folder / method,
                run.reporter.update,
            )
            return note

        run.steps.run(
            f"train-fusion-{method}",
            f"Train the fusion by {method.replace('_', ' ')}",
            [
                *seen,
                method,
                config.fusion.patients,
                settings.model_dump(mode="json", exclude={"methods"}),
            ],
            [],
            train,
            workspace=folder / method,
        )
        if method not in run.feature:
            train()  # done before: the finished checkpoint is only loaded


def _evaluate(run: _Run) -> None:
    """Compute every figure; writes metrics.json and tables. This opens the test set."""
    config, out = run.config, run.out
    classes, positive = config.target.classes, config.target.positive

    def work() -> str:
        arguments = (run.predictions, classes, positive, config.evaluation, config.seed)
        rows = evaluate(*arguments)
        write_json(out / "metrics.json", rows + fusion_gain(*arguments))
        write_csv(out / "comparison.csv", comparison_table(rows))
        write_csv(out / "comparisons.csv", comparisons(*arguments))
        write_csv(out / "decision_curves.csv", decision_curves(*arguments))
        write_csv(out / "prevalence.csv", prevalence_table(*arguments))
        confidence = config.evaluation.confidence
        write_calibration(out, run.predictions, classes, positive, run.conformal, confidence)
        return f"{len(rows):,} figures"

    inputs = [
        pulmofuse.__version__,
        config.target.model_dump(mode="json"),
        config.evaluation.model_dump(mode="json"),
        config.seed,
        cells_key(run.predictions),
    ]
    tables = CALIBRATION_FILES if run.conformal is not None else CALIBRATION_FILES[:2]
    outputs = [out / name for name in (*EVALUATION_FILES, *tables)]
    run.steps.run("evaluate", "Evaluate on the test patients", inputs, outputs, work)


def _power(run: _Run) -> None:
    """How many true pairs the claimed gain would take; writes power.json where a frame is given."""
    config, path = run.config, run.out / POWER_FILE
    if config.evaluation.power_frame is None:
        path.unlink(missing_ok=True)
        return
    frame = run.data_root / config.evaluation.power_frame
    title = "Ask how many true pairs the gain would take"
    if not frame.is_file():
        path.unlink(missing_ok=True)
        run.reporter.step(title)
        run.reporter.finish(f"left out: the label file {frame} is not there")
        return

    def work() -> str:
        statement = study_power(run.out, frame)
        write_json(path, statement)
        return str(statement["sentence"])

    inputs = [
        pulmofuse.__version__,
        config.target.model_dump(mode="json"),
        config.evaluation.model_dump(mode="json"),
        config.seed,
        sha256_file(frame),
        cells_key(run.predictions),
    ]
    run.steps.run("power", title, inputs, [path], work)


def _findings(run: _Run, cohort: Cohort) -> None:
    """What the X-ray model says of findings, where it learnt them; writes `FINDINGS_FILES`."""
    config, part = run.config, run.parts.get(Modality.CXR)
    outputs = [run.out / name for name in FINDINGS_FILES]
    if part is None or not part.model.findings:
        for path in outputs:
            path.unlink(missing_ok=True)
        return
    records, scores = cohort.of(Modality.CXR), run.scores[Modality.CXR]
    inputs = [
        pulmofuse.__version__,
        run.keys[Modality.CXR],
        config.evaluation.model_dump(mode="json"),
        rows_hash(records, ["record_id", "patient_id"]),
    ]
    run.steps.run(
        "findings",
        "Evaluate the findings",
        inputs,
        outputs,
        lambda: write_findings(part, records, scores, config, run.out),
    )


def _control(run: _Run, cohort: Cohort) -> None:
    """Take the disease out and see what is left; match patients; writes controls.csv."""
    config, out = run.config, run.out
    if not config.evaluation.controls:
        (out / "controls.csv").unlink(missing_ok=True)
        return

    def work() -> str:
        table = run_controls(
            run.parts, run.scores, cohort, run.predictions, config, run.reporter.update
        )
        write_csv(out / "controls.csv", table)
        return f"{len(table):,} rows"

    inputs = [
        pulmofuse.__version__,
        run.keys,
        config.evaluation.model_dump(mode="json"),
        rows_hash(cohort.records, ["record_id", *CONFOUNDERS]),
        cells_key(run.predictions),
    ]
    run.steps.run("controls", "Negative controls", inputs, [out / "controls.csv"], work)


def _control_fusion(run: _Run, cohort: Cohort) -> None:
    """Try the fusion on noise, other pairings, acquisition alone; writes `FUSION_CONTROL_FILES`."""
    config, patients, decision = run.config, run.patients, run.decision
    assert patients is not None and decision is not None  # noqa: S101, PT018  # `_fuse` set them
    outputs = [run.out / name for name in FUSION_CONTROL_FILES]
    if not config.evaluation.fusion_controls or len(run.parts) < 2:
        for path in outputs:
            path.unlink(missing_ok=True)
        return
    inputs = [
        pulmofuse.__version__,
        config.seed,
        config.target.model_dump(mode="json"),
        config.fusion.model_dump(mode="json"),
        config.evaluation.model_dump(mode="json"),
        rows_hash(cohort.records, ["record_id", "patient_id", "split", "y_true", "traits"]),
        cells_key(run.predictions),
    ]
    run.steps.run(
        "fusion-controls",
        "Controls on fusion",
        inputs,
        outputs,
        lambda: write_fusion_controls(patients, decision, cohort, run.predictions, config, run.out),
    )


def _illustrate(run: _Run, cohort: Cohort) -> None:
    """Examples and Grad-CAM pictures."""
    config, out = run.config, run.out

    def work() -> str:
        write_examples(cohort, config, out / "examples")
        write_explanations(cohort, run.parts, run.predictions, config, out / "explanations")
        return "examples and class activation maps"

    inputs = [
        config.model_dump(mode="json"),
        cells_key(run.predictions),
    ]
    outputs = [out / "examples" / "index.json", out / "explanations" / "index.json"]
    run.steps.run("illustrate", "Draw examples and explanations", inputs, outputs, work)


def _bundle(run: _Run, cohort: Cohort) -> None:
    """Write the bundle that predictions are made from."""
    assert run.decision is not None  # noqa: S101  # `_fuse` set it
    config, checks = run.config, read_json(run.out / "audit.json")["checks"]
    trained = cohort.records[cohort.records["split"] != Split.TEST]
    tables = (trained, seen_in_pretraining(config, list(cohort.caches)))
    seen = pd.concat([table for table in tables if len(table)], ignore_index=True)
    run.reporter.step("Write the bundle")
    bundle = Bundle(
        name=config.name,
        question=config.question,
        classes=config.target.classes,
        positive=config.target.positive,
        unimodal=run.parts,
        decision=run.decision,
        feature=run.feature,
        thresholds=run.thresholds,
        conformal=run.conformal,
        deployment_prevalence=config.evaluation.deployment_prevalence,
        facts={
            "warnings": [
                {"modality": c["modality"], "text": c["detail"]}
                for c in checks
                # The size of the test set says nothing about the patient at hand.
                if c["verdict"] != "pass" and c["id"] not in {"power", "support"}
            ],
            "test_files": sorted(set(cohort.records["sha256"]) - set(seen["sha256"])),
            "split_hash": split_hash(cohort.records),
            "training_files": sorted(seen["sha256"].unique()),
            "training_patients": sorted(seen["patient_id"].dropna().unique()),
            "versions": versions(),
        },
        gates=fit_gates(cohort, run.scores, config),
    )
    save_bundle(run.out / "bundle", bundle)
    run.reporter.finish(str(run.out / "bundle"))


def _report(run: _Run, cohort: Cohort) -> Path:
    """Write study.json and the report."""
    config, out = run.config, run.out
    run.reporter.step("Write the report")
    write_json(
        out / "study.json",
        {
            "name": config.name,
            "question": config.question,
            "seconds": run.steps.seconds(),
            "versions": versions(),
            "split_hash": split_hash(cohort.records),
            "test_opened": run.steps.runs("evaluate"),
            "seed": config.seed,
            "patients": "simulated" if run.predictions["simulated"].any() else "paired",
            "truth": _truth(run),
            "stacking": run.stacking,
        },
    )
    path = write_report(out)
    run.reporter.finish(str(path))
    return path


def _truth(run: _Run) -> dict[str, float] | None:
    """AUC of each subset that a synthetic cohort's generator says is attainable, or None."""
    target = run.config.target
    if target.has_sets:
        return None  # the generator knows no sets
    for source in run.config.sources:
        if source.name == "synthetic":
            return read_truth(run.data_root / source.root, target.truth, target.positive)
    return None
