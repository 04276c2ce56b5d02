"""Does the test set contain what the model was trained on, and do the labels agree?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulmofuse.curation.check import Check, counted
from pulmofuse.curation.copies import contradicting_components, series_keys
from pulmofuse.labelsets import common
from pulmofuse.schema import Split, iterate

#: Names shown of what was found; the reader wants examples, not a list.
_EXAMPLES = 3

#: One patient, file or volume on both sides is one too many.
_NONE_ALLOWED = {"fail_above": 0.0}


def leakage_patient(records: pd.DataFrame) -> Check:
    """Patients with records in more than one split.

    Args:
        records: patient_id, patient_known, split (null where not split yet).
    """
    leaking = _several(records["patient_id"], records["split"])
    if records["split"].isna().all():
        return _clean("leakage.patient", "Nothing is split yet, so nobody stands on two sides.")
    unknown = int((~records["patient_known"].astype(bool)).sum())
    blind = (
        f" The data set does not say who the patient is for {counted(unknown, 'record')}"
        f" of {len(records):,}; these cannot be checked."
        if unknown
        else ""
    )
    if leaking.empty:
        return _clean("leakage.patient", "No patient has records in more than one split." + blind)
    detail = (
        f"{counted(len(leaking), 'patient')} with records in more than one split"
        f" ({_examples(leaking)}): the model is tested on people it has seen." + blind
    )
    remedy = "split by patient: clear the published split of these patients, or drop the leaks"
    return _leak("leakage.patient", len(leaking), detail, remedy)


def leakage_series(records: pd.DataFrame) -> Check:
    """Volumes whose slices are in more than one split.

    Args:
        records: source, modality, series_id (null for records that are no slice), split.
    """
    series = series_keys(records)
    leaking = _several(series, records["split"])
    if leaking.empty:
        n = series.nunique()
        detail = (
            f"No volume has slices in more than one split ({counted(n, 'volume')} known)."
            if n
            else "No record is known to be a slice of a volume."
        )
        return _clean("leakage.series", detail)
    detail = (
        f"{counted(len(leaking), 'volume')} with slices in more than one split"
        f" ({_examples(leaking)}): neighbouring slices are nearly the same picture."
    )
    remedy = "split by volume: clear the published split of these volumes, or drop the leaks"
    return _leak("leakage.series", len(leaking), detail, remedy)


def leakage_duplicate(kind: str, joined: pd.DataFrame) -> Check:
    """Copies of one kind that stand in more than one split.

    Args:
        kind: "exact" or "near".
        joined: pairs with path, source, used and split of both sides; only used records leak.
    """
    name = f"leakage.{kind}_duplicate"
    same = "identical" if kind == "exact" else "nearly identical"
    rows = joined[(joined["kind"] == kind) & across_splits(joined) & _both_used(joined)]
    shared = _shared_sources(joined[joined["kind"] == kind])
    if rows.empty:
        return _not_across(name, same, joined[joined["kind"] == kind], shared)
    in_test = pd.concat([rows.loc[rows[f"split_{s}"] == Split.TEST, f"path_{s}"] for s in "ab"])
    # One pair is enough for a sentence: duplicates.csv and the page show all of them.
    row = next(iterate(rows.sort_values(["path_a", "path_b"]).head(1)))
    pair = f"{row['path_a']} ({row['split_a']}) and {row['path_b']} ({row['split_b']})"
    detail = (
        f"{counted(len(rows), 'pair')} of files with {same} content in different splits"
        f" ({_by_splits(rows)}), with {counted(in_test.nunique(), 'test file')} among them (such as"
        f" {pair}): the model is chosen or tested on what it has seen.{shared}"
    )
    remedy = "keep one copy of each file, put the copies on one side, or drop the leaks"
    return _leak(name, len(rows), detail, remedy)


def _not_across(name: str, same: str, pairs: pd.DataFrame, shared: str) -> Check:
    """No copies in use across splits: fine, unless a split would part them, or did before."""
    used = pairs[_both_used(pairs)]
    waiting = int((used["split_a"].isna() | used["split_b"].isna()).sum())
    mended = pairs[across_splits(pairs)]
    if not waiting and mended.empty:
        return _clean(name, f"No two files in different splits have {same} content.{shared}")
    if not waiting:
        detail = (
            f"The split that was given parts {counted(len(mended), 'pair')} of files with {same}"
            f" content ({_by_splits(mended)}). At least one of each was left out before training,"
            f" so that nothing is tested on what was seen.{shared}"
        )
        remedy = "say so where you report figures on this split: others trained on the copies"
        return Check(
            name, "warn", float(len(mended)), None, None, detail, remedy,
            thresholds={"warn_above": 0.0},
        )  # fmt: skip
    detail = (
        f"{counted(waiting, 'pair')} of files with {same} content "
        f"{'is' if waiting == 1 else 'are'} not split yet: a split by file or by the patients'"
        f" names alone would leak.{shared}"
    )
    remedy = "let a study split them (copies stay on one side), or keep one copy of each"
    return Check(name, "warn", float(waiting), None, None, detail, remedy)


def _by_splits(pairs: pd.DataFrame) -> str:
    """How many pairs lie across which splits: "train and test: 2, val and test: 3"."""
    order = [split.value for split in Split]
    sides = zip(pairs["split_a"].astype(str), pairs["split_b"].astype(str), strict=True)
    named = Counter(" and ".join(sorted(pair, key=order.index)) for pair in sides)
    return ", ".join(f"{words}: {n:,}" for words, n in sorted(named.items()))


def _shared_sources(pairs: pd.DataFrame) -> str:
    """Which two data sets hold the same files, as further sentences."""
    between = pairs[pairs["source_a"].astype(str) != pairs["source_b"].astype(str)]
    files: dict[tuple[str, str], dict[str, set[str]]] = {}
    for row in iterate(between):
        ends = sorted((str(row[f"source_{s}"]), str(row[f"path_{s}"])) for s in "ab")
        own = files.setdefault((ends[0][0], ends[1][0]), {ends[0][0]: set(), ends[1][0]: set()})
        for source, path in ends:
            own[source].add(path)
    return "".join(
        f" The data sets {a} and {b} share {counted(min(map(len, own.values())), 'file')}."
        for (a, b), own in sorted(files.items())
    )


def leakage_pretraining(tested: pd.DataFrame, modality: str, weights: str, n_seen: int) -> Check:
    """Validation and test records that a model's starting weights have seen.

    Args:
        tested: path, split, copy (whether an exact or near copy was seen in pre-training), patient
            (whether somebody of this name was).
        modality: of the model.
        weights: what it starts from.
        n_seen: files seen in pre-training.
    """
    name, seen = "leakage.pretraining", f"the {n_seen:,} files that {weights} was pre-trained on"
    known = tested[tested["copy"] | tested["patient"]]
    if known.empty:
        splits = tested["split"].value_counts()
        counts = " and ".join(
            f"{splits.get(split, 0):,} {split.value}" for split in (Split.VAL, Split.TEST)
        )
        detail = f"None of {counts} records is a copy, or of a patient, of {seen}."
        return replace(_clean(name, detail), modality=modality)
    row = next(iterate(known.sort_values(["split", "path"]).head(1)))
    detail = (
        f"{counted(len(known), 'record')} of validation or test (such as {row['path']},"
        f" {row['split']}) among {seen}, {int(known['copy'].sum()):,} of them copies or near copies"
        " and the others of patients seen there: the model is chosen or tested on what it has seen."
    )
    remedy = "run `pulmofuse pretrain` on this very study, its split and its seed"
    return replace(_leak(name, len(known), detail, remedy), modality=modality)


def unknown_pretraining(modality: str, weights: str) -> Check:
    """Starting weights that do not say what they have seen: released ones, as a rule."""
    detail = f"{weights} does not say what it was trained on, so that cannot be checked."
    return replace(_clean("leakage.pretraining", detail), value=None, modality=modality)


def label_contradictions(records: pd.DataFrame, joined: pd.DataFrame) -> list[Check]:
    """Contents, and patients, that carry two classes: two checks of one id.

    Args:
        records: path, patient_id, label, y_true (class name or null), used.
        joined: pairs with positions in `records`, y_true and label of both sides.
    """
    return [_torn_contents(records, joined), _torn_patients(records[records["used"]])]


def across_splits(joined: pd.DataFrame) -> pd.Series:
    """Which pairs stand in two different splits.

    Args:
        joined: pairs with split of both sides.
    """
    placed = joined["split_a"].notna() & joined["split_b"].notna()
    return placed & (joined["split_a"].astype(str) != joined["split_b"].astype(str))


def _torn_contents(records: pd.DataFrame, joined: pd.DataFrame) -> Check:
    """Contents under two classes: still used, or left out before."""
    content, torn = contradicting_components(records, joined)
    n = len(np.unique(content[torn]))
    files = counted(int(torn.sum()), "file")
    used = torn & records["used"].to_numpy(dtype=bool)
    if used.any():
        still = content[used]
        detail = (
            f"{counted(len(np.unique(still)), 'content')} under two classes with a copy still in"
            f" use (such as {_copies_of(still[0], content, records)}): at least one copy of each"
            " has a wrong label."
        )
        remedy = "find out which label is right, and leave the other copies out"
        n_still = len(np.unique(still))
        return _leak("labels.contradiction", n_still, detail, remedy)
    if n:
        verb = "stands" if n == 1 else "stand"
        detail = (
            f"{counted(n, 'content')} ({files}) {verb} under two classes (such as"
            f" {_copies_of(content[torn][0], content, records)}); every copy was left out before"
            " the split."
        )
        return Check(
            "labels.contradiction", "warn", float(n), None, None, detail,
            "find out which label is right", thresholds={"warn_above": 0.0, **_NONE_ALLOWED},
        )  # fmt: skip
    return _clean("labels.contradiction", "No two copies of one content carry different classes.")


def _torn_patients(records: pd.DataFrame) -> Check:
    """Patients with records of two classes."""
    torn = _several(records["patient_id"], records["y_true"])
    # A class and a set that holds it can both be right.
    torn = torn[[common(names) is None for names in torn]]
    if torn.empty:
        return _clean("labels.contradiction", "No patient has records of two classes.", "warn")
    detail = (
        f"{counted(len(torn), 'patient')} with records of two classes ({_examples(torn)}):"
        " a disease may have come or gone between them, or a label is wrong."
    )
    return Check(
        "labels.contradiction", "warn", float(len(torn)), None, None, detail,
        "look at the dates of these records", thresholds={"warn_above": 0.0},
    )  # fmt: skip


def _copies_of(one: int, content: NDArray[np.intp], records: pd.DataFrame) -> str:
    """Two copies of one content with different classes, by path."""
    own = records[content == one].sort_values("path")
    said = own["y_true"].fillna(own["label"]).astype(str)
    first = own[~said.duplicated()].head(2)
    return " and ".join(f"{path} ({said[i]})" for i, path in first["path"].items())


def _several(by: pd.Series, of: pd.Series) -> pd.Series:
    """Sorted distinct values of `of` for each value of `by` that has more than one; no nulls."""
    known = by.notna() & of.notna()
    both = pd.DataFrame({"by": by[known].astype(str), "of": of[known].astype(str)})
    both = both.drop_duplicates()
    both = both[both["by"].duplicated(keep=False)].sort_values(["by", "of"])
    return both.groupby("by")["of"].agg(list)


def _both_used(joined: pd.DataFrame) -> pd.Series:
    return joined["used_a"].astype(bool) & joined["used_b"].astype(bool)


def _clean(name: str, detail: str, grave: str = "fail") -> Check:
    return Check(name, "pass", 0.0, None, None, detail, "", thresholds={f"{grave}_above": 0.0})


def _leak(name: str, n: int, detail: str, remedy: str) -> Check:
    return Check(name, "fail", float(n), None, None, detail, remedy, thresholds=_NONE_ALLOWED)


def _examples(found: pd.Series) -> str:
    """The first few of what was found, e.g. "such as p1 (test, train)"."""
    values: Sequence[tuple[object, list[str]]] = list(found.iloc[:_EXAMPLES].items())
    return "such as " + "; ".join(f"{name} ({', '.join(own)})" for name, own in values)
