"""True pairs: patients who have two or more modalities themselves, shown one by one.

Public data hold about twenty of them (docs/data.md), nearly all with one class, and some of their
files were trained on by way of other data sets. No AUC comes of that; but each pair shows what the
modalities say of one person, and together they are the only glimpse of how dependent they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmofuse.curation.sample_size import MIN_PATIENTS
from pulmofuse.evaluation import UNIMODAL
from pulmofuse.evaluation.agreement import rank_correlation, share
from pulmofuse.files import write_csv, write_json
from pulmofuse.schema import SUBSET_JOIN, Modality, class_columns, iterate, subset_name

#: Leaves in the output folder of an external evaluation.
TRUE_PAIR_FILES = ("pairs.csv", "pairs.json")

#: Values of the column `seen` of records: the study trained or validated on ...
SEEN_FILE, SEEN_COPY, SEEN_PATIENT = "this file", "a near copy of this file", "this patient"

#: What `seen_by` says of a pair of whom no file was trained on, but the person is known.
_PERSON = "patient"
_FULL_DATE = len("2020-04-13")


def of_true_pairs(records: pd.DataFrame) -> pd.Series:
    """Which records belong to a patient (of one class) with two or more modalities.

    Args:
        records: patient_id, y_true, modality.
    """
    found = records.groupby(["patient_id", "y_true"])["modality"].transform("nunique") > 1
    return found.astype(bool)


def write_true_pairs(
    out: Path,
    predictions: pd.DataFrame,
    records: pd.DataFrame,
    manifest: pd.DataFrame,
    excluded: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    confidence: float,
) -> str:
    """Write pairs.csv (`pair_table`) and pairs.json (`pair_summary`).

    Args:
        out: folder of the two files.
        predictions: of the pairs, by `unimodal` and every fusion, as `predictions.parquet`.
        records: of the pairs, chosen by `of_true_pairs`, with the column `seen`.
        manifest: as scanned, of the modalities that the models read.
        excluded: what was left out of it, whether or not the study saw it.
        classes: of the study.
        positive: the positive class of two, or None.
        confidence: of the intervals.

    Returns:
        What a reader must know of these pairs.
    """
    table = pair_table(predictions, records, classes, positive)
    left_out = pairs_left_out(manifest, table, excluded)
    summary = pair_summary(table, predictions, positive, confidence, left_out)
    pairs, told = (out / name for name in TRUE_PAIR_FILES)
    write_csv(pairs, table)
    write_json(told, summary)
    return str(summary["remark"])


def remove_true_pairs(out: Path) -> None:
    """Remove what an earlier run left where there were pairs."""
    for name in TRUE_PAIR_FILES:
        (out / name).unlink(missing_ok=True)


def pair_table(
    predictions: pd.DataFrame, records: pd.DataFrame, classes: Sequence[str], positive: str | None
) -> pd.DataFrame:
    """One row per true pair.

    Args:
        predictions: of the pairs, by `unimodal` and every fusion, as `predictions.parquet`.
        records: of the pairs: patient_id, y_true, modality, day, date, seen.
        classes: of the study.
        positive: the positive class of two, or None.

    Returns:
        Columns `patient_id, y_true, modalities, seen_by, days, days_from`, then `p_<subset>` of
        each modality and `p_<subset>_<method>` of each fusion: the probability of the positive
        class, or, of three or more classes, of the patient's own. `seen_by` names the modalities
        of which the study trained or validated on a file or a near copy, "patient" where it knew
        the person only, and is empty for a patient it never saw. `days` is between the nearest two
        recordings, from `days_from` ("day" or "date"); null where unknown.
    """
    keys = ["patient_id", "y_true"]
    p = _asked(predictions, classes, positive)
    wide = predictions.assign(p=p, column=_columns(predictions)).pivot_table(
        index=keys, columns="column", values="p", aggfunc="first"
    )
    order = list(dict.fromkeys(_columns(predictions)))
    rows = []
    for (patient, y_true), group in records.groupby(keys, sort=True):
        days, days_from = _days(group)
        rows.append(
            {
                "patient_id": patient,
                "y_true": y_true,
                "modalities": subset_name(group["modality"]),
                "seen_by": _seen_by(group),
                "days": days,
                "days_from": days_from,
            }
        )
    return pd.DataFrame(rows).merge(wide[order].reset_index(), on=keys)


def pair_summary(
    table: pd.DataFrame,
    predictions: pd.DataFrame,
    positive: str | None,
    confidence: float,
    left_out: Sequence[dict[str, str]],
) -> dict[str, Any]:
    """What the pairs say together; the content of `pairs.json`.

    Args:
        table: of `pair_table`.
        predictions: as for it, with y_pred.
        positive: the positive class of two, or None.
        confidence: of the intervals.
        left_out: patients of two modalities who are no pair, and why.

    Returns:
        `{n, n_unseen, classes, remark, left_out, recall, correlation}`; rows of the last two are
        given for all pairs of a class and for those that the study never saw.
    """
    unseen = set(table.loc[table["seen_by"] == "", "patient_id"])
    counts = {str(name): int(n) for name, n in table["y_true"].value_counts().items()}
    recall: list[dict[str, Any]] = []
    correlation: list[dict[str, Any]] = []
    for who in ("all", "unseen"):
        for y_true in counts:
            keys = {"y_true": y_true, "pairs": who}
            ours = table["y_true"] == y_true
            ours &= table["patient_id"].isin(unseen) | (who == "all")
            chosen = set(table.loc[ours, "patient_id"])
            part = predictions[
                predictions["patient_id"].isin(chosen) & (predictions["y_true"] == y_true)
            ]
            recall += [{**keys, **row} for row in _recalls(part, y_true, confidence)]
            correlation += [{**keys, **row} for row in _correlations(table[ours], confidence)]
    return {
        "n": len(table),
        "n_unseen": int((table["seen_by"] == "").sum()),
        "classes": counts,
        "remark": _remark(counts, int((table["seen_by"] == "").sum()), positive, len(left_out)),
        "left_out": list(left_out),
        "recall": recall,
        "correlation": correlation,
    }


def pairs_left_out(
    manifest: pd.DataFrame, table: pd.DataFrame, excluded: pd.DataFrame
) -> list[dict[str, str]]:
    """Patients whom the manifest gives two modalities, and who are no true pair here.

    Args:
        manifest: as scanned, of the modalities that the models read.
        table: of `pair_table`.
        excluded: columns of `schema.Exclusion`.

    Returns:
        `{patient_id, reason}`, the reasons of all their files that were left out.
    """
    both = manifest.groupby("patient_id")["modality"].transform("nunique") > 1
    lost = manifest[both & ~manifest["patient_id"].isin(table["patient_id"])]
    reasons = excluded.merge(lost[["path", "modality", "patient_id"]], on=["path", "modality"])
    out = []
    for patient in sorted(lost["patient_id"].unique()):
        own = reasons[reasons["patient_id"] == patient]
        said = sorted({f"{row['modality']}: {row['reason']}" for row in iterate(own)})
        reason = "; ".join(said) or "its recordings carry different classes"
        out.append({"patient_id": str(patient), "reason": reason})
    return out


def _columns(predictions: pd.DataFrame) -> pd.Series:
    """Name of the column that each row of the predictions fills."""
    alone = predictions["method"] == UNIMODAL
    name = "p_" + predictions["subset"].astype(str)
    return name.where(alone, name + "_" + predictions["method"].astype(str))


def _asked(predictions: pd.DataFrame, classes: Sequence[str], positive: str | None) -> np.ndarray:
    """(n,) probability of the positive class, or of the patient's own class."""
    p = predictions[class_columns(classes)].to_numpy()
    if positive is not None and len(classes) == 2:
        return np.asarray(p[:, list(classes).index(positive)])
    own = pd.Index(list(classes)).get_indexer(pd.Index(predictions["y_true"]))
    return np.asarray(p[np.arange(len(p)), own])


def _seen_by(records: pd.DataFrame) -> str:
    """Of one patient's records; see `pair_table`."""
    files = records["seen"].isin([SEEN_FILE, SEEN_COPY])
    if files.any():
        return subset_name(records.loc[files, "modality"])
    return _PERSON if (records["seen"] != "").any() else ""


def _days(records: pd.DataFrame) -> tuple[float | None, str]:
    """Days between the nearest recordings of a patient's modalities, and what says so."""
    # A year or a month does not tell days apart.
    exact = records["date"].where(records["date"].map(lambda d: len(str(d)) == _FULL_DATE))
    dates = pd.to_datetime(exact, errors="coerce")
    counted = (dates - pd.Timestamp(0)).dt.days.astype(float)
    for name, days in (("day", records["day"]), ("date", counted)):
        known = [days[records["modality"] == m].dropna() for m in records["modality"].unique()]
        if all(len(values) for values in known):
            return min(max(some) - min(some) for some in product(*known)), name
    return None, ""


def _recalls(part: pd.DataFrame, y_true: str, confidence: float) -> list[dict[str, Any]]:
    """Share of one class called right, by each modality and fusion."""
    rows = []
    for (subset, method), group in part.groupby(["subset", "method"], sort=False):
        hits = int((group["y_pred"] == y_true).sum())
        value, low, high = share(hits, len(group), confidence)
        rows.append(
            {
                "subset": str(subset), "method": str(method), "n": len(group), "value": value,
                "low": low, "high": high,
            }
        )  # fmt: skip
    return rows


def _correlations(table: pd.DataFrame, confidence: float) -> list[dict[str, Any]]:
    """How alike each two modalities rank the pairs of one class."""
    rows = []
    alone = [m.value for m in Modality if f"p_{m.value}" in table]
    for first, second in combinations(alone, 2):
        both = table[[f"p_{first}", f"p_{second}"]].dropna()
        value, low, high = rank_correlation(both.iloc[:, 0], both.iloc[:, 1], confidence)
        if np.isfinite(value):
            rows.append(
                {
                    "subset": SUBSET_JOIN.join((first, second)), "n": len(both), "value": value,
                    "low": low, "high": high,
                }
            )  # fmt: skip
    return rows


def _remark(counts: dict[str, int], n_unseen: int, positive: str | None, n_left_out: int) -> str:
    """What a reader must know of these pairs."""
    total = sum(counts.values())
    parts = ", ".join(f"{n} {name}" for name, n in counts.items())
    text = f"{total} true pairs ({parts}), {n_unseen} of them never seen by the study."
    smallest = min(counts.values()) if len(counts) > 1 else 0
    if positive is not None and smallest < MIN_PATIENTS:
        text += " With so few of the other class there is no AUC: these are shares of one class."
    if n_unseen < total:
        text += " The models trained on parts of the others, which flatters them."
    if n_left_out:
        text += (
            f" {n_left_out} more patients have two modalities and are no pair; where an image shows"
            " nothing and is therefore without a class, leaving it out flatters its modality."
        )
    return text
