"""Rows of metrics.json, the comparison table and the gain of fusion."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk

from pulmofuse.config import EvaluationConfig
from pulmofuse.errors import StudyError
from pulmofuse.evaluation import comparison_table, evaluate, fusion_gain, paired_difference
from pulmofuse.schema import ABSENT, JOIN

CLASSES = ("not_covid19", "covid19")
CONFIG = EvaluationConfig(bootstrap=300)
COLUMNS = ["subset", "method", "split", "site", "metric", "value", "low", "high"]
COLUMNS += ["n_patients", "simulated"]


def _rows(subset, method, split, patients, y, score, *, simulated=False, site=None):
    names = np.array(CLASSES)
    return pd.DataFrame(
        {
            "patient_id": patients,
            "record_id": [f"{subset}-{i}" for i in range(len(y))],
            "split": split,
            "site": site,
            "subset": subset,
            "method": method,
            "simulated": simulated,
            "y_true": names[y],
            "y_pred": names[(score >= 0.5).astype(int)],
            "p_not_covid19": 1 - score,
            "p_covid19": score,
        }
    )


def _cohort(*, ct_val: float = 2.0, cough_val: float = 0.5, simulated: bool = False):
    """Two modalities and a fusion; CT and cough are as good on validation as asked."""
    rng = np.random.default_rng(3)
    parts = []
    for split, ct, cough in (("val", ct_val, cough_val), ("test", 0.8, 2.0)):
        y = np.arange(60) % 2
        ids = [f"{split}{i}" for i in range(60)]
        if simulated:  # 20 CT patients and 30 cough patients recur
            ids = [f"{split}-ct{i % 20}{JOIN}{split}-cough{i % 30}" for i in range(60)]
        logit = {"ct": ct * y + rng.normal(size=60), "cough": cough * y + rng.normal(size=60)}
        logit["ct+cough"] = logit["ct"] + logit["cough"]
        for subset, method in (("ct", "unimodal"), ("cough", "unimodal"), ("ct+cough", "mean")):
            score = 1 / (1 + np.exp(-(logit[subset] - logit[subset].mean())))
            parts.append(_rows(subset, method, split, ids, y, score, simulated=simulated))
    return pd.concat(parts, ignore_index=True)


def _find(rows, **keys):
    found = [row for row in rows if all(row[k] == v for k, v in keys.items())]
    assert len(found) == 1, f"{len(found)} rows for {keys}"
    return found[0]


def test_values_equal_scikit_learn_and_rows_keep_the_contract() -> None:
    predictions = _cohort()
    rows = evaluate(predictions, CLASSES, "covid19", CONFIG, seed=1)
    assert all(list(row) == COLUMNS for row in rows)
    test = predictions[(predictions.split == "test") & (predictions.subset == "ct")]
    y, score = (test.y_true == "covid19").astype(int), test.p_covid19
    reference = {
        "roc_auc": sk.roc_auc_score(y, score),
        "average_precision": sk.average_precision_score(y, score),
        "accuracy": sk.accuracy_score(y, score >= 0.5),
        "recall": sk.recall_score(y, score >= 0.5),
        "brier": sk.brier_score_loss(y, score),
    }
    for metric, expected in reference.items():
        row = _find(rows, subset="ct", split="test", metric=metric)
        assert row["value"] == pytest.approx(expected, abs=1e-12)
        assert row["low"] < row["value"] < row["high"]
        assert row["n_patients"] == 60


def test_intervals_stand_on_test_only_and_training_rows_are_left_out() -> None:
    predictions = _cohort()
    train = predictions[predictions.split == "val"].assign(split="train")
    rows = evaluate(pd.concat([predictions, train]), CLASSES, "covid19", CONFIG, seed=1)
    assert {row["split"] for row in rows} == {"val", "test"}
    for row in rows:
        assert (row["low"] is None) == (row["high"] is None) == (row["split"] == "val")


def test_rows_are_json_and_undefined_figures_are_null() -> None:
    one_class = _cohort().query("split == 'test' and y_true == 'covid19'")
    rows = evaluate(one_class, CLASSES, "covid19", CONFIG, seed=1)
    json.dumps(rows, allow_nan=False)
    auc = _find(rows, subset="ct", metric="roc_auc")
    assert (auc["value"], auc["low"], auc["high"]) == (None, None, None)


def test_sites_of_ten_records_and_two_classes_are_reported_for_records() -> None:
    y = np.array([0, 1] * 12 + [1] * 12 + [0, 1] * 4)
    sites = ["telegram"] * 24 + ["one_class"] * 12 + ["small"] * 4 + [None] * 4
    score = np.linspace(0, 1, len(y))
    ids = [f"p{i // 2}" for i in range(len(y))]
    predictions = _rows("cough", "per_record", "test", ids, y, score, site=sites)
    rows = evaluate(predictions, CLASSES, "covid19", CONFIG, seed=1)
    assert {row["site"] for row in rows} == {"", "telegram"}
    assert _find(rows, site="telegram", metric="f1")["n_patients"] == 12
    unimodal = predictions.assign(method="unimodal")
    assert {r["site"] for r in evaluate(unimodal, CLASSES, "covid19", CONFIG, seed=1)} == {""}


def test_intervals_are_clustered_on_the_patient() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(20) % 2, 10)
    score = np.repeat(rng.uniform(size=20), 10)
    widths = []
    for ids in (np.repeat([f"p{i}" for i in range(20)], 10), [f"p{i}" for i in range(200)]):
        rows = evaluate(
            _rows("ct", "per_record", "test", ids, y, score), CLASSES, "covid19", CONFIG, seed=1
        )
        row = _find(rows, metric="accuracy")
        widths.append(row["high"] - row["low"])
    assert widths[0] > 2 * widths[1]


@pytest.mark.parametrize("n_ct", [2, 12])
def test_a_simulated_patient_is_clustered_on_the_real_ones_of_its_subset(n_ct: int) -> None:
    """What the CT patients make of a score is known as well as there are CT patients."""
    rng = np.random.default_rng(2)
    y = np.arange(120) % 2
    score = 1 / (1 + np.exp(-(y + rng.normal(size=n_ct)[np.arange(120) % n_ct] - 0.5)))
    ids = [f"ct{i % n_ct}{JOIN}cough{i}" for i in range(120)]
    frame = pd.concat(
        [
            _rows(subset, method, "test", ids, y, score, simulated=True)
            for subset, method in (("ct", "unimodal"), ("cough", "unimodal"), ("ct+cough", "mean"))
        ]
    )
    rows = evaluate(frame, CLASSES, "covid19", CONFIG, seed=1)
    assert all(row["simulated"] for row in rows)
    width = {}
    for subset in ("ct", "cough", "ct+cough"):
        row = _find(rows, subset=subset, metric="roc_auc")
        width[subset] = row["high"] - row["low"]
    if n_ct == 2:  # one of each class: nothing there to draw
        assert width["ct"] == 0
        return
    # Had the rows been people (cough0 ... cough119), the interval would be far too narrow.
    assert width["ct+cough"] > 2 * width["cough"] > 0
    assert width["ct+cough"] == pytest.approx(width["ct"], rel=0.2)


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_class_without_a_modality_does_not_change_the_clusters_of_another(lacking: int) -> None:
    """Whether the cough patients of one class are there says nothing of the CT's interval."""
    y = np.arange(60) % 2
    score = np.random.default_rng(2).uniform(size=60)
    intervals = []
    for cough in ("cough", ABSENT):
        ids = [
            f"ct{i % 6}{JOIN}{f'cough{i}' if label != lacking else cough}"
            for i, label in enumerate(y)
        ]
        both = y != lacking
        frame = pd.concat(
            [
                _rows("ct", "unimodal", "test", ids, y, score, simulated=True),
                _rows(
                    "ct+cough", "mean", "test", np.array(ids)[both], y[both], score[both],
                    simulated=True,
                ),
            ]
        )  # fmt: skip
        row = _find(
            evaluate(frame, CLASSES, "covid19", CONFIG, seed=1), subset="ct", metric="roc_auc"
        )
        intervals.append((row["low"], row["high"]))
    assert intervals[0] == intervals[1]


def test_each_modality_has_its_own_clusters_where_no_patient_has_both() -> None:
    """The ill have a CT only and the well a cough only: two CT patients, thirty coughs."""
    y = np.arange(60) % 2
    score = np.random.default_rng(2).uniform(size=60)
    ids = [f"ct{i % 4}{JOIN}{ABSENT}" if i % 2 else f"{ABSENT}{JOIN}cough{i}" for i in range(60)]
    parts = [
        _rows(subset, "unimodal", "test", np.array(ids)[rows], y[rows], score[rows], simulated=True)
        for subset, rows in (("ct", y == 1), ("cough", y == 0))
    ]
    found = evaluate(pd.concat(parts), CLASSES, "covid19", CONFIG, seed=1)
    alone = [i.split(JOIN)[0] for i in np.array(ids)[y == 1]]
    real = _rows("ct", "unimodal", "test", alone, y[y == 1], score[y == 1])
    expected = _find(evaluate(real, CLASSES, "covid19", CONFIG, seed=1), metric="recall")
    row = _find(found, subset="ct", metric="recall")
    # Draws of other names: 300 replicates give a standard error to 4 %.
    assert row["high"] - row["low"] == pytest.approx(expected["high"] - expected["low"], rel=0.15)


def test_patients_that_lack_a_modality_are_each_a_cluster_of_it() -> None:
    """Thirty patients without a cough are drawn as thirty would be whose coughs are their own."""
    y = np.arange(60) % 2
    score = np.clip(y * 0.4 + np.random.default_rng(2).uniform(0, 0.6, size=60), 0, 1)
    settings = {"classes": CLASSES, "positive": "covid19", "config": CONFIG, "seed": 5}
    found = []
    for absent in ([ABSENT] * 60, [f"cough{i:02d}" for i in range(60)]):
        coughs = [f"shared{i % 5}" if i < 30 else absent[i] for i in range(60)]
        ids = [f"ct{i:02d}{JOIN}{cough}" for i, cough in enumerate(coughs)]
        frame = pd.concat(
            [
                _rows("ct", "unimodal", "test", ids, y, score, simulated=True),
                _rows("ct", "other", "test", ids, y, score[::-1], simulated=True),
                _rows("ct+cough", "mean", "val", ids, y, score, simulated=True),
            ]
        )
        found.append(paired_difference(frame, ("ct", "unimodal"), ("ct", "other"), **settings))
    (value, low, high, n), (other_value, other_low, other_high, other_n) = found
    assert (value, n) == (other_value, other_n)
    # The absent ones have other names and therefore other draws.
    assert high - low == pytest.approx(other_high - other_low, rel=0.15)


def test_three_classes_are_macro_averaged() -> None:
    classes = ("normal", "covid19", "pneumonia")
    rng = np.random.default_rng(4)
    y, p = rng.integers(3, size=90), rng.dirichlet(np.ones(3), size=90)
    frame = pd.DataFrame(p, columns=[f"p_{name}" for name in classes]).assign(
        patient_id=[f"p{i}" for i in range(90)],
        split="test",
        site=None,
        subset="cxr",
        method="per_record",
        simulated=False,
        y_true=np.array(classes)[y],
        y_pred=np.array(classes)[p.argmax(axis=1)],
    )
    rows = evaluate(frame, classes, None, CONFIG, seed=1)
    expected = sk.roc_auc_score(y, p, multi_class="ovr")
    assert _find(rows, metric="roc_auc")["value"] == pytest.approx(expected, abs=1e-12)
    expected = sk.f1_score(y, p.argmax(axis=1), average="macro")
    assert _find(rows, metric="f1")["value"] == pytest.approx(expected, abs=1e-12)


def test_a_strange_class_is_named() -> None:
    predictions = _cohort().assign(y_true="flu")
    with pytest.raises(StudyError, match="flu"):
        evaluate(predictions, CLASSES, "covid19", CONFIG, seed=1)


def test_the_same_seed_gives_the_same_rows_whatever_the_row_order() -> None:
    predictions = _cohort()
    first = evaluate(predictions, CLASSES, "covid19", CONFIG, seed=1)
    assert first != evaluate(predictions, CLASSES, "covid19", CONFIG, seed=2)
    shuffled = predictions.sample(frac=1, random_state=7)
    for row in evaluate(shuffled, CLASSES, "covid19", CONFIG, seed=1):
        same = _find(first, subset=row["subset"], split=row["split"], metric=row["metric"])
        assert row == pytest.approx(same, nan_ok=True)


def test_comparison_table_has_one_line_per_subset_and_method() -> None:
    rows = evaluate(_cohort(), CLASSES, "covid19", CONFIG, seed=1)
    rows += fusion_gain(_cohort(), CLASSES, "covid19", CONFIG, seed=1)
    table = comparison_table(rows)
    assert list(zip(table.subset, table.method, strict=True)) == [
        ("ct", "unimodal"),
        ("cough", "unimodal"),
        ("ct+cough", "mean"),
    ]
    assert list(table.columns[:5]) == ["subset", "method", "accuracy", "accuracy_low",
                                       "accuracy_high"]  # fmt: skip
    assert list(table.columns[-2:]) == ["n_patients", "simulated"]
    row = _find(rows, subset="cough", split="test", metric="roc_auc")
    assert table.set_index("subset").loc["cough", "roc_auc_high"] == row["high"]


def test_comparison_table_of_one_class_holds_numbers_that_print() -> None:
    rows = evaluate(_cohort().query("y_true == 'covid19'"), CLASSES, "covid19", CONFIG, seed=1)
    table = comparison_table(rows)
    figures = table.drop(columns=["subset", "method", "n_patients", "simulated"])
    assert set(map(str, figures.dtypes)) == {"float64"}
    assert table["roc_auc"].isna().all()
    assert [f"{value:.3f}" for value in table["roc_auc"]] == ["nan"] * 3


def test_comparison_table_of_nothing_still_has_its_columns() -> None:
    assert "roc_auc_low" in comparison_table([]).columns


def test_paired_difference_is_the_difference_and_pairs_the_resamples() -> None:
    predictions = _cohort()
    rng = np.random.default_rng(6)
    better = predictions[(predictions.subset == "ct") & (predictions.split == "test")].copy()
    nudge = 0.02 * rng.normal(size=len(better))
    better["p_covid19"] = (better["p_covid19"] + nudge).clip(0, 1)
    better["method"] = "nudged"
    both = pd.concat([predictions, better.sample(frac=1, random_state=1)])
    settings = {"classes": CLASSES, "positive": "covid19", "config": CONFIG, "seed": 5}
    value, low, high, n = paired_difference(both, ("ct", "nudged"), ("ct", "unimodal"), **settings)
    ct = predictions[(predictions.subset == "ct") & (predictions.split == "test")]
    y = ct.y_true == "covid19"
    expected = sk.roc_auc_score(y, better.p_covid19) - sk.roc_auc_score(y, ct.p_covid19)
    assert value == pytest.approx(expected, abs=1e-12)
    assert n == 60
    single = _find(
        evaluate(predictions, CLASSES, "covid19", CONFIG, seed=5),
        subset="ct", split="test", metric="roc_auc",
    )  # fmt: skip
    assert high - low < 0.3 * (single["high"] - single["low"])


def test_paired_difference_takes_the_patients_that_both_predict() -> None:
    predictions = _cohort()
    dropped = predictions.subset.eq("cough") & predictions.patient_id.isin(["test0", "test1"])
    settings = {"classes": CLASSES, "positive": "covid19", "config": CONFIG, "seed": 5}
    pair = (("ct+cough", "mean"), ("cough", "unimodal"))
    assert paired_difference(predictions[~dropped], *pair, **settings)[3] == 58
    nobody = predictions[predictions.split == "val"]
    assert paired_difference(nobody, *pair, **settings)[3] == 0


def test_a_patient_with_a_row_per_class_is_paired_class_by_class() -> None:
    predictions = _cohort()
    ids = predictions["patient_id"].str.replace("test1$", "test0", regex=True)
    settings = {"classes": CLASSES, "positive": "covid19", "config": CONFIG, "seed": 5}
    pair = (("ct+cough", "mean"), ("cough", "unimodal"))
    value, *_, n = paired_difference(predictions.assign(patient_id=ids), *pair, **settings)
    assert n == 59
    assert value == paired_difference(predictions, *pair, **settings)[0]


def test_a_patient_twice_in_a_paired_comparison_is_refused() -> None:
    predictions = pd.concat([_cohort(), _cohort()])
    with pytest.raises(StudyError, match="twice"):
        fusion_gain(predictions, CLASSES, "covid19", CONFIG, seed=1)


@pytest.mark.parametrize(("ct_val", "cough_val", "best"), [(3.0, 0.2, "ct"), (0.2, 3.0, "cough")])
@pytest.mark.parametrize("simulated", [False, True])
def test_fusion_gain_is_over_the_best_modality_on_validation(
    ct_val: float, cough_val: float, best: str, simulated: bool
) -> None:
    # On test cough is always the better one: the choice must not look there.
    predictions = _cohort(ct_val=ct_val, cough_val=cough_val, simulated=simulated)
    (row,) = fusion_gain(predictions, CLASSES, "covid19", CONFIG, seed=1)
    assert (row["against"], row["method"], row["subset"]) == (best, "mean", "ct+cough")
    assert row["metric"] == "roc_auc_difference"
    assert row["simulated"] is simulated
    test = predictions[predictions.split == "test"]
    auc = {
        subset: sk.roc_auc_score(part.y_true == "covid19", part.p_covid19)
        for subset, part in test.groupby("subset")
    }
    assert row["value"] == pytest.approx(auc["ct+cough"] - auc[best], abs=1e-12)
    assert row["low"] < row["value"] < row["high"]


def test_one_modality_has_no_fusion_gain() -> None:
    only = _cohort().query("subset == 'ct'")
    assert fusion_gain(only, CLASSES, "covid19", CONFIG, seed=1) == []
    no_val = _cohort().query("split == 'test'")
    assert fusion_gain(no_val, CLASSES, "covid19", CONFIG, seed=1) == []
