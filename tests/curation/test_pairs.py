"""`find_pairs`: what is a copy, what is not, and how pairs are named."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.curation.alignment import WHOLE, likeness, look, refine
from pulmofuse.curation.fingerprints import image_fingerprint, sound_fingerprint
from pulmofuse.curation.neighbours import build_cells, neighbours, unit
from pulmofuse.curation.pairs import MAX_GROUP, find_pairs
from pulmofuse.io import Image, read_image
from tests.curation.copies import coughs, jpeg, picture

N_STRANGERS = 30


def print_of(pixels: np.ndarray) -> bytes:
    return image_fingerprint(Image(np.asarray(pixels, np.float32)[None], False, {}))


def records(*rows: tuple[str, str, str | None, bytes | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["record_id", "modality", "sha256", "fingerprint"])


def named(pairs: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(zip(pairs["record_a"], pairs["record_b"], pairs["kind"], strict=True))


@pytest.fixture(scope="module")
def pictures() -> pd.DataFrame:
    """Pictures that are all different."""
    return records(*((f"x{i:02d}", "cxr", None, print_of(picture(i))) for i in range(N_STRANGERS)))


@pytest.fixture(scope="module")
def recordings() -> pd.DataFrame:
    """Recordings that are all different."""
    return records(
        *(
            (f"y{i:02d}", "cough", None, sound_fingerprint(coughs(i), 16_000))
            for i in range(N_STRANGERS)
        )
    )


class TestExact:
    def test_same_content_is_a_pair_and_unknown_content_is_none(self) -> None:
        frame = records(
            ("b", "ct", "1", None), ("a", "ct", "1", None), ("c", "ct", None, None),
            ("d", "ct", None, None), ("e", "ct", "2", None),
        )  # fmt: skip
        pairs = find_pairs(frame)
        assert named(pairs) == [("a", "b", "exact")]
        assert pairs["score"].tolist() == [1.0]

    def test_across_modalities_too(self) -> None:
        found = find_pairs(records(("a", "ct", "1", None), ("b", "cxr", "1", None)))
        assert found.to_numpy().tolist() == [["a", "b", "exact", 1.0]]

    @pytest.mark.parametrize("k", [2, 3, MAX_GROUP])
    def test_a_group_gives_all_its_pairs(self, k: int) -> None:
        names = [f"{i:02d}" for i in range(k)]
        pairs = find_pairs(records(*((name, "ct", "1", None) for name in names)))
        assert named(pairs) == [(a, b, "exact") for a, b in combinations(names, 2)]

    def test_a_large_group_gives_a_star(self) -> None:
        names = [f"{i:02d}" for i in range(MAX_GROUP + 1)]
        pairs = find_pairs(records(*((name, "ct", "1", None) for name in names)))
        assert named(pairs) == [("00", name, "exact") for name in names[1:]]

    def test_exact_comes_before_near(self) -> None:
        mark = print_of(picture(0))
        pairs = find_pairs(
            records(("a", "ct", "1", mark), ("b", "ct", "1", mark), ("c", "ct", "2", mark))
        )
        assert named(pairs) == [("a", "b", "exact"), ("a", "c", "near"), ("b", "c", "near")]

    def test_nothing_in_nothing_out(self) -> None:
        pairs = find_pairs(records())
        assert pairs.columns.tolist() == ["record_a", "record_b", "kind", "score"]
        assert pairs.empty


def crop(p: np.ndarray, top: float, bottom: float, left: float, right: float) -> np.ndarray:
    height, width = p.shape
    return p[int(top * height) : height - int(bottom * height),
             int(left * width) : width - int(right * width)]  # fmt: skip


IMAGE_COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "jpeg 50": lambda p: jpeg(p, 50),
    "16 bit": lambda p: np.round(p * 65535) / 65535,
    "smaller": lambda p: cv2.resize(p, (150, 150), interpolation=cv2.INTER_AREA),
    "wider": lambda p: cv2.resize(p, (400, 300)),
    "darker": lambda p: np.clip(p - 0.1, 0, 1),
    "gamma": lambda p: p**1.25,
    "cropped 5 % all round": lambda p: crop(p, 0.05, 0.05, 0.05, 0.05),
    "cropped at one corner": lambda p: crop(p, 0.05, 0, 0, 0.05),
    "a fifth of the width cut off": lambda p: crop(p, 0, 0, 0.2, 0),
    "cut to the middle": lambda p: crop(p, 0.12, 0.12, 0.1, 0.1),
    "a wide picture cut to a square": lambda p: crop(cv2.resize(p, (320, 256)), 0, 0.05, 0.05, 0.2),
    "all together": lambda p: jpeg(cv2.resize(crop(p, 0.03, 0.01, 0, 0.05), (200, 190)) ** 0.9, 60),
}


class TestImages:
    @pytest.mark.parametrize("name", IMAGE_COPIES)
    def test_a_copy_is_found_and_nothing_else(self, pictures: pd.DataFrame, name: str) -> None:
        copy = ("x07copy", "cxr", None, print_of(IMAGE_COPIES[name](picture(7))))
        assert named(find_pairs(pd.concat([pictures, records(copy)]))) == [
            ("x07", "x07copy", "near")
        ]

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda p: p[:, ::-1], id="mirrored"),
            pytest.param(lambda p: 1 - p, id="inverted"),
            pytest.param(lambda p: p[64:192, 64:192], id="a quarter of it"),
        ],
    )
    def test_is_not_looked_for(
        self, pictures: pd.DataFrame, change: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        copy = ("x07copy", "cxr", None, print_of(change(picture(7))))
        assert find_pairs(pd.concat([pictures, records(copy)])).empty

    def test_another_interior_in_the_same_frame_is_another_picture(self) -> None:
        """As in the next slice of a CT: the outline is the same, the vessels are not."""
        one, other = picture(1), picture(1)
        other[64:192, 64:192] = picture(2)[64:192, 64:192]
        frame = records(("a", "ct", None, print_of(one)), ("b", "ct", None, print_of(other)))
        assert find_pairs(frame).empty

    def test_a_volume_is_not_a_copy_of_its_slices(self) -> None:
        slices = np.stack([picture(1)] * 4).astype(np.float32)
        volume = image_fingerprint(Image(slices, False, {}))
        frame = records(("a", "ct", None, volume), ("b", "ct", None, print_of(slices[0])))
        assert find_pairs(frame).empty

    def test_flat_pictures_end_in_no_error(self) -> None:
        flat = (("a", "ct", None, print_of(np.full((64, 64), v))) for v in (0.2,))
        assert find_pairs(records(*flat, ("b", "ct", None, print_of(picture(0))))).empty


def trimmed(x: np.ndarray) -> tuple[np.ndarray, int]:
    return x[1600:-1600], 16_000


SOUND_COPIES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, int]]] = {
    "quieter": lambda x: (x * np.float32(0.1), 16_000),
    "8 kHz": lambda x: (soxr.resample(x, 16_000, 8000), 8000),
    "48 kHz": lambda x: (soxr.resample(x, 16_000, 48_000), 48_000),
    "trimmed by 0.1 s": trimmed,
    "silence around": lambda x: (np.pad(x, (9000, 5000)), 16_000),
    "12 bit": lambda x: (np.round(x * 2048).astype(np.float32) / 2048, 16_000),
}


class TestSounds:
    @pytest.mark.parametrize("name", SOUND_COPIES)
    def test_a_copy_is_found_and_nothing_else(self, recordings: pd.DataFrame, name: str) -> None:
        samples, rate_hz = SOUND_COPIES[name](coughs(5))
        copy = ("y05copy", "cough", None, sound_fingerprint(samples, rate_hz))
        assert named(find_pairs(pd.concat([recordings, records(copy)]))) == [
            ("y05", "y05copy", "near")
        ]

    def test_silence_is_no_copy_of_silence(self) -> None:
        assert find_pairs(records(("a", "cough", None, b""), ("b", "cough", None, b""))).empty


@settings(max_examples=4, deadline=None)
@given(order=st.permutations(range(12)))
def test_the_order_and_index_of_rows_do_not_matter(order: list[int]) -> None:
    marks = [print_of(picture(i, side=96)) for i in range(10)]
    marks[3] = print_of(crop(picture(4, side=96), 0.2, 0, 0, 0.2))
    rows = [(f"r{i:02d}", "ct", str(i % 11), marks[i % 10]) for i in range(12)]
    straight = records(*rows)
    shuffled = straight.iloc[order].set_index("record_id", drop=False)
    pairs = find_pairs(straight)
    assert ("r03", "r04", "near") in named(pairs)
    pd.testing.assert_frame_equal(pairs, find_pairs(shuffled))


class TestNeighbours:
    def test_cells_lose_little_against_looking_everywhere(self) -> None:
        rng = np.random.default_rng(0)
        vectors = unit(rng.normal(size=(6000, 16)).astype(np.float32))
        vectors[1::2] = unit(vectors[::2] + 0.1 * vectors[1::2])
        found = neighbours(build_cells(vectors), [vectors], np.arange(6000), 0.9, 16)
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -1)
        everywhere = set(zip(*map(np.ndarray.tolist, np.nonzero(similar >= 0.9)), strict=True))
        there = set(zip(found.query.tolist(), found.row.tolist(), strict=True))
        assert there <= everywhere
        assert len(there) > 0.98 * len(everywhere)

    def test_where_everything_is_alike_each_keeps_its_best(self) -> None:
        rng = np.random.default_rng(0)
        vectors = unit(1 + 0.01 * rng.normal(size=(300, 8)).astype(np.float32))
        found = neighbours(build_cells(vectors), [vectors], np.arange(300), 0.5, 5)
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -1)
        assert np.bincount(found.query).max() <= 5
        assert np.all(np.isin(similar.argmax(axis=1), found.row))


class TestAlignment:
    @pytest.mark.parametrize(("shift", "scale"), [(0.02, 0.95), (-0.03, 0.92), (0.0, 1.03)])
    def test_a_crop_is_found_again(self, shift: float, scale: float) -> None:
        source = cv2.resize(picture(1), (64, 64), interpolation=cv2.INTER_AREA)[None]
        truth = np.array([[shift, scale, -shift, scale]], np.float32)
        target, _ = look(source, truth)
        found = refine(source, target, WHOLE[None].copy(), 20)
        assert found[0] == pytest.approx(truth[0], abs=0.004)
        assert likeness(source, target, found)[0] > 0.99


@pytest.mark.data
def test_slices_of_one_ct_are_not_copies(data_root: Path) -> None:
    folder = data_root / "ct-volume-example"
    rows = [
        (path.name, "ct", None, image_fingerprint(read_image(path)))
        for path in sorted(folder.glob("*.jpg"))
    ]
    assert len(rows) == 50
    assert find_pairs(records(*rows)).empty


@pytest.mark.data
def test_darkcovidnet_and_covid_chestxray_share_their_images(data_root: Path) -> None:
    """Found by content: DarkCovidNet kept the names, and cropped a quarter of the pictures.

    Two pictures stand under each other's name, but then each under its own in the other set too.
    """
    ours = {p.stem: p for p in (data_root / "covid-chestxray-dataset/images").iterdir()}
    theirs = {
        p.stem: p for p in (data_root / "darkcovidnet/X-Ray Image DataSet/Covid-19").iterdir()
    }
    shared = sorted(set(ours) & set(theirs))
    assert len(shared) == 120
    rows = [
        (f"{side} {stem}", "cxr", None, image_fingerprint(read_image(paths[stem])))
        for side, paths in (("a", ours), ("b", theirs))
        for stem in shared
    ]
    found = named(find_pairs(records(*rows)))
    assert sum((f"a {stem}", f"b {stem}", "near") in found for stem in shared) >= 115
