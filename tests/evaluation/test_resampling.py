"""Standard errors by patient: against theory, and the coverage of the intervals made of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pulmofuse.evaluation.resampling import resample

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def _mean(values: np.ndarray):
    return lambda weights: values @ weights / weights.sum(axis=0)


def test_real_patients_are_drawn_with_all_their_rows() -> None:
    patients = np.array(["a", "b", "b", "c", "c", "c"])
    weights = resample([patients], None, 50, seed=1).patients
    assert weights.shape == (6, 50)
    assert (weights[1] == weights[2]).all()
    assert (weights[0] + weights[1] + weights[3] == 3).all()


def test_the_error_of_a_mean_of_real_patients_is_the_textbooks() -> None:
    values = np.random.default_rng(0).normal(size=40)
    found = resample([np.arange(40)], None, 20000, seed=1).of(_mean(values)).standard_error()
    assert found == pytest.approx(values.std(ddof=1) / np.sqrt(40), rel=0.03)


def test_the_error_over_joined_patients_is_that_of_studies_done_again() -> None:
    """A row is a + b + c + interaction; 24 of a, 12 of b and 6 of c, joined anew in each study."""
    rng = np.random.default_rng(3)
    means, errors = [], []
    for study in range(600):
        names = [rng.permutation(24) % k for k in (24, 12, 6)]
        values = sum(rng.normal(size=24)[name] for name in names) + 0.5 * rng.normal(size=24)
        means.append(values.mean())
        drawn = resample(names, np.zeros(24, dtype=int), 200, seed=study)
        errors.append(float(drawn.of(_mean(values)).standard_error()))
    # Variance: 1/24 + 1/12 + 1/6 + 0.25/24; taking rows for people gives less than half of it.
    assert np.var(means) == pytest.approx(0.302, rel=0.2)
    assert np.mean(np.square(errors)) == pytest.approx(0.302, rel=0.1)


def test_each_class_of_simulated_patients_keeps_its_weight() -> None:
    y = np.repeat([0, 1], [30, 10])
    ct, cough = (np.r_[np.arange(30) % a, 100 + np.arange(10) % b] for a, b in ((10, 5), (15, 2)))
    drawn = resample([ct, cough], y, 30, seed=1)
    for weights in (drawn.patients, drawn.cells):
        np.testing.assert_allclose(weights[y == 0].sum(axis=0), 30, rtol=1e-5)
        np.testing.assert_allclose(weights[y == 1].sum(axis=0), 10, rtol=1e-5)
        assert (weights >= 0).all()


def test_a_modality_with_a_patient_per_row_adds_nothing_to_the_others() -> None:
    y, cough = np.arange(60) % 2, np.arange(60) % 12
    values = np.random.default_rng(0).normal(size=60)
    both = resample([np.arange(60), cough], y, 100, seed=1).of(_mean(values)).standard_error()
    assert both == resample([cough], y, 100, seed=1).of(_mean(values)).standard_error()


def test_the_seed_and_the_patients_decide_and_not_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    patients, order = rng.integers(20, size=60), rng.permutation(60)
    first = resample([patients], None, 20, seed=4).patients
    assert (resample([patients[order]], None, 20, seed=4).patients == first[order]).all()
    assert (resample([patients], None, 20, seed=5).patients != first).any()
    # Two modalities with as many patients are drawn independently of each other.
    other = resample([[f"ct{i}" for i in patients]], None, 20, seed=4).patients
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.2


def test_undefined_replicates_are_left_out() -> None:
    def half(weights: np.ndarray) -> np.ndarray:
        values = np.arange(weights.shape[1], dtype=float)
        values[::2] = np.nan
        return values

    found = resample([np.arange(5)], None, 100, seed=0).of(half).standard_error()
    assert found == pytest.approx(np.arange(1, 100, 2).std(ddof=1) * np.sqrt(5 / 4))


def test_no_factor_is_refused() -> None:
    with pytest.raises(ValueError, match="factors"):
        resample([], None, 10, seed=0)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(
        "interval_coverage", BENCHMARKS / "interval_coverage.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["interval_coverage"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    sys.path.remove(str(BENCHMARKS))
    return module


def test_intervals_of_simulated_patients_cover_and_the_product_of_counts_is_too_wide(
    benchmark: ModuleType,
) -> None:
    scenario = benchmark.SIMULATED["three, uneven"]
    rows = benchmark.cover(
        lambda rng: benchmark.simulated_study(scenario, 200, rng, others=True, rejoin=False),
        benchmark.truths(scenario),
        100,
        seed=5,
    )
    found = {(row["figure"], row["way"]): row for row in rows}
    for figure in ("single auc", "fusion auc", "fusion accuracy", "gain"):
        # Of 100 studies: a coverage of .95 has a standard error of .022.
        assert found[figure, "ours"]["coverage"] >= 0.88, figure
    for figure in ("fusion auc", "gain"):
        assert found[figure, "pigeonhole"]["width"] > 1.6 * found[figure, "ours"]["width"]
        assert found[figure, "rows"]["coverage"] < 0.88
