"""Figures of findings: on the records that say, with intervals by patient."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.findings import FINDINGS_COLUMNS, findings_table

CONFIG = EvaluationConfig(bootstrap=200)


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    """60 records of 30 patients; of each finding some records say nothing."""
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 120).astype(float)
    p = np.clip(0.3 * y + rng.normal(0.4, 0.2, 120), 0, 1)
    y[rng.random(120) < 0.4] = np.nan
    records = np.repeat(np.arange(60), 2)
    return pd.DataFrame(
        {
            "record_id": [f"r{n}" for n in records],
            "patient_id": [f"p{n // 2}" for n in records],
            "finding": ["mass", "covid19"] * 60,
            "y_true": y,
            "p": p.round(2),
        }
    )


def test_the_auc_is_sklearns_on_the_records_that_say(predictions: pd.DataFrame) -> None:
    table = findings_table(predictions, CONFIG, 1)
    assert tuple(table.columns) == FINDINGS_COLUMNS
    assert table["finding"].tolist() == ["mass", "covid19"]
    for row in table.to_dict("records"):
        known = predictions[predictions["finding"] == row["finding"]].dropna()
        assert row["roc_auc"] == pytest.approx(roc_auc_score(known["y_true"], known["p"]))
        assert row["n"] == len(known)
        assert row["n_positive"] == known["y_true"].sum()
        assert row["n_patients"] == known["patient_id"].nunique()
        assert row["roc_auc_low"] < row["roc_auc"] < row["roc_auc_high"]


def test_more_records_of_the_same_patients_make_no_narrower_interval(
    predictions: pd.DataFrame,
) -> None:
    once = findings_table(predictions, CONFIG, 1)
    thrice = findings_table(pd.concat([predictions] * 3), CONFIG, 1)
    columns = ["roc_auc", "roc_auc_low", "roc_auc_high", "n_patients"]
    pd.testing.assert_frame_equal(once[columns], thrice[columns])


@pytest.mark.parametrize(("value", "n"), [(np.nan, 0), (0.0, 60), (1.0, 60)])
def test_what_cannot_be_asked_has_no_auc(predictions: pd.DataFrame, value: float, n: int) -> None:
    changed = predictions.copy()
    changed.loc[changed["finding"] == "mass", "y_true"] = value
    row = findings_table(changed, CONFIG, 1).iloc[0]
    assert (row["n"], row["n_positive"]) == (n, n if value == 1 else 0)
    assert row[["roc_auc", "roc_auc_low", "roc_auc_high"]].isna().all()
