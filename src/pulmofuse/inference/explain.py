"""Where a model looked: Grad-CAM (Selvaraju et al. 2017) on the last feature map."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

from pulmofuse.models import Classifier


def grad_cam(model: Classifier, batch: torch.Tensor, class_index: int) -> np.ndarray:
    """Class activation map of one input.

    Args:
        model: a trained classifier.
        batch: (1, ...) as `preprocessing.to_tensor` gives it.
        class_index: the class to explain.

    Returns:
        (height, width) in [0, 1] at the resolution of the feature map's input (images), or of the
        feature map itself (sounds); all zeros where nothing speaks for the class.
    """
    model.eval()
    kept: list[torch.Tensor] = []
    original = model.feature_map

    def watched(x: torch.Tensor) -> torch.Tensor:
        feature_map = original(x).detach().requires_grad_()
        kept.append(feature_map)
        return feature_map

    # `features` pools whatever `feature_map` returns, so the watched one sees the real path.
    model.feature_map = watched  # type: ignore[method-assign]
    try:
        with torch.enable_grad():
            logit = model.classify(model.features(batch))[0, class_index]
            (gradient,) = torch.autograd.grad(logit, kept[0])
    finally:
        del model.feature_map
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cam = (weights * kept[0].detach()).sum(dim=1, keepdim=True).relu()
    if batch.ndim == 4:
        cam = interpolate(cam, size=batch.shape[2:], mode="bilinear", align_corners=False)
    peak = cam.max()
    return np.asarray((cam / peak if peak > 0 else cam)[0, 0].cpu().numpy(), dtype=np.float32)
