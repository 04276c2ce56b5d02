"""The audit: is a good figure on these data worth anything?

It looks for leakage (the test set was seen in training), contradicting labels, shortcuts (something
other than disease predicts the class) and too few patients. Its answers are printed beside every
result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from pulmofuse.curation import confounding, leakage, sample_size
from pulmofuse.curation.check import Check, Verdict, worst
from pulmofuse.schema import Modality


@dataclass(frozen=True)
class Audit:
    """All answers, and the gravest of their verdicts."""

    verdict: Verdict
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form, as `audit.json` holds it."""
        return {"verdict": self.verdict, "checks": [check.to_json() for check in self.checks]}


def audit(
    manifest: pd.DataFrame,
    target: pd.Series,
    sha256: pd.Series,
    seed: int,
    contradictions: int = 0,
) -> Audit:
    """Ask every question of a manifest.

    Args:
        manifest: checked records with `traits`; `split` may be null (not split yet).
        target: class name per record, with the manifest's index; records without one are left out.
        sha256: of each file's content, with the manifest's index; null where unknown.
        seed: of cross-validation and bootstrap. The order of rows does not matter.
        contradictions: contents under two classes that `drop_duplicates` left out of the manifest.

    Returns:
        Checks with the ids `leakage.patient`, `leakage.exact_duplicate`, `labels.contradiction`
        (files, then patients), and for each modality `confounding.source`, `confounding.traits`,
        `confounding.demographics`, `power`, `support`.
    """
    records = manifest.assign(
        y_true=target.reindex(manifest.index), sha256=sha256.reindex(manifest.index)
    )
    records = records.dropna(subset=["y_true"]).sort_values("record_id", ignore_index=True)
    checks = [
        leakage.leakage_patient(records),
        leakage.leakage_exact_duplicate(records),
        *leakage.label_contradictions(records, contradictions),
    ]
    classes = sorted(set(records["y_true"].astype(str)))
    for modality in Modality:
        part = records[records["modality"] == modality.value].reset_index(drop=True)
        if part.empty:
            continue
        checks += [
            confounding.source(part, modality.value, seed),
            confounding.traits(part, modality.value, seed),
            confounding.demographics(part, modality.value, seed),
            sample_size.power(part, modality.value),
            sample_size.support(part, modality.value, classes),
        ]
    return Audit(worst(check.verdict for check in checks), tuple(checks))
