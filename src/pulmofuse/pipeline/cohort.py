"""From the data sets of a study to one checked, cached and split table of records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from pulmofuse.config import SourceConfig, StudyConfig, Target
from pulmofuse.curation import (
    assign_splits,
    drop_duplicates,
    drop_leaks,
    find_pairs,
    mark_shared_files,
    patient_groups,
    read_files,
    remark_rows,
    seen_records,
    unreadable_files,
)
from pulmofuse.errors import SourceError, StudyError
from pulmofuse.labelsets import Partition, members
from pulmofuse.preprocessing import Cache, build_cache
from pulmofuse.schema import (
    Exclusion,
    Label,
    Modality,
    check_manifest,
    exclusions_frame,
    iterate,
    read_manifest,
)
from pulmofuse.sources import scan_source

#: Views that are not frontal; the CXR model reads frontal ones only.
LATERAL_VIEWS = frozenset({"L", "LATERAL", "LL", "RL"})

#: Columns of a cache's index that a record takes over.
_SEEN = ["path", "start", "stop", "sha256", "traits", "fingerprint", "remarks"]
#: The scores that end a reason, "(cough score 0.12, speech score 0.55)".
_SCORES = r" \((?:\w+ )?score [^()]*\)$"
#: What `find_pairs` compares.
_CONTENT = ["record_id", "modality", "sha256", "fingerprint"]


@dataclass(frozen=True, eq=False)
class Cohort:
    """The records of a study.

    Attributes:
        records: the manifest with the further columns `y_true` (class of the study, or a set of
            them as `labelsets.set_name` writes it), `sha256`,
            `fingerprint`, `group` (patients who are one, as far as copies and series tell),
            `start` and `stop` (rows of the record's instances in its modality's cache).
        excluded: one row per file left out, columns of `schema.Exclusion`.
        caches: instances of each modality that has records.
        pairs: copies among all records that could be read, as `curation.find_pairs` gives them.
        copies: records left out as copies or leaks, and copies of them with a label that the
            study does not use; the audit shows them beside those kept.
        remarks: what is odd about the files, columns of `curation.remark_rows`.
    """

    records: pd.DataFrame
    excluded: pd.DataFrame
    caches: dict[Modality, Cache]
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    copies: pd.DataFrame = field(default_factory=pd.DataFrame)
    remarks: pd.DataFrame = field(default_factory=pd.DataFrame)

    def of(self, modality: Modality) -> pd.DataFrame:
        """Records of one modality."""
        return self.records[self.records["modality"] == modality.value]

    @property
    def audited(self) -> pd.DataFrame:
        """Records and left-out copies with the column `used`, as `curation.audit` takes them.

        Where labels of a modality stand for sets of classes, `y_true` is the part of the classes
        that its records tell apart: a shortcut to "who wrote the label" is none to the part.
        """
        parts = [self.records.assign(used=True), self.copies.assign(used=False)]
        table = pd.concat([part for part in parts if len(part)], ignore_index=True)
        names = table["y_true"].dropna().unique()
        if not any(len(members(str(name))) > 1 for name in names):
            return table
        classes = sorted({member for name in names for member in members(str(name))})
        y_true = table["y_true"].copy()
        for _, own in table[table["y_true"].notna()].groupby("modality"):
            partition = Partition.of(own["y_true"].unique(), classes)
            y_true[own.index] = [partition.names[i] for i in partition.codes(own["y_true"])]
        return table.assign(y_true=y_true)


def scan(sources: tuple[SourceConfig, ...], data_root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """List the files of data sets.

    Returns:
        A checked manifest with paths relative to `data_root`, and the exclusions.
    """
    scans = [scan_source(source.name, data_root, source.root) for source in sources]
    manifest = pd.concat([s.records for s in scans], ignore_index=True)
    excluded = exclusions_frame(e for s in scans for e in s.excluded)
    return check_manifest(manifest, "the sources of this study"), excluded


def list_files(data: str, data_root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest that a person names, a file or "SOURCE:ROOT", and what its scan left out.

    Raises:
        PulmofuseError: there is no such manifest or source.
    """
    name, colon, root = data.partition(":")
    if not colon or Path(data).exists():
        return read_manifest(Path(data)), exclusions_frame([])
    if not name:
        remedy = "give a manifest or SOURCE:ROOT, e.g. folder:my-hospital"
        raise SourceError(data, "names no source before the colon", remedy)
    return scan((SourceConfig(name=name, root=root or "."),), data_root)


def prepare_cohort(
    manifest: pd.DataFrame,
    excluded: pd.DataFrame,
    config: StudyConfig,
    data_root: Path,
    cache_folder: Path,
    progress: Callable[[int, int, str], None],
) -> Cohort:
    """Keep the records the study can use, read every file once, and join what was seen.

    Args:
        manifest: as `scan` gives it.
        excluded: what the scan left out already.
        config: the study.
        data_root: folder that the manifest's paths are relative to.
        cache_folder: takes the memory-mapped instances.
        progress: told (files done, files in all, modality).

    Returns:
        The cohort, which may be empty where cleaning left nothing: `require_records`, once it is
        written down why.

    Raises:
        StudyError: no file with a class of the study can be read.
    """
    usable, dropped = _usable(manifest, config.target)
    records, faulty, caches, remarks = read_records(
        usable, config, data_root, cache_folder, progress
    )
    if config.split.method != "stratified":
        # Published splits are passed over, so no copy is kept for being in one.
        records = records.assign(split=None)
    unused = records.head(0)
    if config.cleaning.copies == "drop":
        unused = _unused(manifest, config.target, data_root, cache_folder, progress)
    parts = [part for part in (records, unused) if len(part)] or [records]
    everything = pd.concat(parts, ignore_index=True)
    pairs = find_pairs(everything[_CONTENT])
    cleaned = pairs.head(0) if config.cleaning.copies == "keep" else pairs
    # Before copies go: a copy that is left out still says that two patients are one.
    groups = patient_groups(everything, cleaned).to_numpy()[: len(records)]
    records = records.assign(group=groups)
    records, surplus, copies = drop_duplicates(records, cleaned, unused)
    left_out = [excluded, dropped, faulty, exclusions_frame(surplus)]
    usable_caches = {m: c for m, c in caches.items() if (records["modality"] == m.value).any()}
    return Cohort(
        records.reset_index(drop=True),
        pd.concat(left_out, ignore_index=True),
        usable_caches,
        pairs,
        copies,
        remarks,
    )


def read_records(
    manifest: pd.DataFrame,
    config: StudyConfig,
    data_root: Path,
    cache_folder: Path,
    progress: Callable[[int, int, str], None],
) -> tuple[pd.DataFrame, pd.DataFrame, dict[Modality, Cache], pd.DataFrame]:
    """Read every file once, and leave out what is broken or odd.

    Args:
        manifest: records to read, their labels of no concern.
        config: its preprocessing and cleaning are used.
        data_root: folder that the manifest's paths are relative to.
        cache_folder: takes the memory-mapped instances.
        progress: told (files done, files in all, modality).

    Returns:
        The records with what was seen of them and where their instances are; exclusions; the
        instances; and what is odd, columns of `curation.remark_rows`.

    Raises:
        StudyError: no file can be read.
    """
    records, unreadable, caches = _read(manifest, config, data_root, cache_folder, progress)
    records = mark_shared_files(records)
    remarks = remark_rows(records, config.cleaning.exclude)
    records, odd = _without_odd(records, remarks)
    return records, pd.concat([unreadable, odd], ignore_index=True), caches, remarks


def lateral(manifest: pd.DataFrame) -> pd.Series:
    """Which records are X-rays from the side."""
    view = manifest["view"].fillna("").astype(str).str.upper()
    return (manifest["modality"] == Modality.CXR.value) & view.isin(LATERAL_VIEWS)


def require_records(cohort: Cohort, name: str, listed: Path) -> None:
    """Refuse a cohort without a record.

    Args:
        cohort: after cleaning.
        name: of the study.
        listed: where its exclusions are written down.

    Raises:
        StudyError: every file was left out.
    """
    if cohort.records.empty:
        why = f"no usable record is left: all {len(cohort.excluded):,} files were left out"
        raise StudyError(name, why, f"look at {listed} for the reasons")


def describe_cohort(cohort: Cohort) -> str:
    """How many records there are, and how many files were left out at which stage."""
    counts = cohort.excluded["stage"].value_counts()
    words = {
        "label": "without a class of the study",
        "read": "unreadable",
        "clean": "odd",
        "audit": "copies, contradictions or known to the study",
    }
    parts = [f"{counts[stage]:,} {text}" for stage, text in words.items() if stage in counts]
    return ", ".join([f"{len(cohort.records):,} records", *parts])


def split_cohort(cohort: Cohort, config: StudyConfig) -> Cohort:
    """The same cohort with every record in train, val or test, no patient in two of them.

    Copies of one picture or recording, and slices of one volume, count as one patient.
    """
    records = cohort.records
    split = assign_splits(records, records["y_true"], config.split, config.seed, records["group"])
    return replace(cohort, records=split)


def without_leaks(cohort: Cohort) -> Cohort:
    """The same cohort without the training and validation records that the test set knows."""
    records = cohort.records
    kept, exclusions = drop_leaks(records, cohort.pairs, records["group"])
    excluded = pd.concat([cohort.excluded, exclusions_frame(exclusions)], ignore_index=True)
    # With their old split, so that the audit still shows what they were copies of.
    copies = [cohort.copies, records.drop(index=kept.index)]
    return replace(
        cohort,
        records=kept.reset_index(drop=True),
        excluded=excluded,
        copies=pd.concat([part for part in copies if len(part)] or copies, ignore_index=True),
    )


def _usable(manifest: pd.DataFrame, target: Target) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Frontal records whose label the study maps, with `y_true`; the others as exclusions."""
    mapping = {label.value: name for label, name in target.truth.items()}
    y_true = manifest["label"].map(mapping)
    from_the_side = lateral(manifest)
    out = manifest.assign(lateral=from_the_side)[y_true.isna() | from_the_side]
    dropped = [
        Exclusion(
            row["path"],
            row["modality"],
            row["source"],
            "label",
            "a lateral view; the study reads frontal chest X-rays"
            if row["lateral"]
            else f"label {row['label']!r} is not in the study's target mapping",
            "none needed"
            if row["lateral"]
            else "add the label to target.mapping if it belongs to the question",
        )
        for row in iterate(out)
    ]
    kept = manifest.assign(y_true=y_true)[y_true.notna() & ~from_the_side]
    return kept.reset_index(drop=True), exclusions_frame(dropped)


def _read(
    usable: pd.DataFrame,
    config: StudyConfig,
    data_root: Path,
    cache_folder: Path,
    progress: Callable[[int, int, str], None],
) -> tuple[pd.DataFrame, pd.DataFrame, dict[Modality, Cache]]:
    """What was seen of every file that can be read, exclusions for the others, the instances.

    Raises:
        StudyError: no file can be read.
    """
    parts: list[pd.DataFrame] = []
    caches: dict[Modality, Cache] = {}
    unreadable = [exclusions_frame([])]
    for modality in Modality:
        rows = usable[usable["modality"] == modality.value]
        if rows.empty:
            continue
        cache = build_cache(
            rows["path"].tolist(),
            data_root,
            modality,
            config.of(modality).preprocessing,
            cache_folder,
            lambda done, total, name=modality.value: progress(done, total, name),  # type: ignore[misc]
        )
        parts.append(rows.drop(columns="traits").merge(cache.index[_SEEN], on="path", how="inner"))
        unreadable.append(unreadable_files(cache.unreadable.assign(modality=modality.value), rows))
        caches[modality] = cache
    if not any(len(part) for part in parts):
        raise StudyError(
            config.name,
            "no usable record is left",
            "look at the labels in `target.mapping` and at `pulmofuse data scan`",
        )
    records = pd.concat(parts, ignore_index=True).sort_values("record_id", ignore_index=True)
    return records, pd.concat(unreadable, ignore_index=True), caches


def _unused(
    manifest: pd.DataFrame,
    target: Target,
    data_root: Path,
    cache_folder: Path,
    progress: Callable[[int, int, str], None],
) -> pd.DataFrame:
    """Records with a label that the study does not use, `y_true` null, read for their content.

    A copy of a record of the study may stand among them with a label that contradicts.
    """
    unmapped = ~manifest["label"].isin([*target.mapping, Label.UNKNOWN.value])
    rows = manifest[unmapped].reset_index(drop=True)
    if rows.empty:
        return rows
    files = read_files(rows, data_root, cache_folder / "unused", progress)
    return seen_records(rows, files).drop(columns="remarks").assign(y_true=None)


def _without_odd(records: pd.DataFrame, remarks: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records without the files that a remark leaves out, and their exclusions."""
    out = remarks[remarks["excluded"]].drop_duplicates(["path", "modality"])
    # Without the scores in brackets, which remarks.csv has: one reason, one line in every count.
    out = out.assign(reason=out["reason"].str.replace(_SCORES, "", regex=True))
    key = ["path", "modality"]
    odd = pd.MultiIndex.from_frame(records[key]).isin(pd.MultiIndex.from_frame(out[key]))
    exclusions = exclusions_frame(
        Exclusion(
            row["path"], row["modality"], row["source"], "clean", row["reason"], row["remedy"]
        )
        for row in iterate(out)
    )
    return records[~odd].drop(columns="remarks"), exclusions
