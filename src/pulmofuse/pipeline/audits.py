"""Audit records and write what was found, and what it was found in.

Writes audit.json, audited.json, duplicates.csv, pictures of the copies and audit.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

import pulmofuse
from pulmofuse.curation import Audit, Check, audit
from pulmofuse.files import sha256_path, write_csv, write_json
from pulmofuse.pipeline.pairs import draw_pairs
from pulmofuse.report import write_audit_page
from pulmofuse.schema import Modality
from pulmofuse.training import Progress

#: What `write_audit` leaves in its folder, beside the pictures.
AUDIT_FILES = ("audit.json", "audited.json", "duplicates.csv", "pairs/index.json", "audit.html")


def write_audit(
    records: pd.DataFrame,
    pairs: pd.DataFrame,
    seed: int,
    data_root: Path,
    out: Path,
    manifest: Path | None = None,
    study: str | None = None,
    progress: Progress | None = None,
    further: Sequence[Check] = (),
) -> Audit:
    """Ask every question of the records, and write the answers into a folder.

    Args:
        records: as `curation.audit` takes them.
        pairs: as `curation.find_pairs` gives them.
        seed: of everything drawn.
        data_root: folder that the paths are relative to.
        out: takes audit.json, audited.json, duplicates.csv, pairs/ and audit.html; the page lists
            the unreadable files of the folder's excluded.csv, so write that before.
        manifest: file that the records come from; null where there is none.
        study: name of the study whose classes are used; null where the labels are the classes.
        progress: told (files drawn, files in all, path).
        further: answers that the records alone do not give.
    """
    found = audit(records, pairs, seed, further)
    write_json(out / "audit.json", found.to_json())
    write_json(out / "audited.json", _audited(records, seed, manifest, study))
    write_csv(out / "duplicates.csv", found.duplicates)
    modalities = dict(zip(records["path"], records["modality"], strict=True))
    draw_pairs(found.duplicates, modalities, data_root, out / "pairs", progress)
    write_audit_page(out)
    return found


def _audited(
    records: pd.DataFrame, seed: int, manifest: Path | None, study: str | None
) -> dict[str, Any]:
    """What was audited, when and by what; not in audit.json, which is the same every time."""
    mapped = records[records["y_true"].notna()]
    labels = mapped.groupby(mapped["y_true"].astype(str))["label"]
    return {
        "manifest": manifest.name if manifest is not None else None,
        "sha256": sha256_path(manifest) if manifest is not None else None,
        "study": study,
        "classes": {name: sorted(set(map(str, own))) for name, own in labels},
        "without_class": int(records["y_true"].isna().sum()),
        "unreadable_at_scan": _unreadable_at_scan(manifest, set(records["path"])),
        "seed": seed,
        "version": pulmofuse.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "modalities": [
            _counts(part, modality.value)
            for modality in Modality
            if len(part := records[records["modality"] == modality.value])
        ],
    }


def _unreadable_at_scan(manifest: Path | None, audited: set[str]) -> list[dict[str, str]]:
    """Files that `data scan` could not read, and therefore left out of the manifest it wrote.

    It lists them beside the manifest, as `<name>.excluded.csv`; what was audited all the same is
    of an older list.
    """
    beside = manifest.with_name(f"{manifest.stem}.excluded.csv") if manifest is not None else None
    if beside is None or not beside.is_file():
        return []
    try:
        table = pd.read_csv(beside, dtype=str, keep_default_na=False)
        left_out = (table["stage"] == "read") & ~table["path"].isin(audited)
        unreadable = table.loc[left_out, ["path", "reason", "remedy"]]
    except (OSError, ValueError, KeyError):
        # Nothing of this audit depends on the list, but the page must not say that it is empty.
        reason = "is not the list that `data scan` writes, so what it left out is not known"
        return [{"path": beside.name, "reason": reason, "remedy": "scan again"}]
    return [{str(k): str(v) for k, v in row.items()} for row in unreadable.to_dict("records")]


def _counts(part: pd.DataFrame, modality: str) -> dict[str, Any]:
    """Files, patients, sources and sites of one modality; files left out before are apart."""
    used = part[part["used"].astype(bool)]
    return {
        "modality": modality,
        "files": len(used),
        "left_out_before": len(part) - len(used),
        "patients": int(used["patient_id"].nunique()),
        "patient_unknown": int((~used["patient_known"].astype(bool)).sum()),
        "sources": sorted(set(used["source"].astype(str))),
        "sites": int(used["site"].nunique()),
    }
