"""Controls on fusion where the truth is known: Gaussian evidence of true and simulated patients."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.evaluation import evaluate, fit_calibration, fusion_gain
from pulmofuse.fusion import RULES
from pulmofuse.inference import Scores
from pulmofuse.pipeline import (
    FUSION_CONTROL_FILES,
    Cohort,
    PatientScores,
    decide,
    decision_predictions,
    fit_decision_fusion,
    fusion_patients,
    write_fusion_controls,
)
from pulmofuse.pipeline.confounders import trait_columns, trait_scores
from pulmofuse.pipeline.fusion_bench import Bench
from pulmofuse.pipeline.fusion_controls import (
    COLUMNS,
    confounder_rows,
    dependence_curve,
    dependence_rows,
    run_fusion_controls,
    shuffled_rows,
)
from pulmofuse.schema import Modality, subset_name

CLASSES = ("normal", "covid19")
STRENGTHS = {Modality.CT: 1.5, Modality.CXR: 1.2, Modality.COUGH: 1.0}
FULL = "ct+cxr+cough"
CONFIG = """
name: fusion
question: What is the fusion worth?
target: {classes: [normal, covid19], positive: covid19, mapping: {normal: normal, covid19: covid19}}
sources: [{name: synthetic}]
evaluation: {bootstrap: 100}
"""


class Made:
    """A study without images: latents, distorted posteriors, calibration, fusion."""

    def __init__(
        self,
        rho: float,
        patients: str = "paired",
        n: int = 900,
        telling: float = 0.5,
        extra: str = "",
        seed: int = 1,
    ) -> None:
        """`telling`: probability that the width of an image is that of its class."""
        rng = np.random.default_rng(seed)
        self.config: StudyConfig = parse_config(CONFIG + extra)
        split = np.array(["train", "val", "test"])[np.arange(n) % 3]
        y = rng.integers(2, size=n)
        common = rng.standard_normal(n)
        frames, scores, self.latents = [], {}, {}
        for modality, strength in STRENGTHS.items():
            z = (y - 0.5) * strength
            z = z + np.sqrt(rho) * common + np.sqrt(1 - rho) * rng.standard_normal(n)
            self.latents[modality] = z
            positive = 1 / (1 + np.exp(-3 * strength * z))  # three times too sure
            raw = np.stack([1 - positive, positive], axis=1)
            val = split == "val"
            p = fit_calibration(raw[val], y[val]).apply(raw)
            names = [f"{modality.value}-{i:04}" for i in range(n)]
            columns = [f"p_{c}" for c in CLASSES] + [f"p_raw_{c}" for c in CLASSES]
            table = pd.DataFrame(np.hstack([p, raw]), columns=columns, index=names)
            scores[modality] = Scores(table, np.zeros((n, 0), np.float32))
            honest = rng.uniform(size=n) < telling
            width = np.where(honest, y, 1 - y) * 100 + 500 + rng.integers(0, 50, n)
            frame = pd.DataFrame({"record_id": names, "patient_id": [f"p{i}" for i in range(n)]})
            frame["traits"] = [f'{{"width": {w}, "mode": "L"}}' for w in width]
            frames.append(
                frame.assign(modality=modality.value, split=split, y_true=np.array(CLASSES)[y])
            )
        self.cohort = Cohort(pd.concat(frames, ignore_index=True), pd.DataFrame(), {})
        table = fusion_patients(self.cohort.records, patients, CLASSES, seed)
        self.patients = PatientScores(table, scores, CLASSES)
        self.decision = fit_decision_fusion(self.patients, self.config, self.cohort)
        self.bench = Bench(self.patients, self.decision, self.config)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        rules = self.config.fusion.rules
        tables = decision_predictions(self.patients, self.decision, rules)
        return decide(pd.concat(tables, ignore_index=True), CLASSES, "covid19", {})


@pytest.fixture(scope="module")
def independent() -> Made:
    return Made(0.0)


@pytest.fixture(scope="module")
def independent_table(independent: Made) -> pd.DataFrame:
    return run_fusion_controls(independent.bench, independent.cohort)


@pytest.fixture(scope="module")
def dependent() -> Made:
    return Made(0.5)


@pytest.fixture(scope="module")
def dependent_table(dependent: Made) -> pd.DataFrame:
    rows = [*shuffled_rows(dependent.bench), *dependence_rows(dependent.bench, dependent.cohort)]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def simulated() -> Made:
    return Made(0.5, "simulated", n=300, telling=0.95)


@pytest.fixture(scope="module")
def simulated_table(simulated: Made) -> pd.DataFrame:
    return run_fusion_controls(simulated.bench, simulated.cohort)


def _row(
    table: pd.DataFrame, control: str, subset: str = FULL, method: str = "log_odds",
    metric: str = "roc_auc",
) -> pd.Series:  # fmt: skip
    wanted = {"control": control, "subset": subset, "method": method, "metric": metric}
    found = table[np.logical_and.reduce([table[name] == value for name, value in wanted.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_independent_modalities_are_fused_within_005_of_the_best_possible(
    independent: Made,
) -> None:
    rows = independent.predictions
    rows = rows[(rows["subset"] == FULL) & (rows["method"] == "log_odds")]
    test = rows[rows["split"] == "test"]
    z = sum(strength * independent.latents[m] for m, strength in STRENGTHS.items())
    places = test["patient_id"].str.removeprefix("p").astype(int)
    y = test["y_true"] == "covid19"
    best = roc_auc_score(y, np.asarray(z)[places])
    assert roc_auc_score(y, test["p_covid19"]) == pytest.approx(best, abs=0.005)


@pytest.mark.parametrize("case", ["independent", "dependent"])
def test_the_gain_on_true_pairs_excludes_zero_where_there_is_one(
    case: str, request: pytest.FixtureRequest
) -> None:
    made: Made = request.getfixturevalue(case)
    config = made.config.evaluation
    gains = fusion_gain(made.predictions, CLASSES, "covid19", config, made.config.seed)
    (gain,) = (row for row in gains if row["method"] == "log_odds")
    assert not gain["simulated"]
    if case == "independent":
        assert gain["value"] > 0.05
        assert gain["low"] > 0
    else:
        # Of three modalities that agree by .5 there is hardly anything to gain, and none is made.
        assert gain["high"] < 0.05


def test_a_modality_of_noise_costs_less_than_a_hundredth_of_auc(
    independent_table: pd.DataFrame,
) -> None:
    rows = independent_table[independent_table["control"] == "noise_modality"]
    assert set(rows["subset"]) == {
        "ct", "cxr", "cough", "ct+cxr", "ct+cough", "cxr+cough", FULL,
    }  # fmt: skip
    assert set(rows["method"]) == set(RULES)
    auc = rows[rows["metric"] == "roc_auc"]
    # A plain mean has no way to leave noise out, nor has a vote; the others have.
    weighing = auc[~auc["method"].isin(["mean", "vote"])]
    assert (weighing["against"] - weighing["value"]).max() < 0.01
    fused = auc[(auc["subset"] == FULL) & (auc["method"] != "vote")]
    assert (fused["against"] - fused["value"]).max() < 0.01
    assert (auc["low"] <= auc["value"]).all()


def test_the_real_figure_beside_a_control_is_the_one_of_the_study(
    independent: Made, independent_table: pd.DataFrame
) -> None:
    config = independent.config
    metrics = evaluate(independent.predictions, CLASSES, "covid19", config.evaluation, config.seed)
    known = {
        (row["subset"], row["method"]): row["value"]
        for row in metrics
        if row["split"] == "test" and row["metric"] == "roc_auc"
    }
    rows = independent_table[
        (independent_table["metric"] == "roc_auc")
        & independent_table["control"].isin(["shuffled_within_class", "confounders_only"])
    ]
    for row in rows.itertuples():
        assert row.against == pytest.approx(known[row.subset, row.method], abs=1e-12)
    assert (rows["n_patients"] == 300).all()


def test_intervals_by_patients_are_those_of_the_study(simulated: Made) -> None:
    config, bench = simulated.config, simulated.bench
    metrics = evaluate(simulated.predictions, CLASSES, "covid19", config.evaluation, config.seed)
    known = {
        row["subset"]: (row["low"], row["high"])
        for row in metrics
        if row["metric"] == "roc_auc" and row["split"] == "test" and row["method"] == "log_odds"
    }
    for group in bench.usable(least=2):
        found = bench.intervals(group, bench.fused(group, "log_odds"), bench.resample(group))
        assert found["roc_auc"] == pytest.approx(known[subset_name(group.subset)], abs=1e-6)


def test_pairing_anew_shows_what_dependence_costs(
    independent_table: pd.DataFrame, dependent_table: pd.DataFrame
) -> None:
    free = _row(independent_table, "shuffled_within_class")
    assert free["low"] <= free["against"] <= free["high"]
    bound = _row(dependent_table, "shuffled_within_class")
    assert bound["against"] < bound["low"] - 0.02
    assert "dependence costs" in bound["detail"]
    loss = _row(dependent_table, "shuffled_within_class", metric="log_loss")
    assert loss["against"] > loss["high"]


def test_of_simulated_patients_the_pairing_is_luck_and_says_so(
    simulated_table: pd.DataFrame,
) -> None:
    row = _row(simulated_table, "shuffled_within_class")
    assert row["simulated"]
    assert row["low"] - 0.01 <= row["against"] <= row["high"] + 0.01
    assert "who was joined with whom" in row["detail"]


def test_the_dependence_of_true_pairs_is_found(
    independent_table: pd.DataFrame, dependent_table: pd.DataFrame
) -> None:
    for table, rho in ((independent_table, 0.0), (dependent_table, 0.5)):
        for subset in ("ct+cxr", "cxr+cough", FULL):
            row = _row(table, "dependence", subset, metric="rho")
            assert row["low"] < rho < row["high"]
            assert row["against"] == 0  # w = 1 assumes independence
            assert not row["simulated"]


def test_true_pairs_are_used_for_the_dependence_where_the_fusion_is_simulated(
    simulated_table: pd.DataFrame,
) -> None:
    row = _row(simulated_table, "dependence", metric="rho")
    assert not row["simulated"]
    assert row["low"] < 0.5 < row["high"]


def test_too_few_true_pairs_say_so() -> None:
    made = Made(0.0, n=18)
    row = _row(pd.DataFrame(dependence_rows(made.bench, made.cohort)), "dependence", metric="rho")
    assert pd.isna(row["value"])
    assert "too few" in row["detail"]


def test_acquisition_alone_is_chance_where_it_tells_nothing_and_high_where_it_does(
    independent_table: pd.DataFrame, simulated_table: pd.DataFrame
) -> None:
    clean = _row(independent_table, "confounders_only")
    assert clean["low"] < 0.5 < clean["high"]
    told = _row(simulated_table, "confounders_only")
    alone = _row(simulated_table, "confounders_only", "ct", "unimodal")
    assert told["value"] > 0.98
    assert 0.8 < alone["value"] < told["value"]
    assert "acquisition traits alone" in told["detail"]


def test_a_modality_whose_training_lacks_a_class_has_no_trait_model_and_says_why() -> None:
    made = Made(0.0, n=300)
    records = made.cohort.records
    gone = (
        (records["modality"] == "cough")
        & (records["split"] == "train")
        & (records["y_true"] == "covid19")
    )
    less = Cohort(records[~gone], pd.DataFrame(), {})
    table = pd.DataFrame(confounder_rows(made.bench, less))
    lost = _row(table, "confounders_only", "ct+cough")
    assert pd.isna(lost["value"])
    assert "cough: the training records lack covid19" in lost["detail"]
    assert np.isfinite(_row(table, "confounders_only", "ct+cxr")["value"])


def test_equal_traits_tell_nothing() -> None:
    made = Made(0.0, n=60)
    alike = made.cohort.records.assign(traits='{"width": 512}')
    cohort = Cohort(alike, pd.DataFrame(), {})
    scores, reason = trait_scores(cohort, Modality.CT, made.config)
    assert reason == ""
    assert scores is not None
    assert np.ptp(scores.table["p_covid19"]) == 0


def test_traits_become_columns_without_gaps_or_tails() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "few": rng.choice([8.0, 16.0, np.nan], 100),
            "many": np.where(rng.uniform(size=100) < 0.1, np.nan, 10.0 ** rng.uniform(0, 30, 100)),
        }
    )
    learned = np.arange(100) < 60
    columns = trait_columns(table, learned)
    assert np.isfinite(columns).all()
    assert np.abs(columns).max() <= 1
    # Two values and absent; rank, its square and absent.
    assert columns.shape == (100, 6)
    others = table.copy()
    others.loc[~learned, "many"] = 1.0
    np.testing.assert_array_equal(trait_columns(others, learned)[:60], columns[:60])


def test_the_curve_meets_the_study_where_its_dependence_is_the_true_one(dependent: Made) -> None:
    curve = dependence_curve(dependent.bench)
    assert set(curve["subset"]) == {"ct+cxr", "ct+cough", "cxr+cough", FULL}
    at = curve[(curve["subset"] == FULL) & (curve["metric"] == "roc_auc")]
    aucs = at[at["weight_rule"] == "one"].set_index("rho")["value"]
    assert aucs.is_monotonic_decreasing
    rows = dependent.predictions
    test = rows[
        (rows["subset"] == FULL) & (rows["method"] == "log_odds") & (rows["split"] == "test")
    ]
    real = roc_auc_score(test["y_true"] == "covid19", test["p_covid19"])
    assert aucs[0.5] == pytest.approx(real, abs=0.02)
    assert aucs[0.0] > real + 0.05
    assert set(at["best_modality"]) == {"ct"}


def test_an_assumed_correlation_sets_the_weight_of_each_size_of_subset() -> None:
    extra = "fusion: {patients: paired, dependence_rho: 0.5}"
    made, plain = Made(0.5, n=600, extra=extra), Made(0.5, n=600)
    assert [made.decision.weight(k) for k in range(4)] == pytest.approx([1, 1, 2 / 3, 1 / 2])
    assert [plain.decision.weight(k) for k in range(4)] == [1, 1, 1, 1]
    loss = {}
    for name, case in (("assumed", made), ("independent", plain)):
        rows = case.predictions
        test = rows[(rows["method"] == "log_odds") & (rows["split"] == "test")]
        p = np.where(test["y_true"] == "covid19", test["p_covid19"], test["p_normal"])
        loss[name] = -np.log(p).mean()
    assert loss["assumed"] < loss["independent"] - 0.02
    table = pd.DataFrame(dependence_rows(made.bench, made.cohort))
    row = _row(table, "dependence", metric="rho")
    assert row["against"] == pytest.approx(0.5)


def test_the_files_of_a_study(tmp_path: Path) -> None:
    made = Made(0.5, "simulated", n=90)
    arguments = (made.patients, made.decision, made.cohort, made.predictions, made.config)
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_fusion_controls(*arguments, tmp_path / name)
        contents.append([(tmp_path / name / file).read_bytes() for file in FUSION_CONTROL_FILES])
    assert contents[0] == contents[1]
    controls, curve, shares = (
        pd.read_csv(tmp_path / "first" / name) for name in FUSION_CONTROL_FILES
    )
    assert list(controls.columns) == list(COLUMNS)
    assert set(curve["weight_rule"]) == {"one", "dependence"}
    assert set(shares["method"]) == set(RULES)
    assert set(shares["modality"]) == {"ct", "cxr", "cough"}


@pytest.mark.parametrize("complete", [True, False])
def test_three_classes_are_controlled_too_and_one_without_test_patients_has_no_auc(
    complete: bool,
) -> None:
    rng = np.random.default_rng(2)
    classes, n = ("normal", "covid19", "pneumonia"), 120
    text = CONFIG.replace("positive: covid19, ", "").replace(
        "[normal, covid19]", "[normal, covid19, pneumonia]"
    )
    config = parse_config(
        text.replace("covid19: covid19}", "covid19: covid19, pneumonia: pneumonia}")
    )
    y = rng.integers(3, size=n)
    split = np.array(["train", "val", "test"])[np.arange(n) % 3]
    if not complete:
        split[(y == 2) & (split == "test")] = "val"
    frames, scores = [], {}
    for modality in (Modality.CT, Modality.COUGH):
        p = np.exp(np.eye(3)[y] + rng.normal(size=(n, 3)))
        p /= p.sum(axis=1, keepdims=True)
        names = [f"{modality.value}{i}" for i in range(n)]
        columns = [f"p_{c}" for c in classes] + [f"p_raw_{c}" for c in classes]
        table = pd.DataFrame(np.hstack([p, p]), columns=columns, index=names)
        scores[modality] = Scores(table, np.zeros((n, 0), np.float32))
        frame = pd.DataFrame({"record_id": names, "patient_id": [f"p{i}" for i in range(n)]})
        frame["traits"] = [f'{{"width": {w}}}' for w in rng.integers(99, size=n)]
        frames.append(
            frame.assign(modality=modality.value, split=split, y_true=np.array(classes)[y])
        )
    cohort = Cohort(pd.concat(frames, ignore_index=True), pd.DataFrame(), {})
    patients = PatientScores(fusion_patients(cohort.records, "paired", classes, 1), scores, classes)
    bench = Bench(patients, fit_decision_fusion(patients, config, cohort), config)
    table, curve = run_fusion_controls(bench, cohort), dependence_curve(bench)
    for control in ("noise_modality", "shuffled_within_class", "confounders_only"):
        row = _row(table, control, "ct+cough")
        assert pd.notna(row["value"]) == complete
        assert ("no test patient" in row["detail"]) != complete
        assert pd.notna(_row(table, control, "ct+cough", metric="log_loss")["value"])
    auc = curve[curve["metric"] == "roc_auc"]
    for name in ("value", "low", "high"):
        assert (auc[name].notna() == complete).all()
