"""Backbones: correctness of EfficientNet-Lite, shapes, names, and where weights come from."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pulmofuse.errors import ConfigError, WeightsError
from pulmofuse.models import BACKBONES, Backbone, build_backbone

# Computed with the package efficientnet-lite-pytorch 0.1.0 (padding for 97 x 113) on the colour
# image whose three channels are `pattern()`: means over blocks of 160 channels of the last
# feature map, over all places and at row 1, column 2.
REFERENCE = {
    "efficientnet_lite0": (
        [0.46132, 0.41703, 0.30951, 0.44415, 0.44974, 0.41285, 0.44447, 0.46007],
        [0.52255, 0.4563, 0.31497, 0.54166, 0.50859, 0.50671, 0.40513, 0.53938],
    ),
    "efficientnet_lite1": (
        [0.37576, 0.43956, 0.31866, 0.39799, 0.31591, 0.40064, 0.47163, 0.42339],
        [0.47291, 0.60283, 0.40429, 0.49464, 0.4606, 0.52033, 0.68001, 0.51866],
    ),
    "efficientnet_lite2": (
        [0.39464, 0.51778, 0.47162, 0.58456, 0.54615, 0.45617, 0.67028, 0.51745],
        [0.44966, 0.61022, 0.60353, 0.68178, 0.59561, 0.60344, 0.87115, 0.69224],
    ),
}


def pattern() -> Tensor:
    """A fixed grey image (1, 1, 97, 113) in [0, 1]; odd sizes exercise the padding."""
    rows, columns = torch.arange(97)[:, None], torch.arange(113)[None]
    return (((7 * rows + 13 * columns + rows * columns) % 256) / 255.0)[None, None]


@torch.no_grad()
def run(backbone: Backbone, x: Tensor) -> Tensor:
    feature_map: Tensor = backbone.eval()(x)
    return feature_map


@pytest.mark.parametrize("name", REFERENCE)
def test_lite_equals_the_reference_implementation(name: str) -> None:
    feature_map = run(build_backbone(name, "imagenet"), pattern())
    assert feature_map.shape == (1, 1280, 4, 4)
    everywhere, somewhere = REFERENCE[name]
    blocks = feature_map[0].view(8, 160, 4, 4).mean(dim=1)
    torch.testing.assert_close(blocks.mean((1, 2)), torch.tensor(everywhere), atol=1e-3, rtol=0)
    torch.testing.assert_close(blocks[:, 1, 2], torch.tensor(somewhere), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_feature_map_has_the_promised_shape(name: str) -> None:
    backbone = build_backbone(name, "none")
    height, width = 64, 96
    assert run(backbone, torch.rand(2, 1, height, width)).shape == (
        2,
        backbone.out_channels,
        math.ceil(height / 32),
        math.ceil(width / 32),
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_any_input_from_32_pixels_on_can_be_trained_and_seen(name: str) -> None:
    backbone = build_backbone(name, "none")
    for height, width in ((32, 32), (33, 47)):
        trained: Tensor = backbone.train()(torch.rand(2, 1, height, width))
        trained.mean().backward()
        seen = run(backbone, torch.rand(2, 1, height, width))
        assert min(seen.shape[2:]) >= 1
        assert torch.isfinite(seen).all()
        assert torch.isfinite(trained).all()


@pytest.mark.parametrize("name", BACKBONES)
def test_stages_hold_every_parameter_once_and_follow_each_other(name: str) -> None:
    backbone = build_backbone(name, "none")
    held = [p for stage in backbone.stages() for module in stage for p in module.parameters()]
    assert sorted(map(id, held)) == sorted(map(id, backbone.parameters()))
    reached: list[int] = []
    for i, stage in enumerate(backbone.stages()):
        stage[0].register_forward_hook(lambda *_, i=i: reached.append(i))
    run(backbone, torch.rand(1, 1, 32, 32))
    assert reached == list(range(len(backbone.stages())))


@pytest.mark.parametrize("channels", [2, 3, 5])
@pytest.mark.parametrize("stored", [1, 3])
def test_weights_fit_any_number_of_channels(stored: int, channels: int, tmp_path: Path) -> None:
    original = build_backbone("resnet18", "none", stored)
    torch.save(original.body.state_dict(), tmp_path / "stored.pth")
    loaded = build_backbone("resnet18", str(tmp_path / "stored.pth"), channels)
    x = pattern()[..., :64, :64]
    # A grey image in any number of equal channels is the same image.
    expected = run(original, x.expand(-1, stored, -1, -1))
    found = run(loaded, x.expand(-1, channels, -1, -1))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    if stored == channels:
        assert torch.equal(loaded.body.conv1.weight, original.body.conv1.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "densenet121", "efficientnet_b0"])
def test_every_family_takes_colours(name: str) -> None:
    backbone = build_backbone(name, "none", in_channels=3)
    assert run(backbone, torch.rand(1, 3, 32, 32)).shape[1] == backbone.out_channels


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_a_seed_decides_initial_weights_and_training_noise(name: str) -> None:
    outputs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        with torch.no_grad():
            outputs.append(build_backbone(name, "none").train()(pattern()[..., :64, :64]))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_stochastic_depth_acts_in_training_only() -> None:
    backbone = build_backbone("efficientnet_lite0", "imagenet")
    x = pattern()[..., :64, :64]
    assert torch.equal(run(backbone, x), run(backbone, x))
    # Normalise by the stored statistics, so that depth is all that is left to chance.
    backbone.train()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        assert not torch.equal(backbone(x), backbone(x))


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("efficientnet-lite0", "efficientnet_lite0"), ("resnet-18", "resnet18"), ("zebra", "known")],
)
def test_an_unknown_backbone_shows_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=nearest):
        build_backbone(wrong, "none")


def test_imagenet_without_a_package_says_who_has_one() -> None:
    with pytest.raises(WeightsError, match=r"efficientnet_lite0.*\.safetensors"):
        build_backbone("resnet18", "imagenet")


def in_colour(state: dict[str, Tensor], first: str) -> dict[str, Tensor]:
    """The state with its grey first convolution spread unevenly over three colours."""
    grey = state[first]
    return {**state, first: torch.cat((0.5 * grey, 0.2 * grey, 0.3 * grey), dim=1)}


def torchvision_state(name: str, body: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state under torchvision's names, with a classifier of 1,000 classes."""
    classifier = "classifier" if name == "densenet121" else "fc"
    width = BACKBONES[name].out_channels
    head = {f"{classifier}.weight": torch.zeros(1000, width), f"{classifier}.bias": torch.zeros(1)}
    return {**{k.replace(".layers.", "."): v for k, v in body.items()}, **head}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_torchvision_states_load_and_colours_are_summed(name: str, tmp_path: Path) -> None:
    original = build_backbone(name, "none")
    body = in_colour(original.body.state_dict(), BACKBONES[name].first_convolution)
    state = torchvision_state(name, body)
    # Files of torchvision have no such counters.
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "released.pth")
    loaded = build_backbone(name, str(tmp_path / "released.pth"))
    x = pattern()[..., :64, :64]
    torch.testing.assert_close(run(loaded, x), run(original, x), atol=1e-4, rtol=1e-4)


def test_old_densenet_names_load(tmp_path: Path) -> None:
    original = build_backbone("densenet121", "none")
    state = original.body.state_dict()
    for part, number in itertools.product(("norm", "conv"), (1, 2)):
        old, new = f".{part}.{number}.", f".layers.{part}{number}."
        state = {key.replace(new, old): value for key, value in state.items()}
    torch.save(state, tmp_path / "old.pth")
    loaded = build_backbone("densenet121", str(tmp_path / "old.pth"))
    x = pattern()[..., :64, :64]
    assert torch.equal(run(loaded, x), run(original, x))


def test_joined_backbones_see_what_each_of_them_sees() -> None:
    joined = build_backbone("efficientnet_lite0+efficientnet_lite2", "imagenet").eval()
    parts = [build_backbone(f"efficientnet_lite{i}", "imagenet").eval() for i in (0, 2)]
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(joined(x), torch.cat([part(x) for part in parts], dim=1))
        levels = joined.levels(x)
        torch.testing.assert_close(levels[-1], joined(x))
    assert [m.shape[1] for m in levels] == joined.level_channels()
    assert sum(len(stage) for stage in joined.stages()) == sum(
        len(stage) for part in parts for stage in part.stages()
    )


@pytest.mark.parametrize(("height", "width", "size"), [(48, 64, (1, 2)), (48, 48, (1, 1))])
def test_joined_maps_of_unequal_sizes_are_averaged_to_the_smallest(
    height: int, width: int, size: tuple[int, int]
) -> None:
    # DenseNet drops the odd rows and columns that ResNet keeps.
    joined = build_backbone("resnet18+densenet121", "none").eval()
    resnet, densenet = joined.parts.children()
    x = torch.rand(2, 1, height, width)
    with torch.no_grad():
        feature_map, levels = joined(x), joined.levels(x)
        large, small = resnet(x), densenet(x)
    assert large.shape[2:] == (2, 2)
    assert small.shape[2:] == size
    assert feature_map.shape == (2, joined.out_channels, *size)
    averaged = large.mean(dim=(2, 3) if size == (1, 1) else 2, keepdim=True)
    torch.testing.assert_close(feature_map[:, :512], averaged)
    torch.testing.assert_close(feature_map[:, 512:], small)
    torch.testing.assert_close(levels[-1], feature_map)


def test_joined_backbones_name_the_part_that_is_not_known() -> None:
    with pytest.raises(ConfigError, match="efficientnet_lite2"):
        build_backbone("efficientnet_lite0+efficientnet_lite3", "none")


def test_one_file_is_no_weights_for_joined_backbones(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="one file for several"):
        build_backbone("resnet18+resnet50", str(tmp_path / "weights.safetensors"))
