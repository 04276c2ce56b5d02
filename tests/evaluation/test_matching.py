"""Matched evaluation: what the confounder explains is gone, what the disease explains stays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation.comparison import Row
from pulmofuse.evaluation.matching import MATCHED_AUC, coarsened, matched_rows, matched_weights

CLASSES = ("no", "yes")
CONFIG = EvaluationConfig(bootstrap=100)


def _study(
    seed: int, n: int = 400, *, by_site: float = 0.0, by_disease: float = 0.0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test predictions and records: 85 % of site A and 15 % of site B are ill."""
    rng = np.random.default_rng(seed)
    at_a = rng.uniform(size=n) < 0.5
    ill = rng.uniform(size=n) < np.where(at_a, 0.85, 0.15)
    logit = by_site * at_a + by_disease * ill + rng.normal(size=n)
    p = 1 / (1 + np.exp(-logit))
    names = [f"r{i}" for i in range(n)]
    predictions = pd.DataFrame(
        {
            "record_id": names,
            "patient_id": [f"p{i}" for i in range(n)],
            "split": "test",
            "subset": "cough",
            "method": "per_record",
            "y_true": np.where(ill, "yes", "no"),
            "p_no": 1 - p,
            "p_yes": p,
        }
    )
    records = pd.DataFrame({"record_id": names, "site": np.where(at_a, "A", "B")})
    return predictions, records


def _last(predictions: pd.DataFrame, records: pd.DataFrame) -> Row:
    return matched_rows(predictions, records, CLASSES, "yes", CONFIG, seed=1)[-1]


def _plain(predictions: pd.DataFrame) -> float:
    return float(roc_auc_score(predictions["y_true"] == "yes", predictions["p_yes"]))


def test_a_score_of_the_confounder_alone_is_chance_once_matched() -> None:
    inside = 0
    for seed in range(20):
        predictions, records = _study(seed, by_site=2.0)
        assert _plain(predictions) > 0.7
        row = _last(predictions, records)
        inside += row["low"] <= 0.5 <= row["high"]
    # 95 % of 20 are 19; fewer than 16 would happen once in 400 times to a correct interval.
    assert inside >= 16


def test_a_score_of_the_disease_alone_stays() -> None:
    predictions, records = _study(1, n=2000, by_disease=1.5)
    row = _last(predictions, records)
    assert row["value"] == pytest.approx(_plain(predictions), abs=0.03)
    assert row["low"] > 0.75


def test_the_weighted_figure_is_the_mean_of_one_to_one_draws() -> None:
    predictions, records = _study(3, n=120, by_site=1.0, by_disease=0.7)
    ill = (predictions["y_true"] == "yes").to_numpy()
    site, score = records["site"].to_numpy(), predictions["p_yes"].to_numpy()
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(150):
        kept: list[np.ndarray] = []
        for name in "AB":
            sides = [np.flatnonzero((site == name) & (ill == side)) for side in (True, False)]
            least = min(map(len, sides))
            kept += [rng.permutation(side)[:least] for side in sides]
        rows = np.concatenate(kept)
        draws.append(roc_auc_score(ill[rows], score[rows]))
    assert _last(predictions, records)["value"] == pytest.approx(np.mean(draws), abs=0.01)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1, max_size=40),
    st.integers(0, 5),
)
def test_both_classes_weigh_the_same_in_every_stratum(
    rows: list[tuple[bool, str]], seed: int
) -> None:
    positive, strata = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    drawn = np.random.default_rng(seed).integers(0, 3, (4, len(rows))).astype(float)
    for given_weights in (None, drawn):
        weights = matched_weights(positive, strata, given_weights)
        base = np.ones(len(rows)) if given_weights is None else given_weights
        for name in set(strata):
            own = strata == name
            sides = [weights[..., own & (positive == side)].sum(axis=-1) for side in (True, False)]
            least = np.minimum(
                base[..., own & positive].sum(axis=-1), base[..., own & ~positive].sum(axis=-1)
            )
            for side in sides:
                np.testing.assert_allclose(side, least, atol=1e-9)


def test_a_source_per_class_gives_words_instead_of_a_figure() -> None:
    predictions, records = _study(5, by_disease=1.0)
    records["source"] = np.where(predictions["y_true"] == "yes", "clinic", "crowd")
    rows = matched_rows(predictions, records, CLASSES, "yes", CONFIG, seed=1)
    alone = next(row for row in rows if row["matched_on"] == "source")
    assert alone["value"] is None
    assert alone["low"] is None
    assert "cannot be matched on source: only 0 patients" in alone["detail"]
    assert rows[-1]["matched_on"] == "site"
    assert "source cannot be matched" in rows[-1]["detail"]


@pytest.mark.parametrize(("positives", "given"), [(9, False), (10, True)])
def test_ten_patients_of_a_class_are_the_least(positives: int, given: bool) -> None:
    predictions, records = _study(7, n=100)
    predictions["y_true"] = ["yes"] * positives + ["no"] * (100 - positives)
    records["site"] = ["A"] * 60 + ["B"] * 40
    row = _last(predictions, records)
    assert (row["value"] is not None) == given
    if given:
        assert row["n_matched"] == positives
        assert row["n_patients"] == 60


def test_records_of_one_patient_are_one_patient() -> None:
    predictions, records = _study(8, n=100)
    predictions["y_true"] = ["yes"] * 30 + ["no"] * 70
    predictions["patient_id"] = [f"p{i // 4}" for i in range(100)]
    records["site"] = ["A"] * 90 + ["B"] * 10
    assert _last(predictions, records)["value"] is None


def test_records_of_which_a_confounder_is_not_known_have_no_counterpart_in_it() -> None:
    predictions, records = _study(12, n=200)
    predictions["y_true"] = ["yes", "no"] * 100
    records["site"] = "A"
    records["sex"] = ["F"] * 20 + ["M"] * 12 + [None] * 168
    rows = matched_rows(predictions, records, CLASSES, "yes", CONFIG, seed=1)
    assert rows[-1]["matched_on"] == "sex"
    assert rows[-1]["n_matched"] == 16
    assert rows[-1]["n_patients"] == 32


def test_age_is_matched_in_bands_of_ten_years() -> None:
    records = pd.DataFrame({"age": [39.5, 40.0, 49.9, np.nan], "sex": ["F", None, "M", "F"]})
    table = coarsened(records)
    assert table["age"].tolist() == ["30-39", "40-49", "40-49", "unknown"]
    assert table["sex"].tolist() == ["F", "unknown", "M", "F"]


def test_what_is_not_known_or_does_not_differ_is_said() -> None:
    predictions, records = _study(9)
    records = records.assign(source="one", age=np.nan, sex=None)
    row = _last(predictions, records)
    assert row["matched_on"] == "site"
    for words in ("source is the same for all", "age is not known", "sex is not known"):
        assert words in row["detail"]


def test_three_classes_are_matched_one_against_the_rest() -> None:
    predictions, records = _study(10, n=900, by_site=2.0)
    rng = np.random.default_rng(0)
    third = rng.uniform(size=900) < 0.3
    predictions.loc[third, "y_true"] = "maybe"
    predictions["p_maybe"] = rng.uniform(size=900)
    rows = matched_rows(predictions, records, (*CLASSES, "maybe"), None, CONFIG, seed=1)
    assert rows[-1]["low"] <= 0.5 <= rows[-1]["high"]


def test_rows_have_the_keys_of_metrics_json_and_a_metric_of_their_own() -> None:
    row = _last(*_study(11))
    keys = {
        "subset", "method", "split", "site", "metric", "value", "low", "high", "n_patients",
        "simulated",
    }  # fmt: skip
    assert keys < set(row)
    assert row["metric"] == MATCHED_AUC
