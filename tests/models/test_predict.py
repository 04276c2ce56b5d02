"""Records by a model: what becomes of their instances, and that company changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

from pulmofuse.models import Classifier, Inferred, VolumeClassifier, infer_records
from pulmofuse.preprocessing import to_tensor

COUNTS = np.array([5, 1, 40, 3])
ROWS = np.random.default_rng(5).permutation(60)[: COUNTS.sum()]


class Corners(Classifier):
    """Features are the four corner pixels."""

    def __init__(self) -> None:
        super().__init__(4, 3, 0.2)

    def feature_map(self, x: Tensor) -> Tensor:
        return x[:, :, ::7, ::7].flatten(1)[:, :, None, None]


@pytest.fixture(scope="module")
def instances() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)


def model(kind: str) -> Classifier:
    torch.manual_seed(1)
    if kind == "volume":
        return VolumeClassifier(4, 3, 0.2)
    out = Corners()
    if kind == "attention":
        out.attend_to_instances(6)
        assert out.instance_attention is not None
        torch.nn.init.normal_(out.instance_attention.score.weight, std=5.0)
    return out


def parts(values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, np.cumsum(COUNTS)[:-1])


@pytest.mark.parametrize("kind", ["mean", "attention", "volume"])
def test_records_together_are_the_records_one_by_one(kind: str, instances: np.ndarray) -> None:
    net = model(kind)
    together = infer_records(net, instances, ROWS, COUNTS)
    alone = [infer_records(net, instances, r, np.array([len(r)])) for r in parts(ROWS)]
    assert together.p.shape == (4, 3)
    for name in ("p", "features", *(["attention", "log_weight"] if kind == "attention" else [])):
        joined = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_allclose(getattr(together, name), joined, atol=1e-6)
    if kind != "attention":
        assert together.attention is None
        assert together.log_weight is None


def test_without_attention_probabilities_and_features_are_averaged(instances: np.ndarray) -> None:
    net = model("mean").eval()
    seen = infer_records(net, instances, ROWS, COUNTS)
    with torch.no_grad():
        features = net.features(to_tensor(instances[ROWS]))
        p = net.classify(features).double().softmax(dim=1).numpy()
    np.testing.assert_allclose(seen.p, [part.mean(axis=0) for part in parts(p)], atol=1e-7)
    expected = [part.mean(axis=0) for part in parts(features.numpy())]
    np.testing.assert_allclose(seen.features, expected, atol=1e-6)


def test_with_attention_the_answer_is_that_of_the_weighted_features(instances: np.ndarray) -> None:
    net = model("attention").eval()
    seen: Inferred = infer_records(net, instances, ROWS, COUNTS)
    with torch.no_grad():
        features = net.features(to_tensor(instances[ROWS])).numpy()
        logits = net.classify(torch.from_numpy(features)).numpy()
    assert seen.attention is not None
    assert max(part.max() for part in parts(seen.attention)[:1]) > 0.3
    for row, (weights, h, z) in enumerate(
        zip(*map(parts, (seen.attention, features, logits)), strict=True)
    ):
        assert weights.sum() == pytest.approx(1.0, abs=1e-6)
        np.testing.assert_allclose(seen.features[row], weights @ h, atol=1e-6)
        # The head is linear: the logits of the mean are the mean of the logits.
        np.testing.assert_allclose(seen.p[row], softmax(weights @ z), atol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "volume"])
def test_progress_counts_instances(kind: str, instances: np.ndarray) -> None:
    told: list[tuple[int, int]] = []
    infer_records(model(kind), instances, ROWS, COUNTS, progress=lambda *now: told.append(now))
    assert told[-1] == (49, 49)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


class Counting(Corners):
    """Notes how many images it was given at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def feature_map(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return x.mean(dim=3, keepdim=True)[:, :, :4].transpose(1, 2)


@pytest.mark.parametrize(("size", "most"), [(64, 32), (224, 32), (448, 8), (1024, 1), (2000, 1)])
def test_the_larger_the_images_the_fewer_at_a_time(size: int, most: int) -> None:
    rng = np.random.default_rng(3)
    images = np.repeat(rng.integers(0, 255, (40 if most > 1 else 3, size, 1), np.uint8), size, 2)
    net = Counting()
    seen = infer_records(net, images, np.arange(len(images)), np.ones(len(images), dtype=int))
    assert max(net.sizes) == most
    np.testing.assert_allclose(seen.features, images[:, :4, 0] / 255, atol=1e-5)
