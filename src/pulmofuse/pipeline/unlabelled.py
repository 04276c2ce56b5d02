"""Images for pre-training that share nothing with the validation and test records of a study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pulmofuse.config import StudyConfig
from pulmofuse.curation import drop_leaks, find_pairs
from pulmofuse.errors import StudyError
from pulmofuse.pipeline.cohort import Cohort, lateral, read_records, scan
from pulmofuse.pipeline.fingerprints import shared_contents
from pulmofuse.preprocessing import Cache
from pulmofuse.schema import Exclusion, Modality, Split, exclusions_frame, iterate

_KEPT = [
    "record_id", "patient_id", "modality", "path", "source", "series_id", "split", "sha256",
    "fingerprint", "start", "stop",
]  # fmt: skip
_LINK = "group"  # a pair that is no copy: the cohort says that both are of one patient


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Images to learn from.

    Attributes:
        records: record_id, patient_id, modality, path, source, series_id, split ("train"), sha256,
            fingerprint, start and stop (rows of `instances`); equal files once.
        instances: (all, height, width) uint8, memory-mapped.
        excluded: files of the modality that were left out, columns of `schema.Exclusion`.
    """

    records: pd.DataFrame
    instances: np.ndarray
    excluded: pd.DataFrame


def unlabelled_images(
    cohort: Cohort,
    config: StudyConfig,
    modality: Modality,
    data_root: Path,
    cache_folder: Path,
    progress: Callable[[int, int, str], None],
) -> Unlabelled:
    """The training records of a study and those of `pretrain.extra`, without what the rest knows.

    Whoever is joined with a validation or test record of any modality, by patient, copy (exact or
    near) or series, directly or over others, is left out, whatever `audit.on_leak` says.

    Args:
        cohort: the study's, split.
        config: the study.
        modality: of the images.
        data_root: folder that the paths are relative to.
        cache_folder: that of the cohort.
        progress: told (files done, files in all, modality).

    Raises:
        StudyError: the study has no such records, or the further sources no such images.
    """
    own = cohort.of(modality)
    if own.empty:
        raise StudyError(config.name, f"has no usable {modality.value} record", _listed(cohort))
    instances = cohort.caches[modality].instances
    records, excluded = cohort.records, [cohort.excluded]
    if config.pretrain.extra:
        extra, left_out, cache = _extra(cohort, config, modality, data_root, cache_folder, progress)
        # Caches of one folder grow at their end, so the later one holds the study's rows too.
        instances = cache.instances
        records = pd.concat([records, extra.assign(group=extra["patient_id"])], ignore_index=True)
        excluded.append(left_out)
    kept, dropped = _apart(records, modality)
    excluded.append(dropped)
    table = pd.concat(excluded, ignore_index=True)
    return Unlabelled(
        kept.reset_index(drop=True)[_KEPT],
        instances,
        table[table["modality"].isin([modality.value, ""])].reset_index(drop=True),
    )


def _extra(
    cohort: Cohort,
    config: StudyConfig,
    modality: Modality,
    data_root: Path,
    cache_folder: Path,
    progress: Callable[[int, int, str], None],
) -> tuple[pd.DataFrame, pd.DataFrame, Cache]:
    """Readable records of the further sources, as training records; exclusions; instances."""
    names = ", ".join(source.name for source in config.pretrain.extra)
    manifest, at_scan = scan(config.pretrain.extra, data_root)
    usable = (manifest["modality"] == modality.value) & ~lateral(manifest)
    if not usable.any():
        why = f"{names} holds no frontal {modality.value} image"
        raise StudyError("pretrain.extra", why, "name data sets that do, or leave it empty")
    # A source of the study may be named again for the files whose label the study does not use.
    new = usable & ~manifest["record_id"].isin(cohort.records["record_id"])
    if not new.any():
        why = f"every {modality.value} image of {names} is in the study already"
        raise StudyError("pretrain.extra", why, "name other data sets, or leave it empty")
    records, faulty, caches, _ = read_records(
        manifest[new].reset_index(drop=True), config, data_root, cache_folder, progress
    )
    left_out = pd.concat([at_scan, faulty], ignore_index=True)
    return records.assign(split=Split.TRAIN.value), left_out, caches[modality]


def _apart(records: pd.DataFrame, modality: Modality) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training records of a modality that nothing joins with validation or test; the others.

    Args:
        records: of all modalities, with the column `group`.
        modality: to learn from.
    """
    first = records.groupby("group")["record_id"].transform("first")
    links = pd.DataFrame({"record_a": first, "record_b": records["record_id"]})
    pairs = find_pairs(records[["record_id", "modality", "sha256", "fingerprint"]])
    joined = pd.concat([pairs, links.assign(kind=_LINK, score=1.0)], ignore_index=True)
    kept, leaks = drop_leaks(records, joined)
    wanted = (records["split"] == Split.TRAIN.value) & (records["modality"] == modality.value)
    chosen = kept[wanted[kept.index]].drop_duplicates("sha256")
    paths = set(records.loc[wanted, "path"])
    exclusions = [exclusions_frame(leak for leak in leaks if leak.path in paths)]
    tested = records[records["split"].isin([Split.VAL.value, Split.TEST.value])]
    # The search for near copies depends a little on what it is given. This one is the audit's own,
    # so what it finds would fail the study; what is left is asked again, and passes there.
    while (found := shared_contents(chosen, tested)[0]).any():
        exclusions.append(_near(chosen[found]))
        chosen = chosen[~found]
    return chosen, pd.concat(exclusions, ignore_index=True)


def _near(records: pd.DataFrame) -> pd.DataFrame:
    return exclusions_frame(
        Exclusion(
            row["path"],
            row["modality"],
            row["source"],
            "audit",
            "is nearly the same as a file of the validation or test split",
            "none needed",
        )
        for row in iterate(records)
    )


def _listed(cohort: Cohort) -> str:
    present = ", ".join(sorted(cohort.records["modality"].unique()))
    return f"it has {present}; add a source, or look at excluded.csv for what was left out"
