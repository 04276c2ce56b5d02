"""Do source, acquisition or demographics give the class away?"""

from __future__ import annotations

import re

import pandas as pd

from pulmofuse.curation.check import Check, Verdict, counted, grade, two_digits
from pulmofuse.curation.sample_size import MIN_PATIENTS
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

#: Further traits that the detail names after the most telling one.
_NAMED = 3

#: Sources or sites that the detail names.
_NAMED_PLACES = 4

#: A single trait below this AUC is not named: half-way from chance to the warning.
_CHANCE_TRAIT_AUC = (0.5 + WARN_AUC) / 2

#: AUCs this close are the same for a reader: the error of the 3,000 records that are drawn
#: (`shortcut`). One feature that reaches all of them together is then what the sentence names.
SAME_AUC = 0.02

_TOO_FEW = "too few patients of two classes"

#: Units at the end of a trait's name, which a sentence does not need.
_UNITS = re.compile(r"_(hz|s|mm|px|db|bits|kvp)$")

#: Names of traits that are not words yet.
_WORDS = {"bytes": "file size", "bits_per_second": "bit rate"}

#: What `site` holds in the data sets that say so in their data sheets (`sources`).
_SITE_MEANS = {
    "coswara": "state or country",
    "covid19_cough": "the recording channel",
    "covid_chestxray": "country",
    "covid_ct": "where the image was taken from",
    "covidx_ct": "the collection an image was taken from",
    "covidx_cxr": "the collection an image was taken from",
    "darkcovidnet": "the collection an image was taken from",
    "radiography_database": "the host an image was taken from",
}


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
    # What a source tells, its sites tell as well; the coarser of the two is named.
    best = max(found.features, key=lambda feature: (round(feature.alone, 2), feature.name))
    words = f"{best.name} alone ({_places(records, best.name)})"
    detail = _headline(modality, found, best, words, "source and site together", records)
    pure = _of_one_class(records, best.name)
    if pure:
        more = f" and {len(pure) - _NAMED_PLACES} more" if len(pure) > _NAMED_PLACES else ""
        detail += (
            f" {counted(len(pure), best.name)} of one class only:"
            f" {', '.join(pure[:_NAMED_PLACES])}{more}."
        )
    remedy = (
        f"use data in which every {best.name} holds the classes in equal shares, and read the"
        f" results within each {best.name}"
    )
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
    best, *others = sorted(found.features, key=lambda feature: (-feature.alone, feature.name))
    group = "acquisition traits together, without any content,"
    words = f"{feature_words(best.name)} alone"
    detail = _headline(modality, found, best, words, group, records)
    # Naming a trait that tells nothing would accuse it.
    telling = [feature for feature in others if feature.alone > _CHANCE_TRAIT_AUC][:_NAMED]
    if telling:
        named = (f"{feature_words(f.name)} alone, AUC {two_digits(f.alone)}" for f in telling)
        detail += f" Also: {'; '.join(named)}."
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
    classes = sorted(set(known["y_true"].astype(str)))
    if len(classes) == 1 and len(set(records["y_true"])) > 1:
        detail = (
            f"In {modality}, age or sex is known for {len(known) / len(records):.0%} of the"
            f" records, all of them {classes[0]}: whether it is known gives the class away, and the"
            " classes cannot be compared by age and sex."
        )
        remedy = "keep age and sex out of the model, or find out those of the other classes"
        return Check("confounding.demographics", "warn", None, None, None, detail, remedy, modality)
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
    best = max(found.features, key=lambda feature: feature.alone)
    words = f"{best.name} alone"
    detail = _headline(modality, found, best, words, "age and sex together", known)
    detail += f" Known for {share}."
    remedy = "match the classes on age and sex, or report the results within age groups"
    return _check("confounding.demographics", found, modality, detail, remedy)


def feature_words(name: str) -> str:
    """A feature's name for a sentence: "sample rate" for "sample_rate_hz"."""
    return _WORDS.get(name, _UNITS.sub("", name).replace("_", " "))


def _headline(
    modality: str, found: Shortcut, best: Feature, words: str, group: str, records: pd.DataFrame
) -> str:
    """Who tells the classes apart, and how well: one feature where one does it, else all of them.

    Args:
        modality: its name.
        found: what was measured.
        best: the most telling feature.
        words: that feature in words, "site alone".
        group: all features in words, "source and site together".
        records: y_true, of which the classes are named if they are two.
    """
    classes = sorted(set(records["y_true"].astype(str)) - set(found.left_out))
    told = f"{classes[0]} from {classes[1]}" if len(classes) == 2 else "the classes apart"
    low, high = two_digits(found.low), two_digits(found.high)
    whole = f"AUC {two_digits(found.auc)} [{low}, {high}] (.50 is chance)"
    sure = _is_sure(found)
    one = f"{words} {_verb(best.alone, 'tells', sure)} {told}"
    if len(found.features) == 1 or best.alone >= found.auc:
        return f"In {modality}, {one}: {whole}."
    alone = f"AUC {two_digits(best.alone)}"
    if best.alone >= found.auc - SAME_AUC:
        return f"In {modality}, {one}: {alone}; {group} reach {whole}."
    all_of_them = f"In {modality}, {group} {_verb(found.auc, 'tell', sure)} {told}: {whole}."
    if best.alone <= _CHANCE_TRAIT_AUC:
        return f"{all_of_them} None of them does so alone."
    return f"{all_of_them} Most telling: {one}, {alone}."


def _verb(auc: float, verb: str, sure: bool) -> str:
    """The verb, weakened where the AUC says next to nothing, or may be chance."""
    if auc <= _CHANCE_TRAIT_AUC:
        return f"hardly {verb}"
    return verb if sure else f"may by chance {verb.removesuffix('s')}"


def _places(records: pd.DataFrame, column: str) -> str:
    """The sources or sites by name, those with most patients first, and what a site is."""
    counts = records.groupby(column)["patient_id"].nunique()
    names = [str(name) for name in counts.sort_values(ascending=False, kind="stable").index]
    text = ", ".join(names[:_NAMED_PLACES])
    if len(names) > _NAMED_PLACES:
        text += f" and {len(names) - _NAMED_PLACES} more"
    if column == "site" and records["site"].isna().any():
        text += ", or unknown"
    means = [_SITE_MEANS.get(str(name)) for name in records["source"].unique()]
    return f"{means[0]}: {text}" if column == "site" and len(means) == 1 and means[0] else text


def _of_one_class(records: pd.DataFrame, column: str) -> list[str]:
    """Known sources or sites of one class only, each with that class."""
    pairs = records[records[column].notna()][[column, "y_true"]].drop_duplicates()
    classes = pairs.groupby(column)["y_true"].agg(list)
    return [f"{name} ({c[0]})" for name, c in classes.items() if len(c) == 1]


def _is_sure(found: Shortcut) -> bool:
    """Whether chance is an unlikely cause.

    The second condition is for features that tell only together, which the permutation test's
    classifier does not see (docs/decisions/0009-audit.md); the interval of a handful of patients
    who happen to be told apart has no width, and says nothing.
    """
    if found.p_value is None or found.null_95 is None:
        return False
    enough = min((one.n_patients for one in found.by_class), default=0) >= MIN_PATIENTS
    return found.p_value <= MAX_P or (enough and found.low > found.null_95)


def _check(name: str, found: Shortcut, modality: str, detail: str, remedy: str) -> Check:
    """A check of an AUC: what chance can explain is no alarm, however high it is."""
    verdict: Verdict = "pass"
    # The mean over classes hides a class that is given away. Of few patients, one of several
    # classes is told by chance; the low end of its interval decides, as there is no null for it.
    known = [one for one in found.by_class if one.n_patients >= MIN_PATIENTS]
    told = max(known, key=lambda one: one.auc, default=None)
    grave = found.auc
    if told is not None and told.auc > found.auc + SAME_AUC and _is_sure(found):
        detail += f" {told.name} is told from all others: AUC {two_digits(told.auc)}."
        grave = max(found.auc, told.low)
    if _is_sure(found):
        verdict = grade(grave, WARN_AUC, FAIL_AUC)
    if found.p_value is not None and found.null_95 is not None:
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


def _chance(found: Shortcut) -> str:
    """What shuffled classes reach, and what that means."""
    limit, p = two_digits(found.null_95 or 0.0), found.p_value or 0.0
    reached = "p ≤ .001" if p <= _LEAST_P else f"p = {p:.3f}".replace("0.", ".", 1)
    sentence = (
        f"With the classes shuffled between patients, 95 % of a simpler classifier's figures are"
        f" below {limit}"
        f" ({reached})"
    )
    if found.auc > WARN_AUC and not _is_sure(found):
        sentence += ": with so few patients this may be chance"
    return sentence + "."
