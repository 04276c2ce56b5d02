"""Evaluate the bundle of a study on records it never saw.

evaluate_external(Path("runs/covid"), "covid_chestxray:covid-chestxray-dataset", Path("data"), out)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from pulmofuse.config import StudyConfig, Target, load_config
from pulmofuse.errors import StudyError
from pulmofuse.evaluation import comparison_table, evaluate
from pulmofuse.files import write_csv, write_json, write_parquet
from pulmofuse.fusion import narrowed, paired_patients
from pulmofuse.inference import Bundle, Scores, load_bundle, score_records
from pulmofuse.pipeline import (
    SEEN_COPY,
    SEEN_FILE,
    SEEN_PATIENT,
    Cohort,
    PatientScores,
    Reporter,
    Silent,
    copies_of_study,
    decide,
    decision_predictions,
    describe_cohort,
    feature_predictions,
    list_files,
    locked,
    of_true_pairs,
    prepare_cohort,
    record_predictions,
    record_truth,
    remove_true_pairs,
    require_records,
    subset_partitions,
    write_calibration,
    write_true_pairs,
)
from pulmofuse.schema import (
    Exclusion,
    Modality,
    Split,
    class_columns,
    exclusions_frame,
    iterate,
    write_manifest,
)

#: Of each record, what a table of patients is made of.
_PATIENT = ["record_id", "patient_id", "modality", "split", "y_true"]


def evaluate_external(
    study: Path, data: str, data_root: Path, out: Path, reporter: Reporter | None = None
) -> pd.DataFrame:
    """Score records outside a study with its bundle, and compute the study's figures for them.

    Nothing is fitted: preprocessing, calibration, thresholds and fusion weights are those of the
    bundle. Files and patients that the study trained or validated on are left out and counted.
    Modalities are joined for true patients only. Patients with two or more modalities are shown one
    by one as well, in pairs.csv; there are so few of them that those whom the study knows are shown
    too, and marked.

    Args:
        study: output folder of a study.
        data: a manifest (Parquet or CSV) or "SOURCE:ROOT".
        data_root: folder that paths are relative to.
        out: takes predictions.parquet, metrics.json, manifest.parquet, the tables as CSV, and
            where there are true pairs pairs.csv and pairs.json.
        reporter: shows progress.

    Returns:
        The comparison table.

    Raises:
        PulmofuseError: the study, the data or the output folder cannot be used.
    """
    reporter = reporter or Silent()
    bundle = load_bundle(study / "bundle")
    config = load_config(study / "config.resolved.yaml")
    with locked(out):
        everything, manifest = _collect(config, bundle, study, data, data_root, out, reporter)
        # Of whom no class is known there is nothing to show one by one.
        known = narrowed(everything.records)
        known = known[known["y_true"].isin(bundle.classes)]
        pairs = known[of_true_pairs(known)]
        cohort = _unseen(everything)
        scores = _score(bundle, everything, cohort.records, pairs, reporter)
        predictions = _predict(config, bundle, cohort, scores)
        reporter.step("Evaluate")
        rows = evaluate(
            predictions, bundle.classes, bundle.positive, config.evaluation, config.seed
        )
        table = comparison_table(rows)
        write_manifest(out / "manifest.parquet", cohort.records)
        write_parquet(out / "predictions.parquet", predictions)
        write_json(out / "metrics.json", rows)
        write_csv(out / "comparison.csv", table)
        write_calibration(
            out,
            predictions,
            bundle.classes,
            bundle.positive,
            bundle.conformal,
            config.evaluation.confidence,
        )
        write_csv(out / "excluded.csv", cohort.excluded)
        reporter.finish(str(out / "comparison.csv"))
        _show_pairs(config, bundle, pairs, manifest, everything.excluded, scores, out, reporter)
    return table


def _collect(
    config: StudyConfig,
    bundle: Bundle,
    study: Path,
    data: str,
    data_root: Path,
    out: Path,
    reporter: Reporter,
) -> tuple[Cohort, pd.DataFrame]:
    """Records with classes that the bundle knows, all as test records, and the whole manifest.

    The column `seen` says what the study trained or validated on; see `_seen`.
    """
    reporter.step("Scan the data")
    manifest, excluded = list_files(data, data_root)
    reporter.finish(f"{len(manifest):,} files, {len(excluded):,} left out")
    known = manifest["modality"].isin([m.value for m in bundle.unimodal])
    if not known.any():
        modalities = ", ".join(m.value for m in bundle.unimodal)
        raise StudyError(data, "holds no modality of this bundle", f"the bundle reads {modalities}")
    reporter.step("Read and prepare the files")
    manifest = manifest[known]
    cohort = prepare_cohort(
        manifest.assign(split=None),
        excluded,
        _bundle_config(config, bundle),
        data_root,
        out / "cache",
        reporter.update,
    )
    write_csv(out / "excluded.csv", cohort.excluded)
    require_records(cohort, data, out / "excluded.csv")
    seen = _seen(cohort.records, bundle, study)
    if (seen != "").all():
        raise StudyError(
            data,
            "the study trained on every one of these files or patients",
            "give data that the study did not train on",
        )
    records = cohort.records.assign(split=Split.TEST.value, seen=seen)
    cohort = replace(cohort, records=records)
    unseen = _unseen(cohort)
    reporter.finish(describe_cohort(unseen) + _own_test_files(unseen, bundle))
    return cohort, manifest


def _bundle_config(config: StudyConfig, bundle: Bundle) -> StudyConfig:
    """The study's configuration with the bundle's classes and preprocessing.

    The models were trained with what the bundle says; the YAML beside it may have changed since.
    """
    try:
        target = Target(
            classes=bundle.classes, positive=bundle.positive, mapping=config.target.mapping
        )
    except ValidationError:
        raise StudyError(
            "config.resolved.yaml",
            f"its target.mapping does not fit the bundle's classes {', '.join(bundle.classes)}",
            "run `pulmofuse study` again, so that the two belong together",
        ) from None
    parts = {m.value: part.config for m, part in bundle.unimodal.items()}
    return config.model_copy(update={"target": target, **parts})


def _seen(records: pd.DataFrame, bundle: Bundle, study: Path) -> np.ndarray:
    """What of each record (n,) the study trained or validated on; "" for what it never saw."""
    files = records["sha256"].isin(bundle.facts.get("training_files", []))
    near = copies_of_study(study, records).isin([Split.TRAIN.value, Split.VAL.value])
    patients = records["patient_id"].isin(bundle.facts.get("training_patients", []))
    # Whoever shares a group with something seen is somebody the study knows.
    known = records["group"].isin(set(records.loc[files | near | patients, "group"]))
    return np.select([files, near, known], [SEEN_FILE, SEEN_COPY, SEEN_PATIENT], "")


def _unseen(cohort: Cohort) -> Cohort:
    """The cohort without what the study trained or validated on: files, near copies, patients."""
    records = cohort.records
    seen = records["seen"] != ""
    dropped = exclusions_frame(
        Exclusion(
            row["path"],
            row["modality"],
            row["source"],
            "audit",
            f"the study trained on {row['seen']}",
            "none needed",
        )
        for row in iterate(records[seen])
    )
    excluded = pd.concat([cohort.excluded, dropped], ignore_index=True)
    return replace(cohort, records=records[~seen].reset_index(drop=True), excluded=excluded)


def _own_test_files(cohort: Cohort, bundle: Bundle) -> str:
    """A remark where the records are the study's own test set, which is no external data."""
    own = int(cohort.records["sha256"].isin(bundle.facts.get("test_files", [])).sum())
    return f"; {own:,} of them are the study's own test files, no external data" if own else ""


def _score(
    bundle: Bundle,
    cohort: Cohort,
    unseen: pd.DataFrame,
    pairs: pd.DataFrame,
    reporter: Reporter,
) -> dict[Modality, Scores]:
    """Scores of the records that are evaluated and of those of true pairs."""
    wanted = {*unseen["record_id"], *pairs["record_id"]}
    scores = {}
    for modality, cache in cohort.caches.items():
        records = cohort.of(modality)
        records = records[records["record_id"].isin(wanted)]
        if records.empty:
            continue
        reporter.step(f"Score the {modality.value} records")
        part = bundle.unimodal[modality]
        scores[modality] = score_records(
            part, bundle.classes, records, cache.instances, reporter.update
        )
        reporter.finish(f"{len(records):,} records")
    return scores


def _predict(
    config: StudyConfig, bundle: Bundle, cohort: Cohort, scores: dict[Modality, Scores]
) -> pd.DataFrame:
    """Every record by itself; true patients by every method for all subsets that somebody has."""
    classes = bundle.classes
    # Of some modality the study may have seen every record, and only true pairs were scored.
    scores = {m: s for m, s in scores.items() if not cohort.of(m).empty}
    tables = [record_predictions(cohort.of(m), s, m, classes) for m, s in scores.items()]
    if len(scores) > 1:
        patients = paired_patients(cohort.records[_PATIENT])
        n_modalities = (patients[[m.value for m in Modality]].map(len) > 0).sum(axis=1)
        # Figures of simulated patients have nothing to stand beside where nobody is a true pair.
        if (n_modalities > 1).any() or config.fusion.patients != "simulated":
            truth = record_truth(cohort.records, classes)
            tables += _patient_predictions(config, bundle, patients, scores, truth)
    joined = pd.concat([t for t in tables if not t.empty], ignore_index=True)
    partitions = subset_partitions(bundle.unimodal, classes)
    return decide(joined, classes, bundle.positive, bundle.thresholds, partitions)


def _patient_predictions(
    config: StudyConfig,
    bundle: Bundle,
    patients: pd.DataFrame,
    scores: dict[Modality, Scores],
    truth: dict[str, str] | None,
) -> list[pd.DataFrame]:
    """Rows of each patient alone and fused; empty tables for subsets that nobody has."""
    # The fusions expect every modality of the bundle, in its order; an absent one has no records.
    complete = {
        m: scores[m] if m in scores else _no_scores(part.model.feature_dim, bundle.classes)
        for m, part in bundle.unimodal.items()
    }
    patient_scores = PatientScores(patients, complete, bundle.classes, truth)
    tables = decision_predictions(patient_scores, bundle.decision, config.fusion.rules)
    return tables + feature_predictions(patient_scores, bundle.feature)


def _show_pairs(
    config: StudyConfig,
    bundle: Bundle,
    pairs: pd.DataFrame,
    manifest: pd.DataFrame,
    excluded: pd.DataFrame,
    scores: dict[Modality, Scores],
    out: Path,
    reporter: Reporter,
) -> None:
    """Write what every method says of each true pair; nothing where nobody is one."""
    if pairs.empty:
        remove_true_pairs(out)
        return
    reporter.step("Show the true pairs")
    tables = _patient_predictions(config, bundle, paired_patients(pairs[_PATIENT]), scores, None)
    joined = pd.concat([t for t in tables if not t.empty], ignore_index=True)
    classes, positive = bundle.classes, bundle.positive
    predictions = decide(joined, classes, positive, bundle.thresholds)
    confidence = config.evaluation.confidence
    reporter.finish(
        write_true_pairs(out, predictions, pairs, manifest, excluded, classes, positive, confidence)
    )


def _no_scores(feature_dim: int, classes: tuple[str, ...]) -> Scores:
    """Scores of no record."""
    columns = [*class_columns(classes), *class_columns(classes, raw=True)]
    index = pd.Index([], name="record_id", dtype=object)
    table = pd.DataFrame(np.empty((0, len(columns))), columns=columns, index=index)
    return Scores(table, np.empty((0, feature_dim), dtype=np.float32))
