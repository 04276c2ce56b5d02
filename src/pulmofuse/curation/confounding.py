"""Do source, acquisition or demographics give the class away?"""

from __future__ import annotations

import re

import pandas as pd

from pulmofuse.curation.check import Check, Verdict, counted, grade, two_digits
from pulmofuse.curation.shortcut import (
    Feature,
    Shortcut,
    draw_patients,
    encode,
    measure_shortcut,
    trait_table,
)

#: Above this a shortcut says more than cough does in a matched study (AUC .62, the UK's; see the
#: figures in the design), so a model's figure cannot be read without it.
WARN_AUC = 0.62

#: Above this the shortcut is as good as published models are: their figure shows nothing.
FAIL_AUC = 0.90

#: A shortcut must not be chance: .05 shared by the ten or so questions that an audit asks.
MAX_P = 0.005

#: The permutation test can show no less.
_LEAST_P = 0.001

#: Traits that the detail names.
_NAMED = 2

#: Sources of one class that the detail names.
_NAMED_SOURCES = 4


#: A single trait below this AUC is not named: half-way from chance to the warning.
_CHANCE_TRAIT_AUC = (0.5 + WARN_AUC) / 2

_TOO_FEW = "too few patients of two classes"

#: Units at the end of a trait's name, which a sentence does not need.
_UNITS = re.compile(r"_(hz|s|mm|px|db|bits|kvp)$")


def source(records: pd.DataFrame, modality: str, seed: int) -> Check:
    """Does the data set, or the site within it, predict the class?

    Args:
        records: source, site, patient_id, y_true of one modality.
        modality: its name.
        seed: of the cross-validation.
    """
    drawn = draw_patients(records, seed)
    site = drawn["site"].where(drawn["site"].notna(), "unknown").astype(str)
    features = encode(pd.DataFrame({"source": drawn["source"].astype(str), "site": site}))
    found = measure_shortcut(features, drawn["y_true"], drawn["patient_id"], seed)
    if features.shape[1] == 0:
        detail = f"All {modality} records come from one source and site, which tells nothing."
        return _nothing("confounding.source", found, modality, detail)
    if found is None:
        return _unmeasured("confounding.source", modality, _TOO_FEW)
    pairs = records[["source", "y_true"]].drop_duplicates()
    classes = pairs.groupby("source")["y_true"].agg(list)
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
    drawn = draw_patients(records, seed)
    table = trait_table(drawn["traits"])
    found = measure_shortcut(table, drawn["y_true"], drawn["patient_id"], seed)
    if table.shape[1] == 0:
        detail = f"The acquisition traits of all {modality} records are equal or not known."
        return _nothing("confounding.traits", found, modality, detail)
    if found is None:
        return _unmeasured("confounding.traits", modality, _TOO_FEW)
    classes = sorted(set(records["y_true"].astype(str)))
    told = f"{classes[0]} from {classes[1]}" if len(classes) == 2 else "the classes apart"
    named = list(found.features[:_NAMED])
    best = max(found.features, key=lambda feature: feature.alone)
    sentences = [_alone(feature, told) for feature in named]
    if best not in named:
        sentences.append(
            f"the best single trait is {_words(best.name)} (AUC {two_digits(best.alone)})"
        )
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
        detail = f"In {modality}, this could not be measured: age and sex are not known."
        return _nothing("confounding.demographics", None, modality, detail)
    drawn = draw_patients(known, seed)
    features = encode(drawn[["age", "sex"]])
    found = measure_shortcut(features, drawn["y_true"], drawn["patient_id"], seed)
    share = f"{len(known) / len(records):.0%} of the records"
    if features.shape[1] == 0:
        detail = f"In {modality}, age and sex are the same wherever known ({share})."
        return _nothing("confounding.demographics", found, modality, detail)
    if found is None:
        why = f"age or sex is known for {share}, with {_TOO_FEW}"
        return _unmeasured("confounding.demographics", modality, why)
    detail = (
        f"In {modality}, age and sex alone tell the classes apart with {_auc(found)}; they are"
        f" known for {share}."
    )
    remedy = "match the classes on age and sex, or report the results within age groups"
    return _check("confounding.demographics", found, modality, detail, remedy)


def _check(name: str, found: Shortcut, modality: str, detail: str, remedy: str) -> Check:
    """A check of an AUC: what chance can explain is no alarm, however high it is."""
    verdict: Verdict = "pass"
    if found.p_value is not None and found.null_95 is not None:
        # The second condition is for features that tell only together, which the permutation
        # test's classifier does not see (docs/decisions/0009-audit.md).
        if found.p_value <= MAX_P or found.low > found.null_95:
            verdict = grade(found.auc, WARN_AUC, FAIL_AUC)
        detail += f" {_chance(found)}"
    if found.left_out:
        detail += f" Left out, with one patient each: {', '.join(found.left_out)}."
    return Check(
        name, verdict, found.auc, found.low, found.high, detail,
        "" if verdict == "pass" else remedy, modality,
        p_value=found.p_value, null_95=found.null_95,
        thresholds={"warn_above": WARN_AUC, "fail_above": FAIL_AUC, "p_at_most": MAX_P},
        table=tuple(
            {"feature": f.name, "auc_alone": f.alone, "auc_lost_without": f.importance}
            for f in found.features
        ),
    )  # fmt: skip


def _unmeasured(name: str, modality: str, why: str) -> Check:
    """A warning: there is something to measure, and nobody knows what it tells."""
    detail = f"In {modality}, this could not be measured: {why}."
    remedy = f"add {modality} data, two patients of two classes at least, or leave the modality out"
    return Check(name, "warn", None, None, None, detail, remedy, modality)


def _nothing(name: str, found: Shortcut | None, modality: str, detail: str) -> Check:
    """A pass: there is nothing that could tell the classes apart. Without classes no figure."""
    if found is None:
        return Check(name, "pass", None, None, None, detail, "", modality)
    return _check(name, found, modality, detail, "")


def _auc(found: Shortcut) -> str:
    low, high = two_digits(found.low), two_digits(found.high)
    return f"AUC {two_digits(found.auc)} ({low} to {high}; .50 is chance)"


def _chance(found: Shortcut) -> str:
    """What shuffled classes reach, and what that means."""
    limit, p = two_digits(found.null_95 or 0.0), found.p_value or 0.0
    reached = "p ≤ .001" if p <= _LEAST_P else f"p = {p:.3f}".replace("0.", ".", 1)
    sentence = (
        f"With the classes shuffled between patients, 95 % of a simpler classifier's figures are"
        f" below {limit}"
        f" ({reached})"
    )
    if found.auc > WARN_AUC and p > MAX_P and found.low <= (found.null_95 or 0.0):
        sentence += ": with so few patients this may be chance"
    return sentence + "."


def _alone(feature: Feature, told: str) -> str:
    return f"{_words(feature.name)} alone tells {told}: AUC {two_digits(feature.alone)}"


def _words(name: str) -> str:
    """A trait's name for a sentence: "sample rate" for "sample_rate_hz"."""
    return _UNITS.sub("", name).replace("_", " ")
