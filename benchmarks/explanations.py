"""Do the maps show what the model used? Deletion and randomisation, by method and modality.

    python benchmarks/explanations.py runs/covid --data-root ../shared/data

For validation records (drawn at random, `--records` of each modality) the score of the predicted
class is taken while the places that a map ranks first are taken away, a tenth at a time: blurred in
an image, muted in a cough. `deletion` is the mean probability along the way (Petsiuk et al. 2018,
arXiv:1806.07421): lower is better, and a map is worth something only below `random`. `occlusion`
slides a blurred patch (Zeiler and Fergus 2014, arXiv:1311.2901), slow and free of gradients.

`randomised` is the rank correlation of a map with that of the same network with random weights in
every layer (Adebayo et al. 2018): near 0 says that the map depends on what was learnt.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from machine import facts, write
from scipy.stats import spearmanr

from pulmofuse.inference import Unimodal, load_bundle
from pulmofuse.inference.explain import MAPS, activation_map
from pulmofuse.models import Classifier
from pulmofuse.preprocessing import prepare, to_tensor
from pulmofuse.schema import Split

_STEPS = 10
_PLACES = 14  # an image is taken away in blocks of a 14th of its side, a cough in 28 pieces of time
_PIECES = 28

Map = Callable[[Classifier, np.ndarray, int], np.ndarray]


def probability(model: Classifier, instances: np.ndarray, target: int) -> np.ndarray:
    """(n,) probability of a class, without calibration."""
    with torch.inference_mode():
        return model.eval()(to_tensor(instances)).double().softmax(dim=1)[:, target].numpy()


def by_gradient(method: str) -> Map:
    """A map of `MAPS`."""
    return lambda model, one, target: activation_map(model, to_tensor(one[None]), target, method)


def occlusion(model: Classifier, one: np.ndarray, target: int) -> np.ndarray:
    """How much the score falls when each place is taken away by itself."""
    places = np.arange(_PLACES**2 if one.ndim == 2 else _PIECES)
    taken = np.stack([take(one, places[i : i + 1]) for i in range(len(places))])
    full = probability(model, one[None], target)[0]
    fall = full - np.concatenate(
        [probability(model, part, target) for part in np.array_split(taken, 8)]
    )
    return fall.reshape((_PLACES, _PLACES) if one.ndim == 2 else (1, _PIECES)).astype(np.float32)


def rank(heat: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Places of an instance from the hottest to the coldest."""
    size = (_PLACES, _PLACES) if one.ndim == 2 else (_PIECES, 1)
    if one.ndim == 1:
        heat = heat.mean(axis=0, keepdims=True)
    small = cv2.resize(np.ascontiguousarray(heat), size, interpolation=cv2.INTER_AREA)
    return np.argsort(-small.ravel(), kind="stable")


def take(one: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The instance without some of its places."""
    out = one.copy()
    if one.ndim == 1:
        for piece in places:
            part = slice(piece * len(one) // _PIECES, (piece + 1) * len(one) // _PIECES)
            out[part] = 0
        return out
    side = one.shape[0]
    blurred = cv2.GaussianBlur(one, (0, 0), side / 12)
    edges = np.linspace(0, side, _PLACES + 1).round().astype(int)
    for place in places:
        row, column = divmod(int(place), _PLACES)
        at = slice(edges[row], edges[row + 1]), slice(edges[column], edges[column + 1])
        out[at] = blurred[at]
    return out


def deletion(model: Classifier, one: np.ndarray, target: int, order: np.ndarray) -> float:
    """Mean probability while the places go in this order."""
    cuts = [order[: round(len(order) * step / _STEPS)] for step in range(1, _STEPS + 1)]
    return float(probability(model, np.stack([take(one, cut) for cut in cuts]), target).mean())


def randomised(model: Classifier, seed: int) -> Classifier:
    """The same network with weights drawn anew."""
    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    for module in other.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return other


def measure(part: Unimodal, files: list[Path], seed: int) -> list[dict[str, object]]:
    """Rows of one modality."""
    rng = np.random.default_rng(seed)
    model, stranger = part.model, randomised(part.model, seed)
    maps: dict[str, Map] = {name: by_gradient(name) for name in MAPS} | {"occlusion": occlusion}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in [*maps, "random"]}
    for path in files:
        instances = prepare(path, part.modality, part.config.preprocessing).instances
        one = np.asarray(instances[len(instances) // 2])
        p = model.eval()(to_tensor(one[None])).detach().softmax(dim=1)[0]
        target = int(p.argmax())
        for name, draw in maps.items():
            heat, other = draw(model, one, target), draw(stranger, one, target)
            alike = spearmanr(heat.ravel(), other.ravel()).statistic
            area = deletion(model, one, target, rank(heat, one))
            found[name].append((area, 0.0 if np.isnan(alike) else float(alike)))
        n = _PLACES**2 if one.ndim == 2 else _PIECES
        found["random"].append((deletion(model, one, target, rng.permutation(n)), np.nan))
    rows: list[dict[str, object]] = []
    chance = np.array([area for area, _ in found["random"]])
    for name, values in found.items():
        area, alike = np.array(values).T
        better = area - chance
        error = better.std(ddof=1) / np.sqrt(len(better)) if len(better) > 1 else np.nan
        rows.append(
            {
                "modality": part.modality.value,
                "method": name,
                "records": len(area),
                "deletion": round(float(area.mean()), 4),
                "against_random": round(float(better.mean()), 4),
                "standard_error": round(float(error), 4),
                "randomised": None if np.isnan(alike).any() else round(float(alike.mean()), 3),
            }
        )
    return rows


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("study", type=Path, help="folder of a finished study")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--records", type=int, default=60)
    parser.add_argument("--seed", type=int, default=17)
    given = parser.parse_args()
    bundle = load_bundle(given.study / "bundle")
    manifest = pd.read_parquet(given.study / "manifest.parquet")
    rows: list[dict[str, object]] = []
    for modality, part in bundle.unimodal.items():
        if part.model.depth is not None:
            continue
        own = manifest[(manifest["modality"] == modality) & (manifest["split"] == Split.VAL)]
        own = own.sample(min(given.records, len(own)), random_state=given.seed)
        rows += measure(part, [given.data_root / path for path in own["path"]], given.seed)
    command = f"python benchmarks/explanations.py {given.study} --records {given.records}"
    write("explanations", command, rows, facts())


if __name__ == "__main__":
    main()
