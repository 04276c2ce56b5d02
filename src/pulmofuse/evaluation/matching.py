"""Test figures of records that are alike in source, site, view, age and sex, whatever their class.

Where the classes differ in something else than the disease, an AUC says how well that something is
seen. Here records are compared within strata of it only: coarsened exact matching (Iacus, King &
Porro 2012, "Causal inference without balance checking") with age in bands of ten years. The UK's
cough study fell from an AUC of .85 to .62 by it (Coppock et al. 2024).

One-to-one matching would throw most records away, and which ones would be chance. Instead every
stratum that holds both classes weighs them by the number of pairs it could form, m_s / n_sc, which
is the mean over all such draws: both classes then have the same distribution over the strata, and
no seed is needed. Bootstrap replicates are matched anew, so the interval holds what matching costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pulmofuse.config import EvaluationConfig
from pulmofuse.curation.check import two_digits
from pulmofuse.evaluation.intervals import patient_interval
from pulmofuse.evaluation.questions import as_asked, positive_of, questions
from pulmofuse.evaluation.tables import PER_RECORD, Row
from pulmofuse.schema import Split, class_columns
from pulmofuse.statistics import FloatArray, divide, weighted_auc

#: Metric of the rows: not `roc_auc`, so that nobody takes a matched figure for a plain one.
MATCHED_AUC = "roc_auc_matched"

#: Columns of the manifest to match on, in the order in which they are tried together: what tells
#: most in published data sets (the audit's figures) comes first.
CONFOUNDERS = ("source", "site", "view", "age", "sex")

#: Fewer matched patients of a class give no figure: the interval would span half of the scale.
MIN_PATIENTS = 10

#: Width of an age band, years.
AGE_BAND = 10

#: A record of which a confounder is not known has no counterpart in it.
UNKNOWN = "unknown"


def coarsened(records: pd.DataFrame) -> pd.DataFrame:
    """What records are matched on, as text: age in bands, absent values as "unknown".

    Args:
        records: any of the columns `CONFOUNDERS`.

    Returns:
        The columns of `CONFOUNDERS` that are there, with the index of `records`.
    """
    out = {}
    for name in CONFOUNDERS:
        if name not in records:
            continue
        column = records[name]
        if name == "age":
            low = (column.astype("float64") // AGE_BAND * AGE_BAND).astype("Int64")
            text = low.astype(str) + "-" + (low + AGE_BAND - 1).astype(str)
            out[name] = text.where(column.notna(), UNKNOWN)
        else:
            out[name] = column.astype(object).where(column.notna(), UNKNOWN).astype(str)
    return pd.DataFrame(out, index=records.index, dtype=object)


def matched_weights(
    is_positive: ArrayLike, strata: ArrayLike, weights: FloatArray | None = None
) -> FloatArray:
    """Weights under which positives and negatives have the same distribution over the strata.

    Args:
        is_positive: (n,) bool.
        strata: (n,) names of the strata.
        weights: None, (n,) or (replicates, n) of a bootstrap, each >= 0.

    Returns:
        (n,) or (replicates, n); each class of a stratum weighs as much as its smaller one, so 0
        where a stratum holds one class only.
    """
    positive = np.asarray(is_positive, dtype=bool)
    base = np.ones(len(positive)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(positive):
        return base
    _, stratum = np.unique(np.asarray(strata).astype(str), return_inverse=True)
    cell = 2 * stratum + positive
    order = np.argsort(cell, kind="stable")
    present, starts = np.unique(cell[order], return_index=True)
    totals = np.zeros((*base.shape[:-1], 2 * (int(stratum.max()) + 1)))
    totals[..., present] = np.add.reduceat(base[..., order], starts, axis=-1)
    pairs = np.minimum(totals[..., 0::2], totals[..., 1::2]).repeat(2, axis=-1)
    factor = divide(pairs, totals, empty=0.0)
    return np.asarray(base * factor[..., cell])


def matched_rows(
    predictions: pd.DataFrame,
    records: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    config: EvaluationConfig,
    seed: int,
) -> list[Row]:
    """Matched AUC of each modality's own model on the test records.

    Args:
        predictions: as `predictions.parquet`; the test rows of method `per_record` are used.
        records: the manifest of the study (record_id and the columns of `CONFOUNDERS`).
        classes: class names in the order of the model's outputs.
        positive: the positive class of two, or None: the mean over classes against the rest, each
            matched by itself.
        config: number of replicates and confidence of the interval.
        seed: of the bootstrap.

    Returns:
        Rows as of `evaluate` with metric `roc_auc_matched`, `matched_on` (names joined by ", "),
        `n_matched` (patients of each class that one-to-one matching would keep) and `detail` in
        plain words. For each modality one row per confounder that is known and differs between
        records, and last one row for all that can be matched together. A row has no value where
        matching leaves fewer than `MIN_PATIENTS` patients of a class.
    """
    chosen = predictions[
        (predictions["method"] == PER_RECORD) & (predictions["split"] == Split.TEST)
    ]
    columns = [name for name in CONFOUNDERS if name in records]
    table = chosen[["record_id", "patient_id", "subset", "y_true", *class_columns(classes)]].merge(
        records[["record_id", *columns]], on="record_id", how="inner"
    )
    rows: list[Row] = []
    asked = questions(chosen, classes)
    for modality, group in table.groupby("subset", sort=False):
        question = asked[str(modality)]
        own = as_asked(group, question), str(modality), question.names
        part = _Part.of(*own, positive_of(question, positive))
        rows += part.rows(config, seed)
    return rows


@dataclass(frozen=True, eq=False)
class _Part:
    """Test records of one modality: targets (n, k) bool with scores (n, k), one per comparison."""

    modality: str
    targets: NDArray[np.bool_]
    scores: FloatArray
    patients: NDArray[Any]
    levels: pd.DataFrame

    @classmethod
    def of(
        cls, group: pd.DataFrame, modality: str, classes: Sequence[str], positive: str | None
    ) -> _Part:
        one = len(classes) == 2 and positive is not None
        compared = [name for name in classes if not one or name == positive]
        y = group["y_true"].astype(str).to_numpy()
        return cls(
            modality,
            np.column_stack([y == name for name in compared]),
            group[class_columns(compared)].to_numpy(dtype=np.float64),
            group["patient_id"].astype(str).to_numpy(),
            coarsened(group.reset_index(drop=True)),
        )

    def rows(self, config: EvaluationConfig, seed: int) -> Iterator[Row]:
        """One row per confounder that can matter, and one for all that can be matched."""
        sets = {str(name): set(column) - {UNKNOWN} for name, column in self.levels.items()}
        telling = [name for name, found in sets.items() if len(found) > 1]
        remarks = [
            f"{name} is {'the same for all' if found else 'not known'}"
            for name, found in sets.items()
            if name not in telling
        ]
        together: list[str] = []
        for name in telling:
            kept = self.n_matched([*together, name])
            if kept >= MIN_PATIENTS:
                together.append(name)
            else:
                beside = f" beside {', '.join(together)}" if together else ""
                remarks.append(f"{name} cannot be matched{beside} ({kept} patients of a class)")
        for name in telling:
            if [name] != together:
                yield self._row([name], [], config, seed)
        yield self._row(together, remarks, config, seed)

    def n_matched(self, names: Sequence[str]) -> int:
        """Patients of each class that one-to-one matching would keep; of several, the least."""
        strata = self._strata(names)
        _, strata = np.unique(strata, return_inverse=True)
        n_strata = int(strata.max()) + 1
        table = pd.DataFrame({"stratum": strata, "patient": self.patients})
        counts = []
        for target in self.targets.T:
            people = table.assign(positive=target).drop_duplicates()
            sides = [
                np.bincount(people.loc[people["positive"] == side, "stratum"], minlength=n_strata)
                for side in (True, False)
            ]
            counts.append(int(np.minimum(*sides).sum()))
        return min(counts)

    def _strata(self, names: Sequence[str]) -> NDArray[np.intp]:
        """Stratum of each record; one of its own where a name is not known."""
        if not names:
            return np.zeros(len(self.patients), dtype=np.intp)
        levels = self.levels[list(names)]
        stratum = levels.groupby(list(names), sort=True).ngroup().to_numpy()
        unknown = (levels == UNKNOWN).any(axis=1).to_numpy()
        return np.asarray(np.where(unknown, -1 - np.arange(len(stratum)), stratum))

    def _auc(self, strata: NDArray[np.intp] | None, weights: FloatArray | None) -> FloatArray:
        """Macro AUC, matched within `strata` or plain: () or (replicates,)."""
        aucs = []
        for target, score in zip(self.targets.T, self.scores.T, strict=True):
            own = weights if strata is None else matched_weights(target, strata, weights)
            aucs.append(weighted_auc(target, score, own))
        return np.asarray(np.mean(aucs, axis=0))

    def _row(
        self, names: list[str], remarks: list[str], config: EvaluationConfig, seed: int
    ) -> Row:
        n_matched = self.n_matched(names) if names else 0
        strata = self._strata(names)
        value = low = high = float("nan")
        n_patients = 0
        if n_matched >= MIN_PATIENTS:
            value = float(self._auc(strata, None))
            low, high = patient_interval(
                lambda weights: self._auc(strata, weights), self.patients, config, seed
            )
            used = np.any([matched_weights(t, strata) > 0 for t in self.targets.T], axis=0)
            n_patients = len(set(self.patients[used]))
        defined = bool(np.isfinite(value))
        return {
            "subset": self.modality,
            "method": PER_RECORD,
            "split": Split.TEST.value,
            "site": "",
            "metric": MATCHED_AUC,
            "value": value if defined else None,
            "low": low if defined and np.isfinite(low) else None,
            "high": high if defined and np.isfinite(high) else None,
            "n_patients": n_patients,
            "simulated": False,
            "matched_on": ", ".join(names),
            "n_matched": n_matched,
            "detail": self._words(names, remarks, value if defined else None, n_matched),
        }

    def _words(
        self, names: list[str], remarks: list[str], value: float | None, n_matched: int
    ) -> str:
        """What a reader needs to know of one row."""
        plain = float(self._auc(None, None))
        on = " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
        if not names:
            text = f"{self.modality} test records could be matched on nothing"
        elif value is None:
            text = (
                f"{self.modality} test records cannot be matched on {on}: only {n_matched} patients"
                f" of a class have a counterpart, and {MIN_PATIENTS} are needed"
            )
        else:
            text = (
                f"{self.modality} test records matched on {on} ({n_matched} patients of each class)"
                f" give AUC {two_digits(value)}, all test records {two_digits(plain)}"
            )
        return "; ".join([text, *remarks]) + "."
