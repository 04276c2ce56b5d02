"""Pictures that the view classifier learns from and is measured on (see train_views.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pulmofuse.curation.views import View
from pulmofuse.schema import Label, Split
from pulmofuse.sources import SOURCES
from pulmofuse.sources.phantom import draw_ct, draw_cxr

Grey = NDArray[np.uint8]

_SHARES = {Split.TRAIN: 60, Split.VAL: 18, Split.TEST: 22}  # per cent of the patients
_CAPS = {Split.TRAIN: 600, Split.VAL: 250, Split.TEST: 200}  # pictures of one package
_LARGEST_BYTES = 8 << 20  # wallpapers beyond it only cost time
_LEAST_SIDE, _LEAST_STD = 64, 4.0  # of a picture: icons and empty ones are no test
_KEPT_SIDE = 192  # pixels that augmentation works on, three times the thumbnail
_DRAWN = {Split.TRAIN: 600, Split.VAL: 100, Split.TEST: 100}
_PHANTOMS = {Split.TRAIN: 300, Split.VAL: 100, Split.TEST: 100}  # of each kind
_VIEWS = {"PA": "frontal", "AP": "frontal", "AP Supine": "frontal", "L": "lateral"}
_VIEWS |= {"Axial": "axial", "Coronal": "coronal"}


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


def radiology(root: Path) -> Iterator[Picture]:
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


def package(folder: Path, split: Split, seed: int) -> list[Picture]:
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
        pixels = (
            cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.shape[2] == 3 else pixels[..., 0]
        )
    grey = np.ascontiguousarray(pixels, np.uint8)
    return grey if float(grey.std()) >= _LEAST_STD else None


def _small(grey: Grey) -> Grey:
    shrink = _KEPT_SIDE / max(grey.shape)
    if shrink >= 1:
        return grey
    size = [max(16, round(side * shrink)) for side in grey.shape[::-1]]
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def phantoms(rng: np.random.Generator, split: Split) -> Iterator[Picture]:
    """Drawn chests of the synthetic cohort, which the classifier must not flag either."""
    diseases = (Label.COVID19, Label.PNEUMONIA, Label.TUBERCULOSIS, Label.CHRONIC_LUNG_DISEASE)
    for kind, draw in (("frontal", draw_cxr), ("axial", draw_ct)):
        for _ in range(_PHANTOMS[split]):
            signs = {d: float(rng.uniform() * (rng.uniform() < 0.4)) for d in diseases}
            size = int(rng.choice([48, 64, 96, 128, 192, 256]))
            female, coarse = bool(rng.integers(2)), bool(rng.integers(2))
            grey = draw(rng, size, signs, female=female, coarse=coarse)
            yield Picture(kind, "phantom", split, "", grey)


def drawings(rng: np.random.Generator, split: Split) -> Iterator[Picture]:
    """Noise, pages, shapes, spectrograms and line drawings, made up by chance."""
    for _ in range(_DRAWN[split]):
        yield Picture("other", "drawn", split, "", _drawing(rng))


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


def augment(picture: Picture, rng: np.random.Generator) -> Grey:
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
