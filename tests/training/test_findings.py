"""Findings of several data sets at once: what nobody says teaches nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pulmofuse.config import TrainingConfig
from pulmofuse.models import Classifier, FindingsHead
from pulmofuse.training import FindingsLoss, InstanceSource, Targets, fit, new_findings_head
from pulmofuse.training.findings import MAX_POSITIVE_WEIGHT

NAN = float("nan")
#: Rows of a batch: each entry present, absent or not said.
STATED = st.integers(1, 6).flatmap(
    lambda n: st.lists(
        st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=3, max_size=3), min_size=n, max_size=n
    )
)
NAMES = ("mass", "hernia", "covid19")


def targets(stated: object) -> Targets:
    findings = torch.as_tensor(stated, dtype=torch.float32).reshape(-1, 3)
    return Targets(torch.zeros(len(findings), dtype=torch.long), findings=findings)


def head_and_features(n: int) -> tuple[FindingsHead, torch.Tensor]:
    torch.manual_seed(n)
    head = FindingsHead(5, NAMES, torch.tensor([3.0, 0.5, 1.0]))
    return head, torch.randn(n, 5, requires_grad=True)


class TestFindingsLoss:
    @settings(deadline=None)
    @given(stated=STATED)
    def test_is_the_mean_over_the_known_entries(self, stated: list[list[float]]) -> None:
        known = targets(stated)
        head, features = head_and_features(len(stated))
        mask = ~torch.isnan(known.findings)  # type: ignore[arg-type]

        loss = FindingsLoss(head, 0.5)(features, known)

        if not mask.any():
            assert loss.item() == 0.0
            return
        expected = binary_cross_entropy_with_logits(
            head(features)[mask],
            known.findings[mask],  # type: ignore[index]
            pos_weight=head.positive_weight.expand(mask.shape)[mask],  # type: ignore[operator]
        )
        torch.testing.assert_close(loss, 0.5 * expected)

    @settings(deadline=None)
    @given(stated=STATED)
    def test_what_is_not_said_has_no_gradient(self, stated: list[list[float]]) -> None:
        known = targets(stated)
        head, features = head_and_features(len(stated))
        silent = torch.isnan(known.findings)  # type: ignore[arg-type]

        FindingsLoss(head, 1.0)(features, known).backward()

        assert features.grad is not None
        assert torch.equal(features.grad[silent.all(dim=1)], torch.zeros(silent.all(1).sum(), 5))
        for parameter in head.parameters():
            assert parameter.grad is not None
            assert bool((parameter.grad[silent.all(dim=0)] == 0).all())
            assert bool(torch.isfinite(parameter.grad).all())

    def test_a_data_set_that_says_nothing_changes_no_gradient_of_the_head(self) -> None:
        speaks, silent = [[1.0, 0.0, NAN], [0.0, NAN, 1.0]], [[NAN] * 3] * 4
        head, features = head_and_features(6)
        gradients = []
        for rows in (2, 6):
            head.zero_grad()
            FindingsLoss(head, 1.0)(features[:rows], targets((speaks + silent)[:rows])).backward()
            gradients.append([p.grad.clone() for p in head.parameters()])  # type: ignore[union-attr]

        torch.testing.assert_close(gradients[0], gradients[1])

    def test_half_precision_does_not_reach_the_loss(self) -> None:
        head, features = head_and_features(4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = FindingsLoss(head, 1.0)(features, targets([[1, 0, NAN]] * 4))

        assert loss.dtype == torch.float32

    def test_the_parameters_stay_those_of_the_model(self) -> None:
        assert list(FindingsLoss(head_and_features(1)[0], 1.0).parameters()) == []


class TestNewHead:
    def test_learns_what_is_said_both_ways_and_bounds_the_weights(self) -> None:
        texts = [
            *['{"mass": 1, "hernia": 0, "nodule": 0}'] * 30,
            *['{"mass": 0, "hernia": 0, "nodule": 1, "covid19": 1}'] * 10,
            *[None] * 500,
        ]
        texts += ['{"edema": 1}', *['{"edema": 0}'] * 100]

        head = new_findings_head(7, texts)

        assert head is not None
        # covid19 and hernia are said one way only.
        assert head.findings == ("mass", "nodule", "edema")
        torch.testing.assert_close(
            head.positive_weight, torch.tensor([1 / 3, 3.0, MAX_POSITIVE_WEIGHT])
        )
        assert head(torch.zeros(2, 7)).shape == (2, 3)

    @pytest.mark.parametrize("texts", [[], [None], ['{"mass": 1}', None]])
    def test_there_is_none_where_nothing_can_be_learnt(self, texts: list[str | None]) -> None:
        assert new_findings_head(7, texts) is None

    def test_a_probability_is_the_prevalence_where_the_image_says_nothing(self) -> None:
        texts = ['{"mass": 1}'] * 4 + ['{"mass": 0}'] * 36
        head = new_findings_head(2, texts)
        assert head is not None
        loss, features = FindingsLoss(head, 1.0), torch.zeros(40, 2)
        y = torch.tensor([1.0] * 4 + [0.0] * 36)[:, None]
        known = Targets(torch.zeros(40, dtype=torch.long), findings=y)
        optimizer = torch.optim.LBFGS(head.parameters(), max_iter=50)

        def step() -> torch.Tensor:
            optimizer.zero_grad()
            value = loss(features, known)
            value.backward()
            return value

        optimizer.step(step)  # type: ignore[arg-type]
        assert head(features)[0].sigmoid().item() == pytest.approx(0.5, abs=1e-3)
        assert head.probabilities(features)[0].item() == pytest.approx(4 / 40, abs=1e-3)


class Tiny(Classifier):
    """A classifier of 8 x 8 images with two more outputs for findings."""

    def __init__(self) -> None:
        super().__init__(4, 2, 0.0)
        self.convolution = nn.Conv2d(1, 4, 3)
        self.findings_head = FindingsHead(4, NAMES)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.convolution(x))


class Killed(BaseException):
    """Stands for SIGKILL."""


def _trained(
    folder: Path, config: TrainingConfig, kill_at: int | None = None, times: int = 1
) -> Tiny:
    """Trained on 40 images that state a mass if they are bright, and 40 that state nothing.

    An epoch has each of them so many `times`.
    """
    rng = np.random.default_rng(2)
    bright = rng.integers(0, 2, 80)
    images = (rng.random((80, 8, 8)) * 100 + 100 * bright[:, None, None]).astype(np.uint8)
    stated = np.full((80, 3), np.nan)
    stated[:40, 0] = bright[:40]
    y = rng.integers(0, 2, 80)
    torch.manual_seed(1)
    model = Tiny()
    rows = np.tile(np.arange(80), times)

    def progress(done: int, _total: int, _note: str) -> None:
        if done == kill_at:
            raise Killed

    fit(
        model,
        InstanceSource(images, rows, y[rows], findings=stated[rows]),
        InstanceSource(images, np.arange(80), y),
        config=config,
        class_weights=torch.ones(2),
        seed=3,
        folder=folder,
        auxiliary=[FindingsLoss(model.findings_head, 1.0)],  # type: ignore[arg-type]
        progress=progress,
    )
    return model


TRAINING = TrainingConfig(
    epochs=3, batch_size=16, lr_backbone=0.02, lr_head=0.02, weight_decay=0.0, precision="fp32"
)


@pytest.mark.parametrize("change", [{}, {"mixup": 0.4, "precision": "bf16"}])
def test_only_what_is_said_moves_the_head(tmp_path: Path, change: dict[str, object]) -> None:
    torch.manual_seed(1)
    before = Tiny().findings_head
    after = _trained(tmp_path, TRAINING.model_copy(update=change)).findings_head
    assert before is not None
    assert after is not None
    assert torch.equal(after.linear.weight[1:], before.linear.weight[1:])
    assert torch.equal(after.linear.bias[1:], before.linear.bias[1:])
    assert not torch.equal(after.linear.weight[0], before.linear.weight[0])


def test_it_learns_what_half_of_the_images_say(tmp_path: Path) -> None:
    # One epoch, for the epoch that is kept is chosen by the classes, which are random here.
    once = TRAINING.model_copy(update={"epochs": 1, "lr_head": 0.2, "ema_decay": 0.8})
    model = _trained(tmp_path, once, times=16)
    dark, bright = torch.full((1, 1, 8, 8), 0.2), torch.full((1, 1, 8, 8), 0.6)
    assert model.findings_head is not None
    with torch.no_grad():
        p = model.findings_head.probabilities(model.features(torch.cat([dark, bright])))
    assert p[0, 0] < 0.3 < 0.7 < p[1, 0]


def test_a_killed_run_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    expected = _trained(tmp_path / "a", TRAINING)
    with pytest.raises(Killed):
        _trained(tmp_path / "b", TRAINING, kill_at=7)
    resumed = _trained(tmp_path / "b", TRAINING)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
