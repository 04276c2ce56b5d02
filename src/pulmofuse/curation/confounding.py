"""Do source, acquisition or demographics give the class away?"""

from __future__ import annotations

import pandas as pd

from pulmofuse.curation.check import Check, counted, grade, two_digits
from pulmofuse.curation.shortcut import Feature, Shortcut, encode, measure_shortcut, trait_table

#: Above this a shortcut says more than cough does in a matched study (AUC .62, the UK's; see the
#: figures in the design), so a model's figure cannot be read without it.
WARN_AUC = 0.65

#: Above this the shortcut is as good as published models are: their figure shows nothing.
FAIL_AUC = 0.90

#: Traits that the detail names.
_NAMED = 2

#: Sources of one class that the detail names.
_NAMED_SOURCES = 4


#: A single trait below this AUC is not named: half-way from chance to the warning at .65 is .575.
_CHANCE_TRAIT_AUC = 0.575


def source(records: pd.DataFrame, modality: str, seed: int) -> Check:
    """Does the data set, or the site within it, predict the class?

    Args:
        records: source, site, patient_id, y_true of one modality.
        modality: its name.
        seed: of the cross-validation.
    """
    site = records["site"].where(records["site"].notna(), "unknown").astype(str)
    features = encode(pd.DataFrame({"source": records["source"].astype(str), "site": site}))
    found = measure_shortcut(features, records["y_true"], records["patient_id"], seed)
    if found is None:
        return _unmeasured("confounding.source", modality, "too few patients of two classes")
    if not found.features:
        detail = f"All {modality} records come from one source and site, which tells nothing."
        return _check("confounding.source", found, modality, detail, "")
    classes = records.groupby("source")["y_true"].agg(lambda names: sorted(set(names)))
    pure = [f"{name} ({c[0]})" for name, c in classes.items() if len(c) == 1]
    detail = f"In {modality}, source and site alone tell the classes apart with {_auc(found)}."
    if pure:
        more = f" and {len(pure) - _NAMED_SOURCES} more" if len(pure) > _NAMED_SOURCES else ""
        detail += (
            f" {counted(len(pure), 'source')} of one class only:"
            f" {', '.join(pure[:_NAMED_SOURCES])}{more}."
        )
    remedy = "use sources that hold every class, and read the results within each source"
    return _check("confounding.source", found, modality, detail, remedy)


def traits(records: pd.DataFrame, modality: str, seed: int) -> Check:
    """Do acquisition traits (size, bit depth, borders, sample rate ...) predict the class?

    Args:
        records: traits (JSON text), patient_id, y_true of one modality.
        modality: its name.
        seed: of the cross-validation.
    """
    table = trait_table(records["traits"])
    found = measure_shortcut(table, records["y_true"], records["patient_id"], seed)
    if found is None:
        return _unmeasured("confounding.traits", modality, "too few patients of two classes")
    if not found.features:
        detail = f"The acquisition traits of all {modality} records are equal or not known."
        return _check("confounding.traits", found, modality, detail, "")
    classes = sorted(set(records["y_true"].astype(str)))
    told = f"{classes[0]} from {classes[1]}" if len(classes) == 2 else "the classes apart"
    named = list(found.features[:_NAMED])
    best = max(found.features, key=lambda feature: feature.alone)
    sentences = [_alone(feature, told) for feature in named]
    if best not in named:
        sentences.append(f"the best single trait is {best.name} (AUC {two_digits(best.alone)})")
    detail = (
        f"In {modality}, acquisition traits alone, without any content, tell the classes apart"
        f" with {_auc(found)}."
    )
    # Naming a trait that tells nothing would accuse it.
    if best.alone > _CHANCE_TRAIT_AUC:
        detail += f" Most telling: {'; '.join(sentences)}."
    remedy = (
        "match the classes on these traits, remove them in preprocessing, or report the results"
        " within groups of equal traits"
    )
    return _check("confounding.traits", found, modality, detail, remedy)


def demographics(records: pd.DataFrame, modality: str, seed: int) -> Check:
    """Do age and sex, where known, predict the class?

    Args:
        records: age, sex, patient_id, y_true of one modality.
        modality: its name.
        seed: of the cross-validation.
    """
    known = records[records["age"].notna() | records["sex"].notna()]
    if known.empty:
        return _unmeasured("confounding.demographics", modality, "age and sex are not known")
    features = encode(known[["age", "sex"]])
    found = measure_shortcut(features, known["y_true"], known["patient_id"], seed)
    share = f"{len(known) / len(records):.0%} of the records"
    if found is None:
        why = f"age or sex is known for {share}, with too few patients of two classes"
        return _unmeasured("confounding.demographics", modality, why)
    detail = (
        f"In {modality}, age and sex alone tell the classes apart with {_auc(found)}; they are"
        f" known for {share}."
    )
    remedy = "match the classes on age and sex, or report the results within age groups"
    return _check("confounding.demographics", found, modality, detail, remedy)


def _check(name: str, found: Shortcut, modality: str, detail: str, remedy: str) -> Check:
    """A check of an AUC; the remedy stands only where something is wrong."""
    verdict = grade(found.auc, WARN_AUC, FAIL_AUC)
    advice = "" if verdict == "pass" else remedy
    return Check(name, verdict, found.auc, found.low, found.high, detail, advice, modality)


def _unmeasured(name: str, modality: str, why: str) -> Check:
    detail = f"In {modality}, this could not be measured: {why}."
    return Check(name, "pass", None, None, None, detail, "", modality)


def _auc(found: Shortcut) -> str:
    low, high = two_digits(found.low), two_digits(found.high)
    return f"AUC {two_digits(found.auc)} ({low} to {high}; .50 is chance)"


def _alone(feature: Feature, told: str) -> str:
    return f"{feature.name} alone tells {told}: AUC {two_digits(feature.alone)}"
