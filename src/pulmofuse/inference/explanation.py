"""The explanation of a prediction: a map for the file of each modality, and its share in the lungs.

    prepared = predictor.prepare(Modality.CXR, "chest.png")
    explain(predictor, {Modality.CXR: prepared}, "covid19")

A record of many slices or windows is explained by the one that weighed most. Whether a map lies in
the lungs is a figure, not an impression: a model that looks elsewhere has learnt something else.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from pulmofuse.inference.bundle import Unimodal, subset_partition
from pulmofuse.inference.explain import DEFAULT_MAP, activation_map
from pulmofuse.inference.pictures import instance_picture
from pulmofuse.inference.predictor import Predictor
from pulmofuse.labelsets import members
from pulmofuse.models import model_input
from pulmofuse.preprocessing import Prepared
from pulmofuse.preprocessing.lungs import lung_mask
from pulmofuse.schema import Modality

#: Windows that are looked at to find the one that speaks most for the class.
_MOST_INSTANCES = 64

#: Side of a picture for the page.
_PICTURE_PX = 448


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the model of one modality looked.

    Attributes:
        modality: what was recorded.
        target: the class whose score the map explains.
        method: a key of `explain.MAPS`.
        instance: slice or window that is shown, counted from 0.
        n_instances: how many the file has.
        picture: (height, width) uint8, the slice or X-ray as the model got it, or a log-mel
            spectrogram with low frequencies at the bottom.
        heat: (height, width) float32 in [0, 1] on the picture; all zeros where nothing speaks for
            the class.
        lung_share: share of the map inside the lungs, in [0, 1]; None for a cough, where no lungs
            were found, and where the map is empty.
    """

    modality: Modality
    target: str
    method: str
    instance: int
    n_instances: int
    picture: np.ndarray
    heat: np.ndarray
    lung_share: float | None

    def overlay(self) -> np.ndarray:
        """(height, width, 4) uint8 BGRA: the map in colour, transparent where it is zero."""
        colour = cv2.applyColorMap((255 * self.heat).astype(np.uint8), cv2.COLORMAP_INFERNO)
        return np.dstack([colour, (255 * self.heat).astype(np.uint8)])

    def to_dict(self) -> dict[str, Any]:
        """JSON value; `image` and `overlay` are PNG as data URIs of one size."""
        side = (_PICTURE_PX, _PICTURE_PX)
        picture = cv2.resize(self.picture, side, interpolation=cv2.INTER_LINEAR)
        overlay = cv2.resize(self.overlay(), side, interpolation=cv2.INTER_LINEAR)
        text = ""
        if self.n_instances > 1:
            what = "window" if self.modality is Modality.COUGH else "slice"
            text = f"Shown: {what} {self.instance + 1} of {self.n_instances}."
        return {
            "target": self.target,
            "method": self.method,
            "instance": self.instance,
            "n_instances": self.n_instances,
            "lung_share": self.lung_share,
            "text": text,
            "image": _data_uri(picture),
            "overlay": _data_uri(overlay),
        }


def explain(
    predictor: Predictor, given: Mapping[Modality, Prepared], target: str
) -> dict[Modality, Explanation]:
    """Explain the score of a class for each file.

    Args:
        predictor: of the bundle.
        given: one file of each modality, as `Predictor.prepare` gives it.
        target: one of the bundle's classes, or a set of them that the models cannot tell apart.

    Raises:
        ValueError: no such class.
    """
    for name in members(target):
        predictor.bundle.classes.index(name)  # refuses a stranger
    found = {}
    for modality, prepared in given.items():
        part = predictor.bundle.unimodal[modality]
        # A model that cannot tell the class from others has one output for all of them.
        told_apart = subset_partition([part], predictor.bundle.classes)
        index = told_apart.index(target)
        found[modality] = explain_instances(part, prepared.instances, index, target)
    return found


def explain_instances(
    part: Unimodal, instances: np.ndarray, class_index: int, target: str, method: str = DEFAULT_MAP
) -> Explanation:
    """Explain the score of a class for one prepared file.

    Args:
        part: the trained model.
        instances: (n, ...) as `preprocessing.prepare` gives them.
        class_index: of the model's outputs.
        target: what the class is called.
        method: a key of `explain.MAPS`.
    """
    model = part.model
    shown = _shown(part, instances, class_index)
    first, end = (shown, shown + 1) if model.depth is None else (0, len(instances))
    batch = model_input(model, np.asarray(instances[first:end]), np.array([end - first]))
    front_end = part.config.preprocessing
    picture = instance_picture(np.asarray(instances[shown]), part.modality, front_end)
    heat = activation_map(model, batch, class_index, method)
    if part.modality is Modality.COUGH:
        heat = heat[::-1]  # low frequencies at the bottom, as in the picture
    heat = cv2.resize(
        np.ascontiguousarray(heat), picture.shape[::-1], interpolation=cv2.INTER_LINEAR
    )
    share = _lung_share(picture, heat, part.modality)
    return Explanation(part.modality, target, method, shown, len(instances), picture, heat, share)


def _shown(part: Unimodal, instances: np.ndarray, class_index: int) -> int:
    """The instance that weighs most: by attention, else by its score; the middle of a volume."""
    model, n = part.model, len(instances)
    if n == 1:
        return 0
    if model.depth is not None:
        return n // 2
    # Evenly spaced, where there are too many to look at all of them.
    chosen = np.unique(np.linspace(0, n - 1, min(n, _MOST_INSTANCES)).round().astype(int))
    x = model_input(model, np.asarray(instances[chosen]), np.ones(len(chosen), dtype=int))
    with torch.inference_mode():
        features = model.eval().features(x)
        if model.attends:
            weights = model.gather(features, torch.tensor([len(chosen)])).weights
            return int(chosen[int(weights.argmax())])
        return int(chosen[int(model.classify(features)[:, class_index].argmax())])


def _lung_share(picture: np.ndarray, heat: np.ndarray, modality: Modality) -> float | None:
    total = float(heat.sum())
    if modality is Modality.COUGH or total <= 0:
        return None
    mask, found = lung_mask(picture, modality)
    return float(heat[mask].sum()) / total if found else None


def _data_uri(picture: np.ndarray) -> str:
    _, encoded = cv2.imencode(".png", picture)
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
