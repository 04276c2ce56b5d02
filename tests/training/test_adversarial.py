"""Adversarial training: the gradient turns round, the site goes and the class stays."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pulmofuse.config import TrainingConfig
from pulmofuse.errors import StudyError
from pulmofuse.statistics import within_auc
from pulmofuse.training import InstanceSource, SiteAdversary, Targets, fit, site_weights
from pulmofuse.training.adversarial import ramp, reverse_gradient


def targets(y: list[int], site: list[int]) -> Targets:
    return Targets(torch.tensor(y), torch.tensor(site))


class TestReversal:
    def test_forward_is_the_identity_and_the_gradient_is_turned_and_scaled(self) -> None:
        x = torch.tensor([[1.0, -2.0, 0.5]], requires_grad=True)
        y = reverse_gradient(x, 0.3)
        (y**2).sum().backward()
        assert torch.equal(y, x)
        torch.testing.assert_close(x.grad, -0.3 * 2 * x.detach())

    def test_the_heads_learn_at_full_speed_and_the_features_against_them(self) -> None:
        torch.manual_seed(0)
        known = targets([0, 0, 1, 1], [0, 1, 1, 0])
        weights = site_weights(known.y, known.site, 2)
        adversary = SiteAdversary(5, weights, strength=0.5)
        adversary.progress = 0.2
        features = torch.randn(4, 5, requires_grad=True)
        loss = adversary(features, known)
        of_features, of_heads = torch.autograd.grad(loss, [features, adversary.heads.weight])
        # The same loss by hand, without any reversal.
        plain = features.detach().requires_grad_()
        logits = adversary.heads(adversary.trunk(plain)).view(4, 2, 2)
        by_hand = nn.functional.cross_entropy(logits[torch.arange(4), known.y], known.site)
        expected, expected_heads = torch.autograd.grad(by_hand, [plain, adversary.heads.weight])
        scale = 0.5 * (2 / (1 + math.exp(-10 * 0.2)) - 1)
        torch.testing.assert_close(loss, by_hand)
        torch.testing.assert_close(of_features, -scale * expected)
        torch.testing.assert_close(of_heads, expected_heads)

    def test_the_ramp_is_the_papers(self) -> None:
        assert ramp(0.0) == 0.0
        assert ramp(0.1) == pytest.approx(0.462, abs=1e-3)
        assert ramp(1.0) == pytest.approx(1.0, abs=1e-4)


class TestWhatCounts:
    def test_the_sites_of_a_class_weigh_the_same(self) -> None:
        y = torch.tensor([0] * 6 + [1] * 4 + [2] * 3)
        site = torch.tensor([0, 0, 0, 0, 1, -1, 0, 1, 1, 1, 1, 1, 1])
        weights = site_weights(y, site, 4)
        # Class 2 was recorded at one site only, class 3 not at all: nothing to tell.
        expected = [[5 / 8, 5 / 2], [4 / 2, 4 / 6], [0, 0], [0, 0]]
        torch.testing.assert_close(weights, torch.tensor(expected))

    def test_rows_without_a_site_or_a_choice_do_not_count(self) -> None:
        torch.manual_seed(1)
        weights = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
        adversary = SiteAdversary(3, weights, 1.0)
        adversary.progress = 1.0
        features = torch.randn(4, 3)
        known = targets([0, 0, 0, 1], [0, 1, -1, 1])
        whole = adversary(features, known)
        assert torch.equal(whole, adversary(features[:2], targets([0, 0], [0, 1])))

    def test_a_batch_that_tells_nothing_has_no_loss_and_no_gradient(self) -> None:
        adversary = SiteAdversary(3, torch.ones(2, 2), 1.0)
        adversary.progress = 1.0
        features = torch.randn(2, 3, requires_grad=True)
        loss = adversary(features, targets([0, 1], [-1, -1]))
        loss.backward()
        assert loss.item() == 0.0
        assert torch.count_nonzero(features.grad) == 0

    def test_targets_without_sites_are_refused(self) -> None:
        with pytest.raises(ValueError, match="sites"):
            SiteAdversary(3, torch.ones(2, 2), 1.0)(torch.zeros(2, 3), Targets(torch.zeros(2)))


class TinyNet(nn.Module):
    """Features of the mean brightness of the two halves of an image."""

    feature_dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, self.feature_dim))
        self.head = nn.Linear(self.feature_dim, 2)

    def features(self, x: Tensor) -> Tensor:
        halves = torch.stack([x[..., :4].mean((1, 2, 3)), x[..., 4:].mean((1, 2, 3))], dim=1)
        return self.body((halves - 0.5) * 8)

    def classify(self, features: Tensor) -> Tensor:
        return self.head(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))

    def stages(self) -> list[list[nn.Module]]:
        return [[self.body], [self.head]]


def _toy() -> tuple[InstanceSource, InstanceSource]:
    """Left half: the class, noisily; right half: the site, which goes with it in training."""
    rng = np.random.default_rng(3)
    n = 700
    y = rng.integers(0, 2, n)
    together = np.where(np.arange(n) < 400, 0.85, 0.5)
    site = np.where(rng.random(n) < together, y, 1 - y)
    images = np.empty((n, 4, 8), np.uint8)
    images[..., :4] = (110 + 36 * y + rng.normal(0, 22, n))[:, None, None].clip(0, 255)
    images[..., 4:] = (110 + 36 * site + rng.normal(0, 9, n))[:, None, None].clip(0, 255)
    rows = np.arange(n)
    train, val = (
        InstanceSource(images, part, y[part], site=site[part]) for part in (rows[:400], rows[400:])
    )
    return train, val


def _train(folder: Path, strength: float) -> tuple[float, float]:
    """How far the site moves the features, as a share of what the class does; AUC inside sites."""
    train, val = _toy()
    torch.manual_seed(0)
    model = TinyNet()
    weights = site_weights(train.targets.y, train.targets.site, 2)
    config = TrainingConfig(
        epochs=12, batch_size=50, lr_backbone=0.01, lr_head=0.01, weight_decay=0.0,
        patience=12, precision="fp32", label_smoothing=0.0,
    )  # fmt: skip
    fit(
        model,
        train,
        val,
        config=config,
        class_weights=torch.ones(2),
        seed=4,
        folder=folder,
        auxiliary=[SiteAdversary(model.feature_dim, weights, strength)],
    )
    (images,), known = val[list(range(len(val)))]
    y, site = known.y.numpy(), known.site.numpy()
    with torch.no_grad():
        features, score = model.features(images).numpy(), model(images).softmax(1)[:, 1].numpy()
    means = np.array(
        [[features[(y == c) & (site == s)].mean(axis=0) for s in (0, 1)] for c in (0, 1)]
    )
    of_site = np.linalg.norm(means[:, 1] - means[:, 0], axis=-1).mean()
    of_class = np.linalg.norm(means[1] - means[0], axis=-1).mean()
    return float(of_site / of_class), float(within_auc(y == 1, score, site))


def test_the_site_leaves_the_features_and_the_class_stays(tmp_path: Path) -> None:
    plain_site, plain_class = _train(tmp_path / "plain", 0.0)
    site_left, class_kept = _train(tmp_path / "adversarial", 3.0)
    assert site_left < 0.7 * plain_site
    # The left half alone, drawn as it is, gives .88.
    assert plain_class > 0.86
    assert class_kept > plain_class - 0.02


def test_the_epoch_can_be_chosen_inside_the_sites(tmp_path: Path) -> None:
    """On validation that tells the site only, the plain figure is high and this one is chance."""
    rng = np.random.default_rng(5)
    site = rng.integers(0, 2, 200)
    y = np.where(rng.random(200) < 0.8, site, 1 - site)
    images = np.repeat(60 + 100 * site[:, None, None], 4, axis=1).repeat(8, axis=2)
    source = InstanceSource(images.astype(np.uint8), np.arange(200), y, site=site)
    found = {}
    for name in ("auc", "auc_within_site"):
        torch.manual_seed(0)
        config = TrainingConfig(epochs=2, batch_size=50, lr_head=0.05, choose_epoch=name)
        history = fit(
            TinyNet(), source, source, config=config, class_weights=torch.ones(2), seed=1,
            folder=tmp_path / name,
        )  # fmt: skip
        found[name] = history["val_auc"].iloc[-1]
    assert found["auc"] > 0.75
    assert found["auc_within_site"] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("site", [[0, 1, 0, 1], [-1, -1, 0, 1], None])
def test_sites_that_hold_one_class_each_choose_no_epoch(
    site: list[int] | None, tmp_path: Path
) -> None:
    images, y = np.zeros((4, 4, 8), np.uint8), np.array([0, 1, 0, 1])
    place = None if site is None else np.array(site)
    source = InstanceSource(images, np.arange(4), y, site=place)
    config = TrainingConfig(epochs=1, batch_size=2, choose_epoch="auc_within_site")
    with pytest.raises(StudyError, match="no site has validation records of two classes"):
        fit(
            TinyNet(), source, source, config=config, class_weights=torch.ones(2), seed=1,
            folder=tmp_path / "run",
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
