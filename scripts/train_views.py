"""Learn the view classifier (src/pulmofuse/curation/views.safetensors) and measure it.

    python scripts/train_views.py --data-root DIR \
        --other-train DIR... --other-validation DIR... --other-test DIR...

Radiographs and CT come from covid-chestxray-dataset, DarkCovidNet (its NIH half; the other half
stands in covid-chestxray-dataset), COVID-CT and ct-volume-example below the data root. They are
split by patient: 60 % train, 18 % validation, 22 % test. Photos, drawings, charts and screenshots
come from the folders that are named, one per package; a package is in one split only. Training
images are cropped, turned, padded, blurred, and their brightness changed, at random by the seed.
The threshold is chosen on validation, and the test part is looked at once, at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.stats import binomtest
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from view_pictures import Grey, Picture, augment, drawings, package, phantoms, radiology

from pulmofuse.curation.views import FEATURES, WEIGHTS, View, ViewModel, view_features
from pulmofuse.schema import Split

#: Changed copies of each training picture; rare views more often.
_MADE_UP = {"drawn", "phantom"}  # there are enough of them
_COPIES = {"frontal": 3, "axial": 3, "other": 3, "lateral": 40, "coronal": 12}
# Chosen on validation among 96 and 200 components, whole and half whitening, 16 to 48 hidden units,
# penalties .3 to 3, one network and the mean of three.
_COMPONENTS, _NETWORKS, _HIDDEN, _PENALTY, _EPOCHS = 200, 3, 16, 0.3, 30
_LEAST_SPREAD = 1e-3  # standard deviation of a feature; below it there is nothing to tell
_FALSE_FLAGS = 0.01  # of radiographs and CT on validation: half of what is allowed on test
_THRESHOLDS = np.arange(0.5, 0.96, 0.05)


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, choose the threshold, write, measure."""
    options = _options(arguments)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(options.seed)
    pictures = list(radiology(options.data_root))
    for split, folders in (
        (Split.TRAIN, options.other_train),
        (Split.VAL, options.other_validation),
        (Split.TEST, options.other_test),
    ):
        for folder in folders:
            pictures += package(folder, split, options.seed)
        pictures += drawings(rng, split)
        pictures += phantoms(rng, split)
    pictures = [p for p in pictures if p.split is not Split.TRAIN or p.group != options.leave_out]
    _say_counts(pictures)
    model = _learn(pictures, rng, options.seed)
    held = [p for p in pictures if p.split is Split.VAL]
    threshold = _choose_threshold(_score(model, held), held)
    _write(options.out, model, threshold, options.seed, pictures)
    for split in (Split.VAL, Split.TEST):
        held = [p for p in pictures if p.split is split]
        _report(split, _score(model, held), held, threshold)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    for part in ("train", "validation", "test"):
        parser.add_argument(f"--other-{part}", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument(
        "--leave-out", default="", help="a data set that is not learnt from, such as covid_ct"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _features(greys: Sequence[Grey]) -> NDArray[np.float32]:
    """(n, FEATURES)."""
    out = np.empty((len(greys), FEATURES), np.float32)
    for i, grey in enumerate(greys):
        out[i] = view_features(grey.astype(np.float32) / np.float32(255))
    return out


def _learn(pictures: Sequence[Picture], rng: np.random.Generator, seed: int) -> ViewModel:
    """Principal components and a small network, folded into one; the threshold is still open."""
    greys: list[Grey] = []
    targets: list[int] = []
    for picture in pictures:
        if picture.split is Split.TRAIN:
            copies = _COPIES[picture.kind] if picture.group not in _MADE_UP else 1
            greys += [picture.grey, *(augment(picture, rng) for _ in range(copies))]
            targets += [picture.target] * (copies + 1)
    x = _features(greys)
    scale = StandardScaler().fit(x)
    # The constant term of the cosine transform is zero but for rounding.
    scale.scale_ = np.maximum(scale.scale_, _LEAST_SPREAD)
    components = PCA(_COMPONENTS, random_state=seed).fit(scale.transform(x))
    reduced = components.transform(scale.transform(x))
    spread = np.sqrt(reduced.std(axis=0))  # half way to unit variance: late components are noise
    spread *= spread.mean()
    networks = [
        MLPClassifier((_HIDDEN,), alpha=_PENALTY, max_iter=_EPOCHS, random_state=seed + i).fit(
            reduced / spread, targets
        )
        for i in range(_NETWORKS)
    ]
    losses = ", ".join(f"{network.loss_:.4f}" for network in networks)
    _say(f"learnt from {len(x):,} pictures, copies included; losses {losses}")
    # The mean of their logits is one network of three times the hidden units, and all that is
    # linear before it goes into its first layer.
    hidden = np.hstack([network.coefs_[0] for network in networks])
    w1 = components.components_.T / spread @ hidden / scale.scale_[:, None]
    b1 = np.concatenate([network.intercepts_[0] for network in networks])
    b1 -= (scale.mean_ + scale.scale_ * components.mean_) @ w1
    w2 = np.vstack([network.coefs_[1] for network in networks]) / _NETWORKS
    b2 = np.mean([network.intercepts_[1] for network in networks], axis=0)
    # Rounded as they are stored, so that what is measured is what is used.
    w1, w2 = w1.astype(np.float16), w2.astype(np.float16)
    parts = [a.astype(np.float32) for a in (w1, b1, w2, b2)]
    return ViewModel(*parts, threshold=float("nan"))


def _score(model: ViewModel, pictures: Sequence[Picture]) -> NDArray[np.float64]:
    return model.probabilities(_features([p.grey for p in pictures]))


def _decide(p: NDArray[np.float64], modality: str, threshold: float) -> NDArray[np.bool_]:
    """Which pictures would be excluded from the folder of a modality (as `image_remarks` does)."""
    frontal, lateral, axial, other = p.T
    wrong = axial >= threshold if modality == "cxr" else frontal + lateral >= threshold
    flagged = (other >= threshold) | wrong
    return flagged | (lateral >= threshold) if modality == "cxr" else flagged


def _kinds(pictures: Sequence[Picture], *kinds: str) -> NDArray[np.bool_]:
    """Real pictures of these kinds; drawn chests are counted on their own."""
    return np.array([p.kind in kinds and p.group != "phantom" for p in pictures])


def _choose_threshold(p: NDArray[np.float64], pictures: Sequence[Picture]) -> float:
    """The lowest threshold that flags no more real radiographs and CT slices than allowed."""
    frontal, axial = _kinds(pictures, "frontal"), _kinds(pictures, "axial")
    for threshold in _THRESHOLDS:
        false = (
            _decide(p[frontal], "cxr", threshold).sum() + _decide(p[axial], "ct", threshold).sum()
        )
        if false <= _FALSE_FLAGS * (frontal.sum() + axial.sum()):
            break
    return round(float(threshold), 2)


def _report(
    split: Split, p: NDArray[np.float64], pictures: Sequence[Picture], threshold: float
) -> None:
    """Confusion matrix and the rates that matter, with Wilson intervals."""
    _say(f"\n{split.value}: most probable view (columns {', '.join(View)})")
    for kind in ("frontal", "lateral", "axial", "coronal", "other"):
        counts = np.bincount(p[_kinds(pictures, kind)].argmax(axis=1), minlength=len(View))
        _say(f"  {kind:8} " + " ".join(f"{n:5d}" for n in counts))
    frontal, axial = _kinds(pictures, "frontal"), _kinds(pictures, "axial")
    lateral, coronal = _kinds(pictures, "lateral"), _kinds(pictures, "coronal")
    other = _kinds(pictures, "other") & np.array([q.group != "drawn" for q in pictures])
    _say(f"at the threshold {threshold}:")
    _rate("frontal X-rays flagged wrongly", _decide(p[frontal], "cxr", threshold))
    _rate("axial CT flagged wrongly", _decide(p[axial], "ct", threshold))
    _rate("coronal CT flagged among CT", _decide(p[coronal], "ct", threshold))
    _rate("photos, drawings, charts found", p[other, 3] >= threshold)
    _rate("axial CT found among X-rays", _decide(p[axial], "cxr", threshold))
    _rate("coronal CT found among X-rays", _decide(p[coronal], "cxr", threshold))
    _rate("X-rays found among CT", _decide(p[frontal | lateral], "ct", threshold))
    _rate("laterals found among X-rays", _decide(p[lateral], "cxr", threshold))
    _rate("laterals called lateral", p[lateral, 1] >= threshold)
    for group in sorted({q.group for q in pictures}):
        for kind, folder in (("frontal", "cxr"), ("axial", "ct"), ("other", "cxr")):
            own = np.array([q.group == group and q.kind == kind for q in pictures])
            if own.any():
                _rate(f"  {group}, {kind}: flagged", _decide(p[own], folder, threshold))
    for i in np.flatnonzero(_decide(p, "cxr", threshold) & frontal):
        _say(f"  wrong: {pictures[i].group} {pictures[i].name} {np.round(p[i], 2)}")
    for i in np.flatnonzero(_decide(p, "ct", threshold) & axial):
        _say(f"  wrong: {pictures[i].group} {pictures[i].name} {np.round(p[i], 2)}")


def _rate(name: str, hits: NDArray[np.bool_]) -> None:
    if hits.size:
        test = binomtest(int(hits.sum()), hits.size)
        low, high = test.proportion_ci(method="wilson")
        _say(f"  {name}: {test.k} of {test.n}, {test.statistic:.3f} [{low:.3f}, {high:.3f}]")


def _say_counts(pictures: Sequence[Picture]) -> None:
    counts = Counter((p.split.value, p.kind, p.group) for p in pictures)
    for (split, kind, group), n in sorted(counts.items()):
        _say(f"{split:5} {kind:8} {group:28} {n:5d}")


def _write(
    path: Path, model: ViewModel, threshold: float, seed: int, pictures: Sequence[Picture]
) -> None:
    """Weights as float16, and how they were made; nothing of any image."""
    kinds = Counter(p.kind for p in pictures if p.split is Split.TRAIN)
    about = {"threshold": threshold, "seed": seed, "trained_on": dict(sorted(kinds.items()))}
    tensors = {
        "w1": model.w1.astype(np.float16),
        "b1": model.b1,
        "w2": model.w2.astype(np.float16),
        "b2": model.b2,
    }
    save_file(tensors, path, metadata={"views": json.dumps(about)})
    _say(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
