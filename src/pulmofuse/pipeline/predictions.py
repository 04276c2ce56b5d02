"""The predictions table: every record by itself, every subset of modalities by every method.

Training writes predictions and evaluation reads them; each figure of a report can be recomputed
from this table alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch

from pulmofuse.config import ThresholdTarget
from pulmofuse.evaluation import (
    bagged_youden_threshold,
    sensitivity_threshold,
    specificity_threshold,
    youden_threshold,
)
from pulmofuse.evaluation.tables import PER_RECORD, UNIMODAL
from pulmofuse.fusion import paired_patients, simulated_patients
from pulmofuse.inference import (
    DecisionFusion,
    FeatureFusion,
    Scores,
    Unimodal,
    subset_partition,
)
from pulmofuse.labelsets import Partition, common
from pulmofuse.schema import JOIN, Modality, Split, class_columns, subset_name
from pulmofuse.training import patient_features, patient_probabilities

#: With fewer complete patients per class and split than this, "auto" simulates patients.
MIN_PAIRED_PER_CLASS = 5

#: Of the resamples behind a bagged threshold, which the study's seed shall not move.
_BAGGING_SEED = 0

ID_COLUMNS = (
    "patient_id",
    "record_id",
    "split",
    "site",
    "subset",
    "method",
    "simulated",
    "y_true",
    "y_pred",
)


def fusion_patients(
    records: pd.DataFrame, how: str, classes: Sequence[str], seed: int
) -> pd.DataFrame:
    """The patients on which modalities are joined.

    Args:
        records: record_id, patient_id, modality, split, y_true.
        how: "paired", "simulated" or "auto" (paired where every class has enough patients with
            all modalities in the test split).
        classes: of the study.
        seed: decides which records a simulated patient gets.

    Returns:
        The table of `fusion.paired_patients` or `fusion.simulated_patients`.
    """
    # Where nothing is joined, nobody is simulated.
    paired = paired_patients(records)
    if how == "paired" or records["modality"].nunique() < 2:
        return paired
    if how == "simulated":
        return simulated_patients(records, seed)
    modalities = records["modality"].unique()
    complete = (paired[list(modalities)].map(len) > 0).all(axis=1) & (paired["split"] == Split.TEST)
    counts = paired[complete]["y_true"].value_counts().reindex(list(classes), fill_value=0)
    return paired if counts.min() >= MIN_PAIRED_PER_CLASS else simulated_patients(records, seed)


def subsets(modalities: Iterable[Modality]) -> list[tuple[Modality, ...]]:
    """All non-empty subsets, the single ones first: seven for three modalities."""
    present = [m for m in Modality if m in set(modalities)]
    return [s for size in range(1, len(present) + 1) for s in combinations(present, size)]


def record_predictions(
    records: pd.DataFrame, scores: Scores, modality: Modality, classes: Sequence[str]
) -> pd.DataFrame:
    """Rows of method `per_record`: every file of one modality by itself."""
    columns = [*class_columns(classes), *class_columns(classes, raw=True)]
    table = records[["patient_id", "record_id", "split", "site", "y_true"]].copy()
    table[columns] = scores.table.loc[table["record_id"], columns].to_numpy()
    return table.assign(subset=modality.value, method=PER_RECORD, simulated=False)


class PatientScores:
    """Probabilities and features of patients per modality, from those of the patient's records.

    They are the mean over the records, or of a model with attention the mean of log-probabilities
    and features under the records' attention. With one attention and a linear head this equals
    attention over all instances of the patient in one bag; where a model is neither (an ensemble),
    it is a weighted geometric mean near that.

    Args:
        patients: table of `fusion_patients`.
        scores: of each modality.
        classes: of the study.
        truth: class or set of each record_id, where some are sets: a row is then held to what the
            records that it is made from say, and not to what others say of the patient.
    """

    def __init__(
        self,
        patients: pd.DataFrame,
        scores: Mapping[Modality, Scores],
        classes: Sequence[str],
        truth: Mapping[str, str] | None = None,
    ) -> None:
        self.patients = patients
        self._truth = truth
        self.classes = tuple(classes)
        self.modalities = tuple(scores)
        self._scores = scores
        k = len(self.classes)
        columns = [*class_columns(classes), *class_columns(classes, raw=True)]
        shape = (len(patients), len(self.modalities), k)
        self.p, self.p_raw = np.full(shape, 1 / k), np.full(shape, 1 / k)
        self.has = np.zeros(shape[:2], dtype=bool)
        for j, (modality, scored) in enumerate(scores.items()):
            values = scored.table[columns].to_numpy()
            where = {record_id: i for i, record_id in enumerate(scored.table.index)}
            for i, record_ids in enumerate(patients[modality.value]):
                if len(record_ids):
                    places = [where[r] for r in record_ids]
                    weight = None if scored.log_weight is None else scored.log_weight[places]
                    self.p[i, j] = patient_probabilities(values[places, :k], weight)
                    self.p_raw[i, j] = patient_probabilities(values[places, k:], weight)
                    self.has[i, j] = True

    def on(self, patients: pd.DataFrame) -> PatientScores:
        """The same scores on other patients, a table of `fusion_patients`."""
        return PatientScores(patients, self._scores, self.classes, self._truth)

    def of(self, subset: Sequence[Modality]) -> tuple[np.ndarray, np.ndarray]:
        """Which patients have all of `subset` (n,), and the presence mask (n, modalities)."""
        mask = np.array([m in subset for m in self.modalities])
        return np.asarray(self.has[:, mask].all(axis=1)), np.broadcast_to(mask, self.has.shape)

    def features(
        self, values: Mapping[Modality, tuple[np.ndarray, np.ndarray | None]] | None = None
    ) -> dict[str, np.ndarray]:
        """Features (patients, feature_dim) per modality; `values` replaces the records'.

        Args:
            values: features (records, feature_dim) and log_weight (records,) or None.
        """
        out = {}
        for modality, scored in self._scores.items():
            where = {record_id: i for i, record_id in enumerate(scored.table.index)}
            source = (scored.features, scored.log_weight) if values is None else values[modality]
            out[modality.value] = patient_features(
                self.patients[modality.value].tolist(), where, *source
            )
        return out

    def rows(
        self, subset: Sequence[Modality], method: str, p: np.ndarray, p_raw: np.ndarray
    ) -> pd.DataFrame:
        """Prediction rows of the patients that have all of `subset`.

        Args:
            subset: modalities used.
            method: name of the method.
            p: (patients, classes) calibrated probabilities.
            p_raw: (patients, classes) probabilities before calibration.
        """
        keep, _ = self.of(subset)
        chosen = self.patients[keep]
        ids = [JOIN.join(r for m in subset for r in row[m.value]) for _, row in chosen.iterrows()]
        table = pd.DataFrame(
            {
                "patient_id": chosen["patient_id"].to_numpy(),
                "record_id": ids,
                "split": chosen["split"].to_numpy(),
                "site": None,
                "y_true": self.said(subset)[keep],
                "subset": subset_name(subset),
                "method": method,
                "simulated": chosen["simulated"].to_numpy(dtype=bool),
            }
        )
        table[class_columns(self.classes)] = p[keep]
        table[class_columns(self.classes, raw=True)] = p_raw[keep]
        return table

    def said(self, subset: Sequence[Modality]) -> np.ndarray:
        """What is true as far as the records of a subset say, (patients,); None for who has none.

        It is a class, or the name of a set of them.
        """
        if self._truth is None:
            return np.asarray(self.patients["y_true"].to_numpy(dtype=object))
        truth = self._truth
        records = self.patients[[m.value for m in subset]].to_numpy()
        found = [[truth[r] for own in row for r in own] for row in records]
        return np.array([common(names) if names else None for names in found], dtype=object)


def record_truth(records: pd.DataFrame, classes: Sequence[str]) -> dict[str, str] | None:
    """Class or set of each record_id; None where every record names its class.

    Args:
        records: record_id, y_true.
        classes: of the study.
    """
    if set(records["y_true"]) <= set(classes):
        return None
    return dict(zip(records["record_id"], records["y_true"], strict=True))


def subset_partitions(
    parts: Mapping[Modality, Unimodal], classes: tuple[str, ...]
) -> dict[str, Partition]:
    """What the models of each subset tell apart together, where that is not every class."""
    found = {
        subset_name(subset): subset_partition((parts[m] for m in subset), classes)
        for subset in subsets(parts)
    }
    return {name: partition for name, partition in found.items() if not partition.is_fine}


def decision_predictions(
    patients: PatientScores, decision: DecisionFusion, rules: Sequence[str]
) -> list[pd.DataFrame]:
    """Rows of method `unimodal` and of every decision rule and stacking, for every subset."""
    tables = []
    rebased, rebased_raw = decision.rebase(patients.p), decision.rebase(patients.p_raw)
    for subset in subsets(patients.modalities):
        _, present = patients.of(subset)
        if len(subset) == 1:
            j = patients.modalities.index(subset[0])
            tables.append(patients.rows(subset, UNIMODAL, rebased[:, j], rebased_raw[:, j]))
            continue
        for rule in decision.methods(rules):
            p = decision.apply(rule, patients.p, present)
            p_raw = decision.apply(rule, patients.p_raw, present)
            tables.append(patients.rows(subset, rule, p, p_raw))
    return tables


def feature_probabilities(
    patients: PatientScores, feature: FeatureFusion, subset: Sequence[Modality]
) -> np.ndarray:
    """Uncalibrated probabilities (patients, classes) of a feature-level fusion for a subset."""
    _, present = patients.of(subset)
    inputs = {m: torch.as_tensor(f) for m, f in patients.features().items()}
    with torch.inference_mode():
        logits = feature.model.eval()(inputs, torch.as_tensor(present.copy()))
    return np.asarray(logits.double().softmax(dim=1).numpy())


def feature_predictions(
    patients: PatientScores, fusions: Mapping[str, FeatureFusion]
) -> list[pd.DataFrame]:
    """Rows of each feature-level fusion, by method, for every subset of two or more modalities."""
    tables = []
    for method, feature in fusions.items():
        for subset in subsets(patients.modalities):
            if len(subset) > 1:
                raw = feature_probabilities(patients, feature, subset)
                p = feature.calibration[subset_name(subset)].apply(raw)
                tables.append(patients.rows(subset, method, p, raw))
    return tables


def operating_points(
    table: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    how: str | ThresholdTarget,
) -> dict[str, float]:
    """Thresholds on p of the positive class, chosen on the validation rows.

    Args:
        table: prediction rows.
        classes: of the study; three or more have no thresholds.
        positive: positive class.
        how: "youden", "youden_bagged", "argmax" (.5), or a target.

    Returns:
        "subset|method" -> threshold.
    """
    if positive is None or len(classes) != 2:
        return {}
    out = {}
    for (subset, method), rows in table.groupby(["subset", "method"], sort=True):
        val = rows[rows["split"] == Split.VAL]
        y = (val["y_true"] == positive).to_numpy()
        out[f"{subset}|{method}"] = _operating_point(y, val[f"p_{positive}"].to_numpy(), how)
    return out


def _operating_point(y: np.ndarray, p: np.ndarray, how: str | ThresholdTarget) -> float:
    """Threshold on p (n,) for the outcomes y (n,) bool."""
    if isinstance(how, ThresholdTarget):
        if how.sensitivity is not None:
            return sensitivity_threshold(y, p, how.sensitivity, how.confidence)
        assert how.specificity is not None  # noqa: S101  # the configuration wants one of the two
        return specificity_threshold(y, p, how.specificity, how.confidence)
    if how == "argmax" or y.all() or not y.any():
        return 0.5
    if how == "youden":
        return youden_threshold(y, p)
    return bagged_youden_threshold(y, p, np.random.default_rng(_BAGGING_SEED))


def decide(
    table: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    thresholds: Mapping[str, float],
    partitions: Mapping[str, Partition] | None = None,
) -> pd.DataFrame:
    """The table with `y_pred`, columns in order.

    Args:
        table: prediction rows.
        classes: of the study.
        positive: positive class.
        thresholds: of `operating_points`.
        partitions: of `subset_partitions`: there the most probable part is called.
    """
    p = table[class_columns(classes)].to_numpy()
    y_pred = np.array(classes, dtype=object)[p.argmax(axis=1)]
    for subset, partition in (partitions or {}).items():
        rows = (table["subset"] == subset).to_numpy()
        names = np.array(partition.names, dtype=object)
        y_pred[rows] = names[partition.collapse(p[rows]).argmax(axis=1)]
    if positive is not None and len(classes) == 2:
        i = list(classes).index(positive)
        keys = table["subset"] + "|" + table["method"]
        above = p[:, i] >= keys.map(dict(thresholds)).fillna(0.5).to_numpy()
        y_pred = np.where(above, positive, classes[1 - i])
    columns = [*ID_COLUMNS, *class_columns(classes), *class_columns(classes, raw=True)]
    return table.assign(y_pred=y_pred)[columns]
