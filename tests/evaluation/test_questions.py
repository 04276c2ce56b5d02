"""Rows whose label is a set of classes count, but for nothing that the label does not answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation import comparison_table, evaluate, fusion_gain, paired_difference
from pulmofuse.evaluation.questions import as_asked, questions
from pulmofuse.labelsets import Partition

CLASSES = ("a", "b", "c")
CONFIG = EvaluationConfig(bootstrap=100)


def predictions() -> pd.DataFrame:
    """CT knows a|b and c; CXR and the fusion all three; simulated patients of both."""
    rng = np.random.default_rng(4)
    parts = []
    for split in ("val", "test"):
        y = np.array(["a", "b", "c"] * 20)
        for subset, method in (("ct", "unimodal"), ("cxr", "unimodal"), ("ct+cxr", "mean")):
            p = rng.dirichlet(np.ones(3), len(y)) + 0.5 * (y[:, None] == np.array(CLASSES))
            p /= p.sum(axis=1, keepdims=True)
            coarse = subset == "ct"
            called = np.array(CLASSES)[p.argmax(axis=1)]
            if coarse:
                both = p[:, :2].sum(axis=1)
                p[:, :2] = both[:, None] / 2
                called = np.where(both > p[:, 2], "a|b", "c")
            table = pd.DataFrame(p, columns=[f"p_{name}" for name in CLASSES])
            parts.append(
                table.assign(
                    patient_id=[f"{split}t{i} & {split}x{i}" for i in range(len(y))],
                    split=split,
                    subset=subset,
                    method=method,
                    site=None,
                    simulated=True,
                    y_true=np.where((y != "c") & coarse, "a|b", y),
                    y_pred=called,
                )
            )
    return pd.concat(parts, ignore_index=True)


def test_a_coarse_subset_is_scored_as_two_classes_would_be() -> None:
    table = predictions()
    rows = pd.DataFrame(evaluate(table, CLASSES, "c", CONFIG, seed=1))
    ct = rows[(rows["subset"] == "ct") & (rows["split"] == "test")].set_index("metric")
    shown = table[(table["subset"] == "ct") & (table["split"] == "test")]
    ill, called = shown["y_true"] == "c", shown["y_pred"] == "c"
    assert ct.loc["roc_auc", "value"] == pytest.approx(roc_auc_score(ill, shown["p_c"]))
    assert ct.loc["accuracy", "value"] == pytest.approx(accuracy_score(ill, called))
    assert ct.loc["f1", "value"] == pytest.approx(f1_score(ill, called))
    assert set(ct["question"]) == {"a|b, c"}


def test_a_fine_subset_beside_it_is_scored_as_ever() -> None:
    table = predictions()
    fine = table[table["subset"] != "ct"]
    alone = pd.DataFrame(evaluate(fine, CLASSES, "c", CONFIG, seed=1))
    assert "question" not in alone
    beside = pd.DataFrame(evaluate(table, CLASSES, "c", CONFIG, seed=1))
    beside = beside[beside["subset"] != "ct"].drop(columns="question").reset_index(drop=True)
    # Intervals of simulated patients depend on which modalities the whole cohort has.
    same = ["subset", "method", "split", "metric", "value", "n_patients"]
    pd.testing.assert_frame_equal(alone[same], beside[same])


def test_the_comparison_says_what_was_asked_only_where_it_matters() -> None:
    rows = evaluate(predictions(), CLASSES, "c", CONFIG, seed=1)
    table = comparison_table(rows).set_index("subset")
    assert table["question"].to_dict() == {"ct": "a|b, c", "cxr": "", "ct+cxr": ""}
    fine = [row for row in rows if row["subset"] != "ct"]
    assert "question" not in comparison_table(fine)


def test_two_subsets_are_compared_on_what_both_support() -> None:
    table = predictions()
    value, low, high, n = paired_difference(
        table,
        ("ct+cxr", "mean"),
        ("ct", "unimodal"),
        classes=CLASSES,
        positive="c",
        config=CONFIG,
        seed=1,
    )
    test = table[table["split"] == "test"]
    fused, ct = (test[test["subset"] == subset] for subset in ("ct+cxr", "ct"))
    ill = (fused["y_true"] == "c").to_numpy()
    expected = roc_auc_score(ill, fused["p_c"]) - roc_auc_score(ill, ct["p_c"])
    assert value == pytest.approx(expected)
    assert low <= value <= high
    assert n == 60


def test_the_gain_names_its_question_and_ranks_modalities_on_one() -> None:
    rows = fusion_gain(predictions(), CLASSES, "c", CONFIG, seed=1)
    assert len(rows) == 1
    assert rows[0].get("question") == ("a|b, c" if rows[0]["against"] == "ct" else None)


def test_what_is_called_counts_as_well_as_what_is_true() -> None:
    table = pd.DataFrame({"subset": "ct", "y_true": ["a", "b", "c"], "y_pred": ["a|b", "c", "c"]})
    assert questions(table, CLASSES) == {"ct": Partition.of(["a|b"], CLASSES)}


def test_a_fine_question_leaves_the_table_alone() -> None:
    table = predictions()
    assert as_asked(table, Partition.fine(CLASSES)) is table
