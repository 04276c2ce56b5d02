"""Audit records and write what was found: audit.json, duplicates.csv, pictures, audit.html."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pulmofuse.config import CoughPreprocessing, CtPreprocessing, CxrPreprocessing
from pulmofuse.curation import Audit, audit
from pulmofuse.errors import UnreadableFile
from pulmofuse.files import atomic_path, write_json
from pulmofuse.pipeline.pictures import instance_picture, write_png
from pulmofuse.preprocessing import PreprocessingConfig, prepare
from pulmofuse.report import write_audit_page
from pulmofuse.schema import Modality, iterate

#: Pairs shown side by side; duplicates.csv lists all of them, the gravest first.
MOST_PAIRS = 150

_DEFAULTS: dict[Modality, PreprocessingConfig] = {
    Modality.CT: CtPreprocessing(),
    Modality.CXR: CxrPreprocessing(),
    Modality.COUGH: CoughPreprocessing(),
}


def write_audit(
    records: pd.DataFrame, pairs: pd.DataFrame, seed: int, data_root: Path, out: Path
) -> Audit:
    """Ask every question of the records, and write the answers into a folder.

    Args:
        records: as `curation.audit` takes them.
        pairs: as `curation.find_pairs` gives them.
        seed: of everything drawn.
        data_root: folder that the paths are relative to.
        out: takes audit.json, duplicates.csv, pairs/ and audit.html.
    """
    found = audit(records, pairs, seed)
    write_json(out / "audit.json", found.to_json())
    with atomic_path(out / "duplicates.csv") as temporary:
        found.duplicates.to_csv(temporary, index=False)
    modalities = dict(zip(records["path"], records["modality"], strict=True))
    _write_pairs(found.duplicates, modalities, data_root, out / "pairs")
    write_audit_page(out)
    return found


def _write_pairs(
    duplicates: pd.DataFrame, modalities: dict[str, str], data_root: Path, folder: Path
) -> None:
    """Pictures of the first pairs: `<row>-a.png` and `<row>-b.png`, with index.json."""
    index = []
    for number, pair in enumerate(iterate(duplicates.head(MOST_PAIRS))):
        entry = {key: _json_cell(value) for key, value in pair.items()}
        for side in ("a", "b"):
            path = str(pair[f"path_{side}"])
            name = f"{number:03d}-{side}.png"
            picture = _picture(data_root / path, Modality(modalities[path]))
            if picture is not None:
                write_png(folder / name, picture)
                entry[f"image_{side}"] = name
        index.append(entry)
    write_json(folder / "index.json", index)


def _picture(path: Path, modality: Modality) -> np.ndarray | None:
    """The middle instance of a file for the eye; null where the file cannot be prepared."""
    try:
        instances = prepare(path, modality, _DEFAULTS[modality]).instances
    except UnreadableFile:
        # It was read for its fingerprint, but is no instance of its modality: there is no picture.
        return None
    return instance_picture(instances[len(instances) // 2], modality, CoughPreprocessing())


def _json_cell(value: object) -> object:
    return None if pd.isna(value) else value  # type: ignore[call-overload]
