"""Does the test set contain what the model was trained on, and do the labels agree?"""

from __future__ import annotations

import pandas as pd

from pulmofuse.curation.check import Check, counted

#: Names shown of what was found; the reader wants examples, not a list.
_EXAMPLES = 3


def leakage_patient(records: pd.DataFrame) -> Check:
    """Patients with records in more than one split.

    Args:
        records: patient_id, patient_known, split (null where not split yet).
    """
    places = _sets(records.dropna(subset=["split"]), "patient_id", "split")
    leaking = places[places.map(len) > 1]
    unknown = int((~records["patient_known"].astype(bool)).sum())
    blind = (
        f" The data set does not say who the patient is for {counted(unknown, 'record')}"
        f" of {len(records):,}; these cannot be checked."
        if unknown
        else ""
    )
    if leaking.empty:
        detail = "No patient has records in more than one split." + blind
        return Check("leakage.patient", "pass", 0.0, None, None, detail, "")
    detail = (
        f"{counted(len(leaking), 'patient')} with records in more than one split"
        f" ({_examples(leaking)}): the model is tested on people it has seen." + blind
    )
    remedy = "split by patient: clear the published split of these patients"
    return Check("leakage.patient", "fail", float(len(leaking)), None, None, detail, remedy)


def leakage_exact_duplicate(records: pd.DataFrame) -> Check:
    """File contents that stand in more than one split.

    Args:
        records: path, sha256 (null where unknown), split.
    """
    known = records.dropna(subset=["split", "sha256"])
    places = _sets(known, "sha256", "split")
    leaking = places[places.map(len) > 1]
    if leaking.empty:
        detail = "No file stands with identical content in more than one split."
        return Check("leakage.exact_duplicate", "pass", 0.0, None, None, detail, "")
    first = known.loc[known["sha256"] == leaking.index[0], "path"].astype(str)
    detail = (
        f"{counted(len(leaking), 'file content')} in more than one split"
        f" (such as {' and '.join(sorted(first)[:2])}): the model is tested on what it has seen."
    )
    remedy = "keep one copy of each file, or give the copies one patient_id"
    return Check("leakage.exact_duplicate", "fail", float(len(leaking)), None, None, detail, remedy)


def label_contradictions(records: pd.DataFrame, left_out: int = 0) -> list[Check]:
    """Files, and patients, that carry two classes: two checks of one id.

    Args:
        records: path, sha256, patient_id, y_true (class name).
        left_out: contents under two classes that are not in `records` any more.
    """
    return [_torn_files(records, left_out), _torn_patients(records)]


def _torn_files(records: pd.DataFrame, left_out: int) -> Check:
    """File contents under two classes: in the records, or left out of them before."""
    classes = _sets(records.dropna(subset=["sha256"]), "sha256", "y_true")
    torn = classes[classes.map(len) > 1]
    if not torn.empty:
        paths = sorted(records.loc[records["sha256"] == torn.index[0], "path"].astype(str))
        return Check(
            "labels.contradiction", "fail", float(len(torn)), None, None,
            f"{counted(len(torn), 'file content')} under two classes (such as"
            f" {' and '.join(paths[:2])}): at least one copy of each has a wrong label.",
            "find out which label is right, and leave the other copy out",
        )  # fmt: skip
    if left_out:
        return Check(
            "labels.contradiction", "warn", float(left_out), None, None,
            f"{counted(left_out, 'file content')} {'stands' if left_out == 1 else 'stand'} under"
            " two classes; every copy was left out before the split.",
            "find out which label is right",
        )  # fmt: skip
    return Check(
        "labels.contradiction", "pass", 0.0, None, None,
        "No file stands with identical content under two classes.", "",
    )  # fmt: skip


def _torn_patients(records: pd.DataFrame) -> Check:
    """Patients with records of two classes."""
    classes = _sets(records, "patient_id", "y_true")
    torn = classes[classes.map(len) > 1]
    if torn.empty:
        return Check(
            "labels.contradiction", "pass", 0.0, None, None,
            "No patient has records of two classes.", "",
        )  # fmt: skip
    return Check(
        "labels.contradiction", "warn", float(len(torn)), None, None,
        f"{counted(len(torn), 'patient')} with records of two classes ({_examples(torn)}):"
        " a disease may have come or gone between them, or a label is wrong.",
        "look at the dates of these records",
    )  # fmt: skip


def _sets(records: pd.DataFrame, by: str, of: str) -> pd.Series:
    """Sorted distinct values of column `of` for each value of `by`."""
    pairs = records[[by, of]].astype(str).drop_duplicates().sort_values([by, of])
    return pairs.groupby(by)[of].agg(list)


def _examples(found: pd.Series) -> str:
    """The first few of what was found, e.g. "such as p1 (test, train)"."""
    names = [f"{name} ({', '.join(values)})" for name, values in found.iloc[:_EXAMPLES].items()]
    return f"such as {'; '.join(names)}"
