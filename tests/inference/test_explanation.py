"""Maps follow what a model uses, and say where that lies."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pulmofuse.config import CoughConfig, CxrConfig
from pulmofuse.evaluation import identity_calibration
from pulmofuse.inference import Unimodal, activation_map, explain_instances
from pulmofuse.models import Classifier, build_audio_model
from pulmofuse.preprocessing.lungs import lung_mask
from pulmofuse.schema import Modality
from pulmofuse.sources import phantom

SIDE = 64


class Quadrants(Classifier):
    """Class 1 is brightness in the upper left, class 0 in the lower right: the answer is known."""

    def __init__(self) -> None:
        super().__init__(feature_dim=8, n_classes=2, dropout=0.0)
        head = self.head[-1]
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            head.weight.zero_()
            head.bias.zero_()
            head.weight[1, 0] = head.weight[0, 3] = 4.0

    def feature_map(self, x: Tensor) -> Tensor:
        """Four maps, each sees a quadrant, and their mirror images with the sign turned."""
        grey = x.view(len(x), 1, SIDE, SIDE)
        masks = torch.zeros(4, SIDE, SIDE)
        half = SIDE // 2
        for i, (top, left) in enumerate(((0, 0), (0, half), (half, 0), (half, half))):
            masks[i, top : top + half, left : left + half] = 1
        seen = nn.functional.avg_pool2d(grey * masks, 8)
        return torch.cat([seen, -seen], dim=1)


def unimodal(model: Classifier) -> Unimodal:
    return Unimodal(Modality.CXR, CxrConfig(), model, identity_calibration(2))


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
@pytest.mark.parametrize(("target", "place"), [(1, (0, 0)), (0, (1, 1))])
def test_the_map_lies_where_the_model_looks(
    method: str, target: int, place: tuple[int, int]
) -> None:
    x = torch.full((1, 1, SIDE, SIDE), 0.8)
    heat = activation_map(Quadrants(), x, target, method)
    half = SIDE // 2
    quadrants = heat.reshape(2, half, 2, half).sum(axis=(1, 3))
    assert heat.shape == (SIDE, SIDE)
    assert 0 <= heat.min() <= heat.max() == pytest.approx(1)
    assert quadrants[place] / quadrants.sum() > 0.9


def test_the_two_maps_agree_where_the_head_sees_means_only() -> None:
    x = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    maps = [activation_map(Quadrants(), x, 1, method) for method in ("grad_cam", "hires_cam")]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-5)


def test_nothing_for_the_class_is_an_empty_map() -> None:
    assert activation_map(Quadrants(), torch.zeros(1, 1, SIDE, SIDE), 1).max() == 0


class Everywhere(Quadrants):
    """Looks at every place alike."""

    def feature_map(self, x: Tensor) -> Tensor:
        """Eight maps of ones."""
        return torch.ones(len(x), 8, 8, 8)


def test_the_share_in_the_lungs_is_that_of_the_map() -> None:
    rng = np.random.default_rng(3)
    image = phantom.draw_cxr(rng, 224, {}, female=False, coarse=False)
    mask, found = lung_mask(image, Modality.CXR)
    assert found
    seen = explain_instances(unimodal(Everywhere()), image[None], 1, "covid19")
    assert seen.lung_share == pytest.approx(mask.mean(), abs=0.02)


def test_the_slice_that_speaks_most_is_shown() -> None:
    slices = np.zeros((5, SIDE, SIDE), dtype=np.uint8)
    slices[3, :20, :20] = 255
    seen = explain_instances(unimodal(Quadrants()), slices, 1, "covid19")
    assert (seen.instance, seen.n_instances) == (3, 5)
    assert seen.to_dict()["text"] == "Shown: slice 4 of 5."


def test_a_cough_is_explained_on_its_spectrogram() -> None:
    config = CoughConfig.model_validate({"model": {"architecture": "crnn"}})
    torch.manual_seed(0)
    part = Unimodal(Modality.COUGH, config, build_audio_model(config, 2), identity_calibration(2))
    n = int(config.preprocessing.duration_s * config.preprocessing.sample_rate_hz)
    rng = np.random.default_rng(5)
    windows = (rng.normal(size=(2, n)) * 3000).astype(np.int16)
    seen = explain_instances(part, windows, 1, "covid19")
    assert seen.heat.shape == seen.picture.shape
    assert seen.picture.shape[0] == config.preprocessing.n_mels
    assert seen.lung_share is None


def test_pictures_are_png_of_one_size_and_clear_where_the_map_is_zero() -> None:
    image = np.full((1, SIDE, SIDE), 200, dtype=np.uint8)
    content = explain_instances(unimodal(Quadrants()), image, 1, "covid19").to_dict()
    sides = []
    for name in ("image", "overlay"):
        head, _, body = content[name].partition(",")
        assert head == "data:image/png;base64"
        picture = cv2.imdecode(
            np.frombuffer(base64.b64decode(body), np.uint8), cv2.IMREAD_UNCHANGED
        )
        sides.append(picture.shape[:2])
    assert sides[0] == sides[1]
    assert picture.shape[2] == 4
    assert picture[-20:, -20:, 3].max() == 0 < picture[:20, :20, 3].min()
