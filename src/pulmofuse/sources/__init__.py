"""Data sets: each one makes a manifest of its folder.

A source is one file: its docstring is the data sheet, its `SOURCE` the description in code.
Adding a data set means adding a file and one entry in `SOURCES`.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pulmofuse.errors import SourceError
from pulmofuse.schema import check_manifest
from pulmofuse.sources import (
    coswara,
    coughvid,
    covid19_cough,
    covid_chestxray,
    covid_ct,
    covidx_ct,
    covidx_cxr,
    darkcovidnet,
    folder,
    montgomery,
    nih_chestxray14,
    radiography_database,
    rsna_pneumonia,
    sars_cov2_ct,
    shenzhen,
    synthetic,
    table,
    virufy,
)
from pulmofuse.sources.base import Scan, Source

__all__ = ["SOURCES", "Scan", "Source", "scan_source"]

#: Every data set that Pulmofuse can read, by name.
SOURCES: dict[str, Source] = {
    module.SOURCE.name: module.SOURCE
    for module in (
        folder,
        covid_ct,
        darkcovidnet,
        covid_chestxray,
        covidx_ct,
        sars_cov2_ct,
        nih_chestxray14,
        covidx_cxr,
        radiography_database,
        rsna_pneumonia,
        shenzhen,
        montgomery,
        covid19_cough,
        coswara,
        coughvid,
        virufy,
        table,
        synthetic,
    )
}


def scan_source(name: str, data_root: Path, root: str = ".") -> Scan:
    """Scan one data set and check what it gives.

    Args:
        name: key of `SOURCES`.
        data_root: folder that all paths of a manifest are relative to.
        root: the data set's folder, relative to `data_root`.

    Returns:
        A scan whose paths are relative to `data_root` (POSIX) and whose records are checked and
        sorted by `record_id`.

    Raises:
        SourceError: no such source, no such folder, a `root` outside `data_root`, or a layout
            that is not the one on the data sheet.
        ManifestError: the data set gives rows that break the manifest's contract.
    """
    source = _find(name)
    prefix = PurePosixPath(root.replace("\\", "/"))
    if prefix.is_absolute() or ".." in prefix.parts:
        raise SourceError(root, "leaves the data root", "give a folder relative to the data root")
    if not (data_root / prefix).is_dir():
        raise SourceError(data_root / prefix, "no such folder", source.obtain)
    scan = source.scan(data_root / prefix)
    records = scan.records.copy()
    excluded = scan.excluded
    if prefix.parts:
        records["path"] = [(prefix / path).as_posix() for path in records["path"]]
        excluded = tuple(replace(e, path=(prefix / e.path).as_posix()) for e in excluded)
        if source.generic:
            for column in ("record_id", "patient_id"):
                rest = records[column].str.removeprefix(f"{name}:")
                records[column] = f"{name}:{prefix}/" + rest
            records["site"] = [prefix.as_posix() if s is None else s for s in records["site"]]
    checked = check_manifest(records, f"{name} in {data_root / prefix}")
    return Scan(checked.sort_values("record_id", ignore_index=True), excluded)


def _find(name: str) -> Source:
    """The source of this name, or a SourceError that shows the nearest names."""
    if name in SOURCES:
        return SOURCES[name]
    key = name.lower().replace("-", "_")
    nearest = difflib.get_close_matches(key, SOURCES, n=3, cutoff=0.5)
    known = f"known sources: {', '.join(SOURCES)}"
    remedy = f"did you mean {' or '.join(nearest)}? {known}" if nearest else known
    raise SourceError(f"source {name!r}", "there is no such source", remedy)
