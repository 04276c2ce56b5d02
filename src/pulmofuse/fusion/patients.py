"""The patients on which modalities are joined: real pairs, or simulated ones that say so.

No public data set has CT, chest X-ray and cough of the same people. Where real pairs are missing,
a patient is simulated from one real patient of each modality, of the same class and split. Such
patients are independent given the class by construction, so a fusion measured on them is an upper
bound for dependent modalities; every row says `simulated`.

A record may carry a set of classes ("normal|pneumonia", see `labelsets`). A real patient's other
records narrow it down. A simulated patient of a class may take a record whose set holds that class;
nobody knows the record's own class, so it is dealt to one of its set for this purpose, once.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pulmofuse.errors import StudyError
from pulmofuse.labelsets import common, members
from pulmofuse.schema import ABSENT, JOIN, Modality

#: Columns of a table of patients; the last three hold tuples of record_ids, () where absent.
PATIENT_COLUMNS = ("patient_id", "split", "y_true", "simulated", *(m.value for m in Modality))

_KEYS = ["split", "y_true"]
_PERSON = ["split", "patient_id"]


def paired_patients(records: pd.DataFrame) -> pd.DataFrame:
    """Real patients with all their records.

    Args:
        records: record_id, patient_id, modality, split, y_true; one row per file.

    Returns:
        One row per patient, split and class, sorted by them, with the columns `PATIENT_COLUMNS`.
        A patient whose records disagree on the class (or who fell ill between two records) has
        one row per class, and therefore stands twice with one `patient_id`. A record with a set
        goes to the one class of the patient that its set holds; where there are none or several
        such classes, it makes a row of its own, with other sets that it shares a class with.

    Raises:
        StudyError: a record has no split or no class.
    """
    _check(records)
    rows = []
    records = narrowed(records)
    for (split, y_true, patient), group in records.groupby([*_KEYS, "patient_id"], sort=True):
        of_modality = {m: _record_ids(group[group["modality"] == m.value]) for m in Modality}
        rows.append(_row(str(patient), split, y_true, of_modality, simulated=False))
    return _table(rows)


def simulated_patients(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Simulated patients: within a split and class, one real patient per modality, joined.

    There are as many as the modality with most patients has. Each modality goes through its
    patients in independent random orders, so that every real patient is used equally often, give
    or take one. As one modality is used up exactly once, no combination can come twice within a
    split and class. A patient of two modalities may stand with itself only by chance.

    Args:
        records: record_id, patient_id, modality, split, y_true; one row per file, in any order.
        seed: of the random orders.

    Returns:
        A table with the columns `PATIENT_COLUMNS`. `patient_id` joins the real ones with
        `schema.JOIN`, one part for each modality of `records`, in the order ct, cxr, cough. Where a
        class has no patient of a modality in a split, its rows lack that modality, and their part
        of it is `schema.ABSENT`. Patients with a set are dealt to the classes of the set in
        proportion to the patients who have one of them in that split; a set none of whose classes
        has a patient there is joined as if it were a class.

    Raises:
        StudyError: a record has no split or no class.
    """
    _check(records)
    modalities = [m for m in Modality if (records["modality"] == m.value).any()]
    rows = []
    records = _dealt(narrowed(records), seed)
    for (split, y_true), group in records.groupby(_KEYS, sort=True):
        real = {m: _patients(group[group["modality"] == m.value]) for m in Modality}
        n = max(len(patients) for patients in real.values())
        drawn = {
            m: _balanced(sorted(patients), n, _generator(seed, split, y_true, m))
            for m, patients in real.items()
            if patients
        }
        for i in range(n):
            chosen = {m: patients[i] for m, patients in drawn.items()}
            of_modality = {m: real[m][patient] for m, patient in chosen.items()}
            name = JOIN.join(_part(chosen.get(m, ABSENT)) for m in modalities)
            rows.append(_row(name, split, y_true, of_modality, simulated=True))
    return _table(rows)


def _sets(records: pd.DataFrame) -> np.ndarray:
    """Which records carry a set, (n,) bool."""
    names = {name: len(members(str(name))) > 1 for name in records["y_true"].unique()}
    return records["y_true"].map(names).to_numpy(dtype=bool)


def narrowed(records: pd.DataFrame) -> pd.DataFrame:
    """Records with each set narrowed down by what else is known of the patient in that split.

    Args:
        records: patient_id, split, y_true; without sets they are returned as they are.
    """
    sets = _sets(records)
    if not sets.any():
        return records
    said = records[[*_PERSON, "y_true"]].drop_duplicates().sort_values([*_PERSON, "y_true"])
    answer: dict[tuple[object, object, object], str] = {}
    for (split, patient), group in said.groupby(_PERSON):
        known = _narrow(group["y_true"].tolist())
        answer |= {(split, patient, name): meant for name, meant in known.items()}
    keys = zip(records["split"], records["patient_id"], records["y_true"], strict=True)
    return records.assign(y_true=[answer[key] for key in keys])


def _narrow(said: Sequence[str]) -> dict[str, str]:
    """What each of one patient's classes and sets means beside the others."""
    classes = [name for name in said if len(members(name)) == 1]
    answer = dict(zip(classes, classes, strict=True))
    shared: list[list[str]] = []  # sets without a class of the patient, by what they have in common
    for name in said:
        if name in answer:
            continue
        fitting = [c for c in classes if c in members(name)]
        # Several fitting classes: the patient's state changed, and nobody knows when this was.
        answer[name] = fitting[0] if len(fitting) == 1 else name
        if not fitting:
            for group in shared:
                if common([*group, name]) is not None:
                    group.append(name)
                    break
            else:
                shared.append([name])
    for group in shared:
        answer |= dict.fromkeys(group, str(common(group)))
    return answer


def _dealt(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Records with each patient's set replaced by one of its classes, for joining only."""
    sets = _sets(records)
    if not sets.any():
        return records
    single = records[~sets].groupby(_KEYS)["patient_id"].nunique()
    answer: dict[tuple[object, ...], str] = {}
    for (split, name, modality), group in records[sets].groupby([*_KEYS, "modality"], sort=True):
        counts = {c: int(single.get((split, c), 0)) for c in members(str(name))}
        total = sum(counts.values())
        if not total:
            continue
        patients = sorted(group["patient_id"].unique())
        order = _generator(seed, split, name, Modality(str(modality))).permutation(len(patients))
        # Rounding the running sum gives each class its share, give or take one.
        ends = np.rint(np.cumsum(list(counts.values())) / total * len(patients)).astype(int)
        places = np.searchsorted(ends, np.arange(len(patients)), side="right")
        for at, place in zip(order, places, strict=True):
            answer[split, name, modality, patients[at]] = list(counts)[place]
    keys = zip(
        records["split"], records["y_true"], records["modality"], records["patient_id"], strict=True
    )
    return records.assign(y_true=[answer.get(key, key[1]) for key in keys])


def _part(patient: str) -> str:
    """A patient's name within a joined one: without the sign that joins, to be split again."""
    return patient.replace(JOIN.strip(), "+")


def _balanced(patients: Sequence[str], n: int, generator: np.random.Generator) -> list[str]:
    """`n` patients: whole permutations one after another, the last one cut short."""
    rounds = -(-n // len(patients))
    orders = [generator.permutation(len(patients)) for _ in range(rounds)]
    return [patients[i] for i in np.concatenate(orders)[:n]]


def _generator(seed: int, split: object, y_true: object, modality: Modality) -> np.random.Generator:
    """A stream of its own for each cell, so that more data in one cell moves no other."""
    cell = zlib.crc32(f"{split}/{y_true}/{modality.value}".encode())
    return np.random.default_rng([seed, cell])


def _patients(records: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    return {str(p): _record_ids(group) for p, group in records.groupby("patient_id")}


def _record_ids(records: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted(records["record_id"]))


def _row(
    patient_id: str,
    split: object,
    y_true: object,
    of_modality: dict[Modality, tuple[str, ...]],
    *,
    simulated: bool,
) -> dict[str, object]:
    records = {m.value: of_modality.get(m, ()) for m in Modality}
    row: dict[str, object] = {"patient_id": patient_id, "split": split, "y_true": y_true}
    return {**row, "simulated": simulated, **records}


def _table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), columns=list(PATIENT_COLUMNS))
    return table.astype({"simulated": bool})


def _check(records: pd.DataFrame) -> None:
    lost = int(records[_KEYS].isna().any(axis=1).sum())
    if lost:
        raise StudyError(
            "patients",
            f"{lost} of {len(records)} records have no split or no class",
            "split the manifest and drop records without a target class first",
        )
