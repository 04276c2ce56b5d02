"""Audit a manifest, before or without any study.

audit_manifest(Path("manifest.parquet"), Path("data"), Path("runs/audit"))
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pulmofuse.config import StudyConfig
from pulmofuse.curation import (
    Audit,
    find_pairs,
    read_files,
    remark_rows,
    seen_records,
    unreadable_files,
)
from pulmofuse.errors import ManifestError
from pulmofuse.files import write_csv
from pulmofuse.pipeline import Reporter, Silent, locked, write_audit
from pulmofuse.schema import Label, read_manifest

_DEFAULT_SEED = 17


def audit_manifest(
    manifest: Path,
    data_root: Path,
    out: Path,
    config: StudyConfig | None = None,
    reporter: Reporter | None = None,
) -> Audit:
    """Read every file of a manifest and look for leaks, copies and shortcuts.

    Args:
        manifest: Parquet or CSV.
        data_root: folder that its paths are relative to.
        out: takes audit.json, audit.html, duplicates.csv, excluded.csv and remarks.csv; what was
            seen of the files is kept there too, so that a second run is quick.
        config: its classes and seed are used; without it the labels are the classes.
        reporter: shows progress.

    Raises:
        ManifestError: the manifest breaks its contract, or none of its files can be read.
        StudyError: the output folder cannot be used.
    """
    reporter = reporter or Silent()
    records = read_manifest(manifest)
    if records.empty:
        raise ManifestError(manifest, "holds no record", "make one with `pulmofuse data scan`")
    # `data scan --out` left what it saw beside the manifest.
    beside = manifest.with_suffix(".files")
    with locked(out):
        reporter.step("Read the files")
        files = read_files(records, data_root, out / "files", reporter.update, beside)
        faults = unreadable_files(files, records)
        reporter.finish(f"{len(files) - len(faults):,} of {len(files):,} files can be read")
        write_csv(out / "excluded.csv", faults)
        records = seen_records(records, files)
        write_csv(out / "remarks.csv", remark_rows(records))
        if records.empty:
            why = f"none of its {len(files):,} files can be read below {data_root}"
            raise ManifestError(manifest, why, "look at excluded.csv, and check --data-root")
        reporter.step("Look for copies")
        pairs = find_pairs(records[["record_id", "modality", "sha256", "fingerprint"]])
        reporter.finish(f"{len(pairs):,} pairs")
        reporter.step("Audit")
        seed = _DEFAULT_SEED if config is None else config.seed
        classes = _classes(records["label"], config)
        found = write_audit(
            records.assign(y_true=classes, used=True),
            pairs,
            seed,
            data_root,
            out,
            manifest,
            None if config is None else config.name,
            reporter.update,
        )
        reporter.finish(f"verdict: {found.verdict}")
    return found


def _classes(labels: pd.Series, config: StudyConfig | None) -> pd.Series:
    """The class of each label; null where there is none."""
    if config is not None:
        return labels.map({label.value: name for label, name in config.target.truth.items()})
    return labels.where(labels != Label.UNKNOWN.value)
