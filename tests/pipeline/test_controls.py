"""Controls of a study: a planted shortcut is found, a clean disease is not called one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.evaluation import identity_calibration
from pulmofuse.inference import Unimodal, score_records
from pulmofuse.models import Classifier
from pulmofuse.pipeline import Cohort
from pulmofuse.pipeline import controls as module
from pulmofuse.pipeline.controls import COLUMNS, run_controls
from pulmofuse.preprocessing import Cache
from pulmofuse.schema import Modality
from pulmofuse.sources.phantom import draw_ct

SIZE = 48
N = 150
CONFIG = """
name: controls
question: Is the shortcut found?
target: {classes: [normal, covid19], positive: covid19, mapping: {normal: normal, covid19: covid19}}
sources: [{name: synthetic}]
ct: {preprocessing: {size: 48}}
evaluation: {bootstrap: 100}
"""


class _MiddleMean(Classifier):
    """A "trained" model that sees how bright the middle of the image is, and nothing else."""

    def __init__(self, n_classes: int = 2) -> None:
        super().__init__(1, n_classes, 0.0)
        with torch.no_grad():
            # Steep enough to tell, too flat to reach 1 and make ties.
            self.head[1].weight.copy_(torch.tensor([[-5.0], [5.0]]))  # type: ignore[operator]
            self.head[1].bias.copy_(torch.tensor([3.0, -3.0]))  # type: ignore[operator]

    def feature_map(self, x: Tensor) -> Tensor:
        third = x.shape[-1] // 3
        return x[:, :, third:-third, third:-third]


@pytest.fixture(scope="module")
def bodies() -> np.ndarray:
    return np.stack(
        [draw_ct(np.random.default_rng(i), SIZE, {}, female=False, coarse=False) for i in range(N)]
    )


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _cohort(instances: np.ndarray, ill: np.ndarray) -> Cohort:
    split = np.array(["train", "val", "test"])[np.arange(N) % 3]
    records = pd.DataFrame(
        {
            "record_id": [f"r{i:03}" for i in range(N)],
            "patient_id": [f"p{i // 6 * 3 + i % 3}" for i in range(N)],
            "modality": "ct",
            "split": split,
            "y_true": np.where(ill, "covid19", "normal"),
            "start": np.arange(N),
            "stop": np.arange(N) + 1,
        }
    )
    index = pd.DataFrame({"path": records["record_id"], "start": np.arange(N), "stop": 1})
    cache = Cache(instances, index, pd.DataFrame())
    return Cohort(records, pd.DataFrame(), {Modality.CT: cache})


def _run(instances: np.ndarray, ill: np.ndarray) -> pd.DataFrame:
    config: StudyConfig = parse_config(CONFIG)
    part = Unimodal(Modality.CT, config.ct, _MiddleMean(), identity_calibration(2))
    return run_controls({Modality.CT: part}, _cohort(instances, ill), config)


def _value(table: pd.DataFrame, control: str, method: str) -> tuple[float, str]:
    row = table[(table["control"] == control) & (table["method"] == method)].iloc[0]
    return float(row["value"]), str(row["detail"])


@pytest.fixture(scope="module")
def ill() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=N) < 0.5


@pytest.fixture(scope="module")
def shortcut(bodies: np.ndarray, ill: np.ndarray) -> pd.DataFrame:
    """The classes differ in a bright stripe at the very edge."""
    marked = bodies.copy()
    marked[ill, :3, :] = 200
    return _run(marked, ill)


@pytest.fixture(scope="module")
def disease(bodies: np.ndarray, ill: np.ndarray) -> pd.DataFrame:
    """The classes differ in white patches in the middle of the image."""
    return _run(_sick(bodies, ill), ill)


def _sick(bodies: np.ndarray, ill: np.ndarray) -> np.ndarray:
    out = bodies.copy()
    middle = slice(SIZE // 3, -(SIZE // 3))
    out[ill, middle, middle] = np.maximum(out[ill, middle, middle], 220)
    return out


def test_every_control_has_a_row_of_the_model_and_of_the_probe(shortcut: pd.DataFrame) -> None:
    assert tuple(shortcut.columns) == COLUMNS
    names = ["none", "lungs_blanked", "border_only", "lungs_only"]
    expected = [(name, method) for name in names for method in ("model", "probe")]
    # A mask is no picture that the model could be asked about.
    expected.append(("lung_outline", "probe"))
    found = list(zip(shortcut["control"], shortcut["method"], strict=True))
    assert sorted(found) == sorted(expected)
    assert (shortcut["low"] <= shortcut["value"]).all()
    assert (shortcut["value"] <= shortcut["high"]).all()
    assert set(shortcut["n_patients"]) == {25}


def test_a_planted_shortcut_is_found_by_the_probe(shortcut: pd.DataFrame) -> None:
    for name in ("border_only", "lungs_blanked"):
        value, words = _value(shortcut, name, "probe")
        assert value > 0.95
        assert "still reaches" in words
        assert "can be reached without the lungs" in words
    # The model looks at the middle only, and finds nothing there.
    assert _value(shortcut, "none", "model")[0] < 0.75


def test_a_disease_of_the_lungs_is_no_shortcut(disease: pd.DataFrame) -> None:
    assert _value(disease, "none", "model")[0] > 0.9
    assert _value(disease, "none", "probe")[0] > 0.9
    for name in ("border_only", "lungs_blanked"):
        value, words = _value(disease, name, "probe")
        assert value < 0.75
        assert "can be reached without" not in words
        assert _value(disease, name, "model")[0] < 0.75


def test_the_row_of_unaltered_records_is_the_figure_of_the_study(
    bodies: np.ndarray, ill: np.ndarray, disease: pd.DataFrame
) -> None:
    config = parse_config(CONFIG)
    sick = _sick(bodies, ill)
    cohort = _cohort(sick, ill)
    records = cohort.records[cohort.records["split"] == "test"]
    part = Unimodal(Modality.CT, config.ct, _MiddleMean(), identity_calibration(2))
    scores = score_records(part, config.target.classes, records, sick).table["p_covid19"]
    from sklearn.metrics import roc_auc_score

    expected = roc_auc_score(records["y_true"] == "covid19", scores)
    assert _value(disease, "none", "model")[0] == pytest.approx(expected, abs=1e-6)


def test_the_cache_is_read_in_blocks(
    bodies: np.ndarray, ill: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = []

    class Watched(np.ndarray):
        def __getitem__(self, key: object) -> np.ndarray:
            largest.append(len(key) if isinstance(key, np.ndarray | Sequence) else N)
            return np.asarray(super().__getitem__(key))  # type: ignore[index]

    monkeypatch.setattr(module, "CONTROLS", {})
    _run(bodies.view(Watched), ill)
    assert max(largest) <= 64 < N


def test_large_splits_are_sampled_by_patient_and_rare_classes_stay(
    bodies: np.ndarray, ill: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RECORDS", 40)
    records = _cohort(bodies, ill).records.assign(
        y_true=["covid19"] * 10 + ["normal"] * (N - 10), patient_id=[f"p{i // 2}" for i in range(N)]
    )
    chosen = module._sample(records, 2, seed=1)
    assert (chosen["y_true"] == "covid19").sum() == 10
    assert len(chosen) == 30
    counts = chosen.groupby("patient_id").size()
    assert (counts == 2).all()
