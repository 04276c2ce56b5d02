"""Pooled out-of-fold figures, against scikit-learn on the same rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from pulmofuse.config import EvaluationConfig
from pulmofuse.errors import StudyError
from pulmofuse.evaluation.pooled import (
    ENSEMBLE,
    Pool,
    class_pairs,
    difference_rows,
    ensemble_rows,
    figures,
    pool_rows,
    published_values,
)

CLASSES = ("normal", "pneumonia", "covid19")
PAIRS = (("covid19", "normal"), ("covid19", "pneumonia"))
CONFIG = EvaluationConfig(bootstrap=200)


def table(
    seeds: tuple[int, ...] = (1, 2),
    classes: tuple[str, ...] = CLASSES,
    n: int = 90,
    draw: int = 0,
    skill: float = 2.0,
) -> pd.DataFrame:
    """Out-of-fold rows of n records of n / 3 patients, in a different order for each seed."""
    rng = np.random.default_rng(draw)
    truth = rng.integers(len(classes), size=n)
    parts = []
    for seed in seeds:
        logits = rng.normal(size=(n, len(classes))) + skill * np.eye(len(classes))[truth]
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        part = pd.DataFrame(
            {
                "record_id": [f"r{i:03}" for i in range(n)],
                "patient_id": [f"p{i // 3}" for i in range(n)],
                "method": "per_record",
                "seed": seed,
                "fold": rng.integers(3, size=n),
                "threshold": np.nan if len(classes) > 2 else rng.choice([0.3, 0.7], size=n),
                "y_true": np.array(classes)[truth],
                "y_pred": np.array(classes)[p.argmax(axis=1)],
            }
        )
        for i, name in enumerate(classes):
            part[f"p_{name}"] = part[f"p_raw_{name}"] = p[:, i]
        parts.append(part.sample(frac=1, random_state=seed))
    out = pd.concat(parts, ignore_index=True)
    return out.astype({"seed": "Int64", "fold": "Int64"})


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    wanted = figures(CLASSES, "covid19", PAIRS)
    return pd.DataFrame(pool_rows(Pool.of(frame, CLASSES), wanted, CONFIG, 5))


def expected(frame: pd.DataFrame) -> dict[str, float]:
    """What scikit-learn says of the rows of one seed."""
    y, called = frame["y_true"], frame["y_pred"]
    p = frame[[f"p_{name}" for name in CLASSES]].to_numpy()
    macro = {"average": "macro", "labels": CLASSES, "zero_division": 0}
    binary = [roc_auc_score(y == name, p[:, i]) for i, name in enumerate(CLASSES)]
    out = {
        "accuracy": accuracy_score(y, called),
        "precision": precision_score(y, called, **macro),
        "recall": recall_score(y, called, **macro),
        "f1": f1_score(y, called, **macro),
        "roc_auc": float(np.mean(binary)),
        "fold_accuracy": float(
            np.mean(
                [accuracy_score(own["y_true"], own["y_pred"]) for _, own in frame.groupby("fold")]
            )
        ),
    }
    out |= {f"roc_auc.{name}-rest": auc for name, auc in zip(CLASSES, binary, strict=True)}
    for a, b in PAIRS:
        two = frame[frame["y_true"].isin([a, b])]
        share = two[f"p_{a}"] / (two[f"p_{a}"] + two[f"p_{b}"])
        out[f"accuracy.{a}-{b}"] = accuracy_score(two["y_true"] == a, share >= 0.5)
        out[f"roc_auc.{a}-{b}"] = roc_auc_score(two["y_true"] == a, share)
    return out


class TestFigures:
    frame = table()
    rows = rows_of(frame)

    @pytest.mark.parametrize("seed", [1, 2])
    def test_of_one_seed_are_those_of_scikit_learn(self, seed: int) -> None:
        own = self.rows[self.rows["seed"] == seed]

        assert dict(zip(own["metric"], own["value"], strict=True)) == pytest.approx(
            expected(self.frame[self.frame["seed"] == seed]), abs=1e-12
        )

    def test_mean_and_range_are_over_the_seeds(self) -> None:
        mean = self.rows[self.rows["method"] == "seed_mean"].set_index("metric")
        each = [expected(self.frame[self.frame["seed"] == seed]) for seed in (1, 2)]
        for name in each[0]:
            values = [own[name] for own in each]
            assert mean.loc[name, "value"] == pytest.approx(np.mean(values))
            assert mean.loc[name, "lowest"] == pytest.approx(min(values))
            assert mean.loc[name, "highest"] == pytest.approx(max(values))

    def test_intervals_hold_the_value_and_grow_with_the_size_of_the_patients(self) -> None:
        alone = rows_of(self.frame.assign(patient_id=self.frame["record_id"]))
        # Nine rows at a time that are all of one class: the effective sample is far smaller.
        grouped = self.frame.sort_values("record_id")
        blocks = grouped.assign(patient_id=grouped["y_true"] + (grouped["record_id"].str[1]))
        wide = rows_of(blocks)
        for rows in (self.rows, alone):
            defined = rows.dropna(subset=["low"])
            assert (defined["low"] <= defined["value"] + 1e-9).all()
            assert (defined["value"] <= defined["high"] + 1e-9).all()
        width = [
            float((r["high"] - r["low"])[r["method"] == "seed_mean"].mean()) for r in (alone, wide)
        ]
        assert width[0] < width[1]

    def test_a_weight_of_two_is_the_row_twice(self) -> None:
        frame = self.frame[self.frame["seed"] == 1].sort_values("record_id")
        scored = Pool.of(frame, CLASSES).seeds[1]
        weights = np.random.default_rng(4).integers(0, 3, size=len(frame))
        repeated = frame.loc[frame.index.repeat(weights)]
        for name, figure in figures(CLASSES, "covid19", PAIRS).items():
            found = figure(scored, weights[None].astype(float))
            assert found == pytest.approx([expected(repeated)[name]], abs=1e-12)

    def test_two_classes_have_no_pairs(self) -> None:
        assert list(figures(("a", "b"), "b", (("b", "a"),))) == [
            "accuracy", "precision", "recall", "f1", "roc_auc", "fold_accuracy",
        ]  # fmt: skip


class TestEnsemble:
    def test_is_the_mean_of_the_probabilities(self) -> None:
        frame = table()
        both = pd.concat([frame, ensemble_rows(frame, CLASSES, "covid19")], ignore_index=True)
        mean = frame.groupby("record_id")[[f"p_{name}" for name in CLASSES]].mean()
        y = frame.drop_duplicates("record_id").set_index("record_id").loc[mean.index, "y_true"]
        rows = rows_of(both)
        own = rows[rows["method"] == ENSEMBLE].set_index("metric")["value"]

        assert own["roc_auc"] == pytest.approx(
            roc_auc_score(y, mean[[f"p_{n}" for n in sorted(CLASSES)]], multi_class="ovr")
        )
        called = np.array(CLASSES)[mean.to_numpy().argmax(axis=1)]
        assert own["accuracy"] == pytest.approx(accuracy_score(y, called))
        assert "fold_accuracy" not in own.index

    def test_of_two_classes_is_called_at_the_mean_threshold(self) -> None:
        classes = ("not_covid19", "covid19")
        frame = table(classes=classes)
        rows = ensemble_rows(frame, classes, "covid19").set_index("record_id")
        mean = frame.groupby("record_id")[["p_covid19", "threshold"]].mean()
        ill = mean["p_covid19"] >= mean["threshold"]

        assert ((rows["y_pred"] == "covid19") == ill).all()
        assert rows["seed"].isna().all()
        assert set(frame["threshold"]) < set(rows["threshold"])  # some records met both


class TestDifference:
    def test_is_that_of_the_means_with_an_interval(self) -> None:
        good, bad = table(draw=1, skill=4.0), table(draw=1, skill=0.0)
        pools = [Pool.of(frame, CLASSES) for frame in (good, bad)]
        wanted = figures(CLASSES, "covid19", PAIRS)
        rows = pd.DataFrame(difference_rows(*pools, wanted, CONFIG, 5)).set_index("metric")
        found = [
            rows_of(frame).query("method == 'seed_mean'").set_index("metric")
            for frame in (good, bad)
        ]

        assert rows["value"].to_dict() == pytest.approx(
            (found[0]["value"] - found[1]["value"]).to_dict()
        )
        assert (rows["low"] > 0).all()

    def test_with_itself_is_exactly_nothing(self) -> None:
        pool = Pool.of(table(), CLASSES)
        for row in difference_rows(pool, pool, figures(CLASSES, "covid19", PAIRS), CONFIG, 5):
            assert (row["value"], row["low"], row["high"]) == (0, 0, 0)

    def test_needs_the_same_records(self) -> None:
        frame = table()
        pools = [Pool.of(frame, CLASSES), Pool.of(frame, CLASSES, ["r001", "r002"])]
        with pytest.raises(ValueError, match="same records"):
            list(difference_rows(*pools, figures(CLASSES, None, ()), CONFIG, 5))


class TestWords:
    @pytest.mark.parametrize(
        ("wanted", "positive", "pairs"),
        [
            ((), "covid19", PAIRS),
            ((), None, (("normal", "pneumonia"), ("normal", "covid19"), ("pneumonia", "covid19"))),
            (("normal, covid19", "normal,covid19"), None, (("normal", "covid19"),)),
        ],
    )
    def test_pairs(self, wanted, positive, pairs) -> None:
        assert class_pairs(wanted, CLASSES, positive) == pairs

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("covid,normal", "'covid' is no class of this study.*nearest is covid19"),
            ("covid19", "not two different classes"),
            ("normal,normal", "not two different classes"),
            ("normal,covid19,pneumonia", "not two different classes"),
        ],
    )
    def test_a_wrong_pair_is_refused(self, text: str, words: str) -> None:
        with pytest.raises(StudyError, match=words):
            class_pairs([text], CLASSES, "covid19")

    def test_published_values(self) -> None:
        names = list(figures(CLASSES, "covid19", PAIRS))
        found = published_values(["accuracy=0.8702", "accuracy.covid19-normal=.98"], names)

        assert found == {"accuracy": 0.8702, "accuracy.covid19-normal": 0.98}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("acuracy=0.9", "nearest is accuracy"),
            ("accuracy=87.02", "not a number from 0 to 1"),
            ("accuracy", "not a number from 0 to 1"),
        ],
    )
    def test_a_wrong_published_value_is_refused(self, text: str, words: str) -> None:
        with pytest.raises(StudyError, match=words):
            published_values([text], list(figures(CLASSES, "covid19", PAIRS)))
