"""The linear probe of a study: only the head learns, from features that are computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.inference import build_model
from pulmofuse.models import predict
from pulmofuse.pipeline import Cohort, train_unimodal
from pulmofuse.preprocessing import Cache
from pulmofuse.schema import Modality

_PER_SPLIT = {"train": 40, "val": 20, "test": 12}


def _config(*overrides: str) -> StudyConfig:
    tree = (
        "name: probe\nquestion: q\nsources: [{name: folder}]\n"
        "ct:\n  preprocessing: {size: 32}\n"
        "  model: {backbone: resnet18, weights: none, pooling: levels}\n"
        "  training: {trainable: head, epochs: 6, batch_size: 8, lr_head: 0.02, patience: 6}\n"
    )
    return parse_config(tree, list(overrides))


@pytest.fixture
def cohort() -> Cohort:
    """Noise images; those of one class are smooth."""
    rng = np.random.default_rng(4)
    splits = [name for name, n in _PER_SPLIT.items() for _ in range(n)]
    y = np.arange(len(splits)) % 2
    images = rng.integers(0, 255, (len(splits), 32, 32), dtype=np.uint8)
    images[y == 1] = images[y == 1, :1, :]
    records = pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(len(splits))],
            "patient_id": [f"p{i}" for i in range(len(splits))],
            "modality": "ct",
            "source": "folder",
            "site": None,
            "split": splits,
            "y_true": np.where(y == 1, "covid19", "not_covid19"),
            "start": np.arange(len(splits)),
            "stop": np.arange(len(splits)) + 1,
        }
    )
    cache = Cache(images, pd.DataFrame({"path": [], "start": [], "stop": []}), pd.DataFrame())
    return Cohort(records, pd.DataFrame(), {Modality.CT: cache})


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if "head" not in name}


@pytest.mark.parametrize("views", [0, 2])
def test_the_backbone_stays_as_it_was_and_the_head_learns(
    cohort: Cohort, tmp_path: Path, views: int
) -> None:
    config = _config(f"ct.training.probe_views={views}")
    torch.manual_seed(config.seed + 1)
    start = _weights(build_model(Modality.CT, config.ct, 2))
    part, note = train_unimodal(Modality.CT, cohort, config, tmp_path, lambda *_: None)
    after = _weights(part.model)
    assert all(torch.equal(after[name], value) for name, value in start.items())
    assert float(note.split("AUC ")[1].split()[0]) > 0.95


def test_a_finished_probe_is_loaded_without_running_the_network_on_training_rows(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config()
    first, _ = train_unimodal(Modality.CT, cohort, config, tmp_path, lambda *_: None)
    seen: list[int] = []
    plain = predict._instances

    def counted(instances: np.ndarray, rows: np.ndarray) -> predict._Batches:
        seen.append(len(rows))
        return plain(instances, rows)

    monkeypatch.setattr(predict, "_instances", counted)
    again, _ = train_unimodal(Modality.CT, cohort, config, tmp_path, lambda *_: None)
    assert seen == [_PER_SPLIT["val"]]  # for the calibration
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
