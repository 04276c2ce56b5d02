"""The volume network: it is a 3D network, whatever its layers are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pulmofuse.inference import grad_cam
from pulmofuse.models import VolumeClassifier, frozen
from pulmofuse.preprocessing import to_volumes


def build(depth: int = 6) -> VolumeClassifier:
    torch.manual_seed(0)
    model = VolumeClassifier(depth, 2, 0.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


def volumes(n: int = 3, depth: int = 6) -> Tensor:
    return torch.rand(n, depth, 40, 36, generator=torch.Generator().manual_seed(1))


def _in_3d(model: VolumeClassifier, x: Tensor) -> Tensor:
    """Pooled features by plain 3D convolutions with the same weights."""

    def convolve(y: Tensor, chain: nn.Module, axis: bool) -> Tensor:
        for layer in chain if isinstance(chain, nn.Sequential) else []:
            if isinstance(layer, nn.Conv2d):
                height, width = layer.stride
                pad, _ = layer.padding
                weight = layer.weight[..., None] if axis else layer.weight[:, :, None]
                stride = (height, 1, 1) if axis else (1, height, width)
                padding = (pad, 0, 0) if axis else (0, pad, pad)
                y = nn.functional.conv3d(y, weight, stride=stride, padding=padding)
            elif isinstance(layer, nn.BatchNorm2d):
                y = nn.functional.batch_norm(
                    y, layer.running_mean, layer.running_var, layer.weight, layer.bias
                )
            else:
                y = layer(y)
        return y

    y = convolve((x.unsqueeze(1) - 0.449) / 0.226, model.stem, axis=False)
    for block in model.blocks:
        deep = convolve(convolve(y, block.plane, axis=False), block.axis, axis=True)
        step = -(-y.shape[2] // deep.shape[2])
        y = (deep + convolve(y, block.around, axis=False)[:, :, ::step]).relu()
    return y.mean(dim=(2, 3, 4))


@pytest.mark.parametrize("depth", [1, 5, 6])
@torch.no_grad()
def test_it_equals_3d_convolutions(depth: int) -> None:
    model, x = build(depth), volumes(depth=depth)
    torch.testing.assert_close(model.features(x), _in_3d(model, x), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_order_of_slices_matters() -> None:
    model, x = build(), volumes()
    assert not torch.allclose(model(x), model(x[:, [1, 0, 3, 2, 5, 4]]), atol=1e-5)


def test_it_is_small() -> None:
    assert 1e6 < sum(p.numel() for p in build().parameters()) < 3e6


@torch.no_grad()
def test_frozen_it_gives_the_same_answers() -> None:
    model, x = build(), volumes()
    torch.testing.assert_close(frozen(model)(x), model(x), atol=1e-5, rtol=1e-4)


def test_grad_cam_gives_a_map_in_the_plane() -> None:
    cam = grad_cam(build(), volumes(1), 1)
    assert cam.shape == (40, 36)
    assert cam.min() >= 0
    assert cam.max() <= 1


@pytest.mark.parametrize("depth", [1, 4, 7, 16])
def test_volumes_are_interpolated_linearly(depth: int) -> None:
    counts = torch.tensor([1, 4, 7])
    slices = torch.rand(12, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    found = to_volumes(slices, counts, depth)
    assert found.shape == (3, depth, 2, 3)
    for volume, part in zip(found, slices.split(counts.tolist()), strict=True):
        last = len(part) - 1
        places = np.linspace(0, last, depth) if depth > 1 else [last / 2]
        flat = part.reshape(len(part), -1).numpy()
        expected = [np.interp(places, np.arange(len(part)), column) for column in flat.T]
        np.testing.assert_allclose(volume.reshape(depth, -1).numpy().T, expected, atol=1e-6)
    if depth == 7:
        torch.testing.assert_close(found[2], slices[5:].squeeze(1), rtol=0, atol=0)
