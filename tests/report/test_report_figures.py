from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from pulmofuse.report import figures
from pulmofuse.report.charts import confusion_counts


@pytest.fixture
def curve() -> figures.Curve:
    rng = np.random.default_rng(1)
    positive = rng.random(80) < 0.4
    return figures.Curve("CT", "ct", positive, rng.beta(2 + 2 * positive, 3))


def test_confusion_counts_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    classes = ("b", "never", "a")
    rows = pd.DataFrame({name: rng.choice(["a", "b"], 50) for name in ("y_true", "y_pred")})
    expected = confusion_matrix(rows["y_true"], rows["y_pred"], labels=list(classes))
    assert confusion_counts(rows, classes).tolist() == expected.tolist()


def test_reliability_bins_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    p = rng.permutation(np.linspace(0.001, 0.999, 80))
    positive = rng.random(80) < p
    predicted, observed, _, _ = figures.reliability(positive, p, 8)
    share, mean = calibration_curve(positive, p, n_bins=8, strategy="quantile")
    np.testing.assert_allclose(predicted, mean, atol=1e-12)
    np.testing.assert_allclose(observed, share, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    outcomes=st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60),
    bins=st.integers(1, 10),
)
def test_reliability_interval_is_wilsons(outcomes: list[tuple[bool, float]], bins: int) -> None:
    positive, p = (np.array(column) for column in zip(*outcomes, strict=True))
    predicted, observed, low, high = figures.reliability(positive, p, bins)
    assert len(predicted) == min(bins, len(p))
    assert (np.diff(predicted) >= -1e-12).all()
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    for i, part in enumerate(parts):
        wilson = binomtest(int(positive[part].sum()), len(part)).proportion_ci(method="wilson")
        assert low[i] <= observed[i] <= high[i]
        assert (low[i], high[i]) == pytest.approx((wilson.low, wilson.high), abs=1e-6)


def test_figure_does_not_depend_on_the_users_style(curve: figures.Curve, tmp_path: Path) -> None:
    first = figures.save_figure(figures.roc_figure([curve]), tmp_path, "a")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None}):
        second = figures.save_figure(figures.roc_figure([curve]), tmp_path, "b")
        assert mpl.rcParams["font.size"] == 30
    assert first == second


def test_saved_files_are_what_is_returned(curve: figures.Curve, tmp_path: Path) -> None:
    png, svg = figures.save_figure(figures.precision_recall_figure([curve]), tmp_path, "pr")
    assert (tmp_path / "pr.png").read_bytes() == png
    assert (tmp_path / "pr.svg").read_bytes() == svg
    assert png.startswith(b"\x89PNG")
    assert b"<svg" in svg


def test_names_are_never_read_as_formulas(tmp_path: Path) -> None:
    names = ["$\\frac{$", "a $x$ b"]
    figure = figures.confusion_figure(np.array([[3, 1], [0, 2]]), names, "cxr")
    # Matplotlib raises while drawing where it takes a name for a formula that does not parse.
    png, _ = figures.save_figure(figure, tmp_path, "confusion")
    assert png.startswith(b"\x89PNG")


@pytest.mark.parametrize("epochs", [1, 12])
@pytest.mark.parametrize("auc", [0.8, float("nan")])
def test_training_curves_of_any_length(epochs: int, auc: float, tmp_path: Path) -> None:
    columns = {"epoch": range(epochs), "train_loss": 0.5, "val_loss": 0.6, "val_auc": auc}
    figure = figures.training_figure(pd.DataFrame(columns), "cough")
    png, _ = figures.save_figure(figure, tmp_path, "training")
    assert png


def test_kept_epoch_is_the_one_with_the_highest_validation_auc() -> None:
    history = pd.DataFrame(
        {"epoch": [0, 1, 2, 3], "train_loss": 0.5, "val_loss": [0.6, 0.5, 0.4, 0.3],
         "val_auc": [float("nan"), 0.9, 0.7, 0.8]}
    )  # fmt: skip
    lower = figures.training_figure(history, "ct").axes[1]
    marked = [line.get_xydata().tolist() for line in lower.lines if line.get_marker() == "o"]
    assert marked == [[[1.0, 0.9]]]


def test_forest_plot_accepts_estimates_without_interval() -> None:
    estimates = [
        figures.Estimate("CT", "ct", 0.31, heading="One modality"),
        figures.Estimate("CXR", "cxr", 0.8, 0.7, 0.9),
    ]
    ax = figures.forest_figure(estimates).axes[0]
    assert ax.get_xlim()[0] < 0.31
    assert [label.get_text() for label in ax.get_yticklabels()] == ["One modality", "CT", "CXR"]
