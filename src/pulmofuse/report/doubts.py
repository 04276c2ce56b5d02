"""What speaks against a model: negative controls, odd files, accepted leaks and what they undo."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pulmofuse.config import SplitConfig
from pulmofuse.curation.leaks import is_leak
from pulmofuse.report.names import MODALITY_TITLES, is_fusion, subset_title, with_interval
from pulmofuse.report.study_files import Check, StudyFiles
from pulmofuse.schema import iterate

#: Words of the controls and of how they were scored, in the order of the report.
CONTROL_TITLES = {
    "none": "Everything",
    "lungs_only": "Lungs only",
    "lungs_blanked": "Lungs blanked",
    "border_only": "Borders only",
    "lung_outline": "Outline of the lungs",
    "between_coughs": "Between the coughs",
}
_LEAKAGE_PATIENT = "leakage.patient"
_METHOD_TITLES = {"model": "the model", "probe": "a probe"}
#: What knows nothing of disease: an AUC above chance is a shortcut.
SHORTCUTS = ("lungs_blanked", "border_only", "between_coughs")


@dataclass(frozen=True)
class ControlRow:
    """One control of one modality."""

    modality: str
    key: str
    title: str
    text: str
    n_patients: int
    detail: str
    shortcut: bool
    first: bool


@dataclass(frozen=True)
class OddRow:
    """Odd files of one modality and kind."""

    modality: str
    kind: str
    files: int
    left_out: int
    example: str


def control_rows(study: StudyFiles) -> list[ControlRow]:
    """Every control, by modality."""
    rows = []
    for modality, part in controls_by_modality(study):
        for place, row in enumerate(iterate(part)):
            rows.append(
                ControlRow(
                    modality=subset_title(modality),
                    key=modality,
                    title=control_title(row),
                    text=_figure(row),
                    n_patients=int(row["n_patients"]),
                    detail=str(row["detail"]),
                    shortcut=row["control"] in SHORTCUTS,
                    first=place == 0,
                )
            )
    return rows


def odd_rows(study: StudyFiles) -> list[OddRow]:
    """Odd files by modality and kind, the most first."""
    if study.remarks is None or study.remarks.empty:
        return []
    rows = []
    for (modality, kind), part in study.remarks.groupby(["modality", "kind"]):
        rows.append(
            OddRow(
                modality=subset_title(str(modality)),
                kind=str(kind).replace("_", " "),
                files=int(part["path"].nunique()),
                left_out=int((part["excluded"] == "True").sum()),
                example=f"{part['path'].iloc[0]}: {part['reason'].iloc[0]}",
            )
        )
    return sorted(rows, key=lambda row: -row.files)


def accepted_leaks(study: StudyFiles) -> list[Check]:
    """Leaks that the study went on with; empty where there are none."""
    checks = study.audit.checks if study.audit else ()
    return [c for c in checks if is_leak(c.id, c.verdict)]


def pairing(study: StudyFiles) -> str:
    """How the modalities of a patient came together, as far as the audit lets one say so.

    Returns:
        "simulated"; "" where nothing is joined, for there is one modality; "truly paired"; or
        "paired" where leaks were accepted, which make no patient's place in the split true.
    """
    if study.simulated:
        return "simulated"
    if not study.predictions["subset"].map(is_fusion).any():
        return ""
    return "paired" if accepted_leaks(study) else "truly paired"


def known_pairs(study: StudyFiles) -> str:
    """How many patients the manifest knows more than one modality of, used or not; "" for none."""
    if study.manifest is None:
        return ""
    pairs = study.manifest[["patient_id", "modality"]].drop_duplicates()
    n = int((pairs["patient_id"].value_counts() > 1).sum())
    return (
        f"Only {n:,} {'patient has' if n == 1 else 'patients have'} more than one modality."
        if n
        else ""
    )


def pairing_chip(study: StudyFiles) -> str:
    """The same for the head of the report."""
    kind = pairing(study)
    return f"{kind[:1].upper()}{kind[1:]} patients" if kind else "One modality, nothing is paired"


def split_text(study: StudyFiles) -> str:
    """How the patients were split, and what the audit found of it."""
    parts = ["Patients, not files, are dealt out."]
    leaks = accepted_leaks(study)
    if study.audit is None:
        parts.append("Nobody checked it: there is no audit.")
    else:
        parts += [c.detail for c in study.audit.checks if c.id == _LEAKAGE_PATIENT]
    if leaks:
        named = ", ".join(f"{check.id} ({check.value or 0:,.0f})" for check in leaks)
        parts.append(
            f"Leaks were found, and the study went on: {named}; the audit below says more."
        )
    if study.config is not None:
        parts.append(_dealt(study.config.split))
    parts.append("Training chooses the epoch, calibration and threshold on validation.")
    if not leaks:
        parts.append("The test set is for the figures below only.")
    return " ".join(parts)


def _dealt(config: SplitConfig) -> str:
    """Who is in the test set, by the method of the split."""
    share, rest = f"{config.test:.0%}", f"{config.val:.0%}"
    match config.method:
        case "kfold":
            place = f"fold {config.fold} of {config.folds}, counted from 0,"
            leak = (
                " Records are dealt, not patients: this leaks." if config.unit == "record" else ""
            )
            return f"Published splits are passed over; {place} is the test set.{leak}"
        case "held_out":
            held_out = ", ".join(config.held_out)
            return f"The test set is everybody with a record of {held_out}."
        case "time":
            return f"The test set is the newest {share} of the dated patients."
    return (
        f"A split that a data set publishes is kept; otherwise {share} of the patients are for"
        f" the test and {rest} for validation."
    )


def controls_by_modality(study: StudyFiles) -> Iterator[tuple[str, pd.DataFrame]]:
    """Controls of each modality in the order of `CONTROL_TITLES`, the model before the probe."""
    if study.controls is None:
        return
    order = {name: place for place, name in enumerate(CONTROL_TITLES)}
    for modality in MODALITY_TITLES:
        part = study.controls[study.controls["modality"] == modality]
        if len(part):
            places = part["control"].map(order).fillna(len(order))
            yield modality, part.assign(place=places).sort_values(["place", "method"])


def control_title(row: dict[str, Any]) -> str:
    """What was left to see, and who looked."""
    control, method = str(row["control"]), str(row["method"])
    title = CONTROL_TITLES.get(control, control.strip().capitalize())
    return f"{title}, {_METHOD_TITLES.get(method, method)}"


def _figure(row: dict[str, Any]) -> str:
    value = known(row["value"])
    return "–" if value is None else with_interval(value, known(row["low"]), known(row["high"]))


def known(value: object) -> float | None:
    """A finite number, or null."""
    return float(value) if isinstance(value, float | int) and math.isfinite(value) else None


def shortcut_checks(study: StudyFiles, modality: str) -> list[Check]:
    """The audit's checks of what tells the classes apart without any content."""
    checks = study.audit.checks if study.audit else ()
    return [c for c in checks if c.id.startswith("confounding.") and c.modality == modality]
