"""The input gate: what a model was not made for is refused, with the reason and the remedy.

Four looks at each file, docs/gate.md has the figures:

- what reading it showed (`curation`): photo or drawing, another modality, a lateral view, blank,
  silent, speech or noise instead of a cough. What the study left out of training is refused; other
  oddities are refused where next to no training file had them, and else remarked on.
- its size, shape and length against those of the files that the model learnt from.
- parts of it that hold nothing, as a file has that was cut off and filled up.
- the model's own features against those of training: Mahalanobis distance under a covariance of a
  few principal components and one variance for all other directions (Tipping and Bishop 1999,
  probabilistic PCA), as Lee et al. 2018 do for one class. It keeps no features of anybody, other
  than a search for nearest neighbours, and tells as much (docs/gate.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA

from pulmofuse.curation.remarks import Remark
from pulmofuse.errors import BundleError
from pulmofuse.files import atomic_path
from pulmofuse.preprocessing import Prepared
from pulmofuse.schema import Modality, Oddity

Severity = Literal["refuse", "warn"]
#: What `Predictor.predict` does with what the gate finds.
GateMode = Literal["refuse", "warn", "off"]
GATE_MODES: tuple[GateMode, ...] = ("refuse", "warn", "off")

#: Share of validation records, and so of records like them, whose features get a remark.
FALSE_REMARKS = 0.02
#: Features are refused at this many times the distance that is remarked on. Of the X-rays of other
#: hospitals 23 % lie beyond 1 and 3 % beyond 1.3, of pictures that are no X-ray 99 %. Beyond 1.1
#: lie nine tenths of each kind of speech and noise, and no cough of validation (docs/gate.md).
_REFUSED_BEYOND = {Modality.CT: 1.3, Modality.CXR: 1.3, Modality.COUGH: 1.1}
#: Principal components: of 16, 32, 64, 128 and 256, more than 64 told no more pictures.
_COMPONENTS = 64
#: Training records for each component, so that its variance is known.
_RECORDS_PER_COMPONENT = 4
#: An oddity that fewer training records than this share had is one that the model does not know.
_RARE = 0.01
#: Of images these alone refuse nothing, because 3 % of the X-rays of other hospitals are clipped;
#: together with features that are remarked on they do.
_NEED_A_SECOND_DOUBT = frozenset({(Modality.CT, Oddity.CLIPPED), (Modality.CXR, Oddity.CLIPPED)})

#: Width through height that every radiograph may have, whatever training saw: upright and lying
#: 3 to 4, between which all film formats lie.
_SHAPES = (0.75, 4 / 3)
#: A shape may lie this far outside those of training.
_SHAPE_SLACK = 1.1
#: Share of an image that may be a bar without content at one side; the widest of 1,869 training
#: images takes .18, after preprocessing.
_EMPTY_BAR = 0.3
#: Grey levels between which a row without content stays: JPEG makes a few of one.
_EMPTY_LEVELS = 4
#: Length of one cough (docs/decisions/0008-cough-segmentation.md): no recording need be longer.
_ONE_COUGH_S = 0.3

_REMEDY = "make the bundle again with `pulmofuse study`"
_CODES = {
    (Modality.COUGH, Oddity.BLANK): "silent",
    (Modality.CT, Oddity.INCOMPLETE): "cut",
    (Modality.CXR, Oddity.INCOMPLETE): "cut",
}


@dataclass(frozen=True)
class GateRemark:
    """What the gate says of one file.

    Attributes:
        modality: what it was given as.
        severity: "refuse" where the model was not made for it, else "warn".
        code: an `Oddity`, or "silent", "too_small", "too_short", "cut", "unusual".
        text: the reason, in plain words, without a full stop.
        remedy: what the user can do, without a full stop.
    """

    modality: Modality
    severity: Severity
    code: str
    text: str
    remedy: str

    def to_dict(self) -> dict[str, str]:
        """JSON value."""
        return {name: str(value) for name, value in asdict(self).items()}


def refusal(remarks: Iterable[GateRemark]) -> tuple[str, str] | None:
    """Reason and remedy for which a file is refused; None where it is not.

    All reasons are named, and the plainest one, which stands first, has the remedy.
    """
    refused = [remark for remark in remarks if remark.severity == "refuse"]
    if not refused:
        return None
    return "; ".join(remark.text for remark in refused), refused[0].remedy


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """Where the features of training records lie.

    Attributes:
        mean: (features,) float32.
        components: (k, features) float32, orthonormal rows.
        variances: (k,) float32 along the components.
        rest: variance along every other direction, positive.
        limit: distance from which features are remarked on; None where there were too few
            validation records to set one.
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    rest: float
    limit: float | None

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance (n,) of features (n, features)."""
        centred = np.asarray(features, np.float64) - self.mean
        along = centred @ self.components.T
        beside = np.maximum(np.square(centred).sum(axis=1) - np.square(along).sum(axis=1), 0.0)
        square = (np.square(along) / self.variances).sum(axis=1) + beside / self.rest
        return np.asarray(np.sqrt(square))


@dataclass(frozen=True, eq=False)
class GateStatistics:
    """What the gate of one modality knows of the records that its model learnt from.

    Attributes:
        refused: oddities that get a file refused.
        least_side: shorter side, pixels, below which an image is too small; None for coughs.
        shapes: least and largest width through height; None for coughs.
        least_s: duration below which a recording is too short; None for images.
        space: of the features.
        n_train, n_val: records that the space and its limit are from.
    """

    refused: tuple[Oddity, ...]
    least_side: int | None
    shapes: tuple[float, float] | None
    least_s: float | None
    space: FeatureSpace
    n_train: int
    n_val: int


class Gate:
    """Looks at files before a prediction is given for them.

    Args:
        statistics: of each modality that has some; of the others no remark is made.
    """

    def __init__(self, statistics: Mapping[Modality, GateStatistics]) -> None:
        self._statistics = dict(statistics)

    def check(
        self, modality: Modality, prepared: Prepared, features: np.ndarray
    ) -> list[GateRemark]:
        """What speaks against a prediction, the plainest reason first.

        Args:
            modality: what the file was given as.
            prepared: the file as the model reads it, and what was seen of it.
            features: (feature_dim,) of the model.
        """
        known = self._statistics.get(modality)
        if known is None:
            return []
        unusual = _unusual(modality, features, known.space)
        return [
            *_oddities(modality, prepared.seen.remarks, known, doubted=bool(unusual)),
            *_measures(modality, prepared.seen.traits, known),
            *_empty_bars(modality, prepared.instances),
            *unusual,
        ]


def _oddities(
    modality: Modality, remarks: Iterable[Remark], known: GateStatistics, *, doubted: bool
) -> list[GateRemark]:
    def refuses(kind: Oddity) -> bool:
        enough = doubted or (modality, kind) not in _NEED_A_SECOND_DOUBT
        return enough and kind in known.refused

    return [
        GateRemark(
            modality,
            "refuse" if refuses(remark.kind) else "warn",
            _CODES.get((modality, remark.kind), remark.kind.value),
            remark.reason,
            remark.remedy,
        )
        for remark in remarks
    ]


def _measures(
    modality: Modality, traits: Mapping[str, Any], known: GateStatistics
) -> list[GateRemark]:
    """Too small, too short, or of a shape that only a part of an image has."""
    found = []
    if known.least_side is not None and (side := _side(traits)) < known.least_side:
        text = f"is {side} pixels on its shorter side; the model needs {known.least_side}"
        remedy = "give the image at its full size"
        found.append(GateRemark(modality, "refuse", "too_small", text, remedy))
    if known.shapes is not None:
        low, high = known.shapes
        if not low <= (shape := _shape(traits)) <= high:
            text = f"is {shape:.2f} times as wide as high; those learnt from are {low:.2f} to"
            remedy = "give the whole image, not a part of it"
            found.append(GateRemark(modality, "refuse", "cut", f"{text} {high:.2f}", remedy))
    if known.least_s is not None and (length := float(traits["duration_s"])) < known.least_s:
        text = f"lasts {length:.2f} s, less than one cough ({known.least_s:.2f} s)"
        remedy = "record again, from before the first cough until after the last"
        found.append(GateRemark(modality, "refuse", "too_short", text, remedy))
    return found


def _empty_bars(modality: Modality, instances: np.ndarray) -> list[GateRemark]:
    """A bar without content at one side of every instance."""
    if modality is Modality.COUGH:
        return []
    share = min(_bar(instance) for instance in instances)
    if share < _EMPTY_BAR:
        return []
    text = f"{share:.0%} of it, at one side, hold nothing"
    remedy = "copy the file again, or cut the empty part off"
    return [GateRemark(modality, "refuse", "cut", text, remedy)]


def _bar(instance: np.ndarray) -> float:
    """Share of an instance (height, width) that the widest empty bar at one side takes."""
    widest = 0
    for plane in (instance, instance.T):
        spread = plane.max(axis=1).astype(np.int16) - plane.min(axis=1)
        filled = np.flatnonzero(spread > _EMPTY_LEVELS)
        if not len(filled):
            return 1.0
        widest = max(widest, int(filled[0]), len(spread) - 1 - int(filled[-1]))
    return widest / len(instance)


def _unusual(modality: Modality, features: np.ndarray, space: FeatureSpace) -> list[GateRemark]:
    if space.limit is None:
        return []
    ratio = float(space.distance(features[None])[0]) / space.limit
    # Features that are not finite come of no file that the model can have learnt from.
    if ratio <= 1.0:
        return []
    text = f"looks to the model unlike all that it learnt from ({ratio:.2f} times the limit)"
    if modality is Modality.COUGH:
        text = text.replace("looks", "sounds")
    remedy = "see that it is what it should be, and do not rely on the prediction"
    severity: Severity = "warn" if ratio <= _REFUSED_BEYOND[modality] else "refuse"
    return [GateRemark(modality, severity, "unusual", text, remedy)]


def fit_statistics(
    modality: Modality,
    traits: Sequence[Mapping[str, Any]],
    oddities: Sequence[Oddity],
    left_out: Sequence[Oddity],
    input_size: int | None,
    train: np.ndarray,
    val: np.ndarray,
) -> GateStatistics:
    """What the gate keeps of a study's training and validation records.

    Args:
        modality: of the records.
        traits: of each of them, as `io` gives them.
        oddities: of all their remarks, one entry for each record that has it.
        left_out: oddities that the study leaves out.
        input_size: side of the model's input, pixels; None for coughs.
        train: (n, features) of the training records.
        val: (m, features) of the validation records. The limit comes from them: a network's
            features of what it was fitted to lie closer together than those of new patients.
    """
    counts = {kind: list(oddities).count(kind) for kind in (Oddity.CLIPPED, Oddity.INCOMPLETE)}
    rare = {kind for kind, count in counts.items() if count < _RARE * len(traits)}
    refused = tuple(kind for kind in Oddity if kind in {*left_out, *rare})
    space = fit_space(train, val)
    if modality is Modality.COUGH:
        shortest = min(float(seen["duration_s"]) for seen in traits)
        least_s = min(shortest, _ONE_COUGH_S)
        return GateStatistics(refused, None, None, least_s, space, len(train), len(val))
    sides, shapes = [_side(seen) for seen in traits], [_shape(seen) for seen in traits]
    # Half the input's size is no fault: a pixel drawn as four blurs less than films differ.
    least_side = min(sides) if input_size is None else min(*sides, input_size // 2)
    low, high = min(shapes) / _SHAPE_SLACK, max(shapes) * _SHAPE_SLACK
    allowed = (min(low, _SHAPES[0]), max(high, _SHAPES[1]))
    return GateStatistics(refused, least_side, allowed, None, space, len(train), len(val))


def fit_space(train: np.ndarray, val: np.ndarray) -> FeatureSpace:
    """Principal components of training features, and the limit from validation features.

    Args:
        train: (n, features), n >= 2.
        val: (m, features).
    """
    x = np.asarray(train, np.float64)
    k = max(1, min(_COMPONENTS, len(x) // _RECORDS_PER_COMPONENT, x.shape[1] - 1))
    # Its noise variance is the mean of the eigenvalues that are left.
    fitted = PCA(k, svd_solver="randomized" if k < min(x.shape) / 2 else "full", random_state=0)
    fitted.fit(x)
    # A feature that is the same in all of training still must not divide by zero.
    least = max(float(x.var(axis=0).mean()) * 1e-6, float(np.finfo(np.float32).tiny))
    space = FeatureSpace(
        fitted.mean_.astype(np.float32),
        fitted.components_.astype(np.float32),
        np.maximum(fitted.explained_variance_, least).astype(np.float32),
        max(float(fitted.noise_variance_), least),
        None,
    )
    limit = _quantile(space.distance(val), FALSE_REMARKS) if len(val) else None
    return FeatureSpace(space.mean, space.components, space.variances, space.rest, limit)


def _quantile(distances: np.ndarray, rate: float) -> float | None:
    """Limit that a further record of the same kind passes with a chance of `rate` at most.

    It is the conformal quantile (Vovk 2005): rank ceil((m + 1)(1 - rate)) of m distances. None
    where so few cannot tell.
    """
    rank = math.ceil((len(distances) + 1) * (1.0 - rate))
    return float(np.sort(distances)[rank - 1]) if rank <= len(distances) else None


def _side(traits: Mapping[str, Any]) -> int:
    return int(min(traits["height"], traits["width"]))


def _shape(traits: Mapping[str, Any]) -> float:
    return float(traits["width"]) / float(traits["height"])


def gate_to_json(statistics: GateStatistics | None) -> dict[str, Any] | None:
    """What `bundle.json` holds of a gate; the arrays are `save_gate`'s."""
    if statistics is None:
        return None
    return {
        "refused": [kind.value for kind in statistics.refused],
        "least_side": statistics.least_side,
        "shapes": None if statistics.shapes is None else list(statistics.shapes),
        "least_s": statistics.least_s,
        "limit": statistics.space.limit,
        "rest": statistics.space.rest,
        "false_remarks": FALSE_REMARKS,
        "n_train": statistics.n_train,
        "n_val": statistics.n_val,
    }


def save_gate(folder: Path, modality: Modality, statistics: GateStatistics) -> None:
    """Write `gate-<modality>.safetensors`."""
    space = statistics.space
    arrays = {"mean": space.mean, "components": space.components, "variances": space.variances}
    with atomic_path(folder / _file(modality)) as temporary:
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, temporary)


def load_gate(
    folder: Path, modality: Modality, content: Mapping[str, Any], feature_dim: int
) -> GateStatistics:
    """Read what `save_gate` and `gate_to_json` wrote.

    Raises:
        BundleError: the arrays are missing, damaged, or not those of this model.
        KeyError, TypeError, ValueError: `content` is damaged.
    """
    path = folder / _file(modality)
    try:
        arrays = load_file(path)
    except FileNotFoundError:
        raise BundleError(path, "is missing", _REMEDY) from None
    except (OSError, SafetensorError) as error:
        raise BundleError(path, f"is damaged ({error})", _REMEDY) from None
    shapes = {name: array.shape for name, array in arrays.items()}
    k = len(arrays.get("variances", ()))
    expected = {"mean": (feature_dim,), "components": (k, feature_dim), "variances": (k,)}
    sound = all(np.isfinite(a).all() for a in arrays.values())
    if shapes != expected or not k or not sound or (arrays["variances"] <= 0).any():
        why = f"does not fit a model of {feature_dim} features (it has {shapes})"
        raise BundleError(path, why, _REMEDY)
    rest, limit = float(content["rest"]), content["limit"]
    if not rest > 0 or (limit is not None and not float(limit) > 0):
        raise ValueError(f"gate of {modality.value}: rest {rest}, limit {limit}")
    shapes_allowed = content["shapes"]
    return GateStatistics(
        refused=tuple(Oddity(kind) for kind in content["refused"]),
        least_side=None if content["least_side"] is None else int(content["least_side"]),
        shapes=None if shapes_allowed is None else (shapes_allowed[0], shapes_allowed[1]),
        least_s=None if content["least_s"] is None else float(content["least_s"]),
        space=FeatureSpace(
            arrays["mean"],
            arrays["components"],
            arrays["variances"],
            rest,
            None if limit is None else float(limit),
        ),
        n_train=int(content["n_train"]),
        n_val=int(content["n_val"]),
    )


def _file(modality: Modality) -> str:
    return f"gate-{modality.value}.safetensors"
