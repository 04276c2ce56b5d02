"""NIfTI volumes come in one orientation, whatever the affine; nibabel is the reference."""

from __future__ import annotations

import gzip
import io
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import read_image
from tests.io import samples as s

VOLUME = np.random.default_rng(4).normal(-400, 300, size=(36, 34, 33)).astype(np.float32)


def reference(data: bytes) -> np.ndarray:
    """(slices, rows, columns) of the volume that nibabel calls closest to canonical."""
    image = nib.as_closest_canonical(nib.Nifti1Image.from_bytes(data))
    return np.asarray(image.dataobj)[::-1, ::-1, :].transpose(2, 1, 0)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product([1.0, -1.0], repeat=3)))
def test_flipped_and_permuted_axes(axes: tuple[int, ...], signs: tuple[float, ...]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, axes] * signs * 1.5
    stored = VOLUME.transpose(axes)
    stored = np.flip(stored, [i for i in range(3) if signs[i] < 0])
    image = read_image(s.nifti(np.ascontiguousarray(stored), affine))
    np.testing.assert_array_equal(image.pixels, VOLUME[::-1, ::-1, :].transpose(2, 1, 0))


@settings(max_examples=25, deadline=None)
@given(angles=st.tuples(*[st.floats(-0.6, 0.6)] * 3), packed=st.booleans())
def test_oblique_affines(angles: tuple[float, ...], packed: bool) -> None:
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        step = np.eye(3)
        step[[a, a, b, b], [a, b, a, b]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        turn = turn @ step
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, -0.7, 2.5])
    data = s.nifti(VOLUME, affine, packed=packed)
    image = read_image(data)
    np.testing.assert_array_equal(image.pixels, reference(s.nifti(VOLUME, affine)))


def test_slope_and_intercept_are_applied() -> None:
    image = nib.Nifti1Image(np.arange(40 * 40 * 3, dtype=np.int16).reshape(40, 40, 3), np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    data = bytearray(image.to_bytes())
    data[112:120] = np.array([0.5, -1024], np.float32).tobytes()
    read = read_image(bytes(data))
    assert read.hounsfield
    assert read.pixels.min() == -1024
    assert read.pixels.max() == pytest.approx(4799 * 0.5 - 1024)


@pytest.mark.parametrize("shape", [(40, 40, 3, 9), (40, 40, 3, 1, 3), (40,)])
def test_not_one_volume(shape: tuple[int, ...]) -> None:
    with pytest.raises(UnreadableFile, match="shape"):
        read_image(s.nifti(np.zeros(shape, np.int16)))


class TestBombs:
    """Refused by what the header declares, before anything is unpacked."""

    def test_terabytes(self) -> None:
        head = bytearray(s.nifti(np.zeros((40, 40, 3), np.int16))[:352])
        head[40:56] = np.array([3, 32767, 32767, 32767, 1, 1, 1, 1], np.int16).tobytes()
        stream = io.BytesIO()
        with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed:
            packed.write(bytes(head))
            packed.write(bytes(1 << 20))
        with pytest.raises(UnreadableFile, match="no chest image has"):
            read_image(stream.getvalue())

    def test_a_volume_of_zeros(self) -> None:
        head = bytearray(s.nifti(np.zeros((40, 40, 3), np.int16))[:352])
        head[40:56] = np.array([3, 512, 512, 500, 1, 1, 1, 1], np.int16).tobytes()
        stream = io.BytesIO()
        with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed:
            packed.write(bytes(head))
            for _ in range(250):
                packed.write(bytes(1 << 20))
        with pytest.raises(UnreadableFile, match="unpack"):
            read_image(stream.getvalue())
