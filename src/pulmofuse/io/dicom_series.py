"""The DICOM slices of one series, ordered by where they lie in the patient."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import series_flaws
from pulmofuse.io.content import check_pixels, decoding, load
from pulmofuse.io.decoded import Decoded, check_finite
from pulmofuse.io.dicom import decode, parse, parse_header, read_dicom, transfer_syntax
from pulmofuse.io.dicom_traits import dicom_traits
from pulmofuse.io.display import Shown, to_unit
from pulmofuse.io.orientation import acquired_plane, distances, to_axial
from pulmofuse.io.series_flaws import ONE_FOLDER, Flaw, naming

#: A series of so few slices beside a longer one is a localizer.
_LOCALIZER_SLICES = 2
#: Directions are stored with few digits; a degree is 0.017.
_SAME_DIRECTION = 0.02
#: Positions are stored in mm with few digits; the thinnest CT slices are 0.25 mm apart.
_SAME_POSITION_MM = 0.01
#: One and a half of the usual distance to the next slice: at least one is missing.
_GAP = 1.5


@dataclass(frozen=True, eq=False)
class _Slice:
    """What the header of one file says of its place."""

    path: Path
    series: str
    size: tuple[int, int]
    n_frames: int
    localizer: bool
    position: npt.NDArray[np.float64] | None
    orientation: npt.NDArray[np.float64] | None
    number: int | None
    acquisition: str


def read_dicom_series(label: str, paths: list[Path]) -> Decoded:
    """Decode DICOM files as one volume.

    Args:
        label: what errors call the series.
        paths: DICOM files; those without pixels are counted in the trait `without_pixels`.

    Returns:
        The volume; its trait `flaws` says which files are damaged, missing or there twice.

    Raises:
        UnreadableFile: several series, sizes, orientations or acquisitions, no image at all, or a
            slice that cannot be read; it names the file.
    """
    seen = {path: _look(label, path) for path in paths}
    every = [one for one in seen.values() if one is not None]
    if not every:
        raise UnreadableFile(label, "holds DICOM files without images", "name an image series")
    slices, others = _one_series(label, every)
    flaws = _left_out([path for path, one in seen.items() if one is None], others)
    counts = {"without_pixels": len(paths) - len(every), "skipped_localizers": len(others)}
    if len(slices) == 1:
        with naming(label, slices[0].path):
            single = read_dicom(load(slices[0].path, None))
        return replace(single, traits={**single.traits, **counts, "flaws": flaws})
    _check_alike(label, slices)
    ordered, found = _ordered(label, slices)
    decoded = _stack(label, ordered)
    twice = [(other.path.name, here[0].path.name) for here in ordered for other in here[1:]]
    flaws += [*found.pop("flaws"), *series_flaws.copies(twice)]
    found |= {"duplicate_slices": len(twice), "flaws": flaws}
    traits = {**decoded.traits, **counts, **found}
    orientation = slices[0].orientation
    if found["ordered_by"] != "position" or orientation is None:
        return replace(decoded, traits=traits)
    pixels = np.ascontiguousarray(to_axial(decoded.pixels, orientation))
    padding = None if decoded.padding is None else to_axial(decoded.padding, orientation)
    return Decoded(pixels, decoded.hounsfield, traits, padding)


def _look(label: str, path: Path) -> _Slice | None:
    """The place of one file; None if it is no image (a report, a directory of files)."""
    with naming(label, path), decoding(str(path), "its place in the series is damaged"):
        dataset = parse_header(load(path, None))
        if "Rows" not in dataset:
            return None
        position = dataset.get("ImagePositionPatient")
        orientation = dataset.get("ImageOrientationPatient")
        number = dataset.get("InstanceNumber")
        return _Slice(
            path,
            str(dataset.get("SeriesInstanceUID") or ""),
            (int(dataset.Rows), int(dataset.Columns)),
            int(dataset.get("NumberOfFrames") or 1),
            "LOCALIZER" in (dataset.get("ImageType") or []),
            _numbers(position, 3),
            _numbers(orientation, 6),
            None if number is None else int(number),
            str(dataset.get("AcquisitionNumber") or ""),
        )


def _left_out(without_pixels: list[Path], others: list[_Slice]) -> list[Flaw]:
    """Files that should be slices of the volume: cut ones, and those of a short second series."""
    cut = [(path.name, "its header is cut or damaged") for path in without_pixels if _is_cut(path)]
    strange = [(s.path.name, "of another series") for s in others if not s.localizer]
    return series_flaws.left_out([*cut, *strange])


def _is_cut(path: Path) -> bool:
    """Whether a file without pixels says that it is an image, or not what it is at all."""
    dataset = parse_header(load(path, None))
    stated = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    return not stated or "Image Storage" in UID(str(stated)).name


def _numbers(values: Any, n: int) -> npt.NDArray[np.float64] | None:
    """The n finite numbers of an element, None where there are not."""
    if values is None or isinstance(values, str) or len(values) != n:
        return None
    array = np.array(values, dtype=np.float64)
    return array if np.isfinite(array).all() else None


def _one_series(label: str, slices: list[_Slice]) -> tuple[list[_Slice], list[_Slice]]:
    """The slices of the one series that is no localizer, and those that were left out.

    Raises:
        UnreadableFile: more than one such series.
    """
    images = [s for s in slices if not s.localizer] or slices
    counts = Counter(s.series for s in images)
    if len(counts) > 1 and max(counts.values()) > _LOCALIZER_SLICES:
        images = [s for s in images if counts[s.series] > _LOCALIZER_SLICES]
        counts = Counter(s.series for s in images)
    if len(counts) > 1:
        shown = [f"{uid or 'without UID'} with {n}" for uid, n in counts.most_common(3)]
        more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
        raise UnreadableFile(
            label, f"holds {len(counts)} series ({', '.join(shown)}{more} files)", ONE_FOLDER
        )
    kept = {s.path for s in images}
    return images, [s for s in slices if s.path not in kept]


def _check_alike(label: str, slices: list[_Slice]) -> None:
    """Refuse slices of different sizes or directions, and several files of several frames."""
    sizes = Counter(s.size for s in slices)
    if len(sizes) > 1:
        seen = ", ".join(f"{n} of {c} x {r}" for (r, c), n in sizes.most_common(3))
        raise UnreadableFile(label, f"slices differ in size ({seen})", ONE_FOLDER)
    if any(s.n_frames > 1 for s in slices):
        raise UnreadableFile(
            label, "holds several files, some with several frames", "name one of the files"
        )
    directions = [s.orientation for s in slices if s.orientation is not None]
    if any(np.abs(d - directions[0]).max() > _SAME_DIRECTION for d in directions):
        raise UnreadableFile(label, "slices of one series have different directions", ONE_FOLDER)
    check_pixels(label, *slices[0].size, len(slices))


def _ordered(label: str, slices: list[_Slice]) -> tuple[list[list[_Slice]], dict[str, Any]]:
    """Slices at each place in order, several where a place occurs more than once; and traits.

    The trait `flaws` holds the gaps alone.
    """
    orientation = slices[0].orientation
    positions = [s.position for s in slices if s.position is not None and s.orientation is not None]
    if len(positions) == len(slices) and orientation is not None:
        with decoding(label, "its ImageOrientationPatient spans no plane"):
            along = distances(np.stack(positions), orientation)
        if np.ptp(along) > _SAME_POSITION_MM:
            places, found = _by_position(slices, along)
            return places, {**found, "acquired_plane": acquired_plane(orientation)}
    numbers = [s.number for s in slices if s.number is not None]
    if len(numbers) < len(slices) or len(set(numbers)) == 1:
        raise UnreadableFile(
            label,
            "its slices tell neither their position nor their number",
            "export the series again with ImagePositionPatient",
        )
    numbered: dict[int, list[_Slice]] = {}
    for number, one in sorted(zip(numbers, slices, strict=True), key=lambda pair: pair[0]):
        numbered.setdefault(number, []).append(one)
    order = list(numbered)
    gaps = [
        (after - before - 1, _between(numbered[before], numbered[after]))
        for before, after in pairwise(order)
        if after - before > 1
    ]
    return list(numbered.values()), {"ordered_by": "instance_number", **_gap_traits(gaps)}


def _by_position(
    slices: list[_Slice], along: npt.NDArray[np.float64]
) -> tuple[list[list[_Slice]], dict[str, Any]]:
    """Places ascending along the normal, with spacing and gaps."""
    places: list[list[_Slice]] = []
    at: list[float] = []
    for index in np.argsort(along, kind="stable"):
        if at and along[index] - at[-1] <= _SAME_POSITION_MM:
            places[-1].append(slices[index])
        else:
            places.append([slices[index]])
            at.append(float(along[index]))
    steps = np.diff(at)
    spacing = float(np.median(steps))
    gaps = [
        (round(step / spacing - 1), f"{_between(places[i], places[i + 1])} ({step:g} mm apart)")
        for i, step in enumerate(steps.tolist())
        if step > _GAP * spacing
    ]
    return places, {
        "ordered_by": "position",
        "slice_spacing_mm": spacing,
        **_gap_traits(gaps),
    }


def _between(before: list[_Slice], after: list[_Slice]) -> str:
    return f"between {before[0].path.name} and {after[0].path.name}"


def _gap_traits(gaps: list[tuple[int, str]]) -> dict[str, Any]:
    return {"missing_slices": sum(n for n, _ in gaps), "flaws": series_flaws.gaps(gaps)}


def _stack(label: str, places: list[list[_Slice]]) -> Decoded:
    """Decode one slice per place, and make sure that the others there are copies of it."""
    parts: list[Shown] = []
    first: Dataset | None = None
    for here in places:
        dataset, shown = _decode(label, here[0])
        first = first if first is not None else dataset
        for other in here[1:]:
            if not np.array_equal(_decode(label, other)[1].pixels, shown.pixels):
                _refuse_contradiction(label, here)
        parts.append(shown)
    assert first is not None  # noqa: S101 - there is at least one place
    joined = _join(label, parts)
    pixels = to_unit(label, joined)
    check_finite(label, pixels)
    traits = dicom_traits(first, transfer_syntax(first)) | {"voi": joined.voi}
    return Decoded(pixels, joined.hounsfield, traits, joined.padding)


def _decode(label: str, one: _Slice) -> tuple[Dataset, Shown]:
    with naming(label, one.path):
        content = load(one.path, None)
        dataset = parse(content)
        # One blank slice at the end of a volume must not have a scale of its own.
        shown = decode(content.name, dataset, trust_window=True)
    del dataset.PixelData
    return dataset, shown


def _refuse_contradiction(label: str, here: list[_Slice]) -> None:
    acquisitions = sorted({one.acquisition for one in here} - {""})
    told = f" (acquisitions {', '.join(acquisitions)})" if len(acquisitions) > 1 else ""
    raise UnreadableFile(
        label,
        f"{here[0].path.name} and {here[1].path.name} are different slices of one place{told}",
        "put each acquisition (phase, reconstruction) into a folder of its own",
    )


def _join(label: str, parts: list[Shown]) -> Shown:
    """One volume of all slices, which must be in the same unit."""
    kinds = {(p.hounsfield, p.inverted, p.unit) for p in parts}
    if len(kinds) > 1:
        raise UnreadableFile(label, "its slices are of different kinds (units)", ONE_FOLDER)
    paddings = [p.padding for p in parts]
    padding = None
    if any(p is not None for p in paddings):
        padding = np.concatenate(
            [
                np.zeros(part.pixels.shape, bool) if part.padding is None else part.padding
                for part in parts
            ]
        )
    pixels = np.concatenate([p.pixels for p in parts])
    return replace(parts[0], pixels=pixels, padding=padding)
