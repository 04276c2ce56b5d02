"""Splits by patient: a person is in train, in val or in test, never in two of them.

A split that a data set publishes is kept, because figures are compared on it; the other patients
are dealt by iterative stratification (`stratify`). Three further methods answer other questions and
pass over published splits: folds (every patient is tested once), sources or sites held out (does it
work elsewhere?), and the newest patients (would it have worked tomorrow?).

Who counts as one patient may be widened by *groups*: people who share a copy of a file or the
slices of one volume (`copies.patient_groups`) stay on one side. Only folds with `unit: record` part
them, as published folds "by image" do: to measure that leak, and for nothing else.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping

import pandas as pd

from pulmofuse.config import SplitConfig
from pulmofuse.curation.stratify import Cells, cells_of, count, deal, need_patients, shuffled
from pulmofuse.errors import StudyError
from pulmofuse.schema import Split

#: Training, validation and test need one patient each.
_MIN_PATIENTS = len(Split)

_ONE_EACH = "train, val and test need one each"

#: With two folds the next one is all that there is to train on, so validation takes half at most.
_MOST_OF_LAST_FOLD = 0.5

_Dealt = Mapping[str, str]


def assign_splits(
    manifest: pd.DataFrame,
    target: pd.Series,
    config: SplitConfig,
    seed: int,
    groups: pd.Series | None = None,
) -> pd.DataFrame:
    """Put every record into train, val or test, by `config.method`.

    "stratified": rows with a published split keep it, and the patient's other rows follow. A source
    whose rows are all published, with a training and a test part but no validation part, gives
    val / (1 - test) of its training patients to validation: the ratio of train to val is then the
    one of a split made here. A patient whom a published split puts in two splits stays so, for the
    audit to report. The other methods pass over published splits:

    "kfold": fold `fold` of `folds` is the test set; validation is `val` of all patients, taken from
    the next fold, so that no two runs share a test patient nor (up to val = 1 / folds) a
    validation patient. With `unit` "record" every record is dealt as if it were a patient of its
    own: THIS LEAKS, and the audit stops a study of it.

    "held_out": everybody with a record of the named sources or sites is tested; of the others
    val / (1 - test) is validation. A modality in which nothing is held out is dealt as if nothing
    were published.

    "time": in each modality the `test` share of patients with the latest records is tested; of the
    others, those without a date included, val / (1 - test) is validation.

    Args:
        manifest: checked records; `split` is null where none is published.
        target: class name per record, with the manifest's index.
        config: method and shares of the patients.
        seed: of the deal.
        groups: who must stay together, with the manifest's index; None: the patients. Passed over
            where `config.unit` is "record".

    Returns:
        A copy of the manifest with `split` filled in.

    Raises:
        StudyError: a record has no class, a class has too few patients in a modality, a held out
            name is not there, or no record of a modality has a date.
    """
    if config.unit == "record":
        groups = manifest["record_id"]
    table = _table(manifest, target.reindex(manifest.index), groups)
    cells = cells_of(table)
    if config.method == "stratified":
        filled = _stratified(table, cells, config, seed)
    else:
        deal_by = {"kfold": _kfold, "held_out": _held_out, "time": _newest}[config.method]
        filled = table["patient"].map(deal_by(table, cells, config, seed))
    return manifest.assign(split=filled.astype(object))


def split_hash(manifest: pd.DataFrame) -> str:
    """Fingerprint of who is where: 16 hex digits of SHA-256 over sorted (record_id, split)."""
    pairs = sorted(
        (str(record_id), None if pd.isna(split) else str(split))
        for record_id, split in zip(manifest["record_id"], manifest["split"], strict=True)
    )
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]


def _table(manifest: pd.DataFrame, classes: pd.Series, groups: pd.Series | None) -> pd.DataFrame:
    """What splitting needs to know of each record, as text; null for what is not known."""
    if classes.isna().any():
        raise StudyError(
            f"{int(classes.isna().sum())} records",
            "have no class of the study",
            "leave out records whose label is not mapped",
        )
    patients = manifest["patient_id"] if groups is None else groups.reindex(manifest.index)
    columns = {"patient": patients, "class": classes}
    columns |= {name: manifest[name] for name in ("modality", "source")}
    absent = pd.Series(None, index=manifest.index, dtype=object)
    optional = {name: manifest.get(name, absent) for name in ("split", "site", "date")}
    table = {name: column.astype(str).astype(object) for name, column in columns.items()}
    for name, column in optional.items():
        table[name] = column.astype(object).where(column.notna(), None)
    return pd.DataFrame(table).astype(object)


def _stratified(table: pd.DataFrame, cells: Cells, config: SplitConfig, seed: int) -> pd.Series:
    """Published splits, and a stratified deal of the other patients."""
    need_patients(table, _MIN_PATIENTS, _ONE_EACH)
    split = _carve_validation(table, cells, config, seed)
    published = _published(table.assign(split=split))
    have = {
        part.value: count({p: cells[p] for p, own in published.items() if own == part})
        for part in Split
    }
    rest = {name: own for name, own in cells.items() if name not in published}
    dealt = published | deal(rest, _shares(config), have, seed)
    return split.where(split.notna(), table["patient"].map(dealt))


def _kfold(table: pd.DataFrame, cells: Cells, config: SplitConfig, seed: int) -> _Dealt:
    """One fold for the test, a part of the next one for validation, the others for training."""
    k = config.folds
    need_patients(table, max(k, _MIN_PATIENTS), f"{k} folds need one each")
    folds = deal(cells, dict.fromkeys(range(k), 1 / k), {}, seed)
    dealt = dict.fromkeys(cells, Split.TRAIN.value)
    following = {name: own for name, own in cells.items() if folds[name] == (config.fold + 1) % k}
    share = min(config.val * k, 1.0 if k > 2 else _MOST_OF_LAST_FOLD)
    others = {n: own for n, own in cells.items() if n not in following and folds[n] != config.fold}
    dealt |= _two_parts(following, share, count(others), seed)
    return dealt | {name: Split.TEST.value for name in cells if folds[name] == config.fold}


def _held_out(table: pd.DataFrame, cells: Cells, config: SplitConfig, seed: int) -> _Dealt:
    """Sources or sites for the test, the others for training and validation."""
    names = set(table["source"]) | set(table["site"].dropna())
    for name in config.held_out:
        if name not in names:
            near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.0)
            raise StudyError(
                f"split.held_out: {name}",
                "no record is of a source or site of this name",
                f"the nearest name is {near[0]}" if near else "look at the manifest",
            )
    out = table["source"].isin(config.held_out) | table["site"].isin(config.held_out)
    test = set(table.loc[out, "patient"])
    rest = table[~table["patient"].isin(test)]
    touched = set(table.loc[table["patient"].isin(test), "modality"])
    need_patients(table, 2, "train and val need one each that is not held out", cells.keys() - test)
    free_rows = table[~table["modality"].isin(touched)]
    if len(free_rows):
        need_patients(free_rows, _MIN_PATIENTS, _ONE_EACH)
    bound = set(rest.loc[rest["modality"].isin(touched), "patient"])
    free = {name: cells[name] for name in set(rest["patient"]) - bound}
    dealt = _two_parts({name: cells[name] for name in bound}, _val_share(config), None, seed)
    dealt |= deal(free, _shares(config), {}, seed) if free else {}
    return dealt | dict.fromkeys(test, Split.TEST.value)


def _newest(table: pd.DataFrame, cells: Cells, config: SplitConfig, seed: int) -> _Dealt:
    """The newest patients of each modality for the test, the others for training and validation.

    A patient is as new as the latest of their records in a modality, and equal dates are told apart
    by the seed; so nothing that is trained on is newer than the `test` share with the latest dates.
    """
    need_patients(table, _MIN_PATIENTS, _ONE_EACH)
    test: set[str] = set()
    for modality, rows in table.groupby("modality", sort=True):
        latest = rows.dropna(subset=["date"]).groupby("patient")["date"].max()
        if latest.empty:
            raise StudyError(
                f"{modality} records",
                "none has a date, and split.method is time",
                "add the column `date` to the manifest, or choose another method",
            )
        by_chance = {name: place for place, name in enumerate(shuffled(latest.index, seed))}
        ordered = sorted(latest.index, key=lambda name: (latest[name], by_chance[name]))
        n_test = max(1, round(config.test * len(ordered)))
        test |= set(ordered[-n_test:])
    older = {name: own for name, own in cells.items() if name not in test}
    need_patients(table, 2, "train and val need one each that is not among the newest", older)
    dealt = _two_parts(older, _val_share(config), None, seed)
    return dealt | dict.fromkeys(test, Split.TEST.value)


def _shares(config: SplitConfig) -> dict[str, float]:
    return {
        Split.TRAIN.value: 1 - config.test - config.val,
        Split.VAL.value: config.val,
        Split.TEST.value: config.test,
    }


def _val_share(config: SplitConfig) -> float:
    """Share of validation among the patients that are not tested."""
    return config.val / (1 - config.test)


def _two_parts(
    patients: Cells, val: float, in_train: Mapping[tuple[str, str], int] | None, seed: int
) -> dict[str, str]:
    """Deal patients to validation (a share of `val`) and training, which may hold some already."""
    have = {Split.TRAIN.value: Counter(in_train or {})}
    return deal(patients, {Split.TRAIN.value: 1 - val, Split.VAL.value: val}, have, seed)


def _carve_validation(
    table: pd.DataFrame, cells: Cells, config: SplitConfig, seed: int
) -> pd.Series:
    """Published splits, with validation taken from training where a source publishes none.

    One deal for all such sources, which may share patients or groups: one of them goes to
    validation with every row, and only if none of its rows is published elsewhere or tested.
    """
    pairs = table.groupby("source")["split"].agg(set)
    carved = pairs.index[[own == {Split.TRAIN.value, Split.TEST.value} for own in pairs]]
    inside = table["source"].isin(carved)
    bound = set(table.loc[~inside | (table["split"] == Split.TEST), "patient"])
    free_rows = table[~table["patient"].isin(bound)]
    free = {name: cells[name] for name in free_rows["patient"]}
    if len(carved) > 1:
        # Each source gives its share, as if it were carved alone.
        by_source = ("source " + free_rows["source"], free_rows["class"])
        for name, *cell in zip(free_rows["patient"], *by_source, strict=True):
            free[name] |= {(cell[0], cell[1])}
    in_train = set(table.loc[inside & (table["split"] == Split.TRAIN), "patient"]) & bound
    dealt = _two_parts(free, _val_share(config), count({n: cells[n] for n in in_train}), seed)
    to_val = table["patient"].map(dealt) == Split.VAL.value
    return table["split"].mask(to_val, Split.VAL.value)


def _published(table: pd.DataFrame) -> dict[str, str]:
    """Split of each patient who has a published one.

    Of two published splits the earliest in the order train, val, test counts for the rows that
    follow: a record added to training does less harm than one added to a test that already leaks.
    """
    order = [split.value for split in Split]
    known = table[table["split"].notna()]
    first = known["split"].map(order.index).groupby(known["patient"]).min()
    return {str(patient): order[int(i)] for patient, i in first.items()}
