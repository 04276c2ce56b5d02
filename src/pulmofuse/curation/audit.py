"""The audit: is a good figure on these data worth anything?

It looks for leakage (the test set was seen in training), contradicting labels, shortcuts (something
other than disease predicts the class) and too few patients. Its answers are printed beside every
result; docs/audit.md says what each one means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pulmofuse.curation import confounding, leakage, sample_size
from pulmofuse.curation.check import Check, Verdict, worst
from pulmofuse.curation.copies import contradicting_pairs, join_pairs
from pulmofuse.schema import Modality

#: Columns of `Audit.duplicates`, and of duplicates.csv.
DUPLICATE_COLUMNS = (
    "path_a", "path_b", "kind", "score", "label_a", "label_b", "split_a", "split_b",
    "patient_a", "patient_b", "contradicting",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Audit:
    """All answers, and the gravest of their verdicts.

    Attributes:
        verdict: of the whole.
        checks: one answer each.
        duplicates: every pair of copies, columns `DUPLICATE_COLUMNS`: contradicting ones first,
            then those in different splits, then the rest. A label is the class of the study where
            the record has one; `contradicting` says that not both can be right.
    """

    verdict: Verdict
    checks: tuple[Check, ...]
    duplicates: pd.DataFrame

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form, as `audit.json` holds it."""
        return {"verdict": self.verdict, "checks": [check.to_json() for check in self.checks]}


def audit(
    records: pd.DataFrame, pairs: pd.DataFrame, seed: int, further: Sequence[Check] = ()
) -> Audit:
    """Ask every question of a manifest.

    Args:
        records: checked manifest, with the further columns `y_true` (class name; null leaves the
            record out of the checks of classes) and `used` (False for records that were left out
            before, such as copies under two classes: they are shown among the duplicates and
            counted as contradictions, and nothing else). `split` may be null (not split yet).
            The order of rows does not matter.
        pairs: record_a, record_b, kind ("exact" or "near"), score.
        seed: of cross-validation, permutations and bootstrap.
        further: answers about leakage that the records alone do not give.

    Returns:
        Checks with the ids `leakage.patient`, `leakage.exact_duplicate`, `leakage.near_duplicate`,
        `leakage.series`, `labels.contradiction` (contents, then patients), and for each modality
        `confounding.source`, `confounding.traits`, `confounding.demographics`, `power`, `support`;
        of a modality without a class only `support`.
    """
    records = records.sort_values("record_id", ignore_index=True)
    used = records[records["used"].astype(bool)]
    columns = ["path", "source", "patient_id", "label", "y_true", "split", "used"]
    joined = join_pairs(records, pairs, columns)
    checks = [
        leakage.leakage_patient(used),
        leakage.leakage_duplicate("exact", joined),
        leakage.leakage_duplicate("near", joined),
        leakage.leakage_series(used),
        *further,
        *leakage.label_contradictions(records, joined),
    ]
    with_class = used[used["y_true"].notna()]
    classes = sorted(set(with_class["y_true"].astype(str)))
    for modality in Modality:
        part = with_class[with_class["modality"] == modality.value].reset_index(drop=True)
        if part.empty:
            if (used["modality"] == modality.value).any():
                checks.append(sample_size.no_classes(modality.value))
            continue
        checks += [
            confounding.source(part, modality.value, seed),
            confounding.traits(part, modality.value, seed),
            confounding.demographics(part, modality.value, seed),
            sample_size.power(part, modality.value),
            sample_size.support(part, modality.value, classes),
        ]
    verdict = worst(check.verdict for check in checks)
    return Audit(verdict, tuple(checks), _duplicates(joined))


def _duplicates(joined: pd.DataFrame) -> pd.DataFrame:
    """The pairs for a reader, gravest first."""
    table = joined.rename(columns={"patient_id_a": "patient_a", "patient_id_b": "patient_b"})
    for side in ("a", "b"):
        table[f"label_{side}"] = table[f"y_true_{side}"].fillna(table[f"label_{side}"])
    table = table.assign(
        contradicting=contradicting_pairs(joined), across=leakage.across_splits(joined)
    )
    order = ["contradicting", "across", "kind", "path_a", "path_b"]
    table = table.sort_values(order, ascending=[False, False, True, True, True])
    return table[list(DUPLICATE_COLUMNS)].reset_index(drop=True)
