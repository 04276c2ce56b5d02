"""Learn a study's stacking from the validation patients that are true pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from pulmofuse.config import StudyConfig
from pulmofuse.errors import StudyError
from pulmofuse.fusion import MIN_PAIRS_PER_CLASS, fit_stacking, paired_patients
from pulmofuse.inference import DecisionFusion, Scores
from pulmofuse.pipeline.models import codes
from pulmofuse.pipeline.predictions import PatientScores
from pulmofuse.schema import Modality, Split


def with_stacking(
    decision: DecisionFusion,
    patients: PatientScores,
    scores: Mapping[Modality, Scores],
    records: pd.DataFrame,
    config: StudyConfig,
) -> tuple[DecisionFusion, str]:
    """The decision rules with a stacking, where the study wants one and there are pairs for it.

    True pairs are looked for among the records, so that a study which joins simulated patients for
    its comparison still learns from the real ones it has.

    Args:
        decision: of `fit_decision_fusion`.
        patients: on which the study joins its modalities.
        scores: of each modality.
        records: record_id, patient_id, modality, split, y_true.
        config: the study; see `fusion.stacking`.

    Returns:
        The rules, and a note for the person: what was learned from, or why nothing was.

    Raises:
        StudyError: `fusion.stacking` is "paired", and there are too few true pairs.
    """
    wanted, classes = config.fusion.stacking, config.target.classes
    if wanted == "none" or len(decision.modalities) < 2:
        return decision, "no stacking: none is wanted or there is one modality"
    real = PatientScores(paired_patients(records[records["split"] == Split.VAL]), scores, classes)
    rows, y = _several(real)
    counts = np.bincount(y[rows], minlength=len(classes))
    chosen = real
    if counts.min() < MIN_PAIRS_PER_CLASS:
        least = classes[int(counts.argmin())]
        why = (
            f"{counts.min()} true pairs of class {least} in validation,"
            f" at least {MIN_PAIRS_PER_CLASS} of each class are needed"
        )
        if wanted == "paired":
            raise StudyError(
                "fusion.stacking: paired",
                why,
                "add patients with several modalities, or set `fusion.stacking: auto` to leave it"
                " out, or `simulated` to learn from patients joined by label and have it said",
            )
        if wanted == "auto":
            return decision, f"no stacking: {why}"
        chosen = patients
        rows, y = _several(chosen)
    stacking = fit_stacking(
        chosen.p[rows],
        chosen.has[rows],
        y[rows],
        chosen.patients["simulated"].to_numpy(dtype=bool)[rows],
        prior=decision.prior,
        modality_priors=decision.modality_priors,
        on_simulated=wanted == "simulated",
    )
    kind = "simulated patients" if stacking.simulated else "true pairs"
    note = f"{stacking.method} on {stacking.n_patients} {kind} in validation"
    return replace(decision, stacking=stacking), note


def _several(patients: PatientScores) -> tuple[np.ndarray, np.ndarray]:
    """Which validation patients have several modalities and one class, and all class indexes."""
    y = codes(patients.patients["y_true"], patients.classes)
    val = (patients.patients["split"] == Split.VAL).to_numpy()
    return val & (patients.has.sum(axis=1) > 1) & (y >= 0), y
