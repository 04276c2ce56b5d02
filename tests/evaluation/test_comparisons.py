"""The table of all paired tests: who meets whom, by which test, corrected over all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation import comparisons, delong, holm, mcnemar
from pulmofuse.evaluation.comparisons import COLUMNS
from pulmofuse.schema import JOIN

CLASSES = ("not_covid19", "covid19")
CONFIG = EvaluationConfig(bootstrap=200)
_MODALITIES = ("ct", "cxr", "cough")


def _cohort(*, simulated: bool = False, n: int = 80) -> pd.DataFrame:
    """Three modalities, all four fused subsets by two methods; CT is best on validation."""
    rng = np.random.default_rng(5)
    names = np.array(CLASSES)
    parts = []
    for split in ("val", "test"):
        y = np.arange(n) % 2
        logit = {
            m: d * y + rng.normal(size=n) for m, d in zip(_MODALITIES, (2, 1, 0.5), strict=True)
        }
        for subset in ("ct", "cxr", "cough", "ct+cxr", "ct+cough", "cxr+cough", "ct+cxr+cough"):
            members = subset.split("+")
            for method in ("unimodal",) if len(members) == 1 else ("mean", "log_odds"):
                z = sum(logit[m] for m in members) / (len(members) if method == "mean" else 1)
                p = 1 / (1 + np.exp(-(z - np.mean(z) + 0.1 * rng.normal(size=n))))
                ids = [f"{split}{i}" for i in range(n)]
                if simulated:
                    ids = [JOIN.join(f"{split}{m}{i % k}" for m, k in zip("abc", (80, 40, 20), strict=True)) for i in range(n)]  # fmt: skip  # noqa: E501
                parts.append(
                    pd.DataFrame(
                        {
                            "patient_id": ids,
                            "split": split,
                            "subset": subset,
                            "method": method,
                            "simulated": simulated,
                            "y_true": names[y],
                            "y_pred": names[(p >= 0.5).astype(int)],
                            "p_not_covid19": 1 - p,
                            "p_covid19": p,
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def real() -> pd.DataFrame:
    return comparisons(_cohort(), CLASSES, "covid19", CONFIG, seed=1)


def test_every_pair_is_tested_once_in_auc_and_accuracy(real: pd.DataFrame) -> None:
    assert tuple(real.columns) == COLUMNS
    counts = real.groupby(["family", "metric"]).size()
    # Two methods: with the best, two other modalities, three pairs of two members, each other.
    for metric in ("roc_auc", "accuracy"):
        assert counts[("fusion_vs_best", metric)] == 2
        assert counts[("fusion_vs_single", metric)] == 4
        assert counts[("pair_vs_member", metric)] == 12
        assert counts[("method_vs_method", metric)] == 1
    pairs = real[["metric", "subset_a", "method_a", "subset_b", "method_b"]]
    assert not pairs.duplicated().any()
    best = real[real.family == "fusion_vs_best"]
    assert set(best.subset_b) == {"ct"}


def test_people_are_tested_by_delong_and_mcnemar(real: pd.DataFrame) -> None:
    assert set(zip(real.metric, real.test, strict=True)) == {
        ("roc_auc", "delong"),
        ("accuracy", "mcnemar"),
    }
    frame = _cohort().query("split == 'test'")
    a = frame.query("subset == 'ct+cxr+cough' and method == 'mean'")
    b = frame.query("subset == 'cough'")
    y = (a.y_true == "covid19").to_numpy()
    row = real.query("method_a == 'mean' and subset_a == 'ct+cxr+cough' and subset_b == 'cough'")
    auc, accuracy = (row[row.metric == m].iloc[0] for m in ("roc_auc", "accuracy"))
    expected = delong(y, np.array([a.p_covid19, b.p_covid19])).difference(0, 1)
    found = (auc.difference, auc.low, auc.high, auc.p_value)
    assert found == pytest.approx(expected, abs=1e-12)
    right = [x.y_true.to_numpy() == x.y_pred.to_numpy() for x in (a, b)]
    assert accuracy.p_value == mcnemar(*right).p
    assert accuracy.value_a - accuracy.value_b == pytest.approx(accuracy.difference)


def test_holm_is_over_all_rows_of_the_study(real: pd.DataFrame) -> None:
    assert real.p_holm.to_numpy() == pytest.approx(holm(real.p_value.to_numpy()))
    assert (real.p_holm >= real.p_value).all()


def test_simulated_patients_are_tested_by_the_bootstrap_and_less_certain(
    real: pd.DataFrame,
) -> None:
    found = comparisons(_cohort(simulated=True), CLASSES, "covid19", CONFIG, seed=1)
    assert set(found.test) == {"bootstrap"}
    assert found.simulated.all()
    assert len(found) == len(real)
    again = comparisons(_cohort(simulated=True), CLASSES, "covid19", CONFIG, seed=1)
    pd.testing.assert_frame_equal(found, again)


def test_a_patient_with_a_row_per_class_goes_to_the_bootstrap() -> None:
    frame = _cohort()
    frame["patient_id"] = frame["patient_id"].replace({"test1": "test0"})
    assert set(comparisons(frame, CLASSES, "covid19", CONFIG, seed=1).test) == {"bootstrap"}


def test_the_bootstrap_p_is_close_to_delongs_on_the_same_people() -> None:
    frame = _cohort(n=300)
    by_delong = comparisons(frame, CLASSES, "covid19", CONFIG, seed=1).query("metric == 'roc_auc'")
    by_bootstrap = comparisons(frame, CLASSES, None, CONFIG, seed=1).query("metric == 'roc_auc'")
    assert set(by_bootstrap.test) == {"bootstrap"}
    shared = by_delong.family != "fusion_vs_best"
    for name in ("low", "high"):
        np.testing.assert_allclose(by_delong[shared][name], by_bootstrap[shared][name], atol=0.015)


def test_one_modality_leaves_an_empty_table_with_its_columns() -> None:
    only = _cohort().query("subset == 'ct'")
    found = comparisons(only, CLASSES, "covid19", CONFIG, seed=1)
    assert found.empty
    assert tuple(found.columns) == COLUMNS
