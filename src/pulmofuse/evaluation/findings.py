"""How well each finding of an X-ray is told, on the records whose data set says."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.intervals import patient_interval
from pulmofuse.statistics import weighted_auc

#: Columns of `findings.csv`.
FINDINGS_COLUMNS = (
    "finding", "n", "n_positive", "n_patients", "roc_auc", "roc_auc_low", "roc_auc_high",
)  # fmt: skip


def findings_table(predictions: pd.DataFrame, config: EvaluationConfig, seed: int) -> pd.DataFrame:
    """ROC-AUC of each finding, with an interval by patient.

    Args:
        predictions: one row per record and finding: patient_id, finding, y_true (1 present, 0
            absent, NaN not said) and p.
        config: number of replicates and confidence of the interval.
        seed: of the bootstrap.

    Returns:
        Columns `FINDINGS_COLUMNS`, findings in the order of their first rows. n counts the records
        that say, n_positive those that say present, n_patients the patients behind them; what is
        undefined (no record, or one class only) is NaN.
    """
    rows = []
    for finding, group in predictions.groupby("finding", sort=False):
        known = group[group["y_true"].notna()]
        positive, p = known["y_true"].to_numpy() == 1, known["p"].to_numpy()
        patients = known["patient_id"].to_numpy()
        low, high = np.nan, np.nan
        if positive.any() and not positive.all():
            low, high = patient_interval(
                lambda weights, y=positive, p=p: weighted_auc(y, p, weights),  # type: ignore[misc]
                patients,
                config,
                seed,
            )
        auc = float(weighted_auc(positive, p))
        n_patients = len(np.unique(patients))
        rows.append((finding, len(known), int(positive.sum()), n_patients, auc, low, high))
    return pd.DataFrame(rows, columns=list(FINDINGS_COLUMNS))
