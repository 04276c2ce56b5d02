"""Evaluate the bundle of a study on records it never saw.

evaluate_external(Path("runs/covid"), "covid_chestxray:covid-chestxray-dataset", Path("data"), out)
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pulmofuse.config import SourceConfig, StudyConfig, load_config
from pulmofuse.errors import StudyError
from pulmofuse.evaluation import comparison_table, evaluate
from pulmofuse.files import atomic_path, write_json
from pulmofuse.inference import Bundle, Scores, load_bundle, score_records
from pulmofuse.pipeline import (
    Cohort,
    PatientScores,
    Reporter,
    Silent,
    decide,
    decision_predictions,
    feature_predictions,
    fusion_patients,
    locked,
    prepare_cohort,
    record_predictions,
    scan,
)
from pulmofuse.schema import Modality, Split, exclusions_frame, read_manifest, write_manifest


def evaluate_external(
    study: Path, data: str, data_root: Path, out: Path, reporter: Reporter | None = None
) -> pd.DataFrame:
    """Score records outside a study with its bundle, and compute the study's figures for them.

    Nothing is fitted: calibration, thresholds and fusion weights are those of the study.

    Args:
        study: output folder of a study.
        data: a manifest (Parquet or CSV) or "SOURCE:ROOT".
        data_root: folder that paths are relative to.
        out: takes predictions.parquet, metrics.json, manifest.parquet and the tables as CSV.
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
        cohort = _collect(config, bundle, data, data_root, out, reporter)
        scores = _score(bundle, cohort, reporter)
        predictions = _predict(config, bundle, cohort, scores)
        reporter.step("Evaluate")
        rows = evaluate(
            predictions, bundle.classes, bundle.positive, config.evaluation, config.seed
        )
        table = comparison_table(rows)
        write_manifest(out / "manifest.parquet", cohort.records)
        with atomic_path(out / "predictions.parquet") as temporary:
            predictions.to_parquet(temporary, index=False)
        write_json(out / "metrics.json", rows)
        for name, content in (("comparison", table), ("excluded", cohort.excluded)):
            with atomic_path(out / f"{name}.csv") as temporary:
                content.to_csv(temporary, index=False)
        reporter.finish(str(out / "comparison.csv"))
    return table


def _collect(
    config: StudyConfig,
    bundle: Bundle,
    data: str,
    data_root: Path,
    out: Path,
    reporter: Reporter,
) -> Cohort:
    """Records with classes that the bundle knows, all of them as test records."""
    reporter.step("Scan the data")
    name, colon, root = data.partition(":")
    if colon and not Path(data).exists():
        manifest, excluded = scan((SourceConfig(name=name, root=root or "."),), data_root)
    else:
        manifest, excluded = read_manifest(Path(data)), exclusions_frame([])
    reporter.finish(f"{len(manifest):,} files")
    known = manifest["modality"].isin([m.value for m in bundle.unimodal])
    if not known.any():
        modalities = ", ".join(m.value for m in bundle.unimodal)
        raise StudyError(data, "holds no modality of this bundle", f"the bundle reads {modalities}")
    reporter.step("Read and prepare the files")
    cohort = prepare_cohort(
        manifest[known], excluded, config, data_root, out / "cache", reporter.update
    )
    reporter.finish(f"{len(cohort.records):,} records")
    return Cohort(cohort.records.assign(split=Split.TEST.value), cohort.excluded, cohort.caches)


def _score(bundle: Bundle, cohort: Cohort, reporter: Reporter) -> dict[Modality, Scores]:
    scores = {}
    for modality, cache in cohort.caches.items():
        records = cohort.of(modality)
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
    """Every record by itself; true patients by every method where they have several modalities."""
    classes = bundle.classes
    tables = [record_predictions(cohort.of(m), s, m, classes) for m, s in scores.items()]
    complete = len(bundle.unimodal) > 1 and set(scores) == set(bundle.unimodal)
    if complete:
        columns = ["record_id", "patient_id", "modality", "split", "y_true"]
        patients = fusion_patients(
            cohort.records[columns], config.fusion.patients, classes, config.seed
        )
        patient_scores = PatientScores(patients, scores, classes)
        tables += decision_predictions(patient_scores, bundle.decision, config.fusion.rules)
        if bundle.feature is not None:
            tables += feature_predictions(patient_scores, bundle.feature)
    joined = pd.concat(tables, ignore_index=True)
    return decide(joined, classes, bundle.positive, bundle.thresholds)
