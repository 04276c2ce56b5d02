"""Where a model looked: class activation maps on the last feature map.

    Grad-CAM   weights each channel by its mean gradient (Selvaraju et al. 2017, arXiv:1610.02391)
    HiResCAM   multiplies each place by its own gradient (Draelos and Carin 2020, arXiv:2011.08891)

Where a head sees nothing but the mean of the map the two are one. With another `pooling` and with
recurrent heads they differ, and only HiResCAM shows places that the model did use: its sum over
places is the map's share of the logit, to first order. benchmarks/explanations.py measures both by
deletion and by a randomisation check (Adebayo et al. 2018, arXiv:1810.03292).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pulmofuse.models import Classifier

#: (gradient, feature map), both (1, channels, h, w) -> (1, 1, h, w), before negatives are cut.
_Weighing = Callable[[Tensor, Tensor], Tensor]


def _by_channel(gradient: Tensor, feature_map: Tensor) -> Tensor:
    return (gradient.mean(dim=(2, 3), keepdim=True) * feature_map).sum(dim=1, keepdim=True)


def _by_place(gradient: Tensor, feature_map: Tensor) -> Tensor:
    return (gradient * feature_map).sum(dim=1, keepdim=True)


#: Every method by name.
MAPS: dict[str, _Weighing] = {"grad_cam": _by_channel, "hires_cam": _by_place}

#: The method of pages and reports, for the reason above; benchmarks/explanations.py compares them.
DEFAULT_MAP = "hires_cam"


def activation_map(
    model: Classifier, batch: Tensor, class_index: int, method: str = DEFAULT_MAP
) -> np.ndarray:
    """Class activation map of one input.

    Args:
        model: a trained classifier.
        batch: (1, ...) as `preprocessing.to_tensor` gives it.
        class_index: the class to explain.
        method: a key of `MAPS`.

    Returns:
        (height, width) in [0, 1] at the resolution of the feature map's input (images), or of the
        feature map itself (sounds, volumes); all zeros where nothing speaks for the class.

    Raises:
        KeyError: no such method.
    """
    gradient, feature_map = _gradient(model, batch, class_index)
    cam = MAPS[method](gradient, feature_map).relu()
    if batch.ndim == 4:
        cam = interpolate(cam, size=batch.shape[2:], mode="bilinear", align_corners=False)
    peak = cam.max()
    return np.asarray((cam / peak if peak > 0 else cam)[0, 0].cpu().numpy(), dtype=np.float32)


def grad_cam(model: Classifier, batch: Tensor, class_index: int) -> np.ndarray:
    """Grad-CAM of one input; see `activation_map`."""
    return activation_map(model, batch, class_index, "grad_cam")


def _gradient(model: Classifier, batch: Tensor, class_index: int) -> tuple[Tensor, Tensor]:
    """Gradient of the class's logit by the feature map, and the feature map, (1, c, h, w) each."""
    # Not through `features`: it averages over test-time views, and a map shows the plain one.
    with torch.no_grad():
        feature_map = model.eval().feature_map(batch)
    with torch.enable_grad():
        watched = feature_map.detach().clone().requires_grad_()
        logit = model.classify(model.pool(watched))[0, class_index]
        (gradient,) = torch.autograd.grad(logit, watched)
    return gradient, watched.detach()
