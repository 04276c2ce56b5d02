"""Predictions for everybody in a list of files, with one bundle.

predict_batch(Path("runs/covid/bundle"), "patients.csv", Path("data"), Path("runs/batch"))

Patients are worked off in small parts, each kept as soon as it is done: a run that was stopped goes
on after the last of them, and one whose files, bundle or settings have changed makes anew only what
they touch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from pulmofuse.errors import ManifestError, PulmofuseError, StudyError
from pulmofuse.files import (
    read_json,
    sha256_json,
    sha256_path,
    size_and_time,
    write_csv,
    write_json,
    write_text,
)
from pulmofuse.inference import DEFAULT_METHOD, GateMode, GateRemark, Prediction, Predictor, refusal
from pulmofuse.models import Inferred, joined
from pulmofuse.pipeline import Reporter, Silent, list_files, locked, versions
from pulmofuse.preprocessing import Prepared
from pulmofuse.schema import (
    Exclusion,
    Label,
    Modality,
    check_manifest,
    exclusions_frame,
    iterate,
    read_table,
)

#: A killed run loses the work on so many patients at most.
_PART_PATIENTS = 16
_MAX_THREADS = 4
_SET_JOIN = "|"
#: What a list must have; the rest of a manifest is made up where it is absent.
_NEEDED = ("path", "modality")


@dataclass(frozen=True)
class _Settings:
    method: str
    prevalence: float | None
    gate: GateMode


def predict_batch(
    bundle: Path,
    data: str,
    data_root: Path,
    out: Path,
    *,
    method: str = DEFAULT_METHOD,
    prevalence: float | None = None,
    gate: GateMode = "refuse",
    runtime: str = "auto",
    reporter: Reporter | None = None,
) -> pd.DataFrame:
    """Predict for every patient of a list from all files at hand.

    Several files of one modality count as they do for a patient of a study. A file that cannot be
    read or is refused is left out and listed; a patient is predicted from what is left.

    Args:
        bundle: folder of the bundle.
        data: a table (CSV or Parquet) with the columns path and modality, and patient_id where
            files belong together; a manifest is one; or "SOURCE:ROOT".
        data_root: folder that paths are relative to.
        out: takes predictions.csv (what is returned), predictions.jsonl (each `Prediction` whole),
            excluded.csv and batch.json.
        method: as in `Predictor.predict`.
        prevalence: as in `Predictor.predict`.
        gate: as in `Predictor.predict`; what is refused is left out.
        runtime: as in `Predictor.load`.
        reporter: shows progress.

    Returns:
        One row per patient, in the order of the list.

    Raises:
        PulmofuseError: the bundle, the list, the settings or the output folder cannot be used.
    """
    reporter = reporter or Silent()
    settings = _Settings(method, prevalence, gate)
    predictor = Predictor.load(bundle, runtime)
    predictor.check(list(predictor.bundle.unimodal), method)
    predictor.check_prevalence(prevalence)
    with locked(out):
        reporter.step("List the files")
        files, excluded = _listed(data, data_root)
        files, unknown = _readable(files, predictor, data)
        reporter.finish(f"{len(files):,} files of {files['patient_id'].nunique():,} patients")
        reporter.step("Predict")
        common = sha256_json([sha256_path(bundle), asdict(settings), versions()])
        parts = list(_parts(files))
        done, patients, left_out = 0, list[dict[str, Any]](), list[dict[str, str]]()
        for number, part in enumerate(parts):
            content = _part(predictor, part, data_root, out, number, common, settings)
            patients += content["patients"]
            left_out += content["excluded"]
            done += len(part)
            reporter.update(done, len(files), str(part["path"].iloc[-1]))
        excluded = pd.concat(
            [excluded, unknown, exclusions_frame(Exclusion(**row) for row in left_out)],
            ignore_index=True,
        )
        table = _table(patients, predictor)
        _write(out, table, patients, excluded, predictor, settings, data)
        reporter.finish(f"{len(table):,} patients, {len(excluded):,} files left out")
    if table.empty:
        raise StudyError(data, "not one file could be used", f"see {out / 'excluded.csv'}")
    return table


def _listed(data: str, data_root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest of a batch; a table of files is completed to one."""
    if ":" in data and not Path(data).exists():
        return list_files(data, data_root)
    table = read_table(Path(data))
    missing = [column for column in _NEEDED if column not in table]
    if missing:
        raise ManifestError(
            data,
            f"column {' and '.join(missing)} is missing",
            "give path and modality of each file",
        )
    without: dict[str, Any] = {
        "record_id": table["modality"].astype(str) + ":" + table["path"].astype(str),
        "patient_id": table["path"].astype(str),
        "patient_known": "patient_id" in table,
        "label": Label.UNKNOWN.value,
        "source": "batch",
    }
    for column, values in without.items():
        if column not in table:
            table[column] = values
    return check_manifest(table, data), exclusions_frame([])


def _readable(
    files: pd.DataFrame, predictor: Predictor, data: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Files of the bundle's modalities, and the others as exclusions."""
    known = files["modality"].isin([m.value for m in predictor.bundle.unimodal])
    modalities = ", ".join(m.value for m in predictor.bundle.unimodal)
    if not known.any():
        raise ManifestError(
            data, "holds no modality of this bundle", f"the bundle reads {modalities}"
        )
    others = exclusions_frame(
        Exclusion(
            row["path"], row["modality"], row["source"], "scan",
            f"this bundle has no {row['modality']} model", f"it reads {modalities}",
        )
        for row in iterate(files[~known])
    )  # fmt: skip
    return files[known], others


def _parts(files: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """All files of a few patients at a time, patients in the order of the list."""
    numbers = pd.factorize(files["patient_id"])[0]
    ordered = files.assign(_part=numbers // _PART_PATIENTS, _patient=numbers)
    ordered = ordered.sort_values(["_part", "_patient"], kind="stable")
    for _, part in ordered.groupby("_part", sort=True):
        yield part.drop(columns=["_part", "_patient"])


def _part(
    predictor: Predictor,
    files: pd.DataFrame,
    data_root: Path,
    out: Path,
    number: int,
    common: str,
    settings: _Settings,
) -> dict[str, Any]:
    """What was found for some patients: kept from an earlier run, or made and kept."""
    columns = ["record_id", "patient_id", "modality", "path", "source"]
    states = [size_and_time(data_root / path) for path in files["path"]]
    key = sha256_json([common, files[columns].to_numpy().tolist(), states])
    path = out / "parts" / f"{number:06d}.json"
    try:
        content: dict[str, Any] = read_json(path)
        if content["key"] == key:
            return content
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or damaged: made anew
    patients, excluded = _predict(predictor, files, data_root, settings)
    content = {"key": key, "patients": patients, "excluded": [asdict(e) for e in excluded]}
    write_json(path, content)
    return content


def _predict(
    predictor: Predictor, files: pd.DataFrame, data_root: Path, settings: _Settings
) -> tuple[list[dict[str, Any]], list[Exclusion]]:
    """Predictions of some patients as JSON values, and the files that were left out."""
    rows = list(iterate(files))
    n_threads = min(_MAX_THREADS, os.cpu_count() or 1)

    def read(row: Mapping[str, Any]) -> Prepared | PulmofuseError:
        try:
            return predictor.prepare(
                Modality(row["modality"]), data_root / row["path"], row["path"]
            )
        except PulmofuseError as error:
            return error

    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        prepared = list(pool.map(read, rows))
    excluded = [
        _left_out(row, "read", found.why, found.remedy)
        for row, found in zip(rows, prepared, strict=True)
        if isinstance(found, PulmofuseError)
    ]
    seen: dict[str, dict[Modality, list[Inferred]]] = {}
    quality: dict[str, list[GateRemark]] = {}
    for modality in predictor.bundle.unimodal:
        own = [
            (row, found)
            for row, found in zip(rows, prepared, strict=True)
            if row["modality"] == modality.value and isinstance(found, Prepared)
        ]
        inferred = predictor.infer(modality, [found for _, found in own]) if own else []
        for (row, found), said in zip(own, inferred, strict=True):
            remarks = [] if settings.gate == "off" else predictor.inspect(modality, found, said)
            refused = refusal(remarks) if settings.gate == "refuse" else None
            if refused is not None:
                excluded.append(_left_out(row, "gate", *refused))
                continue
            patient = row["patient_id"]
            seen.setdefault(patient, {}).setdefault(modality, []).append(said)
            quality.setdefault(patient, []).extend(remarks)
    patients = []
    for patient in dict.fromkeys(row["patient_id"] for row in rows):
        if patient not in seen:
            continue
        together = {m: joined(found) for m, found in seen[patient].items()}
        prediction = predictor.conclude(together, settings.method, settings.prevalence)
        said_of_it = tuple(remark.to_dict() for remark in quality[patient])
        counts = {m.value: len(found) for m, found in seen[patient].items()}
        patients.append(_row(patient, counts, replace(prediction, quality=said_of_it)))
    return patients, excluded


def _left_out(row: Mapping[str, Any], stage: str, why: str, remedy: str) -> Exclusion:
    return Exclusion(row["path"], row["modality"], row["source"], stage, why, remedy)


def _row(patient: str, files: Mapping[str, int], prediction: Prediction) -> dict[str, Any]:
    return {"patient_id": patient, "files": dict(files), **prediction.to_dict()}


def _table(patients: Sequence[Mapping[str, Any]], predictor: Predictor) -> pd.DataFrame:
    """One flat row per patient."""
    classes = predictor.bundle.classes
    modalities = [m.value for m in predictor.bundle.unimodal]
    columns = ["patient_id", "subset", "method", "predicted", *(f"p_{name}" for name in classes)]
    columns += ["threshold", "prevalence", "prediction_set", "coverage"]
    columns += [f"p_{m}_{name}" for m in modalities for name in classes]
    columns += [f"evidence_{m}" for m in modalities] + [f"n_{m}" for m in modalities] + ["quality"]
    rows = []
    for found in patients:
        held, single = found["prediction_set"], found["by_modality"]
        rows.append(
            {
                **{name: found[name] for name in columns[:4]},
                **{f"p_{name}": p for name, p in found["probabilities"].items()},
                "threshold": found["threshold"],
                "prevalence": found["prevalence"],
                "prediction_set": None if held is None else _SET_JOIN.join(held),
                "coverage": found["coverage"],
                **{f"p_{m}_{name}": p for m, ps in single.items() for name, p in ps.items()},
                **{f"evidence_{m}": value for m, value in found["evidence"].items()},
                **{f"n_{m}": found["files"].get(m, 0) for m in modalities},
                "quality": "; ".join(f"{r['modality']} {r['text']}" for r in found["quality"]),
            }
        )
    return pd.DataFrame(rows, columns=columns)


def _write(
    out: Path,
    table: pd.DataFrame,
    patients: Sequence[Mapping[str, Any]],
    excluded: pd.DataFrame,
    predictor: Predictor,
    settings: _Settings,
    data: str,
) -> None:
    """The tables, and what they were made with."""
    write_csv(out / "predictions.csv", table)
    lines = (json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in patients)
    write_text(out / "predictions.jsonl", "".join(lines))
    write_csv(out / "excluded.csv", excluded)
    bundle = predictor.bundle
    about = {
        "bundle": bundle.name,
        "question": bundle.question,
        "data": data,
        **asdict(settings),
        "n_patients": len(table),
        "n_files": int(table.filter(regex="^n_").to_numpy().sum()),
        "n_left_out": len(excluded),
        "warnings": [warning["text"] for warning in bundle.facts.get("warnings", ())],
        "versions": versions(),
        "research_use_only": True,
    }
    write_json(out / "batch.json", about)
