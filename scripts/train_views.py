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
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.stats import binomtest
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from pulmofuse.curation.views import FEATURES, WEIGHTS, View, ViewModel, view_features
from pulmofuse.schema import Label, Split
from pulmofuse.sources import SOURCES
from pulmofuse.sources.phantom import draw_ct, draw_cxr

Grey = NDArray[np.uint8]

_SHARES = {Split.TRAIN: 60, Split.VAL: 18, Split.TEST: 22}  # per cent of the patients
_CAPS = {Split.TRAIN: 600, Split.VAL: 250, Split.TEST: 200}  # pictures of one package
_LARGEST_BYTES = 8 << 20  # wallpapers beyond it only cost time
_LEAST_SIDE, _LEAST_STD = 64, 4.0  # of a picture: icons and empty ones are no test
_KEPT_SIDE = 192  # pixels that augmentation works on, three times the thumbnail
_COPIES = {"frontal": 3, "axial": 3, "other": 3, "lateral": 18, "coronal": 12}
_DRAWN = {Split.TRAIN: 600, Split.VAL: 100, Split.TEST: 100}
_PHANTOMS = {Split.TRAIN: 100, Split.VAL: 50, Split.TEST: 50}  # of each kind
_VIEWS = {"PA": "frontal", "AP": "frontal", "AP Supine": "frontal", "L": "lateral"}
_VIEWS |= {"Axial": "axial", "Coronal": "coronal"}

# Chosen on validation among 48, 96, 160 components, three sets of features and penalties .01 to 1.
_COMPONENTS, _HIDDEN, _PENALTY, _EPOCHS = 96, 32, 0.3, 40
_FALSE_FLAGS = 0.01  # of radiographs and CT on validation: half of what is allowed on test
_THRESHOLDS = np.arange(0.5, 0.96, 0.05)


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: what it shows, where it comes from, its pixels as uint8 (height, width)."""

    kind: str  # a `View` or "coronal"
    group: str
    split: Split
    name: str
    grey: Grey

    @property
    def target(self) -> int:
        """Index of its view; coronal CT counts as axial, for it is CT."""
        return list(View).index(View("axial" if self.kind == "coronal" else self.kind))


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, choose the threshold, write, measure."""
    options = _options(arguments)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(options.seed)
    pictures = list(_radiology(options.data_root))
    for split, folders in (
        (Split.TRAIN, options.other_train),
        (Split.VAL, options.other_validation),
        (Split.TEST, options.other_test),
    ):
        for folder in folders:
            pictures += _package(folder, split, options.seed)
        pictures += [
            Picture("other", "drawn", split, "", _drawing(rng)) for _ in range(_DRAWN[split])
        ]
        pictures += _phantoms(rng, split)
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
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _radiology(root: Path) -> Iterator[Picture]:
    """Radiographs and CT of the data sets below the root; the patient decides the split."""
    for source, folder in (
        ("covid_ct", "covid-ct"),
        ("covid_chestxray", "covid-chestxray-dataset"),
        ("darkcovidnet", "darkcovidnet"),
    ):
        for row in SOURCES[source].scan(root / folder).records.to_dict("records"):
            path = root / folder / row["path"]
            if row["site"] == "cohen" or path.suffix == ".gz":
                continue
            kind = "axial" if source == "covid_ct" else _VIEWS.get(row["view"] or "")
            if source == "darkcovidnet":
                kind = "frontal"
            if kind is not None:  # a view that the table does not tell is no truth
                split = _patient_split(row["patient_id"])
                yield Picture(kind, source, split, path.name, _small(_read(path)))
    # One patient: in training, for one patient says nothing as a test.
    for path in sorted((root / "ct-volume-example").glob("*.jpg")):
        yield Picture("axial", "ct-volume-example", Split.TRAIN, path.name, _small(_read(path)))


def _patient_split(patient: str) -> Split:
    """The split of a patient, by a hash of the name."""
    place = int(hashlib.sha256(f"views:{patient}".encode()).hexdigest(), 16) % 100
    for split, share in _SHARES.items():
        place -= share
        if place < 0:
            return split
    raise AssertionError("the shares sum to 100")


def _package(folder: Path, split: Split, seed: int) -> list[Picture]:
    """Pictures of one package; the same one in another size or colour counts once."""
    endings = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"}
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in endings and p.is_file())
    order = np.random.default_rng(seed).permutation(len(paths))
    seen: set[bytes] = set()
    pictures: list[Picture] = []
    for path in (paths[i] for i in order):
        if len(pictures) == _CAPS[split]:
            break
        if path.stat().st_size > _LARGEST_BYTES or (grey := _read_picture(path)) is None:
            continue
        coarse = cv2.resize(grey, (8, 8), interpolation=cv2.INTER_AREA) // 32
        if coarse.tobytes() not in seen:
            seen.add(coarse.tobytes())
            pictures.append(Picture("other", folder.name, split, path.name, _small(grey)))
    return pictures


def _read(path: Path) -> Grey:
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise SystemExit(f"{path} cannot be read")
    return np.asarray(grey, np.uint8)


def _read_picture(path: Path) -> Grey | None:
    """A picture as it shows on white or black paper; None if it is broken, tiny or empty."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or min(pixels.shape[:2]) < _LEAST_SIDE:
        return None
    if pixels.dtype != np.uint8:
        pixels = cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    shrink = 1024 / max(pixels.shape[:2])
    if shrink < 1:
        pixels = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        opaque = pixels[..., 3:] / np.float32(255)
        paper = 255 * (hashlib.sha256(path.name.encode()).digest()[0] % 2)
        pixels = (pixels[..., :3] * opaque + paper * (1 - opaque)).astype(np.uint8)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.shape[2] == 3 else pixels[..., 0]
    grey = np.ascontiguousarray(pixels, np.uint8)
    return grey if float(grey.std()) >= _LEAST_STD else None


def _small(grey: Grey) -> Grey:
    shrink = _KEPT_SIDE / max(grey.shape)
    if shrink >= 1:
        return grey
    size = [max(16, round(side * shrink)) for side in grey.shape[::-1]]
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def _phantoms(rng: np.random.Generator, split: Split) -> Iterator[Picture]:
    """Drawn chests of the synthetic cohort, which the classifier must not flag either."""
    diseases = (Label.COVID19, Label.PNEUMONIA, Label.TUBERCULOSIS, Label.CHRONIC_LUNG_DISEASE)
    for kind, draw in (("frontal", draw_cxr), ("axial", draw_ct)):
        for _ in range(_PHANTOMS[split]):
            signs = {d: float(rng.uniform() * (rng.uniform() < 0.4)) for d in diseases}
            size = int(rng.choice([48, 64, 96, 128, 192, 256]))
            female, coarse = bool(rng.integers(2)), bool(rng.integers(2))
            grey = draw(rng, size, signs, female=female, coarse=coarse)
            yield Picture(kind, "phantom", split, "", grey)


def _drawing(rng: np.random.Generator) -> Grey:
    """Noise, a page of text, shapes on a gradient, a spectrogram or a line drawing."""
    makers: tuple[Callable[[np.random.Generator, int], NDArray[np.floating]], ...] = (
        _noise,
        _page,
        _shapes,
        _spectrogram,
        _line_drawing,
    )
    made = makers[int(rng.integers(len(makers)))](rng, int(rng.integers(96, 200)))
    return np.clip(made, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, side: int) -> NDArray[np.floating]:
    plane = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), rng.uniform(0.3, 8))
    return (plane - plane.min()) / np.ptp(plane) * 255


def _page(rng: np.random.Generator, side: int) -> NDArray[np.floating]:
    ink = int(rng.choice([0, 255]))
    page = np.full((side, side), 255 - ink, np.uint8)
    for y in range(8, side - 4, int(rng.integers(7, 16))):
        words = "".join(rng.choice(list("abcdefghij klmnop qrst"), 40))
        place, font = (int(rng.integers(0, 30)), y), int(rng.integers(0, 4))
        cv2.putText(page, words, place, font, float(rng.uniform(0.2, 0.5)), ink, 1)
    return page.astype(np.float64)


def _shapes(rng: np.random.Generator, side: int) -> NDArray[np.floating]:
    y, x = np.mgrid[:side, :side] / side
    turn = rng.uniform(0, 2 * np.pi)
    plane = np.cos(turn) * x + np.sin(turn) * y
    grey = ((plane - plane.min()) / np.ptp(plane) * 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 6))):
        centre = tuple(int(v) for v in rng.integers(0, side, 2))
        cv2.circle(grey, centre, int(rng.integers(4, side // 3)), int(rng.integers(256)), -1)
    return grey.astype(np.float64)


def _spectrogram(rng: np.random.Generator, side: int) -> NDArray[np.floating]:
    t = np.linspace(0, 1, side)
    envelope = 1 + np.sin(2 * np.pi * rng.uniform(1, 20) * t)
    tone = np.outer(np.exp(-t * rng.uniform(1, 5))[::-1], envelope)
    return 100 * tone + rng.gamma(1, 20, (side, side))


def _line_drawing(rng: np.random.Generator, side: int) -> NDArray[np.floating]:
    paper = np.full((side, side), int(rng.integers(256)), np.uint8)
    for _ in range(int(rng.integers(1, 12))):
        ends = [tuple(int(v) for v in rng.integers(0, side, 2)) for _ in range(2)]
        tool = cv2.line if rng.uniform() < 0.5 else cv2.rectangle
        tool(paper, *ends, int(rng.integers(256)), int(rng.integers(1, 9)))
    return paper.astype(np.float64)


def _augment(picture: Picture, rng: np.random.Generator) -> Grey:
    """A changed copy. What is no radiograph may lie on its side and be cropped to a detail."""
    free = picture.kind == "other"
    plane = np.rot90(picture.grey, rng.integers(4)) if free else picture.grey
    if rng.uniform() < 0.5:
        plane = plane[:, ::-1]
    if picture.kind == "axial" and rng.uniform() < 0.15:
        plane = plane[::-1]  # some tools store slices upside down
    plane = _crop(plane, 0.3 if free else 0.12, rng).astype(np.float32)
    if rng.uniform() < 0.3:
        size = plane.shape[::-1]
        turn = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), rng.normal(0, 5), 1.0)
        border = cv2.BORDER_REPLICATE if rng.uniform() < 0.5 else cv2.BORDER_CONSTANT
        plane = cv2.warpAffine(plane, turn, size, borderMode=border)
    if rng.uniform() < 0.4:
        most = rng.choice([0.1, 0.3])
        pads = [int(rng.uniform(0, most) * plane.shape[side // 2]) for side in range(4)]
        colour = float(rng.choice([0, 0, 255, 128]))
        plane = cv2.copyMakeBorder(plane, *pads, cv2.BORDER_CONSTANT, value=colour)
    plane = 255 * (plane / 255).clip(0, 1) ** np.exp(rng.normal(0, 0.35))
    if rng.uniform() < 0.4:
        plane = cv2.GaussianBlur(plane, (0, 0), rng.uniform(0.3, 2))
    if rng.uniform() < 0.3:
        plane = plane + rng.normal(0, rng.uniform(0, 12), plane.shape)
    if rng.uniform() < (0.3 if free else 0.1):
        plane = 255 - plane  # negatives exist (MONOCHROME1 exported as it is)
    return np.clip(plane, 0, 255).astype(np.uint8)


def _crop(plane: Grey, most: float, rng: np.random.Generator) -> Grey:
    """Cut off up to a share of each side."""
    height, width = plane.shape
    top, bottom = (int(rng.uniform(0, most) * height) for _ in range(2))
    left, right = (int(rng.uniform(0, most) * width) for _ in range(2))
    return np.ascontiguousarray(plane[top : height - bottom, left : width - right])


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
            copies = 0 if picture.group in {"drawn", "phantom"} else _COPIES[picture.kind]
            greys += [picture.grey, *(_augment(picture, rng) for _ in range(copies))]
            targets += [picture.target] * (copies + 1)
    x = _features(greys)
    scale = StandardScaler().fit(x)
    components = PCA(_COMPONENTS, random_state=seed).fit(scale.transform(x))
    reduced = components.transform(scale.transform(x))
    spread = reduced.std(axis=0)
    network = MLPClassifier(
        (_HIDDEN,), alpha=_PENALTY, max_iter=_EPOCHS, random_state=seed, early_stopping=False
    ).fit(reduced / spread, targets)
    _say(f"learnt from {len(x):,} pictures, copies included; loss {network.loss_:.4f}")
    first = components.components_.T / spread @ network.coefs_[0] / scale.scale_[:, None]
    bias = network.intercepts_[0] - (scale.mean_ + scale.scale_ * components.mean_) @ first
    half = [a.astype(np.float16) for a in (first, network.coefs_[1])]  # as they are stored
    return ViewModel(
        half[0].astype(np.float32),
        bias.astype(np.float32),
        half[1].astype(np.float32),
        network.intercepts_[1].astype(np.float32),
        threshold=float("nan"),
    )


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
        false = _decide(p[frontal], "cxr", threshold).sum() + _decide(p[axial], "ct", threshold).sum()
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
