"""Arrays in memory: what a file with the same content gives, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from pulmofuse.config import CxrPreprocessing
from pulmofuse.errors import UnreadableFile
from pulmofuse.io import image_from_array, read_image, read_sound, sound_from_array
from pulmofuse.preprocessing import prepare
from pulmofuse.schema import Modality


def _levels(dtype: type[np.unsignedinteger[Any]], seed: int = 0) -> npt.NDArray[Any]:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, (80, 64)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_are_what_a_png_of_them_is(dtype: type[np.unsignedinteger[Any]]) -> None:
    values = _levels(dtype)
    array, file = image_from_array(values), read_image(cv2.imencode(".png", values)[1].tobytes())
    assert np.array_equal(array.pixels, file.pixels)
    same = ("height", "width", "slices", "channels", "bit_depth", "colour", "mean", "border_std")
    assert {k: array.traits[k] for k in same} == {k: file.traits[k] for k in same}
    config = CxrPreprocessing()
    one, other = (prepare(image, Modality.CXR, config) for image in (array, file))
    assert np.array_equal(one.instances, other.instances)


def test_floats_in_0_to_1_are_taken_as_they_are_and_others_by_their_extremes() -> None:
    unit = np.random.default_rng(0).random((3, 40, 50))
    assert np.array_equal(image_from_array(unit).pixels, unit.astype(np.float32))
    wide = image_from_array(1000 * unit - 200).pixels
    assert (wide.min(), wide.max()) == (0, 1)


def test_hounsfield_units_stay() -> None:
    volume = np.random.default_rng(0).integers(-1000, 500, (5, 64, 64)).astype(np.int16)
    image = image_from_array(volume, hounsfield=True)
    assert image.hounsfield
    assert np.array_equal(image.pixels, volume)


@given(st.integers(1, 2), st.sampled_from(["int16", "float32"]), st.integers(8_000, 48_000))
def test_samples_are_what_a_wav_of_them_is(channels: int, dtype: str, rate: int) -> None:
    wave = np.random.default_rng(0).uniform(-0.9, 0.9, (channels, 9_000))
    values = (wave * 32767).astype(np.int16) if dtype == "int16" else wave.astype(np.float32)
    stream = io.BytesIO()
    subtype = "PCM_16" if dtype == "int16" else "FLOAT"
    soundfile.write(stream, values.T, rate, format="WAV", subtype=subtype)
    array, file = sound_from_array(values, rate), read_sound(stream.getvalue())
    assert np.array_equal(array.samples, file.samples)
    same = ("sample_rate_hz", "channels", "duration_s", "peak", "bandwidth_hz", "silent_fraction")
    assert {k: array.traits[k] for k in same} == {k: file.traits[k] for k in same}


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.zeros((64, 64)), "blank"),
        (np.full((64, 64), np.nan), "NaN"),
        (np.ones((8, 8), np.uint8), "32 on each side"),
        (np.ones(64, np.uint8), "is no image"),
        (np.ones((2, 2, 64, 64), np.uint8), "is no image"),
        (np.array([["a", "b"]]), "not real numbers"),
        (np.ones((64, 64), bool), "not real numbers"),
        (np.broadcast_to(np.uint8(1), (60_000, 60_000)), "pixels"),
    ],
)
def test_what_is_no_image_is_refused(values: npt.NDArray[Any], match: str) -> None:
    with pytest.raises(UnreadableFile, match=match):
        image_from_array(values)


@pytest.mark.parametrize(
    ("values", "rate", "match"),
    [
        (np.zeros(16_000), 16_000, "silent"),
        (np.full(16_000, np.inf), 16_000, "NaN or infinite"),
        (np.ones(10), 16_000, "lasts"),
        (np.ones(16_000), 7, "samples per second"),
        (np.ones((2, 2, 16_000)), 16_000, "no recording"),
        (np.array([]), 16_000, "no recording"),
    ],
)
def test_what_is_no_recording_is_refused(values: npt.NDArray[Any], rate: int, match: str) -> None:
    with pytest.raises(UnreadableFile, match=match):
        sound_from_array(values, rate)


def test_an_image_is_no_cough_and_a_cough_no_image() -> None:
    sound = sound_from_array(np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    with pytest.raises(UnreadableFile, match="this is a sound"):
        prepare(sound, Modality.CXR, CxrPreprocessing())
