"""The table and the summary of true pairs, from predictions made up for the purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from pulmofuse.files import read_json
from pulmofuse.pipeline import SEEN_COPY, SEEN_PATIENT, of_true_pairs, write_true_pairs
from pulmofuse.schema import exclusions_frame

SUBSETS = (("ct", "unimodal"), ("cxr", "unimodal"), ("ct+cxr", "log_odds"))


def made_up(n: int = 12, y_true: str = "ill") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of n pairs, and their records."""
    rng = np.random.default_rng(4)
    patients = [f"p{i:02}" for i in range(n)]
    tables = []
    for subset, method in SUBSETS:
        p = rng.uniform(size=n)
        tables.append(
            pd.DataFrame(
                {
                    "patient_id": patients, "y_true": y_true, "subset": subset, "method": method,
                    "p_well": 1 - p, "p_ill": p, "y_pred": np.where(p >= 0.4, "ill", "well"),
                }
            )
        )  # fmt: skip
    records = pd.DataFrame(
        {
            "patient_id": [p for p in patients for _ in range(2)],
            "modality": ["ct", "cxr"] * n,
            "y_true": y_true,
            "path": [f"{p}/{m}" for p in patients for m in ("ct", "cxr")],
            "day": np.nan,
            "date": None,
            "seen": "",
        }
    )
    return pd.concat(tables, ignore_index=True), records


def written(
    out: Path,
    predictions: pd.DataFrame,
    records: pd.DataFrame,
    classes: tuple[str, ...] = ("well", "ill"),
    positive: str | None = "ill",
) -> tuple[pd.DataFrame, dict[str, object]]:
    """pairs.csv by patient, and pairs.json."""
    none = exclusions_frame([])
    write_true_pairs(out, predictions, records, records, none, classes, positive, 0.95)
    table = pd.read_csv(out / "pairs.csv", keep_default_na=False).set_index("patient_id")
    return table, read_json(out / "pairs.json")


def test_ranks_and_shares_are_given_for_all_pairs_and_for_those_never_seen(tmp_path: Path) -> None:
    predictions, records = made_up()
    records.loc[records["patient_id"].isin(["p00", "p01"]), "seen"] = SEEN_PATIENT
    records.loc[records["path"] == "p01/cxr", "seen"] = SEEN_COPY
    table, told = written(tmp_path, predictions, records)
    assert table["seen_by"].iloc[:3].tolist() == ["patient", "cxr", ""]
    found = pd.DataFrame(told["correlation"]).set_index("pairs")
    for who, part in (("all", table), ("unseen", table.iloc[2:])):
        expected = spearmanr(part["p_ct"], part["p_cxr"]).statistic
        assert found.loc[who, "value"] == pytest.approx(expected)
        assert found.loc[who, "low"] < expected < found.loc[who, "high"]
        assert found.loc[who, "n"] == len(part)
    recall = pd.DataFrame(told["recall"]).set_index(["pairs", "subset"])
    for subset, column in (("ct", "p_ct"), ("ct+cxr", "p_ct+cxr_log_odds")):
        assert recall.loc[("all", subset), "value"] == (table[column] >= 0.4).mean()
        assert recall.loc[("unseen", subset), "value"] == (table[column].iloc[2:] >= 0.4).mean()


@pytest.mark.parametrize(
    ("days", "dates", "expected"),
    [
        ([9, 3], ["2020-01-01", "2020-01-01"], (6.0, "day")),  # days are the better witness
        ([9, None], ["2020-02-01", "2020-01-30"], (2.0, "date")),
        ([9, None], ["2020-02", "2020-01-30"], (None, "")),
        ([None, None], [None, None], (None, "")),
    ],
)
def test_days_between_the_recordings(
    tmp_path: Path, days: list[float], dates: list[str], expected: tuple[float | None, str]
) -> None:
    predictions, records = made_up(1)
    table, _ = written(tmp_path, predictions, records.assign(day=days, date=dates))
    days_found = table["days"].iloc[0]
    assert (None if days_found == "" else days_found, table["days_from"].iloc[0]) == expected


def test_the_nearest_two_of_several_recordings_count(tmp_path: Path) -> None:
    predictions, records = made_up(1)
    more = records.assign(day=[9.0, -3.0])
    more = pd.concat([more, more[more["modality"] == "cxr"].assign(day=10.0)])
    table, _ = written(tmp_path, predictions, more)
    assert table["days"].iloc[0] == 1.0


def test_of_three_classes_the_probability_is_that_of_the_own_class(tmp_path: Path) -> None:
    predictions, records = made_up(2, "worse")
    predictions = predictions.assign(p_worse=0.25)
    table, told = written(tmp_path, predictions, records, ("well", "ill", "worse"), None)
    assert set(table["p_ct"]) == {0.25}
    assert told["correlation"] == []


def test_a_patient_of_two_classes_is_a_pair_only_within_one() -> None:
    records = pd.DataFrame(
        {
            "patient_id": ["a", "a", "a", "b", "b"],
            "modality": ["ct", "cxr", "ct", "ct", "cxr"],
            "y_true": ["ill", "ill", "well", "ill", "well"],
        }
    )
    assert of_true_pairs(records).tolist() == [True, True, False, False, False]
