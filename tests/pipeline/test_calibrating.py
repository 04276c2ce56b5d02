"""The calibration tables of a study, and the prediction sets that are fitted for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pulmofuse.pipeline import CALIBRATION_FILES, fit_prediction_sets, write_calibration
from pulmofuse.schema import class_columns


def _table(classes: tuple[str, ...], n: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(len(classes)), n)
    table = pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(n)],
            "split": np.where(np.arange(n) % 2, "test", "val"),
            "subset": np.where(np.arange(n) % 4 < 2, "ct", "ct+cough"),
            "method": np.where(np.arange(n) % 4 < 2, "unimodal", "log_odds"),
            "simulated": False,
            "y_true": [rng.choice(classes, p=row) for row in p],
        }
    )
    table[class_columns(classes)] = p
    table[class_columns(classes, raw=True)] = 1 / len(classes)
    return table


@pytest.mark.parametrize(
    ("classes", "positive", "judged"),
    [
        (("no", "yes"), "yes", {"yes"}),
        (("a", "b", "c"), None, {"top label", "a", "b", "c"}),
    ],
)
def test_every_method_has_its_bins_measures_and_sets(
    tmp_path: Path, classes: tuple[str, ...], positive: str | None, judged: set[str]
) -> None:
    table = _table(classes)
    conformal = fit_prediction_sets(table, classes, 0.8)
    write_calibration(tmp_path, table, classes, positive, conformal, 0.95)
    bins, measures, sets = (
        pd.read_csv(tmp_path / name).fillna({"class": ""}) for name in CALIBRATION_FILES
    )
    assert set(bins["of"]) == judged
    for (_, _, of, stage), rows in bins.groupby(["subset", "method", "of", "stage"]):
        assert rows["n"].sum() == 60, (of, stage)
    assert set(measures["subset"] + "|" + measures["method"]) == set(conformal.thresholds)
    assert (measures["slope"] > 0).all()
    assert set(sets["class"]) == {*classes, ""}
    raw = bins[bins["stage"] == "raw"]
    np.testing.assert_allclose(raw["predicted"], 1 / len(classes))
    # Of 60 test rows by method, .8 promised.
    together = sets[sets["class"] == ""]
    assert together["coverage"].between(0.65, 0.95).all()
    # A stranger counts the same from the predictions.
    rows = table[(table["subset"] == "ct") & (table["split"] == "test")]
    limit = conformal.thresholds["ct|unimodal"]
    own = [1 - row[f"p_{row['y_true']}"] <= limit[row["y_true"]] for _, row in rows.iterrows()]
    found = together.set_index("subset").loc["ct", "coverage"]
    assert float(found) == pytest.approx(np.mean(own))


def test_without_sets_an_old_table_of_them_goes(tmp_path: Path) -> None:
    table = _table(("no", "yes"))
    write_calibration(
        tmp_path, table, ("no", "yes"), "yes", fit_prediction_sets(table, ("no", "yes"), 0.9), 0.95
    )
    write_calibration(tmp_path, table, ("no", "yes"), "yes", None, 0.95)
    assert [(tmp_path / name).exists() for name in CALIBRATION_FILES] == [True, True, False]
