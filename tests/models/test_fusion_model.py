"""Gated attention fusion: what is absent has no say, whatever stands in its place."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pulmofuse.models import GatedAttentionFusion
from pulmofuse.models.fusion_model import hide_modalities

DIMS = {"ct": 7, "cxr": 5, "cough": 3}
SUBSETS = torch.tensor(list(itertools.product([False, True], repeat=3)))


@pytest.fixture
def model() -> GatedAttentionFusion:
    torch.manual_seed(0)
    return GatedAttentionFusion(DIMS, 4, hidden=6, dropout=0.3, modality_dropout=0.5)


def random_features(n: int, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, dim, generator=generator) for name, dim in DIMS.items()}


@torch.no_grad()
def test_attention_is_a_distribution_over_what_is_present(model: GatedAttentionFusion) -> None:
    weights = model.eval().attention(random_features(8), SUBSETS)
    assert (weights[~SUBSETS] == 0).all()
    assert (weights[SUBSETS] > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), SUBSETS.any(dim=1).float())
    alone = SUBSETS.sum(dim=1) == 1
    torch.testing.assert_close(weights[alone].amax(dim=1), torch.ones(3))


@pytest.mark.parametrize("filler", [1e6, float("nan"), float("inf")])
@torch.no_grad()
def test_absent_features_never_reach_the_output(model: GatedAttentionFusion, filler: float) -> None:
    model.eval()
    features = random_features(8)
    spoiled = {
        name: value.masked_fill(~SUBSETS[:, i : i + 1], filler)
        for i, (name, value) in enumerate(features.items())
    }
    assert torch.equal(model(spoiled, SUBSETS), model(features, SUBSETS))


@torch.no_grad()
def test_present_features_do_reach_the_output(model: GatedAttentionFusion) -> None:
    model.eval()
    present = torch.ones(8, 3, dtype=torch.bool)
    features = random_features(8)
    before = model(features, present)
    for name, other in random_features(8, seed=2).items():
        assert not torch.allclose(model({**features, name: other}, present), before)


@torch.no_grad()
def test_no_modality_gives_the_bias(model: GatedAttentionFusion) -> None:
    logits = model.eval()(random_features(8), SUBSETS)
    head = model.head[1]
    assert isinstance(head, torch.nn.Linear)
    assert torch.equal(logits[0], head.bias)


def test_gradients_are_finite_for_every_subset(model: GatedAttentionFusion) -> None:
    features = {
        name: value.masked_fill(~SUBSETS[:, i : i + 1], float("nan")).requires_grad_()
        for i, (name, value) in enumerate(random_features(8).items())
    }
    model.train()(features, SUBSETS).square().sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    for i, value in enumerate(features.values()):
        assert value.grad is not None
        assert torch.isfinite(value.grad).all()
        assert (value.grad[~SUBSETS[:, i]] == 0).all()


@torch.no_grad()
def test_attention_ranks_by_its_score_and_sums_the_projections(
    model: GatedAttentionFusion,
) -> None:
    # Equations 8 and 9 of Ilse et al. 2018, written out for one patient.
    model.eval()
    features = random_features(1)
    h = torch.stack([model.projections[name](value)[0] for name, value in features.items()])
    v, u, w = (layer.weight for layer in (model.value, model.gate, model.score))
    gated = torch.tanh(h @ v.T + model.value.bias) * torch.sigmoid(h @ u.T + model.gate.bias)
    a = torch.exp(gated @ w[0])
    a = a / a.sum()
    present = torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(model.attention(features, present)[0], a)
    torch.testing.assert_close(model(features, present)[0], model.head(a @ h))


def test_modality_dropout_hides_only_what_is_there_and_never_all() -> None:
    torch.manual_seed(0)
    present = SUBSETS.repeat(2000, 1)
    kept = hide_modalities(present, 0.5)
    assert not (kept & ~present).any()
    assert torch.equal(kept.any(dim=1), present.any(dim=1))
    # Of three, all are hidden with chance 1/8, when one of them is put back: 1/2 + 1/24 stay.
    full = kept[present.all(dim=1)]
    torch.testing.assert_close(full.float().mean(0), torch.full((3,), 13 / 24), atol=0.04, rtol=0)


def test_modality_dropout_acts_in_training_only(model: GatedAttentionFusion) -> None:
    model.head[0] = torch.nn.Identity()
    features, present = random_features(64), torch.ones(64, 3, dtype=torch.bool)
    plain = model.eval()(features, present)
    assert torch.equal(plain, model(features, present))
    torch.manual_seed(0)
    changed = ~torch.isclose(model.train()(features, present), plain).all(dim=1)
    assert 0 < changed.sum() < 64
    model.modality_dropout = 0.0
    assert torch.equal(model(features, present), plain)


def test_stages_hold_every_parameter_once(model: GatedAttentionFusion) -> None:
    held = [p for stage in model.stages() for module in stage for p in module.parameters()]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
