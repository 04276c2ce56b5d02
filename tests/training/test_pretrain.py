"""Pre-training without labels: it learns, notices a collapse, and resumes as if undisturbed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pulmofuse.config import PretrainConfig
from pulmofuse.errors import StudyError
from pulmofuse.models.backbones import Backbone, BackboneEntry
from pulmofuse.training.pretrain import pretrain, spread
from pulmofuse.training.views import RandomView

CONFIG = PretrainConfig(
    epochs=6, size=32, batch_size=16, hidden=32, projection=16, lr_backbone=0.01, lr_head=0.01,
    momentum=0.9,
)  # fmt: skip


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    """(64, 48, 48) uint8 pictures of smooth noise, each of its own grain."""
    rng = np.random.default_rng(2)
    noise = [cv2.GaussianBlur(rng.normal(0, 1, (48, 48)), (0, 0), 1 + i % 8) for i in range(64)]
    return np.stack(
        [cv2.normalize(n, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8) for n in noise]
    )


def tiny() -> Backbone:
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for n_in, n_out in ((1, 8), (8, 16)):
        layers += [nn.Conv2d(n_in, n_out, 3, stride=2), nn.BatchNorm2d(n_out), nn.ReLU()]
    stages = (("0", "1"), ("3", "4"))
    entry = BackboneEntry(nn.Identity, 16, 0.5, 0.5, "0.weight", stages, (), lambda key: key)
    return Backbone(nn.Sequential(*layers), entry)


def run(
    images: np.ndarray,
    folder: Path,
    config: PretrainConfig = CONFIG,
    kill_at: int | None = None,
) -> tuple[Backbone, pd.DataFrame]:
    def progress(done: int, total: int, note: str) -> None:
        if done == kill_at:
            raise Killed

    backbone = tiny()
    history = pretrain(
        backbone,
        images,
        np.arange(len(images)),
        config=config,
        flip=True,
        seed=5,
        folder=folder,
        progress=progress,
    )
    return backbone, history


def test_two_views_come_to_look_alike_and_two_images_do_not(
    blobs: np.ndarray, tmp_path: Path
) -> None:
    _, history = run(blobs, tmp_path)
    assert list(history.columns) == ["epoch", "loss", "spread", "lr", "seconds"]
    assert history["epoch"].tolist() == list(range(CONFIG.epochs))
    assert history["loss"].iloc[-1] < 0.5 * history["loss"].iloc[0]
    assert history["spread"].min() > 0.3


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_killed_run_ends_where_an_undisturbed_one_does(
    blobs: np.ndarray, tmp_path: Path, precision: str
) -> None:
    config = CONFIG.model_copy(update={"precision": precision})
    straight, expected = run(blobs, tmp_path / "a", config)
    # Four steps an epoch: in the first epoch, at an epoch's last step, and in the middle of one.
    for kill_at in (2, 8, 15):
        with pytest.raises(Killed):
            run(blobs, tmp_path / "b", config, kill_at)
    resumed, history = run(blobs, tmp_path / "b", config)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    columns = ["epoch", "loss", "spread", "lr"]
    pd.testing.assert_frame_equal(history[columns], expected[columns])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "b" / "history.csv"), history)


def test_a_finished_run_is_only_loaded(blobs: np.ndarray, tmp_path: Path) -> None:
    first, _ = run(blobs, tmp_path)
    again, history = run(blobs, tmp_path, kill_at=1)
    assert len(history) == CONFIG.epochs
    assert torch.equal(first.body[0].weight, again.body[0].weight)


def test_a_collapse_ends_the_run_with_what_to_do(tmp_path: Path) -> None:
    grey = np.full((16, 48, 48), 128, dtype=np.uint8)
    still = CONFIG.model_copy(
        update={"brightness": 0.0, "contrast": 0.0, "gamma": 0.0, "noise": 0.0, "rotate_deg": 0.0,
                "cutout": 0.0}
    )  # fmt: skip
    with pytest.raises(StudyError, match=r"collapsed in epoch .*Lower pretrain\.lr_backbone"):
        run(grey, tmp_path, still)


def test_a_single_image_is_refused(blobs: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="two images"):
        run(blobs[:1], tmp_path)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([[1.0, 0.0]] * 4, 0.0),
        ([[1.0, 0.0], [-1.0, 0.0]], 1.0),
        ([[1.0, 0.0], [0.0, 1.0]], 0.5**0.5),
    ],
)
def test_spread_is_the_root_of_the_total_variance(
    points: list[list[float]], expected: float
) -> None:
    assert spread(torch.tensor(points)) == pytest.approx(expected)


#: A view that is a part of the image, and as it is.
PLAIN = CONFIG.model_copy(
    update={"crop": (1.0, 1.0), "rotate_deg": 0.0, "brightness": 0.0, "contrast": 0.0, "gamma": 0.0,
            "noise": 0.0, "blur": 0.0, "cutout": 0.0}
)  # fmt: skip


def test_a_crop_is_a_box_of_the_share_asked_for_each_at_a_place_of_its_own() -> None:
    ramp = torch.linspace(0.0, 1.0, 256).expand(5, 1, 256, 256)
    torch.manual_seed(0)
    crops = RandomView(PLAIN.model_copy(update={"crop": (0.3, 0.3)}), flip=False)(ramp)
    assert crops.shape == (5, 1, 32, 32)
    # Left to right it stays a ramp, of sqrt(0.3 * aspect) of the length, aspect in [3/4, 4/3];
    # the centres of 32 pixels span 31/32 of it.
    lengths = (crops[:, 0, 5, -1] - crops[:, 0, 5, 0]) * 32 / 31
    assert lengths.min() > 0.46
    assert lengths.max() < 0.65
    assert len(set(crops[:, 0, 0, 0].tolist())) == 5


def test_half_of_the_views_are_blurred_by_up_to_the_pixels_asked_for() -> None:
    dots = torch.zeros(400, 1, 32, 32)
    dots[:, :, 16, 16] = 1.0
    views = []
    for blur in (0.0, 1.5):
        # The crop is drawn first, so it is the same one.
        torch.manual_seed(0)
        views.append(RandomView(PLAIN.model_copy(update={"blur": blur}), flip=False)(dots))
    sharp, blurred = views
    changed = (blurred - sharp).abs().amax(dim=(1, 2, 3)) > 1e-5
    # By less than a fifth of a pixel, nothing is changed.
    assert 0.35 < float(changed.float().mean()) < 0.6
    # Variances of what is convolved add up; the kernel has whole pixels and an end.
    sigma = (variance(blurred) - variance(sharp)).clamp(min=0.0).sqrt()
    assert 1.4 < float(sigma.max()) < 1.52


def variance(images: torch.Tensor) -> torch.Tensor:
    """Of columns of images (n, 1, h, w), weighted by their grey levels: (n,), pixels squared."""
    weights = images.sum(dim=(1, 2))
    weights = weights / weights.sum(dim=1, keepdim=True)
    x = torch.arange(images.shape[3], dtype=images.dtype)
    mean = weights @ x
    return (weights * (x - mean[:, None]).square()).sum(dim=1)


def test_views_are_small_different_and_within_the_grey_scale(blobs: np.ndarray) -> None:
    images = torch.from_numpy(blobs).unsqueeze(1).float() / 255
    view = RandomView(CONFIG, flip=True)
    torch.manual_seed(1)
    first, second = view(images), view(images)
    assert first.shape == (64, 1, 32, 32)
    assert not torch.equal(first, second)
    assert first.min() >= 0.0
    assert first.max() <= 1.0
    torch.manual_seed(1)
    assert torch.equal(view(images), first)
