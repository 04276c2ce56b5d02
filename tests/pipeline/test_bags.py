"""Bags of a study: who lies in one, how many in a step, and what a patient's records come to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pulmofuse.config import CtConfig, TrainingConfig, parse_config
from pulmofuse.errors import ConfigError
from pulmofuse.evaluation import fit_calibration
from pulmofuse.inference import Unimodal, instance_rows, score_records
from pulmofuse.models import Classifier, VolumeClassifier, infer_records
from pulmofuse.pipeline import PatientScores
from pulmofuse.pipeline.bags import bag_training, record_source
from pulmofuse.schema import Modality
from pulmofuse.training import BagSource, InstanceSource, VolumeSource

CLASSES = ("no", "yes")


class Corners(Classifier):
    """Features are the four corner pixels, joined by attention."""

    def __init__(self) -> None:
        super().__init__(4, 2, 0.0)
        torch.manual_seed(1)
        self.attend_to_instances(6)
        assert self.instance_attention is not None
        torch.nn.init.normal_(self.instance_attention.score.weight, std=5.0)

    def feature_map(self, x: Tensor) -> Tensor:
        return x[:, :, ::7, ::7].flatten(1)[:, :, None, None]


@pytest.fixture(scope="module")
def instances() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)


@pytest.fixture
def records() -> pd.DataFrame:
    """Patient a has three records, of which the last has another class; b has two, c one."""
    counts = np.array([2, 4, 1, 3, 5, 2])
    return pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(6)],
            "patient_id": ["a", "b", "a", "b", "a", "c"],
            "start": np.cumsum(counts) - counts,
            "stop": np.cumsum(counts),
        }
    )


Y = np.array([0, 1, 0, 1, 1, 0])


def _bags(source: InstanceSource | BagSource) -> list[tuple[int, int]]:
    """Instances and class of each bag."""
    assert isinstance(source, BagSource)
    (_, counts), targets = source[list(range(len(source)))]
    return list(zip(counts.tolist(), targets.y.tolist(), strict=True))


def test_records_of_one_patient_and_class_are_one_bag(
    records: pd.DataFrame, instances: np.ndarray
) -> None:
    site = np.array([3, 4, 3, 4, 5, 6])
    source = record_source(Corners(), records, instances, Y, patient_limit=16, site=site)
    assert _bags(source) == [(3, 0), (7, 1), (5, 1), (2, 0)]
    assert source.targets.site is not None
    assert source.targets.site.tolist() == [3, 4, 5, 6]
    (x, _), _ = source[[0]]
    expected = instances[[0, 1, 6]]
    assert torch.equal(x, torch.from_numpy(expected)[:, None] / 255)


def test_a_bag_is_not_larger_than_the_limit_unless_one_record_is(
    records: pd.DataFrame, instances: np.ndarray
) -> None:
    source = record_source(Corners(), records, instances, Y, patient_limit=4)
    assert _bags(source) == [(3, 0), (4, 1), (3, 1), (5, 1), (2, 0)]


def test_without_a_limit_records_are_the_bags(records: pd.DataFrame, instances: np.ndarray) -> None:
    source = record_source(Corners(), records, instances, Y)
    assert _bags(source) == [(2, 0), (4, 1), (1, 0), (3, 1), (5, 1), (2, 0)]


def test_the_model_says_what_it_reads(records: pd.DataFrame, instances: np.ndarray) -> None:
    plain = Corners()
    plain.instance_attention = None
    assert len(record_source(plain, records, instances, Y, patient_limit=16)) == 17
    volumes = record_source(VolumeClassifier(3, 2, 0.0), records, instances, Y, patient_limit=16)
    assert isinstance(volumes, VolumeSource)
    assert volumes[[0, 1]][0][0].shape == (2, 3, 8, 8)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("batch_size", "of_records", "of_patients"), [(32, 11, 8), (64, 23, 15), (4, 2, 2)]
)
def test_a_step_holds_bags_of_about_as_many_instances(
    records: pd.DataFrame,
    instances: np.ndarray,
    batch_size: int,
    of_records: int,
    of_patients: int,
) -> None:
    config = TrainingConfig(batch_size=batch_size)
    # 17 instances in 6 bags, or in 4.
    bags = record_source(Corners(), records, instances, Y)
    assert bag_training(config, bags).batch_size == of_records
    bags = record_source(Corners(), records, instances, Y, patient_limit=16)
    assert bag_training(config, bags).batch_size == of_patients
    volumes = record_source(VolumeClassifier(3, 2, 0.0), records, instances, Y)
    assert bag_training(config, volumes) == config


def test_a_patient_is_all_of_his_instances_in_one_bag(
    records: pd.DataFrame, instances: np.ndarray
) -> None:
    model = Corners()
    calibration = fit_calibration(np.random.default_rng(0).dirichlet([2, 3], 40), np.arange(40) % 2)
    part = Unimodal(Modality.CT, CtConfig(), model, calibration)
    scores = score_records(part, CLASSES, records, instances)
    patients = pd.DataFrame(
        {
            "patient_id": ["a", "b", "c"],
            "ct": [("r0", "r2", "r4"), ("r3", "r1"), ("r5",)],
            "split": "test",
            "y_true": "no",
            "simulated": False,
        }
    )
    found = PatientScores(patients, {Modality.CT: scores}, CLASSES)
    indexed = records.set_index("record_id")
    for i, names in enumerate(patients["ct"]):
        rows, counts = instance_rows(indexed.loc[list(names)])
        whole = infer_records(model, instances, rows, counts.sum(keepdims=True))
        np.testing.assert_allclose(found.p_raw[i, 0], whole.p[0], atol=1e-6)
        np.testing.assert_allclose(found.p[i, 0], calibration.apply(whole.p)[0], atol=1e-6)
        np.testing.assert_allclose(found.features()["ct"][i], whole.features[0], atol=1e-6)


@pytest.mark.parametrize("modality", ["ct", "cough"])
@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_bags_are_not_mixed(modality: str, mixing: str) -> None:
    text = "{name: a, question: b, sources: [{name: folder}]}"
    with pytest.raises(ConfigError, match="cannot be mixed"):
        parse_config(
            text, [f"{modality}.model.aggregation=attention", f"{modality}.training.{mixing}=0.2"]
        )
    volumes = parse_config(text, ["ct.model.aggregation=volume", f"ct.training.{mixing}=0.2"])
    assert volumes.ct.model.depth == 16
