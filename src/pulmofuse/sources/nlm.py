"""What the two tuberculosis sets of the U.S. National Library of Medicine share: the layout.

ROOT/[TOP/]CXR_png/PREFIX_NNNN_L.png             L is 0 (normal) or 1 (tuberculosis)
ROOT/[TOP/]ClinicalReadings/PREFIX_NNNN_L.txt    the person and the reading; optional
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pulmofuse.findings import Finding, findings_text
from pulmofuse.schema import Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import Scan, list_files, require_folder
from pulmofuse.sources.listed import by_name, not_on_disk, read_lines

URL = "https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets"
CITATION = (
    "Jaeger S. et al., Two public chest X-ray datasets for computer-aided screening of"
    " pulmonary diseases, Quantitative Imaging in Medicine and Surgery 4(6), 475-477, 2014"
)
LICENCE = "public release of the U.S. NLM"
LABELS = (Label.NORMAL, Label.TUBERCULOSIS)

_IMAGES = "CXR_png"
_READINGS = "ClinicalReadings"
_BY_MARK = {"0": Label.NORMAL, "1": Label.TUBERCULOSIS}


@dataclass(frozen=True)
class Reading:
    """What a clinical reading says of the person; None for what it does not say.

    Attributes:
        age: years.
        same_as: name (without suffix) of another image of the same person.
    """

    sex: str | None = None
    age: float | None = None
    same_as: str | None = None


@dataclass(frozen=True)
class NlmSet:
    """How one of the two sets differs from the other.

    Attributes:
        name: of the source.
        top: folder that its archive unpacks into.
        prefix: of its file names.
        archive: that holds it.
        parse: makes a reading of the lines of its file, at least one.
        view: of all images, where the set tells.
    """

    name: str
    top: str
    prefix: str
    archive: str
    parse: Callable[[list[str]], Reading]
    view: str | None = None

    @property
    def obtain(self) -> str:
        """How to get the set."""
        return f"get {self.archive} from {URL} and unpack it"


def scan_set(root: Path, about: NlmSet) -> Scan:
    """Scan one of the two sets.

    Args:
        root: the folder that holds CXR_png, or the folder around it.
        about: which set.

    Raises:
        SourceError: CXR_png is missing, or a reading is not text.
    """
    top = f"{about.top}/" if (root / about.top / _IMAGES).is_dir() else ""
    images, table = f"{top}{_IMAGES}", f"{top}{_READINGS}"
    require_folder(root, images, about.obtain)
    listing = list_files(root, about.name, (images,))
    on_disk, excluded = by_name(listing, Modality.CXR, about.name)
    readings = _readings(root / table, about)
    patients = _patients(readings)
    name_of_image = re.compile(rf"({about.prefix}_\d{{4}}_([01]))\.png")
    rows: list[dict[str, object]] = []
    for name, path in on_disk.items():
        parts = name_of_image.fullmatch(name)
        if parts is None:
            wanted = " or ".join(f"{about.prefix}_NNNN_{mark}.png" for mark in _BY_MARK)
            reason = f"the name is not {wanted}, so it has no label"
            remedy = "give the file its published name, or remove it"
            excluded.append(Exclusion(path, Modality.CXR.value, about.name, "scan", reason, remedy))
            continue
        stem, label = parts[1], _BY_MARK[parts[2]]
        reading = readings.pop(stem, Reading())
        rows.append(_row(path, stem, label, reading, patients.get(stem, stem), about))
    excluded += [
        not_on_disk(
            f"{images}/{stem}.png", Modality.CXR, about.name, f"{table}/{stem}.txt", about.obtain
        )
        for stem in readings
    ]
    return Scan(manifest_frame(rows), tuple(excluded))


def _readings(folder: Path, about: NlmSet) -> dict[str, Reading]:
    """The readings by the name of their image, without suffix."""
    found: dict[str, Reading] = {}
    for path in sorted(folder.glob(f"{about.prefix}_*.txt")):
        lines = [line for _, line in read_lines(path, about.obtain)]
        found[path.stem] = about.parse(lines) if lines else Reading()
    return found


def _patients(readings: dict[str, Reading]) -> dict[str, str]:
    """Patient of each image: the least name among those that the readings join."""
    groups: dict[str, set[str]] = {}
    for stem, reading in readings.items():
        if reading.same_as:
            joined = groups.get(stem, {stem}) | groups.get(reading.same_as, {reading.same_as})
            groups |= dict.fromkeys(joined, joined)
    return {stem: min(group) for stem, group in groups.items()}


def _row(
    path: str, stem: str, label: Label, reading: Reading, patient: str, about: NlmSet
) -> dict[str, object]:
    """One manifest row."""
    return {
        "record_id": f"{about.name}:{stem}",
        "patient_id": f"{about.name}:{patient}",
        "patient_known": False,
        "modality": Modality.CXR.value,
        "path": path,
        "label": label.value,
        "source": about.name,
        "age": reading.age,
        "sex": reading.sex,
        "view": about.view,
        "findings": findings_text({Finding.TUBERCULOSIS: int(label is Label.TUBERCULOSIS)}),
    }
