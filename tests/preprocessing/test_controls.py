"""Controls: what is taken out is gone, what is kept is kept to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from pulmofuse.config import CoughPreprocessing, CtPreprocessing, CxrPreprocessing
from pulmofuse.preprocessing import controls
from pulmofuse.preprocessing.controls import BORDER, CONTROLS
from pulmofuse.preprocessing.lungs import lung_mask
from pulmofuse.schema import Label, Modality
from pulmofuse.sources.phantom import draw_cough, draw_ct, draw_cxr
from pulmofuse.sources.phantom.cough import SAMPLE_RATE_HZ

SIZE = 96
CONFIGS = {
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
    altered = CONTROLS[name].alter(instances, modality, CONFIGS[modality])
    assert altered.instances.shape == instances.shape
    assert altered.instances.dtype == instances.dtype
    assert altered.missed.shape == (len(instances),)
    return altered.instances


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
    altered = CONTROLS["lungs_blanked"].alter(images, Modality.CT, CONFIGS[Modality.CT])
    assert altered.missed.tolist() == [False, False, True]


def test_coughs_are_silenced_and_the_rest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    waves = np.stack(
        [draw_cough(np.random.default_rng(i), {}, female=False, coarse=False) for i in range(3)]
    )
    spans = np.array([[0.5, 1.0], [1.5, 1.75]])
    heard: list[tuple[float, int]] = []

    def find(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        heard.append((float(np.abs(samples).max()), sample_rate_hz))
        return spans if len(heard) < 3 else spans[:0]

    monkeypatch.setattr(controls, "find_coughs", find)
    altered = CONTROLS["between_coughs"].alter(waves, Modality.COUGH, CONFIGS[Modality.COUGH])
    assert altered.missed.tolist() == [False, False, True]
    assert all(peak <= 1 and rate == SAMPLE_RATE_HZ for peak, rate in heard)
    np.testing.assert_array_equal(altered.instances[2], waves[2])
    for rest, wave in zip(altered.instances[:2], waves[:2], strict=True):
        for start_s, end_s in spans:
            assert not rest[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)].any()
        # A tenth of a second on either side is more than any margin.
        far = slice(int(1.1 * SAMPLE_RATE_HZ), int(1.4 * SAMPLE_RATE_HZ))
        np.testing.assert_array_equal(rest[far], wave[far])


def test_no_instances_are_no_error() -> None:
    for name, control in CONTROLS.items():
        for modality in control.modalities:
            instances = _images(modality, 1)[:0] if modality in IMAGES else np.zeros((0, 64000))
            _alter(name, modality, instances)


def test_a_cough_control_refuses_the_settings_of_images() -> None:
    with pytest.raises(TypeError, match="CtPreprocessing"):
        CONTROLS["between_coughs"].alter(
            np.zeros((1, 100), dtype=np.int16), Modality.COUGH, CONFIGS[Modality.CT]
        )
