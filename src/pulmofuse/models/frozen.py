"""A trained network as it is quickest to run, when nothing of it will change any more.

Batch normalisation is a fixed scale and shift after training, which the convolution before it can
take over (Jacob et al. 2018, arXiv:1712.05877, section 3.2): the same numbers but for rounding.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pulmofuse.models.classifier import Classifier


def frozen(model: Classifier) -> Classifier:
    """A copy in evaluation mode that gives the same answers, and can be trained no more.

    Convolutions take over the batch normalisation behind them in an `nn.Sequential`, activations
    write over their input, and weights lie as `infer_records` has images lie (channels last):
    EfficientNet Lite0 in single precision on one core takes 0.4 of the time.
    """
    out = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    for chain in [module for module in out.modules() if isinstance(module, nn.Sequential)]:
        for first, second in pairwise(range(len(chain))):
            convolution, norm = chain[first], chain[second]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                chain[first] = fuse_conv_bn_eval(convolution, norm)
                chain[second] = nn.Identity()
                _overwrite(chain, second + 1)
    out.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch forgot it
    return out


def _overwrite(chain: nn.Sequential, place: int) -> None:
    """Let the activation at `place`, if there is one, write over what the convolution gave it."""
    if place < len(chain) and isinstance(chain[place], nn.ReLU | nn.ReLU6):
        chain[place].inplace = True  # type: ignore[assignment]
