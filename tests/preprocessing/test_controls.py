"""Controls: what is taken out is gone, what is kept is kept to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from pulmofuse.config import CoughPreprocessing, CtPreprocessing, CxrPreprocessing
from pulmofuse.preprocessing import PreprocessingConfig, controls
from pulmofuse.preprocessing.controls import BORDER, CONTROLS, find
from pulmofuse.preprocessing.lungs import lung_mask
from pulmofuse.schema import Label, Modality
from pulmofuse.sources.phantom import draw_cough, draw_ct, draw_cxr
from pulmofuse.sources.phantom.cough import SAMPLE_RATE_HZ

SIZE = 96
CONFIGS: dict[Modality, PreprocessingConfig] = {
    Modality.CT: CtPreprocessing(size=SIZE),
    Modality.CXR: CxrPreprocessing(size=SIZE),
    Modality.COUGH: CoughPreprocessing(sample_rate_hz=SAMPLE_RATE_HZ),
}
IMAGES = [Modality.CT, Modality.CXR]


def _images(modality: Modality, n: int = 6) -> np.ndarray:
    draw = draw_ct if modality is Modality.CT else draw_cxr
    signs = {Label.COVID19: 1.0}
    return np.stack(
        [draw(np.random.default_rng(i), SIZE, signs, female=False, coarse=False) for i in range(n)]
    )


def _alter(name: str, modality: Modality, instances: np.ndarray) -> np.ndarray:
    found = find(instances, modality, CONFIGS[modality])
    assert found.masks.shape == instances.shape
    assert found.missed.shape == (len(instances),)
    altered = CONTROLS[name].alter(instances, found.masks)
    assert altered.shape == instances.shape
    assert altered.dtype == instances.dtype
    return altered


@pytest.mark.parametrize("modality", IMAGES)
def test_blanked_lungs_and_lungs_alone_share_no_pixel(modality: Modality) -> None:
    images = _images(modality)
    given = images.copy()
    blanked = _alter("lungs_blanked", modality, images)
    alone = _alter("lungs_only", modality, images)
    np.testing.assert_array_equal(images, given)
    for image, without, lungs in zip(images, blanked, alone, strict=True):
        mask, _ = lung_mask(image, modality)
        np.testing.assert_array_equal(without[~mask], image[~mask])
        np.testing.assert_array_equal(lungs[mask], image[mask])
        assert len(np.unique(without[mask])) == len(np.unique(lungs[~mask])) == 1


def test_what_is_blanked_says_nothing_of_the_lungs(monkeypatch: pytest.MonkeyPatch) -> None:
    images = _images(Modality.CXR)
    mask, _ = lung_mask(images[0], Modality.CXR)
    monkeypatch.setattr(controls, "lung_mask", lambda *_: (mask, True))
    white = np.where(mask, np.uint8(255), images)
    np.testing.assert_array_equal(
        _alter("lungs_blanked", Modality.CXR, images), _alter("lungs_blanked", Modality.CXR, white)
    )


@pytest.mark.parametrize("modality", IMAGES)
def test_the_border_alone_does_not_depend_on_the_middle(modality: Modality) -> None:
    images = _images(modality)
    width = round(BORDER * SIZE)
    other = images.copy()
    other[:, width:-width, width:-width] = 0
    border = _alter("border_only", modality, images)
    np.testing.assert_array_equal(border, _alter("border_only", modality, other))
    for edge in (np.s_[:, :width], np.s_[:, -width:], np.s_[:, :, :width], np.s_[:, :, -width:]):
        np.testing.assert_array_equal(border[edge], images[edge])


@pytest.mark.parametrize("modality", IMAGES)
def test_the_outline_is_black_and_white(modality: Modality) -> None:
    assert set(np.unique(_alter("lung_outline", modality, _images(modality)))) == {0, 255}


def test_an_image_without_lungs_is_counted() -> None:
    images = np.concatenate([_images(Modality.CT, 2), np.zeros((1, SIZE, SIZE), dtype=np.uint8)])
    assert find(images, Modality.CT, CONFIGS[Modality.CT]).missed.tolist() == [False, False, True]


def test_coughs_are_silenced_and_the_rest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    waves = np.stack(
        [draw_cough(np.random.default_rng(i), {}, female=False, coarse=False) for i in range(3)]
    )
    spans = np.array([[0.5, 1.0], [1.5, 1.75]])
    heard: list[tuple[float, int]] = []

    def coughs(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        heard.append((float(np.abs(samples).max()), sample_rate_hz))
        return spans if len(heard) < 3 else spans[:0]

    monkeypatch.setattr(controls, "find_coughs", coughs)
    found = find(waves, Modality.COUGH, CONFIGS[Modality.COUGH])
    assert found.missed.tolist() == [False, False, True]
    altered = CONTROLS["between_coughs"].alter(waves, found.masks)
    assert all(peak <= 1 and rate == SAMPLE_RATE_HZ for peak, rate in heard)
    np.testing.assert_array_equal(altered[2], waves[2])
    for rest, wave in zip(altered[:2], waves[:2], strict=True):
        for start_s, end_s in spans:
            assert not rest[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)].any()
        # A tenth of a second on either side is more than any margin.
        far = slice(int(1.1 * SAMPLE_RATE_HZ), int(1.4 * SAMPLE_RATE_HZ))
        np.testing.assert_array_equal(rest[far], wave[far])


@pytest.mark.parametrize(
    ("name", "modality"), [(n, m) for n, control in CONTROLS.items() for m in control.modalities]
)
def test_no_instances_give_none(name: str, modality: Modality) -> None:
    shape = (0, SIZE, SIZE) if modality in IMAGES else (0, 64000)
    instances = np.zeros(shape, np.uint8 if modality in IMAGES else np.int16)
    found = find(instances, modality, CONFIGS[modality])
    altered = CONTROLS[name].alter(instances, found.masks)
    assert (altered.shape, altered.dtype) == (shape, instances.dtype)
    assert found.missed.shape == (0,)


def test_coughs_with_the_settings_of_images_are_refused() -> None:
    with pytest.raises(TypeError, match="CtPreprocessing"):
        find(np.zeros((1, 100), dtype=np.int16), Modality.COUGH, CONFIGS[Modality.CT])
