"""A folder of slices to one volume: DICOM by position, ordinary images by the number in the name.

The order of DICOM slices comes from where they lie in the patient (ImagePositionPatient along the
normal of ImageOrientationPatient, PS3.3 C.7.6.2.1.1) and never from file names, which say nothing.
A volume with a damaged slice, of two series or of two sizes is refused: half of a scan that looks
like a whole one is worse than none. What can be mended is mended, counted in the traits and told
in the trait `flaws`, from which a remark is made.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import series_flaws
from pulmofuse.io.content import check_pixels, list_folder, load
from pulmofuse.io.decoded import Decoded
from pulmofuse.io.image import Image, decode_image, finish
from pulmofuse.io.kinds import Kind
from pulmofuse.io.series_flaws import ONE_FOLDER

#: Formats (`kinds`) of a file that may have been a slice before it was damaged.
_TELLS_NOTHING = frozenset({"unknown", "zeros"})


def read_series(source: Path | Sequence[Path], name: str | None = None) -> Image:
    """Read the slices of one series as one volume.

    Files that are no images, and DICOM files without pixels, are skipped and counted, and so are
    localizers (ImageType, or a series of one or two slices beside a longer one).

    Args:
        source: a folder, or the files.
        name: what errors call the series; by default the folder.

    Returns:
        Axial slices from the feet to the head, front at the top, the patient's right on the left
        (ordinary images: in the order of their numbers). Traits as `read_image`, of the first
        slice where they are of one file, and slices, skipped_files, ordered_by ("position",
        "instance_number" or "name"), slice_spacing_mm (if known), missing_slices,
        duplicate_slices, skipped_localizers, acquired_plane (DICOM), and flaws: a list of [reason,
        remedy], in words that name the files which are damaged, missing or there twice.

    Raises:
        UnreadableFile: no images, several series, sizes or kinds, slices that contradict each
            other, no order, or a slice that cannot be read.
    """
    paths = list_folder(source) if isinstance(source, Path) else list(source)
    label = name or str(source if isinstance(source, Path) else paths[0].parent if paths else ".")
    seen = {path: _kind(label, path) for path in paths}
    kinds = {path: kind.format for path, kind in seen.items() if kind.family == "image"}
    if not kinds:
        raise UnreadableFile(
            label, "is a folder without images directly in it", "name one file or series in it"
        )
    formats = Counter(kinds.values())
    if formats["dicom"] and len(formats) > 1:
        formats, kinds = _without_previews(label, formats, kinds)
    if formats["dicom"]:
        from pulmofuse.io.dicom_series import read_dicom_series

        decoded = read_dicom_series(label, list(kinds))
    else:
        decoded = _read_numbered(label, list(kinds), formats)
    skipped = len(paths) - len(kinds) + decoded.traits.pop("without_pixels", 0)
    n_bytes = sum(path.stat().st_size for path in kinds)
    decoded.traits["skipped_files"] = skipped
    lost = _lost_slices(kinds, {p: kind for p, kind in seen.items() if kind.family != "image"})
    decoded.traits["flaws"] = [*lost, *decoded.traits.get("flaws", [])]
    return finish(label, formats.most_common(1)[0][0], n_bytes, decoded)


def _kind(label: str, path: Path) -> Kind:
    """What a file of the series is; the error of one that cannot be opened names it."""
    with series_flaws.naming(label, path):
        return load(path, None).kind


def _lost_slices(slices: Iterable[Path], others: Mapping[Path, Kind]) -> list[series_flaws.Flaw]:
    """Files that are named like the slices, or as DICOM, and hold something else."""
    suffixes = {_suffix(path) for path in slices} | {".dcm", ".dicom"}
    found = [
        (path.name, kind.label)
        for path, kind in others.items()
        # Without a suffix a name says nothing, and a text such as README is what it seems.
        if _suffix(path) in suffixes and (_suffix(path) or kind.format in _TELLS_NOTHING)
    ]
    return series_flaws.left_out(found)


def _suffix(path: Path) -> str:
    """Lower-case suffix; none of names that end in a number, as those made of UIDs do."""
    suffix = path.suffix.lower()
    return "" if suffix[1:].isdigit() else suffix


def _without_previews(
    label: str, formats: Counter[str], kinds: dict[Path, str]
) -> tuple[Counter[str], dict[Path, str]]:
    """Exports put one or two pictures beside the DICOM files; more than that is a mixture."""
    others = formats.total() - formats["dicom"]
    if others > 2 or others >= formats["dicom"]:
        seen = ", ".join(f"{n} {kind}" for kind, n in formats.most_common())
        raise UnreadableFile(label, f"holds files of several kinds ({seen})", ONE_FOLDER)
    return Counter(dicom=formats["dicom"]), {p: k for p, k in kinds.items() if k == "dicom"}


def _read_numbered(label: str, paths: list[Path], formats: Counter[str]) -> Decoded:
    """Ordinary images in the order of the numbers in their names; a NIfTI file must be alone."""
    if formats["nifti"] and len(paths) > 1:
        raise UnreadableFile(
            label, f"holds {len(paths)} files, some NIfTI volumes", "name one of them"
        )
    ordered, gaps = (paths, []) if len(paths) == 1 else _by_number(label, paths)
    planes = []
    first: dict[str, Any] = {}
    for path in ordered:
        with series_flaws.naming(label, path):
            decoded = decode_image(load(path, None))
        first = first or decoded.traits
        planes.append(decoded.pixels)
        if decoded.pixels.shape[1:] != planes[0].shape[1:]:
            raise UnreadableFile(
                label,
                f"slices differ in size ({ordered[0].name} and {path.name})",
                ONE_FOLDER,
            )
        height, width = planes[0].shape[1:]
        check_pixels(label, height, width, len(planes))
    if len(paths) == 1:
        return decoded
    missing = sum(n for n, _ in gaps)
    traits = {**first, "ordered_by": "name", "missing_slices": missing, "duplicate_slices": 0}
    traits["flaws"] = series_flaws.gaps(gaps)
    return Decoded(np.concatenate(planes), decoded.hounsfield, traits)


def _by_number(label: str, paths: list[Path]) -> tuple[list[Path], list[tuple[int, str]]]:
    """Paths in the order of the one number in their names that tells them apart; gaps in it.

    A gap is how many numbers are missing, and where.

    Raises:
        UnreadableFile: no number in a name, or the same number twice.
    """
    numbers = {path: [int(n) for n in re.findall(r"\d+", path.stem)] for path in paths}
    lengths = {len(n) for n in numbers.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise UnreadableFile(
            label,
            "its file names do not number the slices",
            "name them slice_001, slice_002 and so on",
        )
    columns = list(zip(*numbers.values(), strict=True))
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) != 1 or len(set(varying[0])) != len(paths):
        raise UnreadableFile(
            label,
            "its file names have no single number that tells the slices apart",
            f"{ONE_FOLDER}, and number its files once",
        )
    ordered = sorted(paths, key=numbers.__getitem__)
    gaps = [
        (after - before - 1, f"between {first.name} and {second.name}")
        for (before, first), (after, second) in pairwise(
            zip(sorted(varying[0]), ordered, strict=True)
        )
        if after - before > 1
    ]
    return ordered, gaps
