"""Gated attention over bags: order, neighbours and padding change nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from torch import Tensor

from pulmofuse.config import (
    CoughConfig,
    CoughModelConfig,
    CoughPreprocessing,
    CtConfig,
    CtModelConfig,
)
from pulmofuse.models import (
    Classifier,
    Ensemble,
    GatedAttention,
    build_audio_model,
    build_ct_model,
)

COUNTS = [3, 1, 7, 2]


def attention(dim: int = 5) -> GatedAttention:
    """One that was trained: its last layer is not zero."""
    torch.manual_seed(0)
    out = GatedAttention(dim, 4)
    torch.nn.init.normal_(out.score.weight, std=2.0)
    return out


def bags(dim: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(sum(COUNTS), dim, generator=generator), torch.tensor(COUNTS)


@torch.no_grad()
def test_it_is_the_formula_of_the_paper() -> None:
    pool, (x, counts) = attention(), bags()
    pooled, weights, log_weight = pool(x, counts)
    V, b, U, c = (p.numpy() for p in (*pool.value.parameters(), *pool.gate.parameters()))
    w = pool.score.weight[0].numpy()
    start = 0
    for row, size in enumerate(COUNTS):
        h = x[start : start + size].numpy()
        scores = (np.tanh(h @ V.T + b) / (1 + np.exp(-(h @ U.T + c)))) @ w
        np.testing.assert_allclose(weights[start : start + size], softmax(scores), atol=1e-6)
        np.testing.assert_allclose(pooled[row], softmax(scores) @ h, atol=1e-5)
        assert float(log_weight[row]) == pytest.approx(logsumexp(scores), abs=1e-5)
        start += size


@torch.no_grad()
def test_bags_together_are_the_bags_one_by_one() -> None:
    pool, (x, counts) = attention(), bags()
    together = pool(x, counts)
    alone = [pool(part, torch.tensor([len(part)])) for part in x.split(COUNTS)]
    for i, value in enumerate(together):
        torch.testing.assert_close(value, torch.cat([a[i] for a in alone]), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_order_within_a_bag_does_not_matter() -> None:
    pool, (x, _) = attention(), bags()
    size = torch.tensor([len(x)])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    before, after = pool(x, size), pool(x[order], size)
    torch.testing.assert_close(after.features, before.features, atol=1e-6, rtol=0)
    torch.testing.assert_close(after.weights, before.weights[order], atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_parts_of_a_bag_give_the_bag() -> None:
    pool, (x, counts) = attention(), bags()
    parts, whole = pool(x, counts), pool(x, torch.tensor([len(x)]))
    joined = parts.log_weight.softmax(dim=0) @ parts.features
    torch.testing.assert_close(joined, whole.features[0], atol=1e-6, rtol=0)
    total = parts.log_weight.logsumexp(dim=0)
    torch.testing.assert_close(total, whole.log_weight[0], atol=1e-6, rtol=0)


def test_an_untrained_attention_is_the_mean_and_can_learn() -> None:
    torch.manual_seed(0)
    pool, (x, counts) = GatedAttention(5, 4), bags()
    pooled = pool(x, counts).features
    expected = torch.stack([part.mean(dim=0) for part in x.split(COUNTS)])
    torch.testing.assert_close(pooled, expected)
    pooled.square().sum().backward()
    assert pool.score.weight.grad is not None
    assert float(pool.score.weight.grad.abs().sum()) > 0


def test_scores_stay_in_single_precision_under_autocast() -> None:
    pool, (x, counts) = attention(), bags()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = pool(x, counts)
    for value, expected in zip(reduced, pool(x, counts), strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, expected)


def ct() -> Classifier:
    model = CtModelConfig(weights="none", aggregation="attention")
    return build_ct_model(CtConfig(model=model), 3)


def cough() -> Classifier:
    config = CoughConfig(
        preprocessing=CoughPreprocessing(duration_s=0.5),
        model=CoughModelConfig(architecture="crnn", hidden=16, aggregation="attention"),
    )
    return build_audio_model(config, 3)


def inputs(build: Callable[[], Classifier]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (6, 1, 32, 32) if build is ct else (6, 8000)
    return torch.rand(shape, generator=generator)


@pytest.mark.parametrize("build", [ct, cough])
@torch.no_grad()
def test_a_bag_of_one_is_the_instance(build: Callable[[], Classifier]) -> None:
    torch.manual_seed(0)
    model, x = build().eval(), inputs(build)
    torch.testing.assert_close(model(x, torch.ones(6, dtype=torch.long)), model(x))


@pytest.mark.parametrize("build", [ct, cough])
def test_the_attention_is_trained_as_a_head(build: Callable[[], Classifier]) -> None:
    model = build()
    assert model.instance_attention is not None
    *below, head = model.stages()
    assert set(head) == {model.head, model.instance_attention}
    assert model.instance_attention not in [module for stage in below for module in stage]


@torch.no_grad()
def test_each_member_of_an_ensemble_attends_by_itself() -> None:
    torch.manual_seed(0)
    members = [cough(), cough()]
    for member in members:
        assert member.instance_attention is not None
        torch.nn.init.normal_(member.instance_attention.score.weight, std=5.0)
    model, x, counts = Ensemble(members).eval(), inputs(cough), torch.tensor([4, 2])
    expected = torch.stack([member(x, counts).softmax(dim=1) for member in members]).mean(dim=0)
    torch.testing.assert_close(model(x, counts).softmax(dim=1), expected)
    weights = model.gather(model.features(x), counts).weights
    assert model.attends
    assert [float(part.sum()) for part in weights.split([4, 2])] == pytest.approx([1.0, 1.0])


def test_a_model_that_averages_has_no_attention_to_ask() -> None:
    model = build_ct_model(CtConfig(model=CtModelConfig(weights="none")), 2)
    assert not any("instance_attention" in name for name in model.state_dict())
    with pytest.raises(TypeError, match="averages"):
        model.features(torch.rand(2, 1, 32, 32), torch.tensor([2]))
