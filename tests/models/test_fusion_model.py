"""Feature-level fusions: what is absent has no say, whatever stands in its place."""

from __future__ import annotations

import itertools
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from pulmofuse.models import FUSION_CONTROLS, FUSIONS, FusionHead, build_fusion
from pulmofuse.models.fusion_attention import CrossAttention, GatedPooling
from pulmofuse.models.fusion_head import hide_modalities
from pulmofuse.models.fusion_joint import Concatenation, LowRankBilinear

DIMS = {"ct": 7, "cxr": 5, "cough": 3}
SUBSETS = torch.tensor(list(itertools.product([False, True], repeat=3)))
J = TypeVar("J", bound=nn.Module)
EVERY = [*FUSIONS, *FUSION_CONTROLS]


def build(method: str, seed: int = 0, dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(seed)
    if method in FUSIONS:
        return build_fusion(method, DIMS, 4, 6, dropout, 0.5)
    return FUSION_CONTROLS[method](DIMS, 4, 6, dropout, 0.5)


@pytest.fixture(params=EVERY)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return build(request.param)


@pytest.fixture
def gated() -> FusionHead:
    torch.manual_seed(0)
    return build_fusion("gated_attention", DIMS, 4, 6, 0.3, 0.5)


def joint(fusion: nn.Module, kind: type[J]) -> J:
    assert isinstance(fusion, FusionHead)
    assert isinstance(fusion.joint, kind)
    return fusion.joint


def random_features(n: int, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, dim, generator=generator) for name, dim in DIMS.items()}


@pytest.mark.parametrize("filler", [1e6, float("nan"), float("inf")])
@torch.no_grad()
def test_absent_features_never_reach_the_output(model: nn.Module, filler: float) -> None:
    model.eval()
    features = random_features(8)
    spoiled = {
        name: value.masked_fill(~SUBSETS[:, i : i + 1], filler)
        for i, (name, value) in enumerate(features.items())
    }
    answer = model(spoiled, SUBSETS)
    assert torch.isfinite(answer).all()
    assert torch.equal(answer, model(features, SUBSETS))


@torch.no_grad()
def test_present_features_do_reach_the_output(model: nn.Module) -> None:
    model.eval()
    present = torch.ones(8, 3, dtype=torch.bool)
    features = random_features(8)
    before = model(features, present)
    for name, other in random_features(8, seed=2).items():
        assert not torch.allclose(model({**features, name: other}, present), before)


@torch.no_grad()
def test_a_patient_is_answered_the_same_in_any_company(model: nn.Module) -> None:
    model.eval()
    features = random_features(8)
    answer = model(features, SUBSETS)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    shuffled = {name: value[order] for name, value in features.items()}
    torch.testing.assert_close(model(shuffled, SUBSETS[order]), answer[order])
    for i in range(8):
        alone = {name: value[i : i + 1] for name, value in features.items()}
        torch.testing.assert_close(model(alone, SUBSETS[i : i + 1]), answer[i : i + 1])


def test_gradients_are_finite_and_reach_every_parameter(model: nn.Module) -> None:
    features = {
        name: value.masked_fill(~SUBSETS[:, i : i + 1], float("nan")).requires_grad_()
        for i, (name, value) in enumerate(random_features(8).items())
    }
    model.modality_dropout = 0.0  # type: ignore[assignment]
    model.train()(features, SUBSETS).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name
    for i, value in enumerate(features.values()):
        assert value.grad is not None
        assert torch.isfinite(value.grad).all()
        assert (value.grad[~SUBSETS[:, i]] == 0).all()
        assert (value.grad[SUBSETS[:, i]] != 0).any()


@pytest.mark.parametrize("method", EVERY)
@torch.no_grad()
def test_weights_of_one_fit_the_other_and_no_other_method(method: str) -> None:
    first, second = build(method).eval(), build(method, seed=1).eval()
    features = random_features(8)
    assert not torch.allclose(first(features, SUBSETS), second(features, SUBSETS))
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first(features, SUBSETS), second(features, SUBSETS))
    for other in EVERY:
        if other != method:
            with pytest.raises(RuntimeError, match=r"Missing|Unexpected"):
                build(other).load_state_dict(first.state_dict(), strict=True)


def test_stages_hold_every_parameter_once(model: nn.Module) -> None:
    held = [p for stage in model.stages() for module in stage for p in module.parameters()]  # type: ignore[operator]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("method", EVERY)
def test_modality_dropout_acts_in_training_only(method: str) -> None:
    model = build(method, dropout=0.0)
    features, present = random_features(64), torch.ones(64, 3, dtype=torch.bool)
    plain = model.eval()(features, present)
    assert torch.equal(plain, model(features, present))
    torch.manual_seed(0)
    changed = ~torch.isclose(model.train()(features, present), plain, atol=1e-6).all(dim=1)
    assert 0 < changed.sum() < 64
    model.modality_dropout = 0.0  # type: ignore[assignment]
    torch.testing.assert_close(model(features, present), plain)


@pytest.mark.parametrize("method", list(FUSIONS))
@torch.no_grad()
def test_units_of_the_features_do_not_matter_once_their_scale_is_learnt(method: str) -> None:
    model = build_fusion(method, DIMS, 4, 6, 0.0, 0.0).eval()
    features = random_features(8)
    lost = {
        n: f.masked_fill(~SUBSETS[:, [i]], torch.nan) for i, (n, f) in enumerate(features.items())
    }
    model.learn_scale(lost, SUBSETS)
    answer = model(lost, SUBSETS)
    assert torch.isfinite(answer).all()
    other = {name: 30 * value + 7 for name, value in lost.items()}
    assert not torch.allclose(model(other, SUBSETS), answer, atol=1e-2)
    model.learn_scale(other, SUBSETS)
    torch.testing.assert_close(model(other, SUBSETS), answer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", list(FUSIONS))
@torch.no_grad()
def test_rounding_of_features_that_do_not_differ_is_not_blown_up(method: str) -> None:
    model = build_fusion(method, DIMS, 4, 6, 0.0, 0.0).eval()
    features, present = random_features(8), torch.ones(8, 3, dtype=torch.bool)
    rounded = torch.full((8, 7), 0.2)
    rounded += 3e-8 * torch.randint(-1, 2, (8, 7), generator=torch.Generator().manual_seed(0))
    model.learn_scale({**features, "ct": rounded}, present)
    answer = model({**features, "ct": rounded}, present)
    other = model({**features, "ct": torch.full((8, 7), 0.2)}, present)
    torch.testing.assert_close(answer, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", list(FUSIONS))
def test_a_modality_that_nobody_or_one_patient_has_leaves_the_scale_alone(method: str) -> None:
    model = build_fusion(method, DIMS, 4, 6, 0.0, 0.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.learn_scale(random_features(8), SUBSETS & torch.zeros(3, dtype=torch.bool))
    model.learn_scale(random_features(1), torch.ones(1, 3, dtype=torch.bool))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("hidden", [1, 2, 9])
@pytest.mark.parametrize("method", list(FUSIONS))
@torch.no_grad()
def test_any_width_and_number_of_modalities_will_do(method: str, hidden: int) -> None:
    model = build_fusion(method, {"ct": 4, "cough": 2}, 3, hidden, 0.0, 0.0).eval()
    features = {"ct": torch.randn(5, 4), "cough": torch.randn(5, 2)}
    assert model(features, torch.tensor([[True, False]] * 5)).shape == (5, 3)


class TestGatedAttention:
    @torch.no_grad()
    def test_weights_are_a_distribution_over_what_is_present(self, gated: FusionHead) -> None:
        projected = gated.eval().project(random_features(8), SUBSETS)
        weights = joint(gated, GatedPooling).weights(projected, SUBSETS)
        assert (weights[~SUBSETS] == 0).all()
        assert (weights[SUBSETS] > 0).all()
        torch.testing.assert_close(weights.sum(dim=1), SUBSETS.any(dim=1).float())

    @torch.no_grad()
    def test_no_modality_gives_the_bias(self, gated: FusionHead) -> None:
        logits = gated.eval()(random_features(8), SUBSETS)
        last = joint(gated, GatedPooling).head[1]
        assert isinstance(last, nn.Linear)
        assert torch.equal(logits[0], last.bias)

    @torch.no_grad()
    def test_it_ranks_by_its_score_and_sums_the_projections(self, gated: FusionHead) -> None:
        # Equations 8 and 9 of Ilse et al. 2018, written out for one patient.
        gated.eval()
        pooling, features = joint(gated, GatedPooling), random_features(1)
        h = torch.stack([gated.projections[name](value)[0] for name, value in features.items()])
        v, u, w = (layer.weight for layer in (pooling.value, pooling.gate, pooling.score))
        gate = torch.tanh(h @ v.T + pooling.value.bias) * torch.sigmoid(h @ u.T + pooling.gate.bias)
        a = torch.exp(gate @ w[0])
        a = a / a.sum()
        present = torch.ones(1, 3, dtype=torch.bool)
        torch.testing.assert_close(gated(features, present)[0], pooling.head(a @ h))


class TestConcatenation:
    @torch.no_grad()
    def test_a_learnt_token_stands_for_what_is_absent(self) -> None:
        fusion = build("concatenation").eval()
        side_by_side, features = joint(fusion, Concatenation), random_features(1)
        assert isinstance(fusion, FusionHead)
        ct = fusion.projections["ct"](features["ct"])[0]
        token = side_by_side.absent
        expected = side_by_side.head(torch.cat([ct, token[1], token[2]])[None])
        answer = fusion(features, torch.tensor([[True, False, False]]))
        torch.testing.assert_close(answer, expected)


class TestBilinear:
    @torch.no_grad()
    def test_it_is_the_tensor_fusion_of_its_factors(self) -> None:
        # Equation 1 of Liu et al. 2018 by the full tensor: W = sum of rank-1 terms, Z = the outer
        # product of the modalities with a 1 appended.
        fusion = build("bilinear").eval()
        low_rank = joint(fusion, LowRankBilinear)
        nn.init.normal_(low_rank.mix)
        assert isinstance(fusion, FusionHead)
        present = torch.ones(1, 3, dtype=torch.bool)
        x = fusion.project(random_features(1), present)
        one = torch.ones(1)
        z = torch.einsum("a,b,c->abc", *(torch.cat([row, one]) for row in x[0]))
        factors = [
            torch.cat([f.weight, f.bias[:, None]], dim=1).view(-1, 6, 7)  # (rank, out, hidden + 1)
            for f in low_rank.factors
        ]
        w = torch.einsum("r,roa,rob,roc->oabc", low_rank.mix[:, 0], *factors)
        expected = torch.einsum("oabc,abc->o", w, z)
        torch.testing.assert_close(low_rank.product(x, present)[0], expected)

    @torch.no_grad()
    def test_an_absent_modality_is_the_neutral_element(self) -> None:
        fusion = build("bilinear").eval()
        low_rank, features = joint(fusion, LowRankBilinear), random_features(1)
        assert isinstance(fusion, FusionHead)
        two = torch.tensor([[True, False, True]])
        x = fusion.project(features, two)
        ct, cough = (low_rank.factors[i](x[:, i]).view(4, 6) for i in (0, 2))
        expected = (ct * cough * low_rank.mix).sum(dim=0)
        torch.testing.assert_close(low_rank.product(x, two)[0], expected)
        empty = low_rank.product(x * 0, torch.zeros(1, 3, dtype=torch.bool))
        torch.testing.assert_close(empty[0], low_rank.mix.sum().expand(6))


class TestCrossAttention:
    @torch.no_grad()
    def test_modalities_are_read_together(self) -> None:
        # By itself each token would add its share; attention to each other makes it depend on who
        # else is there.
        fusion = build("cross_attention").eval()
        joint(fusion, CrossAttention)
        one, two = random_features(1), random_features(1, seed=2)
        present = torch.ones(1, 3, dtype=torch.bool)

        def effect(of: str, where: dict[str, Tensor]) -> Tensor:
            changed: Tensor = fusion({**where, of: two[of]}, present)
            return changed - fusion(where, present)

        elsewhere = {**one, "cxr": two["cxr"]}
        assert not torch.allclose(effect("ct", one), effect("ct", elsewhere), atol=1e-4)


def test_modality_dropout_hides_only_what_is_there_and_never_all() -> None:
    torch.manual_seed(0)
    present = SUBSETS.repeat(2000, 1)
    kept = hide_modalities(present, 0.5)
    assert not (kept & ~present).any()
    assert torch.equal(kept.any(dim=1), present.any(dim=1))
    # Of three, all are hidden with chance 1/8, when one of them is put back: 1/2 + 1/24 stay.
    full = kept[present.all(dim=1)]
    torch.testing.assert_close(full.float().mean(0), torch.full((3,), 13 / 24), atol=0.04, rtol=0)
