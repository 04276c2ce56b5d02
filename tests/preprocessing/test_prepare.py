"""Files to instances: windows, crops, slices, trimming."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pulmofuse.config import CoughPreprocessing, CtPreprocessing, CxrPreprocessing
from pulmofuse.errors import UnreadableFile
from pulmofuse.preprocessing import instance_dtype, instance_shape, prepare, to_tensor
from pulmofuse.preprocessing.coughs import cut_windows, trim_silence
from pulmofuse.preprocessing.images import crop_to_body, slice_positions, window_ct
from pulmofuse.schema import Modality
from tests.io import samples as s

CONFIGS = [
    (Modality.CT, CtPreprocessing(size=64), s.png()),
    (Modality.CXR, CxrPreprocessing(size=64), s.png()),
    (Modality.COUGH, CoughPreprocessing(duration_s=0.25), s.sound(s.tone(1.0))),
]


@pytest.mark.parametrize(("modality", "config", "data"), CONFIGS)
class TestPrepare:
    def test_shape_and_type_are_as_announced(self, modality, config, data) -> None:
        instances = prepare(data, modality, config).instances
        assert instances.shape[1:] == instance_shape(modality, config)
        assert instances.dtype == instance_dtype(modality)
        assert len(instances) >= 1

    def test_file_and_bytes_give_the_same(self, modality, config, data, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(data)
        from_file = prepare(tmp_path / "file", modality, config)
        from_bytes = prepare(data, modality, config)
        np.testing.assert_array_equal(from_file.instances, from_bytes.instances)
        assert from_file.seen == from_bytes.seen

    def test_the_error_carries_the_given_name(self, modality, config, data) -> None:
        with pytest.raises(UnreadableFile, match="scan-3"):
            prepare(data[:20], modality, config, "scan-3")


def test_a_configuration_of_another_modality_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="does not belong"):
        prepare(s.png(), Modality.CT, CxrPreprocessing())
    with pytest.raises(TypeError, match="does not belong"):
        instance_shape(Modality.COUGH, CxrPreprocessing())


class TestToTensor:
    def test_images(self) -> None:
        tensor = to_tensor(np.array([[[0, 51], [255, 102]]], np.uint8))
        assert tensor.shape == (1, 1, 2, 2)
        np.testing.assert_allclose(tensor[0, 0].numpy(), [[0, 0.2], [1, 0.4]])

    def test_sounds(self) -> None:
        tensor = to_tensor(np.array([[0, 32767, -32767]], np.int16))
        np.testing.assert_array_equal(tensor.numpy(), [[0, 1, -1]])
        assert tensor.dtype == torch.float32

    def test_a_read_only_map_is_not_written_through(self) -> None:
        stored = np.zeros((1, 4), np.int16)
        stored.setflags(write=False)
        to_tensor(stored).add_(1)
        assert stored.max() == 0

    @pytest.mark.parametrize("bad", [np.zeros((1, 4, 4)), np.zeros((4, 4), np.uint8)])
    def test_others_are_refused(self, bad: np.ndarray) -> None:
        with pytest.raises(ValueError, match="instances"):
            to_tensor(bad)


class TestSlices:
    @pytest.mark.parametrize(
        ("n_slices", "max_slices", "expected"),
        [
            (1, 16, [0]),
            (2, 16, [0, 1]),
            (11, 3, [2, 5, 8]),  # 15 % and 85 % of ten steps are 1.5 and 8.5
            (101, 1, [50]),
            (101, 2, [15, 85]),
        ],
    )
    def test_table(self, n_slices: int, max_slices: int, expected: list[int]) -> None:
        assert slice_positions(n_slices, max_slices).tolist() == expected

    @given(n_slices=st.integers(1, 800), max_slices=st.integers(1, 64))
    def test_properties(self, n_slices: int, max_slices: int) -> None:
        positions = slice_positions(n_slices, max_slices)
        assert 1 <= len(positions) <= max_slices
        assert (np.diff(positions) > 0).all()
        assert positions[0] >= np.floor(0.15 * (n_slices - 1))
        assert positions[-1] <= np.ceil(0.85 * (n_slices - 1))


def body_slice(height: int = 120, width: int = 160, table: bool = True) -> np.ndarray:
    """Bright ellipse with two dark lungs over dark air: rows 15 to 105, columns 20 to 140."""
    y, x = np.mgrid[:height, :width]
    plane = np.full((height, width), 0.05, np.float32)
    plane[((y - 60) / 45) ** 2 + ((x - 80) / 60) ** 2 <= 1] = 0.9
    for centre in (55, 105):
        plane[((y - 60) / 27) ** 2 + ((x - centre) / 18) ** 2 <= 1] = 0.1
    if table:
        plane[112:115, 5:155] = 0.7
    return plane


class TestCt:
    def test_window_maps_hounsfield_units(self) -> None:
        values = np.array([-2000, -1350, -600, 150, 3000], np.float32)
        np.testing.assert_allclose(window_ct(values, -600, 1500), [0, 0, 0.5, 1, 1])

    def test_window_is_for_hounsfield_data_only(self) -> None:
        config = CtPreprocessing(size=64, body_crop=False)
        hounsfield = np.full((64, 64), -600, np.int16)
        hounsfield[:8] = 400
        data = s.dicom(hounsfield, RescaleSlope=1, RescaleIntercept=0)
        instance = prepare(data, Modality.CT, config).instances[0]
        assert (instance[0, 0], instance[-1, -1]) == (255, 128)
        grey = np.full((64, 64), 128, np.uint8)
        grey[:8] = 255
        np.testing.assert_array_equal(
            prepare(s.encode(grey, ".png"), Modality.CT, config).instances[0], grey
        )

    @pytest.mark.parametrize("table", [False, True])
    def test_crop_finds_the_body_with_its_lungs(self, table: bool) -> None:
        cropped = crop_to_body(body_slice(table=table))
        np.testing.assert_allclose(cropped.shape, (91, 121), atol=3)
        assert cropped[45, 35] == pytest.approx(0.1)  # the lung is inside

    def test_white_margins_of_a_figure_are_cut(self) -> None:
        framed = np.pad(body_slice(), ((50, 0), (0, 30)), constant_values=1.0)
        np.testing.assert_allclose(crop_to_body(framed).shape, (91, 121), atol=3)

    def test_a_small_find_leaves_the_slice_as_it_is(self) -> None:
        plane = np.zeros((100, 100), np.float32)
        plane[40:60, 40:60] = 1
        assert crop_to_body(plane).shape == (100, 100)

    @settings(max_examples=60, deadline=None)
    @given(
        hnp.arrays(
            np.float32,
            hnp.array_shapes(min_dims=2, max_dims=2, min_side=32, max_side=48),
            elements=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        )
    )
    def test_any_slice_keeps_at_least_thirty_percent(self, plane: np.ndarray) -> None:
        assert crop_to_body(plane).size >= 0.3 * plane.size

    def test_a_volume_gives_its_middle_slices(self) -> None:
        volume = np.stack([np.full((40, 40), -1000 + 40 * z, np.int16) for z in range(21)], -1)
        volume[:5] = 400  # a wall, so that no slice is blank
        config = CtPreprocessing(size=40, max_slices=4, body_crop=False)
        instances = prepare(s.nifti(volume), Modality.CT, config).instances
        expected_hu = -1000 + 40 * np.array([3, 8, 12, 17])
        np.testing.assert_allclose(
            instances[:, 20, 5], np.clip((expected_hu + 1350) / 1500, 0, 1) * 255, atol=1
        )


class TestCxr:
    def test_percentiles_become_black_and_white(self) -> None:
        config = CxrPreprocessing(size=48, low_percentile=5, high_percentile=95)
        instance = prepare(s.png(height=48, width=48), Modality.CXR, config).instances[0]
        assert (instance == 0).mean() == pytest.approx(0.05, abs=0.02)
        assert (instance == 255).mean() == pytest.approx(0.05, abs=0.02)

    def test_exposure_does_not_matter(self) -> None:
        bright = s.picture(dtype=np.uint16)
        dark = bright // 8
        left, right = (
            prepare(s.encode(x, ".png"), Modality.CXR, CxrPreprocessing(size=64)).instances
            for x in (bright, dark)
        )
        np.testing.assert_allclose(left.astype(int), right.astype(int), atol=1)

    def test_a_ct_is_refused(self) -> None:
        data = s.dicom(s.picture().astype(np.int16), RescaleSlope=1, RescaleIntercept=-1024)
        with pytest.raises(UnreadableFile, match="not a chest X-ray"):
            prepare(data, Modality.CXR, CxrPreprocessing())


def burst(before: int, loud: int, after: int, quiet: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, quiet, before + loud + after)
    noise[before : before + loud] += rng.normal(0, 0.3, loud)
    return noise.astype(np.float32)


class TestTrim:
    @pytest.mark.parametrize("trim_db", [20.0, 40.0, 60.0])
    @pytest.mark.parametrize(
        "sound",
        [
            burst(8000, 4000, 6000),
            burst(8000, 4000, 6000, 0.01),
            burst(0, 5000, 9000, 0.001),
            burst(100, 300, 50),
            burst(9000, 1, 9000),
            np.sin(np.arange(16000) / 30).astype(np.float32),
        ],
        ids=["burst", "noisy", "early", "short", "click", "tone"],
    )
    def test_same_as_librosa(self, sound: np.ndarray, trim_db: float) -> None:
        reference, _ = librosa.effects.trim(sound, top_db=trim_db)
        np.testing.assert_array_equal(trim_silence(sound, trim_db), reference)


class TestWindows:
    @pytest.mark.parametrize(
        ("n_samples", "starts"),
        [
            (40, [0]),
            (100, [0]),
            (120, [0]),  # a tail of a fifth is dropped
            (130, [0, 100]),
            (300, [0, 100, 200]),
            (1000, [0, 450, 900]),
        ],
    )
    def test_table(self, n_samples: int, starts: list[int]) -> None:
        sound = np.arange(1, n_samples + 1, dtype=np.int16)
        windows = cut_windows(sound, 100, 3)
        assert windows.shape == (len(starts), 100)
        for window, start in zip(windows, starts, strict=True):
            part = sound[start : start + 100]
            np.testing.assert_array_equal(window[: len(part)], part)
            assert (window[len(part) :] == 0).all()


class TestCough:
    CONFIG = CoughPreprocessing(duration_s=1.0, max_windows=2)

    def test_level_and_offset_do_not_matter(self) -> None:
        stored = s.tone(1.0)
        left = prepare(s.sound(stored, "WAV", "FLOAT"), Modality.COUGH, self.CONFIG)
        right = prepare(s.sound(stored * 0.1 + 0.2, "WAV", "FLOAT"), Modality.COUGH, self.CONFIG)
        np.testing.assert_allclose(left.instances.astype(int), right.instances.astype(int), atol=2)
        assert np.abs(left.instances).max() == 32767

    @pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
    def test_sample_rate_does_not_matter(self, rate: int) -> None:
        data = s.sound(s.tone(1.0, rate), "WAV", "FLOAT", rate)
        instance = prepare(data, Modality.COUGH, self.CONFIG).instances[0]
        spectrum = np.abs(np.fft.rfft(instance * np.hanning(len(instance))))
        assert np.fft.rfftfreq(len(instance), 1 / 16000)[spectrum.argmax()] == pytest.approx(
            440, 1e-2
        )

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_the_loudest_channel_is_heard_and_no_other(self, order: tuple[int, int]) -> None:
        left = s.tone(1.0, channels=1)
        # The other end of the line: another voice, 12 dB lower, with mains hum and an offset.
        hum = 0.9 * np.sin(2 * np.pi * 50 * np.arange(len(left))[:, None] / s.RATE)
        other = np.float32(0.25 * left[::-1] + 0.2 * hum + 0.3)
        both = np.hstack([left, other])[:, list(order)]
        np.testing.assert_allclose(
            prepare(s.sound(both, "WAV", "FLOAT"), Modality.COUGH, self.CONFIG).instances,
            prepare(s.sound(left, "WAV", "FLOAT"), Modality.COUGH, self.CONFIG).instances,
            atol=1,
        )

    def test_channels_that_would_cancel_are_read(self) -> None:
        left = np.float32(s.tone(1.0))
        instances = prepare(
            s.sound(np.hstack([left, -left]), "WAV", "FLOAT"), Modality.COUGH, self.CONFIG
        ).instances
        assert np.abs(instances.astype(int)).max() == 32767


@pytest.mark.data
def test_published_recordings_become_instances(data_root: Path) -> None:
    config = CoughPreprocessing()
    for path in sorted((data_root / "covid19-cough" / "raw").glob("*.mp3"))[:8]:
        instances = prepare(path, Modality.COUGH, config).instances
        assert 1 <= len(instances) <= config.max_windows
        assert np.abs(instances.astype(int)).max() == 32767
