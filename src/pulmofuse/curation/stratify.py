"""Iterative stratification: deal patients so that every part gets its share of every kind.

Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification of multi-label data": a patient belongs
to one *cell* per (modality, class) of their records and to one per (set of modalities, rarest
class), and the rarest cell is dealt first. So every modality, every class and every combination of
modalities gets its share of each part, counted in patients.

The deal hangs on the seed and the patients' names only, not on the order of rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import TypeVar

import pandas as pd

from pulmofuse.errors import StudyError
from pulmofuse.schema import subset_name

#: (modality or set of modalities, class)
Cell = tuple[str, str]
Cells = Mapping[str, frozenset[Cell]]

#: Name of a part: a split, or the number of a fold.
Part = TypeVar("Part", str, int)


def cells_of(table: pd.DataFrame) -> Cells:
    """Cells of each patient.

    Args:
        table: patient, modality, class; all text.
    """
    pairs: dict[str, set[Cell]] = defaultdict(set)
    for patient, modality, name in zip(
        table["patient"], table["modality"], table["class"], strict=True
    ):
        pairs[patient].add((modality, name))
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


def need_patients(
    table: pd.DataFrame, least: int, purpose: str, among: Collection[str] | None = None
) -> None:
    """Refuse a class that has too few patients in a modality.

    Args:
        table: patient, modality, class; all text.
        least: patients of each class in each modality.
        purpose: who needs them, e.g. "train, val and test need one each".
        among: patients that count; None: all.

    Raises:
        StudyError: naming the class with the fewest.
    """
    found = table[["patient", "modality", "class"]].drop_duplicates()
    counts = found if among is None else found[found["patient"].isin(among)]
    n_of = counts.groupby(["modality", "class"]).size()
    kinds = {(str(m), str(c)) for m, c in zip(found["modality"], found["class"], strict=True)}
    n, modality, name = min((int(n_of.get(kind, 0)), *kind) for kind in kinds)
    if n < least:
        raise StudyError(
            f"class {name} in {modality}",
            f"{n} patient{'' if n == 1 else 's'}, and {purpose}",
            f"add {modality} data of {name}, or leave the class or the modality out",
        )


def count(patients: Cells) -> Counter[Cell]:
    """Patients of each cell."""
    return Counter(cell for own in patients.values() for cell in own)


def deal(
    patients: Cells, shares: Mapping[Part, float], have: Mapping[Part, Counter[Cell]], seed: int
) -> dict[str, Part]:
    """Deal patients to parts by iterative stratification.

    Args:
        patients: cells of each patient to deal.
        shares: of each part; they sum to 1.
        have: patients that a part holds already, by cell; it need not be given any more.
        seed: decides the order of the patients.

    Returns:
        The part of each patient.
    """
    members: dict[Cell, set[str]] = defaultdict(set)
    for patient, own in patients.items():
        for cell in own:
            members[cell].add(patient)
    wanted = {
        cell: _quotas(len(names), shares, {s for s in shares if s in have and have[s][cell]})
        for cell, names in members.items()
    }
    dealt: dict[str, Part] = {}
    while open_cells := [cell for cell, names in members.items() if names]:
        rarest = min(open_cells, key=lambda cell: (len(members[cell]), cell))
        for patient in shuffled(members[rarest], seed):
            own = patients[patient]
            part = _neediest(rarest, own, wanted)
            dealt[patient] = part
            for cell in own:
                wanted[cell][part] -= 1
                members[cell].discard(patient)
    return dealt


def _neediest(rarest: Cell, own: Collection[Cell], wanted: Mapping[Cell, dict[Part, int]]) -> Part:
    """Part with the largest open quota of the rarest cell; of equals, of all the patient's."""
    return max(
        wanted[rarest],
        key=lambda part: (wanted[rarest][part], sum(wanted[cell][part] for cell in own)),
    )


def _quotas(n: int, shares: Mapping[Part, float], held: Collection[Part]) -> dict[Part, int]:
    """Whole numbers of patients per part that sum to `n` (largest remainders).

    No part stays empty while another can spare a patient; `held` parts have some already.
    """
    exact = {part: n * share for part, share in shares.items()}
    quotas = {part: int(value) for part, value in exact.items()}
    by_remainder = sorted(shares, key=lambda part: quotas[part] - exact[part])
    for part in by_remainder[: n - sum(quotas.values())]:
        quotas[part] += 1
    for part in (p for p in shares if p not in held and not quotas[p]):
        donor = max(shares, key=lambda p: quotas[p] - (p not in held))
        if quotas[donor] > (donor not in held):
            quotas[donor] -= 1
            quotas[part] += 1
    return quotas


def shuffled(patients: Collection[str], seed: int) -> list[str]:
    """Patients in an order that hangs on the seed and their own names only."""
    return sorted(patients, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
