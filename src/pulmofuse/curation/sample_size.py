"""Are there enough patients to learn from, and enough to show a difference?"""

from __future__ import annotations

import math

import pandas as pd

from pulmofuse.curation.check import Check, Verdict, counted, grade, two_digits
from pulmofuse.schema import Split
from pulmofuse.statistics import ALPHA, POWER, power_quantiles

#: With fewer patients of a class in a split, one of them moves recall by more than a tenth.
MIN_PATIENTS = 10

#: Warn if the test set cannot show an AUC difference of a tenth: published gains of fusion over
#: the best modality are mostly smaller.
MAX_DIFFERENCE = 0.10

#: AUC that the smaller of two models is supposed to have: between matched cough (.62) and
#: CT inside one data set (.94), see the figures in the design.
_BASE_AUC = 0.80

#: Correlation of the two models' AUCs on the same patients; moderate in the tables of Hanley &
#: McNeil 1983, and 0 would be two independent test sets.
_CORRELATION = 0.5

#: Site of a row that counts a whole source, and of records whose site is not known.
ALL_SITES, UNKNOWN_SITE = "all", "unknown"

_POWER_LIMITS = {"warn_above": MAX_DIFFERENCE}


def auc_standard_error(auc: float, n_positive: int, n_negative: int) -> float:
    """Standard error of an AUC (Hanley & McNeil 1982, with exponential score distributions)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc) + (n_positive - 1) * (q1 - auc**2) + (n_negative - 1) * (q2 - auc**2)
    ) / (n_positive * n_negative)
    return math.sqrt(max(variance, 0.0))


def smallest_difference(n_positive: int, n_negative: int) -> float | None:
    """Smallest AUC difference of two models that a test set shows with 80 % power at alpha .05.

    Both models predict the same patients (Hanley & McNeil 1983), the lesser has AUC .80 and the
    AUCs correlate at .5.

    Args:
        n_positive: patients of the class.
        n_negative: the other patients.

    Returns:
        The difference in (0, .20], or None if even a perfect model would not be told apart.
    """
    if min(n_positive, n_negative) < 1:
        return None
    from scipy.optimize import brentq

    z_alpha, z_power = power_quantiles()
    base = auc_standard_error(_BASE_AUC, n_positive, n_negative)

    def spare(difference: float) -> float:
        """Difference less what chance needs; 0 at the smallest difference."""
        other = auc_standard_error(_BASE_AUC + difference, n_positive, n_negative)
        null = base * math.sqrt(2 * (1 - _CORRELATION))
        alternative = math.sqrt(base**2 + other**2 - 2 * _CORRELATION * base * other)
        return difference - z_alpha * null - z_power * alternative

    largest = 1 - _BASE_AUC
    return float(brentq(spare, 0.0, largest)) if spare(largest) > 0 else None


def power(records: pd.DataFrame, modality: str) -> Check:
    """Smallest AUC difference that the test patients of one modality can show.

    Args:
        records: patient_id, split, y_true of one modality.
        modality: its name.
    """
    test = records[records["split"] == Split.TEST]
    n_patients = test["patient_id"].nunique()
    counts = test.groupby("y_true")["patient_id"].nunique()
    remedy = "add test patients, or report the interval and claim no difference"
    if records["split"].isna().all():
        detail = (
            f"The {modality} records are not split yet; a study says what its test set can show."
        )
        return Check("power", "warn", None, None, None, detail, "split the records", modality)
    if len(counts) < 2:
        detail = (
            f"The {modality} test split does not hold patients of two classes, so no difference"
            " between models can be shown on it."
        )
        return Check(
            "power", "warn", None, None, None, detail, remedy, modality, thresholds=_POWER_LIMITS
        )
    differences = [smallest_difference(int(n), n_patients - int(n)) for n in counts]
    shown = [d for d in differences if d is not None]
    people = f"The {counted(n_patients, 'test patient')} of {modality}"
    if len(shown) < len(differences):
        detail = (
            f"{people} are too few: a model of AUC {two_digits(_BASE_AUC)} could not be told from"
            f" a perfect one with {POWER:.0%} power."
        )
        return Check(
            "power", "warn", None, None, None, detail, remedy, modality, thresholds=_POWER_LIMITS
        )
    value = max(shown)
    detail = (
        f"{people} can show an AUC difference of {two_digits(value)} or more"
        f" ({POWER:.0%} power at alpha {two_digits(ALPHA)}, for two models of about"
        f" {two_digits(_BASE_AUC)}); a smaller one to a model tested on other patients may be"
        " chance."
    )
    verdict = grade(value, MAX_DIFFERENCE)
    advice = "" if verdict == "pass" else remedy
    return Check(
        "power", verdict, value, None, None, detail, advice, modality, thresholds=_POWER_LIMITS
    )


def support(records: pd.DataFrame, modality: str, classes: list[str]) -> Check:
    """Patients per class and split, and which sources and sites a class comes from.

    Args:
        records: patient_id, split, source, site, y_true of one modality.
        modality: its name.
        classes: of all modalities. The verdict is on those that this modality has; one that only
            others have is a warning, no failure: it may be no class of this modality at all.
    """
    own = set(records["y_true"].astype(str))
    missing = [name for name in classes if name not in own]
    classes = [name for name in classes if name in own]
    split = records["split"].where(records["split"].notna(), "no split").astype(str)
    counts = records.groupby([split, records["y_true"]])["patient_id"].nunique()
    names = [s.value for s in Split] if records["split"].notna().any() else []
    names += ["no split"] if (split == "no split").any() else []
    table = {name: {c: int(counts.get((name, c), 0)) for c in classes} for name in names}
    least, where, name = min((n, s, c) for s, row in table.items() for c, n in row.items())
    written = "; ".join(
        f"{s}: {', '.join(f'{n:,} {c}' for c, n in row.items())}" for s, row in table.items()
    )
    detail = f"Patients of {modality} - {written}."
    verdict: Verdict = "fail" if not least else "warn" if least < MIN_PATIENTS else "pass"
    remedies = []
    if verdict != "pass":
        detail += f" The fewest are {counted(least, 'patient')} of {name} ({where})."
        remedies.append(f"add {modality} data of {name}, or leave the class out")
    lone, place = _one_place_only(records, classes)
    if lone:
        detail += (
            f" From one {place} only: {', '.join(f'{c} ({s})' for c, s in lone.items())}; there the"
            f" disease and the {place} cannot be told apart."
        )
        remedies.append(f"add {modality} data of {', '.join(lone)} from another {place}")
        verdict = "warn" if verdict == "pass" else verdict
    if missing:
        detail += f" Other modalities have {', '.join(missing)}, {modality} has no record of it."
        remedies.append(f"add {modality} data of {', '.join(missing)}, or map classes alike")
        verdict = "warn" if verdict == "pass" else verdict
    return Check(
        "support", verdict, float(least), None, None, detail, "; ".join(remedies), modality,
        thresholds={"warn_below": MIN_PATIENTS, "fail_below": 1},
        table=_by_place(records, classes),
    )  # fmt: skip


def no_classes(modality: str) -> Check:
    """The answer for a modality whose records are used, though none of them has a class."""
    detail = f"No record of {modality} has a class, so nothing else was asked of it."
    remedy = f"map the labels of {modality} to classes of the study, or leave {modality} out"
    return Check(
        "support", "warn", None, None, None, detail, remedy, modality,
        thresholds={"warn_below": MIN_PATIENTS, "fail_below": 1},
    )  # fmt: skip


def _by_place(
    records: pd.DataFrame, classes: list[str]
) -> tuple[dict[str, str | float | None], ...]:
    """Patients of each class in each source: {"source": name, class: patients ...}.

    Where sites are known, each source is followed by its sites: {"source": name, "site": name,
    class: patients ...}, with `ALL_SITES` on the row of the source itself.
    """
    known = bool(records["site"].notna().any())
    by_source = records.groupby(["source", "y_true"])["patient_id"].nunique()
    site = records["site"].where(records["site"].notna(), UNKNOWN_SITE).astype(str)
    by_site = records.groupby(["source", site, "y_true"])["patient_id"].nunique()
    rows: list[dict[str, str | float | None]] = []
    for source, sites in site.groupby(records["source"].astype(str)):
        counts = {c: int(by_source.get((source, c), 0)) for c in classes}
        first = {"source": str(source), "site": ALL_SITES} if known else {"source": str(source)}
        rows.append({**first, **counts})
        for name in sorted(set(sites)) if known else ():
            counts = {c: int(by_site.get((source, name, c), 0)) for c in classes}
            rows.append({"source": str(source), "site": str(name), **counts})
    return tuple(rows)


def _one_place_only(records: pd.DataFrame, classes: list[str]) -> tuple[dict[str, str], str]:
    """Class -> its only source, where there are more; of a single source, class -> its only site.

    Returns:
        The classes, and what they have only one of: "source" or "site".
    """
    place = "source" if len(set(records["source"])) > 1 else "site"
    if records[place].isna().any() or len(set(records[place])) < 2:
        return {}, place
    names = records.groupby(records["y_true"].astype(str))[place].agg(lambda s: sorted(set(s)))
    return {c: str(names[c][0]) for c in classes if len(names[c]) == 1}, place
