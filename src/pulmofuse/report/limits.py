"""What the figures do not say: every limit that can be read from the files, in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from pulmofuse.curation.confounding import SAME_AUC, feature_words
from pulmofuse.report.doubts import known_pairs
from pulmofuse.report.names import (
    method_title,
    number,
    subset_in_words,
    subset_title,
    with_interval,
)
from pulmofuse.report.results import headline, overall
from pulmofuse.report.study_files import Check, StudyFiles
from pulmofuse.schema import SUBSET_JOIN, Split

#: A wider interval of the AUC than this cannot tell a useful from a mediocre model.
_WIDE_INTERVAL = 0.10

#: What the audit's checks are called, by the start of their id.
CHECK_TITLES: dict[str, str] = {
    "leakage.patient": "Leakage of patients",
    "leakage.exact_duplicate": "Leakage of equal files",
    "leakage.near_duplicate": "Leakage of nearly equal files",
    "leakage.series": "Leakage of volumes",
    "leakage.pretraining": "Leakage through pre-training",
    "labels.contradiction": "Contradicting labels",
    "confounding.source": "Label from the source or site alone",
    "confounding.traits": "Label from acquisition traits alone",
    "confounding.demographics": "Label from age and sex alone",
    "power": "Size of the test set",
    "support": "Patients per class and split",
}


_UNKNOWN = "These data do not say which CT, CXR and cough belong to one person."

#: What tells the classes apart where no single feature does.
_TOGETHER = {
    "confounding.source": "source and site",
    "confounding.traits": "acquisition traits together",
    "confounding.demographics": "age and sex",
}


@dataclass(frozen=True)
class Limit:
    """One thing the figures do not say."""

    title: str
    text: str


def check_title(check: Check) -> str:
    """A check's id in words, with the modality it speaks of; empty for an id not known here."""
    base = next((CHECK_TITLES[start] for start in CHECK_TITLES if check.id.startswith(start)), "")
    return f"{base}, {subset_in_words(check.modality)}" if base and check.modality else base


def suspicions(study: StudyFiles) -> dict[str, str]:
    """Subset -> why its figure may be a shortcut: what the audit warns about, and its fusion."""
    found: dict[str, str] = {}
    for check in _confounded(study):
        strength = with_interval(check.value, check.low, check.high)
        found.setdefault(check.modality, f"{teller(check)}: {strength}")
    fused = headline(study).fused
    inherited = [m for m in fused.subset.split(SUBSET_JOIN) if m in found] if fused else []
    if fused is not None and inherited:
        found[fused.subset] = f"inherited from {subset_in_words(SUBSET_JOIN.join(inherited))}"
    return found


def limits(study: StudyFiles) -> list[Limit]:
    """Every limit of the study, the gravest first."""
    found = [
        *_simulation(study),
        *(_shortcut(check, study) for check in _confounded(study)),
        *_other_checks(study),
        *_identity(study),
        *_size(study),
        *_external(study),
        *_test_opened(study),
        *_many_figures(study),
    ]
    seed = "" if study.about.seed is None else f" ({study.about.seed})"
    found.append(
        Limit(
            "One split, one seed",
            f"Everything comes from a single split and a single seed{seed}. The intervals cover"
            " which patients happened to be in the test set, not how training would vary.",
        )
    )
    return found


def is_shortcut(check: Check) -> bool:
    """Whether a shortcut was measured and found; what could not be measured accuses nobody."""
    found = check.verdict in {"warn", "fail"} and check.value is not None
    return found and check.id.startswith("confounding.")


def teller(check: Check) -> str:
    """What tells the classes apart: the one feature that does it alone, or what the id asks of."""
    best = max(check.table, key=lambda row: row["auc_alone"], default=None)
    if best is None:
        return f"{check.id.split('.')[1]} alone"
    if check.value is not None and best["auc_alone"] >= check.value - SAME_AUC:
        return f"{feature_words(str(best['feature']))} alone"
    return _TOGETHER.get(check.id, "features together")


def _confounded(study: StudyFiles) -> list[Check]:
    return [check for check in _spoken(study) if is_shortcut(check)]


def _spoken(study: StudyFiles) -> list[Check]:
    checks = study.audit.checks if study.audit else ()
    return [check for check in checks if check.verdict in {"warn", "fail"}]


def _simulation(study: StudyFiles) -> list[Limit]:
    if not study.simulated:
        return []
    return [
        Limit(
            "The patients are simulated",
            f"{known_pairs(study) or _UNKNOWN} Recordings of different people of one class and"
            " split were joined. Their errors are therefore independent given the class; in one"
            " real patient they need not be. What fusion gains here, if anything, is what the rule"
            " makes of independent evidence, not a clinical gain.",
        )
    ]


def _shortcut(check: Check, study: StudyFiles) -> Limit:
    name = subset_in_words(check.modality) if check.modality else "the data"
    measured = with_interval(check.value, check.low, check.high)
    text = check.detail or f"Something other than the disease tells the classes: AUC {measured}."
    reached = {s.subset: s for s in headline(study).singles}
    if check.modality in reached:
        text += (
            f" The model's AUC of {number(reached[check.modality].value)} may therefore be a"
            " shortcut in part or in whole; it is no evidence that the model sees disease."
        )
    return Limit(f"The figure of {name} is suspicious", f"{text}{_remedy(check)}")


def _remedy(check: Check) -> str:
    return f" Remedy: {check.remedy.rstrip('.')}." if check.remedy else ""


def _other_checks(study: StudyFiles) -> list[Limit]:
    confounded = _confounded(study)
    found = [
        Limit(check_title(check) or check.id, f"{check.detail}{_remedy(check)}")
        for check in _spoken(study)
        if check not in confounded
    ]
    if study.audit is None:
        found.append(
            Limit("No audit", "Leakage and shortcuts were not checked, so trust no figure here.")
        )
    return found


def _identity(study: StudyFiles) -> list[Limit]:
    if study.manifest is None:
        return []
    unknown = study.manifest[~study.manifest["patient_known"].astype(bool)]
    if unknown.empty:
        return []
    shares = [
        f"{subset_title(str(modality))} {len(rows)} of"
        f" {int((study.manifest['modality'] == modality).sum())} files"
        for modality, rows in unknown.groupby("modality")
    ]
    return [
        Limit(
            "Some patients are not known",
            f"The data do not say who the patient is for {'; '.join(shares)}. Each such file"
            " counts as a patient of its own, so the same person may stand on both sides of the"
            " split and the intervals may be too narrow.",
        )
    ]


def _size(study: StudyFiles) -> list[Limit]:
    head = headline(study)
    wide = [s for s in head.scores if s.high - s.low >= _WIDE_INTERVAL]
    if not wide:
        return []
    kind = "simulated patients" if study.simulated else "patients"
    parts = [f"{s.title} {number(s.high - s.low)} ({s.n_patients} {kind})" for s in wide]
    return [
        Limit(
            "The test set is small",
            f"Width of the interval of the AUC: {', '.join(parts)}. A smaller difference to"
            " another study or data set is not established; a difference between two methods on"
            " the same patients has an interval of its own in the results.",
        )
    ]


def _external(study: StudyFiles) -> list[Limit]:
    if study.manifest is not None:
        split, source = study.manifest["split"], study.manifest["source"]
        outside = set(source[split == Split.TEST.value]) - set(source[split != Split.TEST.value])
        if outside:
            return []
    return [
        Limit(
            "No external validation",
            "Every source of the test set was also trained on. CT models that reach 0.83 to 0.99"
            " inside a data set have fallen to about 0.5 on another (Nguyen 2021).",
        )
    ]


def _test_opened(study: StudyFiles) -> list[Limit]:
    opened = study.about.test_opened
    if opened is None or opened <= 1:
        return []
    return [
        Limit(
            "The test set was opened more than once",
            f"It was evaluated {opened} times. Every look after the first may have guided a"
            " choice, which flatters the figures.",
        )
    ]


def _many_figures(study: StudyFiles) -> list[Limit]:
    compared = overall(study.metrics)[["subset", "method"]].drop_duplicates()
    if len(compared) < 2:
        return []
    fused = headline(study).fused
    named = f" ({method_title(fused.method)})" if fused else ""
    return [
        Limit(
            "The best of many is flattered",
            f"The table compares {len(compared)} rows on one test set; the bold figure of a column"
            f" is the luckiest as well as the best. The headline{named} is therefore the rule that"
            " was named in advance, not the best of the table.",
        )
    ]
