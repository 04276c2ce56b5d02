"""Slices become a volume by where they lie in the patient, or are refused with a reason."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import Image, read_image, read_series
from tests.io import samples as s

UID = "1.2.826.0.1.3680043.8.498.1"
OTHER_UID = "1.2.826.0.1.3680043.8.498.2"
AXIAL = [1.0, 0, 0, 0, 1, 0]
#: (z, y, x) of the patient, to the head, the back and the left; no two voxels alike.
VOLUME = np.random.default_rng(3).permutation(40 * 36 * 34).reshape(40, 36, 34).astype(np.int16)


def ct_slice(pixels: np.ndarray, position: Sequence[float] | None, **tags: Any) -> bytes:
    """One slice with its place; HU are the stored values."""
    place: dict[str, Any] = {"SeriesInstanceUID": UID, "RescaleSlope": 1, "RescaleIntercept": 0}
    if position is not None:
        place |= {"ImagePositionPatient": list(position), "ImageOrientationPatient": AXIAL}
    return s.dicom(pixels, "CT", **(place | tags))


def write(folder: Path, slices: Sequence[bytes], prefix: str = "IM") -> Path:
    """Files whose names are in no relation to their places."""
    folder.mkdir(exist_ok=True)
    names = np.random.default_rng(len(slices)).permutation(len(slices))
    for name, data in zip(names, slices, strict=True):
        (folder / f"{prefix}{name:04d}").write_bytes(data)
    return folder


def axial(chosen: Sequence[int], **tags: Any) -> list[bytes]:
    return [ct_slice(VOLUME[z], (0, 0, 2.5 * z), **tags) for z in chosen]


def refused(folder: Path) -> str:
    with pytest.raises(UnreadableFile) as caught:
        read_series(folder)
    assert folder.name in caught.value.what
    assert caught.value.remedy
    return caught.value.why


class TestOrder:
    def test_by_position_and_never_by_name(self, tmp_path: Path) -> None:
        image = read_series(write(tmp_path / "s", axial(range(12))))
        np.testing.assert_array_equal(image.pixels, VOLUME[:12])
        assert image.hounsfield
        wanted = {"slices": 12, "ordered_by": "position", "slice_spacing_mm": 2.5}
        wanted |= {"missing_slices": 0, "duplicate_slices": 0, "skipped_localizers": 0}
        wanted |= {"skipped_files": 0, "acquired_plane": "axial", "format": "dicom"}
        assert {key: image.traits[key] for key in wanted} == wanted

    def test_a_folder_is_read_by_read_image_too(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", axial(range(5)))
        np.testing.assert_array_equal(read_image(folder).pixels, VOLUME[:5])

    def test_files_instead_of_a_folder(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", axial(range(5)))
        image = read_series(sorted(folder.iterdir()))
        np.testing.assert_array_equal(image.pixels, VOLUME[:5])

    def test_instance_numbers_may_run_from_head_to_feet(self, tmp_path: Path) -> None:
        slices = [ct_slice(VOLUME[z], (0, 0, z), InstanceNumber=40 - z) for z in range(6)]
        np.testing.assert_array_equal(read_series(write(tmp_path / "s", slices)).pixels, VOLUME[:6])

    def test_without_positions_the_instance_number_decides(self, tmp_path: Path) -> None:
        slices = [ct_slice(VOLUME[z], None, InstanceNumber=z + 1) for z in range(6)]
        image = read_series(write(tmp_path / "s", slices))
        np.testing.assert_array_equal(image.pixels, VOLUME[:6])
        assert image.traits["ordered_by"] == "instance_number"
        assert "slice_spacing_mm" not in image.traits

    def test_with_neither_it_is_refused(self, tmp_path: Path) -> None:
        slices = [ct_slice(VOLUME[z], None) for z in range(6)]
        assert "neither" in refused(write(tmp_path / "s", slices))

    @pytest.mark.parametrize("tilt_degrees", [0, 12, -25])
    def test_a_tilted_gantry(self, tilt_degrees: float, tmp_path: Path) -> None:
        angle = np.deg2rad(tilt_degrees)
        turn = [1.0, 0, 0, 0, np.cos(angle), np.sin(angle)]
        slices = [
            ct_slice(VOLUME[z], (0, -3.0 * z, 2.0 * z), ImageOrientationPatient=turn)
            for z in range(6)
        ]
        image = read_series(write(tmp_path / "s", slices))
        np.testing.assert_array_equal(image.pixels, VOLUME[:6])
        normal = np.cross(turn[:3], turn[3:])
        assert image.traits["slice_spacing_mm"] == pytest.approx(normal @ [0, -3, 2], abs=1e-5)

    @pytest.mark.parametrize("axes", list(permutations(range(3))))
    @pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
    def test_any_plane_and_direction_becomes_the_same_volume(
        self, axes: tuple[int, ...], signs: tuple[int, ...], tmp_path: Path
    ) -> None:
        # The volume as another scanner would slice it: first axis of `axes` across the slices.
        stored = np.flip(VOLUME.transpose(axes), [i for i in range(3) if signs[i] < 0])
        unit = np.eye(3)[::-1]  # directions of z, y and x as (x, y, z)
        across, down, right = (unit[axis] * sign for axis, sign in zip(axes, signs, strict=True))
        tags = {"ImageOrientationPatient": [*right, *down]}
        slices = [
            ct_slice(plane, across * i, **tags) for i, plane in enumerate(stored.astype(np.int16))
        ]
        image = read_series(write(tmp_path / "s", slices))
        np.testing.assert_array_equal(image.pixels, VOLUME)
        assert image.traits["acquired_plane"] == ("axial", "coronal", "sagittal")[axes[0]]

    def test_frames_of_one_file_are_put_in_order(self) -> None:
        order = [3, 0, 2, 1]
        groups = [
            s.sequence(
                PlanePositionSequence=s.sequence(ImagePositionPatient=[0, 0, 5.0 * z]),
                PlaneOrientationSequence=s.sequence(ImageOrientationPatient=AXIAL),
            )[0]
            for z in order
        ]
        data = ct_slice(VOLUME[order], None, PerFrameFunctionalGroupsSequence=groups)
        np.testing.assert_array_equal(read_image(data).pixels, VOLUME[:4])


class TestFlaws:
    def test_copies_are_dropped_and_counted(self, tmp_path: Path) -> None:
        image = read_series(write(tmp_path / "s", axial([0, 1, 1, 2, 3, 3, 3])))
        np.testing.assert_array_equal(image.pixels, VOLUME[:4])
        assert image.traits["duplicate_slices"] == 3

    def test_two_acquisitions_of_one_place_are_refused(self, tmp_path: Path) -> None:
        slices = axial(range(5), AcquisitionNumber=1)
        slices += [ct_slice(VOLUME[z + 20], (0, 0, 2.5 * z), AcquisitionNumber=2) for z in range(5)]
        why = refused(write(tmp_path / "s", slices))
        assert "different slices of one place (acquisitions 1, 2)" in why

    def test_gaps_are_counted(self, tmp_path: Path) -> None:
        image = read_series(write(tmp_path / "s", axial([0, 1, 2, 5, 6, 7, 9])))
        assert image.traits["missing_slices"] == 3
        assert image.traits["slices"] == 7

    def test_several_series_are_named_with_their_counts(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", axial(range(5)))
        write(folder, axial(range(4), SeriesInstanceUID=OTHER_UID), prefix="B")
        why = refused(folder)
        assert "2 series" in why
        assert f"{UID} with 5" in why
        assert f"{OTHER_UID} with 4" in why

    def test_localizers_are_skipped_and_counted(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", axial(range(5)))
        wide = np.tile(VOLUME[0], (1, 2))
        write(folder, [ct_slice(wide, (0, 0, 0), SeriesInstanceUID=OTHER_UID)], prefix="L")
        tags = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
        write(folder, [ct_slice(wide, (0, 0, i), **tags) for i in range(3)], prefix="M")
        image = read_series(folder)
        assert image.pixels.shape[0] == 5
        assert image.traits["skipped_localizers"] == 4

    def test_two_single_slices_of_two_series_are_refused(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", axial([0]))
        write(folder, axial([1], SeriesInstanceUID=OTHER_UID), prefix="B")
        assert "2 series" in refused(folder)

    def test_different_sizes_are_refused(self, tmp_path: Path) -> None:
        slices = [*axial(range(4)), ct_slice(np.tile(VOLUME[4], (2, 2)), (0, 0, 10))]
        assert "differ in size" in refused(write(tmp_path / "s", slices))

    def test_different_directions_are_refused(self, tmp_path: Path) -> None:
        coronal = ct_slice(VOLUME[4], (0, 0, 10), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
        assert "directions" in refused(write(tmp_path / "s", [*axial(range(4)), coronal]))

    def test_a_damaged_slice_is_named(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", axial(range(4)))
        (folder / "bad.dcm").write_bytes(axial([4])[0][:-500])
        with pytest.raises(UnreadableFile, match=r"bad\.dcm"):
            read_series(folder)

    def test_files_that_are_no_images_are_skipped(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", axial(range(4)))
        (folder / "README.txt").write_text("A scan.")
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" * 9)
        (folder / "preview.png").write_bytes(s.png())
        report = s.dicom(VOLUME[0], "SR")
        start = report.index(b"\xe0\x7f\x10\0")
        where = report.index(b"\x28\0\x10\0US")
        (folder / "report.dcm").write_bytes(report[:where] + report[start:start])
        image = read_series(folder)
        assert image.pixels.shape[0] == 4
        assert image.traits["skipped_files"] == 3

    def test_what_is_whole_has_no_flaws(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", axial(range(5)))
        (folder / "README.txt").write_text("A scan.")
        (folder / "LICENSE").write_text("Free.")
        assert read_series(folder).traits["flaws"] == []

    @pytest.mark.parametrize(
        ("name", "data", "why"),
        [
            ("bad.dcm", b"\0" * 5000, "nothing but zero bytes"),
            ("bad.dcm", b"<html>404</html>", "a web page"),
            ("IM9999", b"\0" * 5000, "nothing but zero bytes"),
            ("bad.dcm", axial([4])[0][:400], "its header is cut or damaged"),
            ("bad.dcm", axial([4], SeriesInstanceUID=OTHER_UID)[0], "of another series"),
        ],
    )
    def test_a_file_that_should_be_a_slice_is_named(
        self, name: str, data: bytes, why: str, tmp_path: Path
    ) -> None:
        folder = write(tmp_path / "s", axial(range(4)))
        (folder / name).write_bytes(data)
        ((reason, remedy),) = read_series(folder).traits["flaws"]
        assert reason.startswith(f"1 file left out of the volume: {name} ({why}")
        assert "copy" in remedy

    def test_an_empty_slice_is_named(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", axial(range(4)))
        (folder / "bad.dcm").write_bytes(b"")
        assert refused(folder) == "its file bad.dcm: is empty (0 bytes)"

    def test_gaps_are_placed(self, tmp_path: Path) -> None:
        folder = tmp_path / "s"
        folder.mkdir()
        for z in (0, 1, 2, 5, 6, 7, 9):
            (folder / f"z{z}.dcm").write_bytes(axial([z])[0])
        ((reason, remedy),) = read_series(folder).traits["flaws"]
        assert reason == (
            "3 slices missing: 2 between z2.dcm and z5.dcm (7.5 mm apart),"
            " 1 between z7.dcm and z9.dcm (5 mm apart)"
        )
        assert "missing slices" in remedy

    def test_gaps_in_instance_numbers_are_placed(self, tmp_path: Path) -> None:
        folder = tmp_path / "s"
        folder.mkdir()
        for n in (1, 2, 4):
            (folder / f"n{n}.dcm").write_bytes(ct_slice(VOLUME[n], None, InstanceNumber=n))
        ((reason, _),) = read_series(folder).traits["flaws"]
        assert reason == "1 slice missing: 1 between n2.dcm and n4.dcm"

    def test_copies_are_named_with_what_they_repeat(self, tmp_path: Path) -> None:
        folder = tmp_path / "s"
        folder.mkdir()
        for name, z in (("a", 0), ("b", 1), ("c", 1), ("d", 2)):
            (folder / f"{name}.dcm").write_bytes(axial([z])[0])
        ((reason, remedy),) = read_series(folder).traits["flaws"]
        assert reason == "1 file with the place and content of another: c.dcm repeats b.dcm"
        assert remedy == "delete the copies"

    def test_of_many_files_three_are_named(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", axial(range(4)))
        for i in range(5):
            (folder / f"bad{i}.dcm").write_bytes(b"\0" * 200)
        ((reason, _),) = read_series(folder).traits["flaws"]
        assert reason.startswith("5 files left out")
        assert "bad2.dcm (nothing but zero bytes) and 2 more" in reason

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "s").mkdir()
        assert "folder without images" in refused(tmp_path / "s")

    def test_a_folder_of_folders(self, tmp_path: Path) -> None:
        (tmp_path / "s" / "deeper").mkdir(parents=True)
        write(tmp_path / "s" / "deeper", axial(range(3)))
        assert "directly" in refused(tmp_path / "s")

    def test_one_slice_alone(self, tmp_path: Path) -> None:
        np.testing.assert_array_equal(
            read_series(write(tmp_path / "s", axial([7]))).pixels, VOLUME[7:8]
        )

    def test_traits_name_nobody(self, tmp_path: Path) -> None:
        tags = {"PatientName": "Doe^Jane", "PatientID": "4711", "StudyDate": "20200301"}
        image = read_series(write(tmp_path / "s", axial(range(3), **tags)))
        assert not any(word in str(image.traits) for word in ("Doe", "4711", "2020", UID))


class TestScale:
    def test_slices_without_units_share_one_scale(self, tmp_path: Path) -> None:
        ramp = np.add.outer(np.arange(5) * 100, VOLUME[0] % 50).astype(np.uint16)
        slices = [
            s.dicom(
                plane,
                "MR",
                SeriesInstanceUID=UID,
                ImagePositionPatient=[0, 0, z],
                ImageOrientationPatient=AXIAL,
            )
            for z, plane in enumerate(ramp)
        ]
        image = read_series(write(tmp_path / "s", slices))
        np.testing.assert_allclose(image.pixels, ramp / ramp.max(), atol=1e-6)

    def test_padding_of_single_slices(self, tmp_path: Path) -> None:
        stored = VOLUME[:4].copy()
        stored[2, :5] = -2000
        slices = [
            ct_slice(plane, (0, 0, z), PixelPaddingValue=-2000) for z, plane in enumerate(stored)
        ]
        image = read_series(write(tmp_path / "s", slices))
        np.testing.assert_array_equal(image.pixels, np.where(stored == -2000, -1000, stored))
        assert image.traits["padding_fraction"] == pytest.approx((stored == -2000).mean())


class TestNumberedPictures:
    def pictures(self, folder: Path, names: Sequence[str]) -> Path:
        folder.mkdir()
        for i, name in enumerate(names):
            stored = np.roll(s.picture(), i, axis=1)
            (folder / name).write_bytes(s.encode(stored, ".png"))
        return folder

    def check(self, image: Image, n: int) -> None:
        for i in range(n):
            expected = np.roll(s.picture(), i, axis=1).astype(np.float32) / 255
            np.testing.assert_array_equal(image.pixels[i], expected)

    def test_numbers_count_as_numbers(self, tmp_path: Path) -> None:
        names = [f"IMG-0001-{n}.png" for n in (7, 8, 9, 10, 11, 100)]
        image = read_series(self.pictures(tmp_path / "s", names))
        self.check(image, 6)
        assert image.traits["ordered_by"] == "name"
        assert image.traits["missing_slices"] == 88
        ((reason, _),) = image.traits["flaws"]
        assert reason == "88 slices missing: 88 between IMG-0001-11.png and IMG-0001-100.png"
        assert not image.hounsfield

    def test_a_damaged_picture_is_named(self, tmp_path: Path) -> None:
        folder = self.pictures(tmp_path / "s", ["1.png", "2.png", "4.png"])
        (folder / "3.png").write_bytes(b"\0" * 99)
        reasons = [reason for reason, _ in read_series(folder).traits["flaws"]]
        assert reasons == [
            "1 file left out of the volume: 3.png (nothing but zero bytes)",
            "1 slice missing: 1 between 2.png and 4.png",
        ]
        (folder / "3.png").write_bytes(s.png()[:-200])
        assert "its file 3.png: " in refused(folder)

    @pytest.mark.parametrize(
        ("names", "reason"),
        [
            (["a.png", "b.png"], "do not number"),
            (["1.png", "01.png"], "single number"),
            (["a1_1.png", "a1_2.png", "a2_1.png"], "single number"),
            (["3.png", "slice.png"], "do not number"),
        ],
    )
    def test_names_that_tell_no_order(self, names: list[str], reason: str, tmp_path: Path) -> None:
        assert reason in refused(self.pictures(tmp_path / "s", names))

    def test_different_sizes(self, tmp_path: Path) -> None:
        folder = self.pictures(tmp_path / "s", ["1.png", "2.png"])
        (folder / "3.png").write_bytes(s.png(height=64))
        assert "differ in size" in refused(folder)

    def test_two_nifti_volumes(self, tmp_path: Path) -> None:
        folder = tmp_path / "s"
        folder.mkdir()
        for i in range(2):
            (folder / f"{i}.nii").write_bytes(s.nifti(VOLUME))
        assert "NIfTI" in refused(folder)

    def test_a_mixture(self, tmp_path: Path) -> None:
        folder = self.pictures(tmp_path / "s", ["1.png", "2.png", "3.png"])
        write(folder, axial(range(3)))
        assert "several kinds" in refused(folder)


@pytest.mark.data
def test_the_published_volume_example(data_root: Path) -> None:
    image = read_series(data_root / "ct-volume-example")
    paths = sorted((data_root / "ct-volume-example").glob("*.jpg"))
    assert image.pixels.shape[0] == len(paths)
    np.testing.assert_array_equal(image.pixels[3], read_image(paths[3]).pixels[0])
    assert image.traits["missing_slices"] == 0


def test_pydicom_series_of_one_patient(tmp_path: Path) -> None:
    """Five slices of one series ship with pydicom, 16 x 16 pixels: too small, but in one piece."""
    from pydicom.data import get_testdata_files

    paths = [Path(p) for p in get_testdata_files("**/CT5N/*") if Path(p).is_file()]
    if not paths:
        pytest.skip("CT5N does not ship with this pydicom")
    for path in paths:
        shutil.copy(path, tmp_path / path.name)
    with pytest.raises(UnreadableFile, match="16 x 16"):
        read_series(tmp_path)
