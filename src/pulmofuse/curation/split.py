"""Splits by patient: a person is in train, in val or in test, never in two of them.

A split that a data set publishes is kept, because figures are compared on it. The other patients
are dealt by iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification
of multi-label data"): a patient belongs to one *cell* per (modality, class) of their records and
to one per (set of modalities, rarest class), and the rarest cell is dealt first. So every modality,
every class and every combination of modalities gets its share of each split, counted in patients.

The deal hangs on the seed and the patients' names only, not on the order of rows.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

import pandas as pd

from pulmofuse.config import SplitConfig
from pulmofuse.errors import StudyError
from pulmofuse.schema import Split, subset_name

#: Training, validation and test need one patient each.
_MIN_PATIENTS = len(Split)

#: (modality or set of modalities, class)
Cell = tuple[str, str]
Cells = Mapping[str, frozenset[Cell]]


def assign_splits(
    manifest: pd.DataFrame, target: pd.Series, config: SplitConfig, seed: int
) -> pd.DataFrame:
    """Put every record into train, val or test.

    Rows with a published split keep it, and the patient's other rows follow. A source whose rows
    are all published, with a training and a test part but no validation part, gives
    val / (1 - test) of its training patients to validation: the ratio of train to val is then the
    one of a split made here. A patient whom a published split puts in two splits stays so, for the
    audit to report.

    Args:
        manifest: checked records; `split` is null where none is published.
        target: class name per record, with the manifest's index.
        config: shares of the patients.
        seed: of the deal.

    Returns:
        A copy of the manifest with `split` filled in.

    Raises:
        StudyError: a record has no class, or a class has fewer than three patients in a modality.
    """
    classes = target.reindex(manifest.index)
    if classes.isna().any():
        raise StudyError(
            f"{int(classes.isna().sum())} records",
            "have no class of the study",
            "leave out records whose label is not mapped",
        )
    table = pd.DataFrame(
        {
            "patient": manifest["patient_id"].astype(str),
            "modality": manifest["modality"].astype(str),
            "class": classes.astype(str),
            "source": manifest["source"].astype(str),
            "split": [None if pd.isna(split) else str(split) for split in manifest["split"]],
        }
    ).astype(object)
    cells = _cells(table)
    table["split"] = _carve_validation(table, cells, config, seed)
    published = _published(table)
    open_patients = {name: c for name, c in cells.items() if name not in published}
    taken = {name: cells[name] for name in published}
    have = {split: _count(taken, published, split) for split in Split}
    shares = {
        Split.TRAIN: 1 - config.test - config.val,
        Split.VAL: config.val,
        Split.TEST: config.test,
    }
    dealt = published | _deal(open_patients, shares, have, seed)
    filled = table["split"].where(table["split"].notna(), table["patient"].map(dealt))
    return manifest.assign(split=filled.astype(object))


def split_hash(manifest: pd.DataFrame) -> str:
    """Fingerprint of who is where: 16 hex digits of SHA-256 over sorted (record_id, split)."""
    pairs = sorted(
        (str(record_id), None if pd.isna(split) else str(split))
        for record_id, split in zip(manifest["record_id"], manifest["split"], strict=True)
    )
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]


def _cells(table: pd.DataFrame) -> Cells:
    """Cells of each patient; refuses a class that cannot be in all three splits."""
    pairs: dict[str, set[Cell]] = defaultdict(set)
    for patient, modality, name in zip(
        table["patient"], table["modality"], table["class"], strict=True
    ):
        pairs[patient].add((modality, name))
    counts = Counter(pair for own in pairs.values() for pair in own)
    for (modality, name), n in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        if n < _MIN_PATIENTS:
            raise StudyError(
                f"class {name} in {modality}",
                f"{n} patient{'s' if n > 1 else ''}, and train, val and test need one each",
                f"add {modality} data of {name}, or leave the class or the modality out",
            )
    # A patient can change class between records; the rarest of them is the one to spread evenly.
    class_counts = Counter(name for own in pairs.values() for name in {c for _, c in own})
    return {
        patient: frozenset(
            own
            | {
                (
                    subset_name(modality for modality, _ in own),
                    min({name for _, name in own}, key=lambda name: (class_counts[name], name)),
                )
            }
        )
        for patient, own in pairs.items()
    }


def _carve_validation(
    table: pd.DataFrame, cells: Cells, config: SplitConfig, seed: int
) -> pd.Series:
    """Published splits, with validation taken from training where a source publishes none."""
    share = config.val / (1 - config.test)
    split = table["split"].copy()
    for _, rows in table.groupby("source", sort=True):
        published = set(rows["split"])
        if published != {Split.TRAIN.value, Split.TEST.value}:
            continue
        in_test = set(rows.loc[rows["split"] == Split.TEST, "patient"])
        train = {name: cells[name] for name in set(rows["patient"]) - in_test}
        shares = {Split.TRAIN: 1 - share, Split.VAL: share}
        dealt = _deal(train, shares, {part: Counter() for part in shares}, seed)
        moved = rows["patient"].map(dealt) == Split.VAL
        split[rows.index[moved]] = Split.VAL.value
    return split


def _published(table: pd.DataFrame) -> dict[str, str]:
    """Split of each patient who has a published one.

    Of two published splits the earliest in the order train, val, test counts for the rows that
    follow: a record added to training does less harm than one added to a test that already leaks.
    """
    order = [split.value for split in Split]
    known = table[table["split"].notna()]
    first = known["split"].map(order.index).groupby(known["patient"]).min()
    return {str(patient): order[int(i)] for patient, i in first.items()}


def _count(cells: Cells, splits: Mapping[str, str], split: Split) -> Counter[Cell]:
    """Patients of each cell in one split."""
    return Counter(c for patient, own in cells.items() if splits[patient] == split for c in own)


def _deal(
    patients: Cells, shares: Mapping[Split, float], have: Mapping[Split, Counter[Cell]], seed: int
) -> dict[str, str]:
    """Deal patients to splits by iterative stratification.

    Args:
        patients: cells of each patient to deal.
        shares: of each split; they sum to 1.
        have: patients that each split holds already, by cell.
        seed: decides the order of the patients.
    """
    members: dict[Cell, set[str]] = defaultdict(set)
    for patient, own in patients.items():
        for cell in own:
            members[cell].add(patient)
    wanted = {
        cell: _quotas(len(names), shares, {s for s in shares if have[s][cell]})
        for cell, names in members.items()
    }
    dealt: dict[str, str] = {}
    while open_cells := [cell for cell, names in members.items() if names]:
        rarest = min(open_cells, key=lambda cell: (len(members[cell]), cell))
        for patient in _shuffled(members[rarest], seed):
            own = patients[patient]
            split = _neediest(rarest, own, wanted)
            dealt[patient] = split.value
            for cell in own:
                wanted[cell][split] -= 1
                members[cell].discard(patient)
    return dealt


def _neediest(
    rarest: Cell, own: Collection[Cell], wanted: Mapping[Cell, dict[Split, int]]
) -> Split:
    """Split with the largest open quota of the rarest cell; of equals, of all the patient's."""
    return max(
        wanted[rarest],
        key=lambda split: (wanted[rarest][split], sum(wanted[cell][split] for cell in own)),
    )


def _quotas(n: int, shares: Mapping[Split, float], held: Collection[Split]) -> dict[Split, int]:
    """Whole numbers of patients per split that sum to `n` (largest remainders).

    No split stays empty while another can spare a patient; `held` splits have some already.
    """
    exact = {split: n * share for split, share in shares.items()}
    quotas = {split: int(value) for split, value in exact.items()}
    by_remainder = sorted(shares, key=lambda split: quotas[split] - exact[split])
    for split in by_remainder[: n - sum(quotas.values())]:
        quotas[split] += 1
    for split in (s for s in shares if s not in held and not quotas[s]):
        donor = max(shares, key=lambda s: quotas[s] - (s not in held))
        if quotas[donor] > (donor not in held):
            quotas[donor] -= 1
            quotas[split] += 1
    return quotas


def _shuffled(patients: Collection[str], seed: int) -> list[str]:
    """Patients in an order that hangs on the seed and their own names only."""
    return sorted(patients, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
