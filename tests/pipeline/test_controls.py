"""Controls of a study: a planted shortcut is found, a clean disease is not called one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.curation import shortcut as shortcut_module
from pulmofuse.evaluation import identity_calibration
from pulmofuse.inference import Unimodal, score_records
from pulmofuse.models import Classifier, Inferred, infer_records
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
            slope = torch.linspace(-5.0, 5.0, n_classes)
            self.head[1].weight.copy_(slope[:, None])  # type: ignore[operator]
            self.head[1].bias.copy_(-0.6 * slope)  # type: ignore[operator]

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
            "sex": np.where(np.arange(N) // 6 % 2, "F", "M"),
            "start": np.arange(N),
            "stop": np.arange(N) + 1,
        }
    )
    index = pd.DataFrame({"path": records["record_id"], "start": np.arange(N), "stop": 1})
    cache = Cache(instances, index, pd.DataFrame())
    return Cohort(records, pd.DataFrame(), {Modality.CT: cache})


def _run(cohort: Cohort, text: str = CONFIG) -> pd.DataFrame:
    config: StudyConfig = parse_config(text)
    classes = config.target.classes
    part = Unimodal(
        Modality.CT, config.ct, _MiddleMean(len(classes)), identity_calibration(len(classes))
    )
    scores = score_records(part, classes, cohort.records, cohort.caches[Modality.CT].instances)
    columns = ["record_id", "patient_id", "split", "y_true"]
    predictions = cohort.records[columns].assign(subset="ct", method="per_record")
    predictions = predictions.merge(scores.table, on="record_id")
    return run_controls({Modality.CT: part}, {Modality.CT: scores}, cohort, predictions, config)


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
    return _run(_cohort(marked, ill))


@pytest.fixture(scope="module")
def disease(bodies: np.ndarray, ill: np.ndarray) -> pd.DataFrame:
    """The classes differ in white patches in the middle of the image."""
    return _run(_cohort(_sick(bodies, ill), ill))


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
    # What is asked of the manifest comes last.
    expected.append(("matched on sex", "model"))
    found = list(zip(shortcut["control"], shortcut["method"], strict=True))
    assert sorted(found[:-1]) == sorted(expected[:-1])
    assert found[-1] == expected[-1]
    assert shortcut["metric"].tolist() == ["roc_auc"] * 9 + ["roc_auc_matched"]
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
    _run(_cohort(bodies.view(Watched), ill))
    assert max(largest) <= 64 < N


def test_the_unaltered_records_are_not_scored_again(
    bodies: np.ndarray, ill: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []

    def watched(
        model: Classifier, instances: np.ndarray, rows: np.ndarray, counts: np.ndarray
    ) -> Inferred:
        scored.append(len(rows))
        return infer_records(model, instances, rows, counts)

    monkeypatch.setattr(module, "infer_records", watched)
    _run(_cohort(bodies, ill))
    # Four controls by two networks; the unaltered records only by the one it started from.
    assert sum(scored) == (4 * 2 + 1) * N


def test_of_large_splits_rare_classes_stay(
    bodies: np.ndarray, ill: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortcut_module, "MAX_RECORDS", 20)
    # One patient, whose records alone are more than a class may have.
    cohort = _cohort(bodies, ill)
    rare = np.arange(N) % 3 == np.arange(N) // 50
    records = cohort.records
    records["y_true"] = np.where(rare, "covid19", "normal")
    records.loc[rare, "patient_id"] = "lone-" + records["split"]
    table = _run(cohort)
    controls = table[table["metric"] == "roc_auc"]
    assert len(controls) == 9
    assert controls["value"].notna().all()
    assert controls["n_patients"].max() < 25


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("train", "the training records lack pneumonia, so there is no probe"),
        ("val", "the validation records lack pneumonia, so there is no probe"),
        ("test", "the test records lack pneumonia"),
    ],
)
def test_what_cannot_be_computed_says_why(
    bodies: np.ndarray, ill: np.ndarray, split: str, words: str
) -> None:
    text = CONFIG.replace("covid19]", "covid19, pneumonia]").replace("positive: covid19, ", "")
    text = text.replace("covid19: covid19}", "covid19: covid19, pneumonia: pneumonia}")
    cohort = _cohort(bodies, ill)
    # One patient of the third class in every split but one.
    third = (np.arange(N) < 6) & (cohort.records["split"] != split)
    cohort.records.loc[third, "y_true"] = "pneumonia"
    table = _run(cohort, text)
    probes = table[table["method"] == "probe"]
    assert len(probes) == 5
    assert probes["value"].isna().all()
    assert probes["detail"].str.endswith(words).all()
    models = table[(table["method"] == "model") & (table["metric"] == "roc_auc")]
    assert models["value"].isna().all() == (split == "test")


def test_nothing_to_test_gives_no_row_of_controls(bodies: np.ndarray, ill: np.ndarray) -> None:
    cohort = _cohort(bodies, ill)
    kept = cohort.records[cohort.records["split"] != "test"].reset_index(drop=True)
    table = _run(Cohort(kept, cohort.excluded, cohort.caches))
    assert tuple(table.columns) == COLUMNS
    assert table.empty
