"""Tables of the data: who is in the study, how it was split, what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from pulmofuse.report.doubts import pairing
from pulmofuse.report.names import MODALITY_TITLES, class_title, subset_title
from pulmofuse.report.pictures import thumbnail_uri
from pulmofuse.report.study_files import StudyFiles
from pulmofuse.schema import Modality, Split

SPLITS = tuple(split.value for split in Split)

_EXAMPLE_PIXELS = 200
_EXPLANATION_PIXELS = 240
#: Pictures of 10 kB each keep the page well below 6 MB.
_EXAMPLES_PER_CLASS = 4
_MOST_EXPLANATIONS = 36
#: Rows of the left-out table; excluded.csv holds all of them.
_MOST_EXCLUSIONS = 50


@dataclass(frozen=True)
class CountRow:
    """Files of one modality and class, per split and in all."""

    modality: str
    key: str
    label: str
    counts: tuple[int, ...]
    first: bool


@dataclass(frozen=True)
class SourceRow:
    """One data set and modality."""

    source: str
    modality: str
    key: str
    files: int
    patients: int
    known: str


@dataclass(frozen=True)
class PatientRow:
    """Patients per split of one modality, or of the fusion cohort."""

    title: str
    key: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Gallery:
    """Pictures of one modality and class."""

    label: str
    pictures: tuple[str | None, ...]


@dataclass(frozen=True)
class Explained:
    """A test example with its activation map."""

    modality: str
    key: str
    record_id: str
    y_true: str
    y_pred: str
    right: bool
    p: float | None
    image: str | None
    overlay: str | None


@dataclass(frozen=True)
class LeftOut:
    """Files left out: counts by reason, and the first rows."""

    total: int
    reasons: tuple[tuple[str, str, int], ...]
    rows: tuple[dict[str, str], ...]


def count_rows(study: StudyFiles) -> list[CountRow]:
    """Files per modality and class of the study, over train, val, test and in all."""
    if study.manifest is None:
        return []
    manifest = study.manifest.assign(target=study.manifest["label"].map(study.target_of))
    names = [*study.classes, *sorted(set(manifest["target"].dropna()) - set(study.classes))]
    rows = []
    for modality in Modality:
        part = manifest[manifest["modality"] == modality.value]
        first = True
        for name in names:
            split = part.loc[part["target"] == name, "split"]
            if split.empty:
                continue
            counts = tuple(int((split == s).sum()) for s in SPLITS)
            row = CountRow(
                modality=subset_title(modality.value),
                key=modality.value,
                label=class_title(name),
                counts=(*counts, sum(counts)),
                first=first,
            )
            rows.append(row)
            first = False
    return rows


def source_rows(study: StudyFiles) -> list[SourceRow]:
    """One row per data set and modality, with whether its patients are known."""
    if study.manifest is None:
        return []
    rows = []
    for (source, modality), part in study.manifest.groupby(["source", "modality"]):
        known = int(part["patient_known"].sum())
        text = "all" if known == len(part) else "none" if known == 0 else f"{known} of {len(part)}"
        rows.append(
            SourceRow(
                source=str(source),
                modality=subset_title(str(modality)),
                key=str(modality),
                files=len(part),
                patients=int(part["patient_id"].nunique()),
                known=text,
            )
        )
    return rows


def patient_rows(study: StudyFiles) -> list[PatientRow]:
    """Patients per split: of each modality in the manifest, and of the fusion cohort if any."""
    rows = []
    if study.manifest is not None:
        for modality in Modality:
            part = study.manifest[study.manifest["modality"] == modality.value]
            if len(part):
                title = f"{subset_title(modality.value)} (people, as far as known)"
                rows.append(_patients(title, modality.value, part))
    cohort = study.predictions[study.predictions["method"] != "per_record"]
    kind = pairing(study)
    if len(cohort) and kind:
        rows.append(_patients(f"Fusion cohort ({kind} patients)", "fusion", cohort))
    return rows


def _patients(title: str, key: str, part: pd.DataFrame) -> PatientRow:
    per_split = part.groupby("split")["patient_id"].nunique()
    return PatientRow(title, key, tuple(int(per_split.get(split, 0)) for split in SPLITS))


def galleries(study: StudyFiles) -> list[tuple[str, str, list[Gallery]]]:
    """Example pictures as (modality key, title, one gallery per class)."""
    found = []
    for modality, title in MODALITY_TITLES.items():
        entries = [e for e in study.examples if e.modality == modality]
        labels = list(dict.fromkeys(e.label for e in entries))
        per_class = [
            Gallery(
                class_title(label),
                tuple(
                    thumbnail_uri(e.image, study.folder, _EXAMPLE_PIXELS)
                    for e in entries
                    if e.label == label
                )[:_EXAMPLES_PER_CLASS],
            )
            for label in labels
        ]
        if per_class:
            found.append((modality, title[:1].upper() + title[1:], per_class))
    return found


def explained(study: StudyFiles) -> list[tuple[str, str, list[Explained]]]:
    """Test examples with their overlays as (modality key, title, examples)."""
    shown = _explained(study)
    found = ((m, subset_title(m), [e for e in shown if e.key == m]) for m in MODALITY_TITLES)
    return [entry for entry in found if entry[2]]


def _explained(study: StudyFiles) -> list[Explained]:
    return [
        Explained(
            modality=subset_title(e.modality),
            key=e.modality,
            record_id=e.record_id,
            y_true=class_title(e.y_true),
            y_pred=class_title(e.y_pred),
            right=e.y_true == e.y_pred,
            p=e.p,
            image=thumbnail_uri(e.image, study.folder, _EXPLANATION_PIXELS),
            overlay=thumbnail_uri(e.overlay, study.folder, _EXPLANATION_PIXELS),
        )
        for e in study.explanations[:_MOST_EXPLANATIONS]
    ]


def left_out(study: StudyFiles) -> LeftOut:
    """Files left out, counted by stage and reason."""
    if study.excluded is None or study.excluded.empty:
        return LeftOut(0, (), ())
    stages = study.excluded["stage"].astype(str)
    counted = Counter(zip(stages, study.excluded["reason"].astype(str), strict=True))
    reasons = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    first = study.excluded.head(_MOST_EXCLUSIONS)
    rows = tuple({str(k): str(v) for k, v in row.items()} for row in first.to_dict("records"))
    return LeftOut(len(study.excluded), tuple((*key, n) for key, n in reasons), rows)
