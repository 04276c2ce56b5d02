"""Is an image a chest X-ray from the front or from the side, an axial CT slice, or none of these?

A thumbnail with stretched contrast goes through histograms of oriented gradients (Dalal and Triggs,
CVPR 2005), the low frequencies of its cosine transform (Ahmed, Natarajan and Rao 1974) and a small
grey-level histogram into a network with one hidden layer. Size, aspect, bit depth, compression and
absolute brightness of the file are gone by then, so that they cannot become a shortcut.

`scripts/train_views.py` makes views.safetensors; docs/decisions/0007-views.md says on what, and
how well it does on images that it never saw.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pulmofuse.curation.burnt_in import text_lines
from pulmofuse.curation.image_fingerprint import GRID
from pulmofuse.curation.remarks import Oddity, Remark
from pulmofuse.errors import WeightsError
from pulmofuse.io import Image
from pulmofuse.schema import Modality

Plane: TypeAlias = NDArray[np.float32]

#: The weights, and the thresholds that were chosen on validation images.
WEIGHTS = Path(__file__).with_name("views.safetensors")

#: Side of the thumbnail; ribs and lung borders are still there. Whoever has shrunk a picture for
#: its fingerprint need not do so again.
_SIDE = GRID
_STRETCH = (2.0, 98.0)  # percentiles that become black and white: letters must not set the contrast
_CELL, _BINS = 8, 9  # pixels of a cell's side, unsigned orientations (Dalal and Triggs)
_BLOCK_CLIP = 0.2  # Lowe's clipped normalisation, as Dalal and Triggs take it
_BLOCK_FLOOR = 0.5  # gradient sum of a block without content: noise is not blown up to structure
_DCT_SIDE = 16
_DCT_SCALE = 0.1  # brings the coefficients near to the range of the gradients
_LEVELS = 16

#: An image with fewer levels between these quantiles, of the levels that its file can store, holds
#: nothing: the noise of a detector alone spans more.
_CONTENT = (0.005, 0.995)
_BLANK_LEVELS = 4
_ROW_STEP = 4  # rows of which one is counted to tell that an image is not blank
#: Share of the body at either end of the range from which a remark is made: one radiograph in fifty
#: has more, and one CT in fifteen, though a lung window cuts off soft tissue by design.
_CLIPPED = {Modality.CXR: 0.05, Modality.CT: 0.30}
_CLIP_SIDE = 128  # pixels that are counted along the longer side
#: Hounsfield units that are shown as black and white to look at a volume: air to dense bone.
_HU_RANGE = (-1024.0, 1024.0)

#: DICOM Modality (PS3.3 C.7.3.1.1.1) of what belongs there.
_EXPECTED = {
    Modality.CT: frozenset({"CT"}),
    Modality.CXR: frozenset({"CR", "DX", "RG", "RF", "XA"}),
}
#: DICOM Modality that says nothing of the content: secondary capture, other, hard copy, document.
_UNCERTAIN = frozenset({"", "SC", "OT", "HC", "DOC"})

#: One span of grey levels; below it nothing is stretched.
_LEAST_SPAN = 1e-3


class View(StrEnum):
    """What a picture shows, in the order of the network's outputs."""

    FRONTAL = "frontal"  # chest X-ray, PA or AP
    LATERAL = "lateral"  # chest X-ray from the side
    AXIAL = "axial"  # CT; axial slices and the few coronal ones that it was shown
    OTHER = "other"  # photo, drawing, chart, document, screenshot


def image_remarks(
    image: Image, modality: Modality, grid: Plane | None = None
) -> tuple[Remark, ...]:
    """What is odd about an image that stands among those of `modality` (CT or CXR).

    Of a volume the middle slice is looked at. What the header says for certain (Hounsfield units,
    DICOM modality and view) is taken as it says; the rest is told from the pixels.

    Args:
        image: as `io` reads it.
        modality: what it is said to be.
        grid: what `shrink` makes of the only plane of an image without Hounsfield units, where
            that is at hand.

    Raises:
        WeightsError: the installed weights of the view classifier are missing or damaged.
    """
    plane = _shown(image)
    grey, span = _eight_bit(plane)
    if (blank := _blank_remark(grey, span * _stored_levels(image))) is not None:
        return (blank,)
    remarks = [_kind_remark(image, plane if grid is None else grid, modality)]
    if not image.hounsfield:
        remarks.append(_clipped_remark(grey, modality))
    remarks.append(_text_remark(grey))
    return tuple(remark for remark in remarks if remark is not None)


def _shown(image: Image) -> Plane:
    """The middle slice (height, width) in [0, 1]."""
    plane = image.pixels[image.pixels.shape[0] // 2]
    if not image.hounsfield:
        return np.asarray(plane, np.float32)
    low, high = _HU_RANGE
    return np.asarray(np.clip((plane - low) / (high - low), 0.0, 1.0), np.float32)


def _eight_bit(plane: Plane) -> tuple[NDArray[np.uint8], float]:
    """The plane over its own range as uint8, and that range."""
    low, high, _, _ = cv2.minMaxLoc(plane)
    span = max(high - low, float(np.finfo(np.float32).tiny))
    grey = cv2.convertScaleAbs(plane, alpha=255.0 / span, beta=-255.0 * low / span)
    return np.asarray(grey), span


def _stored_levels(image: Image) -> float:
    """Levels that the file can store between 0 and 1 of `_shown`."""
    # 12-bit content in a 16-bit file fills a sixteenth of the range, and is not blank.
    bit_depth = int(image.traits.get("bit_depth") or 8)  # 8 where the file does not say
    return _HU_RANGE[1] - _HU_RANGE[0] if image.hounsfield else float(2**bit_depth - 1)


def _blank_remark(grey: NDArray[np.uint8], levels: float) -> Remark | None:
    """Does next to nothing stand in it? `levels` are the stored levels that `grey` spans."""
    # A share of every fourth row's pixels is at least a quarter of it in the whole image, so that
    # the whole holds no fewer levels, and its histogram is needed only for what may be blank.
    beyond = _ROW_STEP * _CONTENT[0]
    if _content_levels(grey[::_ROW_STEP], (beyond, 1.0 - beyond), levels) > _BLANK_LEVELS:
        return None
    n_levels = _content_levels(grey, _CONTENT, levels)
    if n_levels > _BLANK_LEVELS:
        return None
    why = f"is almost blank: 99 % of it lies within {n_levels} grey levels"
    return Remark(Oddity.BLANK, why, "look at it, and leave it out")


def _content_levels(grey: NDArray[np.uint8], quantiles: tuple[float, float], levels: float) -> int:
    """Stored levels between two quantiles."""
    share = np.cumsum(cv2.calcHist([grey], [0], None, [256], (0, 256))) / grey.size
    first, last = np.searchsorted(share, quantiles)
    return round(float(last - first) / 255.0 * levels)


def _kind_remark(image: Image, plane: Plane, modality: Modality) -> Remark | None:
    """Is it what it should be: by the header where that is certain, else by the classifier?"""
    stated = str(image.traits.get("dicom_modality", "")).upper()
    kind = "CT" if image.hounsfield else stated
    if kind not in _UNCERTAIN:
        if kind not in _EXPECTED[modality]:
            return _wrong_modality(f"its header says that it is {kind}", modality, kind)
        if modality is Modality.CT:
            return None
    if modality is Modality.CXR and (view := image.traits.get("view")):
        return _lateral("its header says so") if view == "L" else None
    return _seen_remark(plane, modality)


def _seen_remark(plane: Plane, modality: Modality) -> Remark | None:
    """What the classifier makes of it."""
    p, threshold = classify_view(plane), view_model().threshold
    if p[View.OTHER] >= threshold:
        why = f"looks like a photo, drawing, chart or text (score {p[View.OTHER]:.2f})"
        return Remark(Oddity.NOT_RADIOLOGY, why, "look at it, and leave it out")
    projection = p[View.FRONTAL] + p[View.LATERAL]
    if modality is Modality.CT and projection >= threshold:
        return _wrong_modality(f"looks like an X-ray (score {projection:.2f})", modality)
    if modality is Modality.CXR and p[View.AXIAL] >= threshold:
        return _wrong_modality(f"looks like a CT slice (score {p[View.AXIAL]:.2f})", modality)
    if modality is Modality.CXR and p[View.LATERAL] >= threshold:
        return _lateral(f"score {p[View.LATERAL]:.2f}")
    return None


def _wrong_modality(why: str, modality: Modality, stated: str | None = None) -> Remark:
    """It does not belong here; `stated` is the DICOM modality, where the header tells it."""
    reason = f"{why}, and stands among {modality.value.upper()} images"
    other, name = (
        (Modality.CXR, "the X-rays") if modality is Modality.CT else (Modality.CT, "the CT images")
    )
    if stated is None or stated in _EXPECTED[other]:
        return Remark(Oddity.WRONG_MODALITY, reason, f"move it to {name}, or leave it out")
    # Magnetic resonance, nuclear medicine, ultrasound: nothing here reads them.
    remedy = "leave it out: it is neither CT nor X-ray"
    return Remark(Oddity.WRONG_MODALITY, reason, remedy)


def _lateral(why: str) -> Remark:
    return Remark(
        Oddity.LATERAL,
        f"is a lateral view ({why})",
        "leave it out, unless the study means to mix views",
    )


def _clipped_remark(grey: NDArray[np.uint8], modality: Modality) -> Remark | None:
    """How much of the body lies at the end of the range."""
    share = _clipped_share(grey)
    if share < _CLIPPED[modality]:
        return None
    why = f"{share:.0%} of the body are pure black or white"
    return Remark(Oddity.CLIPPED, why, "export it again with a wider window")


def _clipped_share(grey: NDArray[np.uint8]) -> float:
    """Share of pixels at the lowest or highest grey, without the black around the body."""
    step = max(1, round(max(grey.shape) / _CLIP_SIDE))
    small = grey[::step, ::step]
    black = (small == 0).astype(np.uint8)
    # Black that touches the border is the air outside or the collimator, and no loss: a frame of
    # black around the image joins all of it, and is filled from a corner.
    framed = cv2.copyMakeBorder(black, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    filled = int(cv2.floodFill(framed, None, (0, 0), 2)[0])
    outside = filled - (framed.size - small.size)
    clipped = cv2.countNonZero(black) - outside + int(np.count_nonzero(small == 255))
    return float(clipped / max(small.size - outside, 1))


def _text_remark(grey: NDArray[np.uint8]) -> Remark | None:
    lines = text_lines(grey)
    if not lines:
        return None
    count = "one line" if len(lines) == 1 else f"{len(lines)} lines"
    why = f"{count} of letters in the pixels"
    return Remark(Oddity.BURNT_IN_TEXT, why, "see that no name stands in it; mask the letters")


@dataclass(frozen=True, eq=False)
class ViewModel:
    """The network, `softmax(relu(features @ w1 + b1) @ w2 + b2)`.

    Attributes:
        w1, b1, w2, b2: float32 (features, hidden), (hidden,), (hidden, views), (views,).
        threshold: probability from which a view counts as found.
    """

    w1: Plane
    b1: Plane
    w2: Plane
    b2: Plane
    threshold: float

    def probabilities(self, features: Plane) -> NDArray[np.float64]:
        """(n, features) -> (n, views); rows sum to 1."""
        hidden = np.maximum(features @ self.w1 + self.b1, 0.0)
        logits = (hidden @ self.w2 + self.b2).astype(np.float64)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def classify_view(plane: Plane) -> dict[View, float]:
    """Probability of each view.

    Args:
        plane: (height, width) in [0, 1]; bright is dense. Of a negative (dark is dense) the
            gradients look alike, and mostly it is told as well.

    Raises:
        WeightsError: the installed weights are missing or damaged.
    """
    p = view_model().probabilities(view_features(plane)[np.newaxis])[0]
    return {view: float(value) for view, value in zip(View, p, strict=True)}


def view_features(plane: Plane) -> Plane:
    """What the network sees of a plane (height, width): float32 (`FEATURES`,)."""
    thumbnail = _thumbnail(plane)
    spectrum = cv2.dct(thumbnail - thumbnail.mean())[:_DCT_SIDE, :_DCT_SIDE]
    level = np.minimum((thumbnail.ravel() * np.float32(_LEVELS)).astype(np.intp), _LEVELS - 1)
    levels = np.bincount(level, minlength=_LEVELS) / thumbnail.size
    parts = (_gradients(thumbnail), _DCT_SCALE * np.asarray(spectrum).ravel(), np.sqrt(levels))
    return np.concatenate(parts).astype(np.float32)


_BLOCKS = _SIDE // _CELL - 1
FEATURES = _BLOCKS * _BLOCKS * 4 * _BINS + _DCT_SIDE**2 + _LEVELS


@cache
def view_model(path: Path = WEIGHTS) -> ViewModel:
    """Read the network, once.

    Raises:
        WeightsError: the file is missing, damaged, or not of this architecture.
    """
    try:
        with safe_open(path, framework="numpy") as stored:
            tensors = {name: stored.get_tensor(name).astype(np.float32) for name in stored.keys()}  # noqa: SIM118
            about: dict[str, Any] = json.loads((stored.metadata() or {}).get("views", "{}"))
        model = ViewModel(**tensors, threshold=float(about["threshold"]))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            path, f"are no weights of the view classifier ({error})", "install Pulmofuse again"
        ) from None
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise WeightsError(path, "hold values that are not finite", "install Pulmofuse again")
    hidden = model.b1.size
    shapes = (model.w1.shape, model.b1.shape, model.w2.shape, model.b2.shape)
    if shapes != ((FEATURES, hidden), (hidden,), (hidden, len(View)), (len(View),)):
        why = f"hold arrays of shapes {shapes}, which do not fit {FEATURES} features"
        raise WeightsError(path, why, "install Pulmofuse again")
    return model


def shrink(plane: Plane) -> Plane:
    """Means of a plane (height, width) under the cells of a grid, (64, 64); of a grid, itself."""
    # Whatever the aspect: a thumbnail that kept it would tell portrait films from square slices.
    small = cv2.resize(plane, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _thumbnail(plane: Plane) -> Plane:
    """(64, 64) float32 in [0, 1]; percentiles 2 and 98 are black and white."""
    small = shrink(plane)
    ranked = np.sort(small, axis=None)
    low, high = (_percentile(ranked, percent) for percent in _STRETCH)
    stretched = (small - np.float32(low)) / np.float32(max(high - low, _LEAST_SPAN))
    return np.asarray(np.clip(stretched, 0.0, 1.0), np.float32)


def _percentile(ranked: Plane, percent: float) -> float:
    """As `numpy.percentile`, which takes longer over a thumbnail than sorting it does."""
    place, between = divmod(percent / 100.0 * (ranked.size - 1), 1.0)
    low, high = float(ranked[int(place)]), float(ranked[min(int(place) + 1, ranked.size - 1)])
    return low + between * (high - low)


def _gradients(thumbnail: Plane) -> Plane:
    """Histograms of oriented gradients in blocks of 2 x 2 cells, (blocks * blocks * 36,)."""
    dx = cv2.Sobel(thumbnail, cv2.CV_32F, 1, 0, ksize=1)
    dy = cv2.Sobel(thumbnail, cv2.CV_32F, 0, 1, ksize=1)
    size, angle = cv2.cartToPolar(dx, dy)
    place = angle.ravel() * np.float32(_BINS / np.pi)
    below = place.astype(np.intp)
    votes = size.ravel()
    upper = votes * (place - below.astype(np.float32))
    n_votes = (_SIDE // _CELL) ** 2 * _BINS
    first, second = _CELL_OF_PIXEL + _BIN[below], _CELL_OF_PIXEL + _BIN[below + 1]
    cells = np.bincount(first, votes - upper, n_votes) + np.bincount(second, upper, n_votes)
    cells = cells.reshape(_SIDE // _CELL, _SIDE // _CELL, _BINS)
    blocks = np.concatenate(
        [cells[:-1, :-1], cells[1:, :-1], cells[:-1, 1:], cells[1:, 1:]], axis=-1
    )
    blocks /= np.sqrt((blocks**2).sum(axis=-1, keepdims=True)) + _BLOCK_FLOOR
    np.minimum(blocks, _BLOCK_CLIP, out=blocks)
    blocks /= np.sqrt((blocks**2).sum(axis=-1, keepdims=True)) + _BLOCK_CLIP / 2
    return np.asarray(blocks.ravel(), np.float32)


_ROW, _COLUMN = np.divmod(np.arange(_SIDE * _SIDE), _SIDE)
#: Bin of each ninth of a half turn, up to a whole turn. Unsigned: a bright line on dark and a dark
#: one on bright are the same edge.
_BIN = np.arange(2 * _BINS + 2) % _BINS
#: First vote of each pixel's cell.
_CELL_OF_PIXEL = ((_ROW // _CELL) * (_SIDE // _CELL) + _COLUMN // _CELL) * _BINS
