"""Lung masks: against the truth that the phantoms know, on made-up outliers, and on real images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pulmofuse.config import CtPreprocessing, CxrPreprocessing
from pulmofuse.preprocessing import prepare
from pulmofuse.preprocessing.lungs import lung_mask
from pulmofuse.schema import Label, Modality
from pulmofuse.sources.phantom import ct, cxr

SIZE = 128
SIGNS: list[dict[Label, float]] = [
    {},
    {Label.COVID19: 1.0},
    {Label.PNEUMONIA: 1.0},
    {Label.TUBERCULOSIS: 1.0},
    {Label.CHRONIC_LUNG_DISEASE: 1.0},
]


def _phantom(
    modality: Modality, seed: int, signs: dict[Label, float]
) -> tuple[np.ndarray, np.ndarray]:
    """A drawn image, and its true lungs: the generator's own first steps, repeated."""
    female, coarse = bool(seed % 2), bool(seed % 3)
    chronic = signs.get(Label.CHRONIC_LUNG_DISEASE, 0.0)
    rng, again = np.random.default_rng(seed), np.random.default_rng(seed)
    if modality is Modality.CT:
        image = ct.draw_ct(rng, SIZE, signs, female=female, coarse=coarse)
        chest, _ = ct._body(again, SIZE, again.uniform(0, 1), chronic, female=female)
        return image, chest.lung > 0.5
    image = cxr.draw_cxr(rng, SIZE, signs, female=female, coarse=coarse)
    film, _ = cxr._trunk(again, SIZE, chronic, female=female)
    return image, film.both > 0.5


@pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
@pytest.mark.parametrize("signs", SIGNS, ids=lambda s: next(iter(s), "normal"))
def test_the_mask_covers_the_lungs_of_the_phantoms(
    modality: Modality, signs: dict[Label, float]
) -> None:
    covered, shares = [], []
    for seed in range(8):
        image, truth = _phantom(modality, seed, signs)
        mask, _ = lung_mask(image, modality)
        covered.append((mask & truth).sum() / truth.sum())
        shares.append(mask.mean())
    assert np.mean(covered) >= 0.97
    assert np.quantile(covered, 0.1) >= 0.9
    # Generous, but something is left to look at.
    assert np.mean(shares) < 0.8


@pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
def test_the_lungs_of_the_phantoms_are_found(modality: Modality) -> None:
    found = [lung_mask(_phantom(modality, seed, {})[0], modality)[1] for seed in range(10)]
    assert sum(found) >= 9


@pytest.mark.parametrize("modality", [Modality.CT, Modality.CXR])
@pytest.mark.parametrize("fill", [0, 128, 255, "noise"])
def test_where_no_lungs_are_a_central_box_stands_in(modality: Modality, fill: int | str) -> None:
    image = np.full((96, 96), 0 if fill == "noise" else fill, dtype=np.uint8)
    if fill == "noise":
        image = np.random.default_rng(0).integers(0, 256, (96, 96)).astype(np.uint8)
    mask, found = lung_mask(image, modality)
    assert not found
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert mask[48, 48]
    assert not mask[0].any()
    assert not mask[:, 0].any()


@pytest.mark.parametrize("size", [32, 64, 224])
def test_the_mask_does_not_depend_on_the_size_of_the_image(size: int) -> None:
    for modality in (Modality.CT, Modality.CXR):
        image, _ = _phantom(modality, 4, {})
        mask, _ = lung_mask(image, modality)
        resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        other, _ = lung_mask(resized, modality)
        assert other.shape == (size, size)
        back = cv2.resize(other.astype(np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
        both = (mask & (back > 0)).sum() / (mask | (back > 0)).sum()
        assert both > 0.85


def test_a_cough_has_no_lungs_to_find() -> None:
    with pytest.raises(ValueError, match="cough"):
        lung_mask(np.zeros((8, 8), dtype=np.uint8), Modality.COUGH)


@pytest.mark.data
@pytest.mark.parametrize(
    ("modality", "folder"),
    [
        (Modality.CT, "covid-ct/Images-processed"),
        (Modality.CXR, "darkcovidnet/X-Ray Image DataSet"),
    ],
)
def test_lungs_of_most_real_images_are_found(
    data_root: Path, modality: Modality, folder: str
) -> None:
    suffixes = {".png", ".jpg", ".jpeg"}
    files = sorted(p for p in (data_root / folder).rglob("*") if p.suffix.lower() in suffixes)
    config = CtPreprocessing() if modality is Modality.CT else CxrPreprocessing()
    chosen = files[:: max(1, len(files) // 30)][:30]
    found = [
        lung_mask(prepare(path, modality, config).instances[0], modality)[1] for path in chosen
    ]
    assert np.mean(found) >= 0.75
