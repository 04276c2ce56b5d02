"""Shapley shares: the axioms, and the same answer as walking through every order."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from pulmofuse.config import EvaluationConfig
from pulmofuse.evaluation import evaluate
from pulmofuse.evaluation.shapley import COLUMNS, shapley_table, shapley_values
from pulmofuse.schema import JOIN

PLAYERS = ("cough", "ct", "cxr", "voice")
CONFIG = EvaluationConfig(bootstrap=200)
CLASSES = ("no", "yes")


def coalitions(players: tuple[str, ...]) -> list[frozenset[str]]:
    return [frozenset(c) for n in range(len(players) + 1) for c in combinations(players, n)]


def game(seed: int, k: int) -> dict[frozenset[str], float]:
    rng = np.random.default_rng(seed)
    return {c: float(rng.normal()) for c in coalitions(PLAYERS[:k])}


games = st.builds(game, st.integers(0, 2**32 - 1), st.integers(1, 4))


@settings(deadline=None, max_examples=50)
@given(games)
def test_shares_are_the_mean_gain_over_every_order(worth: dict[frozenset[str], float]) -> None:
    players = sorted(max(worth, key=len))
    gains = dict.fromkeys(players, 0.0)
    orders = list(permutations(players))
    for order in orders:
        for i, player in enumerate(order):
            gains[player] += worth[frozenset(order[: i + 1])] - worth[frozenset(order[:i])]
    for player, value in shapley_values(worth).items():
        assert value == pytest.approx(gains[player] / len(orders), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(games)
def test_shares_add_up_to_the_whole(worth: dict[frozenset[str], float]) -> None:
    whole = worth[max(worth, key=len)] - worth[frozenset()]
    assert sum(shapley_values(worth).values()) == pytest.approx(whole, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(games)
def test_who_adds_nothing_gets_nothing(worth: dict[frozenset[str], float]) -> None:
    more = worth | {c | {"dummy"}: value for c, value in worth.items()}
    values = shapley_values(more)
    assert values["dummy"] == pytest.approx(0.0, abs=1e-12)
    for player, value in shapley_values(worth).items():
        assert values[player] == pytest.approx(value, abs=1e-12)


def test_a_coalition_without_worth_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="cough"):
        shapley_values({frozenset(): 0.0, frozenset({"ct"}): 0.2, frozenset({"ct", "cough"}): 0.3})


def _predictions(seed: int, *, simulated: bool = False, n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    z = {"ct": 1.5 * y + rng.normal(size=n), "cough": 0.5 * y + rng.normal(size=n)}
    parts = []
    for subset, logit in (*z.items(), ("ct+cough", z["ct"] + z["cough"])):
        p = 1 / (1 + np.exp(-logit))
        ids = [f"a{i // 3}{JOIN}b{i}" if simulated else f"p{i}" for i in range(n)]
        part = pd.DataFrame({"patient_id": ids, "record_id": ids, "p_no": 1 - p, "p_yes": p})
        part["y_true"], part["y_pred"] = np.array(CLASSES)[y], np.where(p > 0.5, "yes", "no")
        part["subset"], part["split"], part["simulated"] = subset, "test", simulated
        part["method"] = "log_odds" if "+" in subset else "unimodal"
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_the_table_divides_what_scikit_learn_measures() -> None:
    predictions = _predictions(1)
    table = shapley_table(predictions, CLASSES, "yes", np.array([0.6, 0.4]), CONFIG, 7)
    assert list(table.columns) == list(COLUMNS)
    y = predictions.loc[predictions["subset"] == "ct", "y_true"] == "yes"
    p = {name: part["p_yes"].to_numpy() for name, part in predictions.groupby("subset")}
    auc = {name: roc_auc_score(y, values) - 0.5 for name, values in p.items()}
    prior = log_loss(y, np.full(len(y), 0.4))
    gain = {name: prior - log_loss(y, values) for name, values in p.items()}
    for metric, worth in (("roc_auc", auc), ("log_loss", gain)):
        rows = table[table["metric"] == metric].set_index("modality")
        expected = (worth["ct"] + worth["ct+cough"] - worth["cough"]) / 2
        assert rows.loc["ct", "value"] == pytest.approx(expected, abs=1e-12)
        assert rows["value"].sum() == pytest.approx(worth["ct+cough"], abs=1e-12)
        assert rows["share"].sum() == pytest.approx(1.0, abs=1e-12)
        assert ((rows["low"] < rows["value"]) & (rows["value"] < rows["high"])).all()


@pytest.mark.parametrize("simulated", [True, False])
def test_the_interval_is_the_one_of_every_other_figure(simulated: bool) -> None:
    # With one modality that is chance by construction, the other's share is the fusion's own AUC.
    predictions = _predictions(2, simulated=simulated)
    cough = predictions["subset"] == "cough"
    predictions.loc[cough, ["p_no", "p_yes"]] = 0.5
    full, ct = (predictions[predictions["subset"] == name] for name in ("ct+cough", "ct"))
    predictions.loc[full.index, ["p_no", "p_yes"]] = ct[["p_no", "p_yes"]].to_numpy()
    table = shapley_table(predictions, CLASSES, "yes", np.array([0.5, 0.5]), CONFIG, 7)
    row = table[(table["metric"] == "roc_auc") & (table["modality"] == "ct")].iloc[0]
    (known,) = (
        found
        for found in evaluate(predictions.assign(site=""), CLASSES, "yes", CONFIG, 7)
        if (found["subset"], found["metric"]) == ("ct+cough", "roc_auc")
    )
    assert row["value"] + 0.5 == pytest.approx(known["value"], abs=1e-12)
    # That of an AUC is of the same length on the logit scale.
    logits = [np.log(known[end] / (1 - known[end])) for end in ("low", "high")]
    length = (logits[1] - logits[0]) * known["value"] * (1 - known["value"])
    assert row["high"] - row["low"] == pytest.approx(length, rel=1e-6)
    assert (row["low"] + row["high"]) / 2 == pytest.approx(row["value"], abs=1e-12)


def test_of_labels_for_sets_the_shares_are_in_what_every_subset_can_answer() -> None:
    made = _predictions(5)
    rows, classes = made.drop(columns="p_no"), ("a", "b", "yes")
    # How "no" is divided between two classes is nobody's business where the CT cannot say.
    share = np.random.default_rng(0).uniform(size=len(made))
    rows["p_a"], rows["p_b"] = made["p_no"] * share, made["p_no"] * (1 - share)
    fine = np.where(np.arange(len(made)) % 4 < 2, "a", "b")
    named = np.where(made["subset"] == "ct", "a|b", fine)
    for column in ("y_true", "y_pred"):
        rows[column] = np.where(made[column] == "no", named, "yes")
    found = shapley_table(rows, classes, "yes", np.array([0.2, 0.4, 0.4]), CONFIG, 7)
    two = shapley_table(made, CLASSES, "yes", np.array([0.6, 0.4]), CONFIG, 7)
    assert set(found["question"]) == {"a|b, yes"}
    pd.testing.assert_frame_equal(found.drop(columns="question"), two)


def test_no_share_of_a_fusion_that_is_worth_nothing() -> None:
    predictions = _predictions(3)
    predictions[["p_no", "p_yes"]] = 0.5
    table = shapley_table(predictions, CLASSES, "yes", np.array([0.5, 0.5]), CONFIG, 7)
    assert table["share"].isna().all()
    assert (table["value"] == 0).all()


def test_one_modality_has_no_table() -> None:
    predictions = _predictions(4)
    alone = predictions[predictions["subset"] == "ct"]
    assert shapley_table(alone, CLASSES, "yes", np.array([0.5, 0.5]), CONFIG, 7).empty
