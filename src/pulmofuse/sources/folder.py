"""Your own data, in the default layout.

Origin: yours. Nothing is downloaded. Licence: whatever you hold the data under.

Layout:
    ROOT/ct/<label>/...            PNG, JPEG, BMP, TIFF, DICOM, NIfTI
    ROOT/cxr/<label>/...           the same
    ROOT/cough_audio/<label>/...   WAV, MP3, FLAC, OGG, Opus, AIFF, WebM, M4A, AMR ...
    ROOT/patients.csv              optional: who is who
At least one of the three folders must be there.

Labels: a label folder is one of normal, covid19, pneumonia, tuberculosis, chronic_lung_disease,
other_abnormal, unknown, not_covid19. Upper case, "-" and blanks are understood, and so are the
common names covid, covid_19, sars_cov_2, positive_covid (covid19); healthy, no_finding(s),
control(s) (normal); tb (tuberculosis); copd, asthma, emphysema, bronchiectasis
(chronic_lung_disease); bacterial_pneumonia, viral_pneumonia (pneumonia); other, abnormal
(other_abnormal); non_covid, noncovid, non_covid19, covid_negative (not_covid19). A plain
"negative" or "positive" is not guessed at. A folder of any other name is excluded, and the reason
names the nearest label.

Series: files in a folder below the label (`ct/covid19/scan7/001.dcm`) are one series, such as the
slices of a CT volume, and the first folder below the label is taken for one patient. Several DICOM
files in a folder below ct/<label>/ are one record, the folder: it is read as a volume, ordered by
position and never by file name, and must hold one series only. Where patients.csv names files in
it, each file is a record of its own.

patients.csv: UTF-8, a header line, columns `path, patient_id` and optionally `age` (years), `sex`
(F, M or O), `site`, `split` (train, val or test), `date` (of the recording: YYYY, YYYY-MM or
YYYY-MM-DD), `series_id`, `view`. `path` is relative to ROOT and names a file or a folder (then it
holds for everything in it; the nearest one wins). Other columns are ignored, but one that is nearly
one of these ("spilt") is an error. The same `patient_id` in two modalities is the same person: this
is how CT, X-ray and cough of one patient are paired.

Known defects: without patients.csv nobody knows which files show the same person. Each file (or
series folder) is then a patient of its own with `patient_known` false, a random split may leak,
and the audit says so. A single cough recording may hold several people; nothing here can tell.

How to obtain: put your files into this layout.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pulmofuse.errors import SourceError, UnknownLabel
from pulmofuse.schema import MODALITY_FOLDERS, Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import (
    DICOM_SUFFIXES,
    Scan,
    Source,
    is_hidden,
    list_files,
    missing_from_disk,
    name_key,
    suffix_fault,
    suffix_of,
)
from pulmofuse.sources.patients import PATIENTS_FILE, Patients, read_patients

ALIASES: dict[str, Label] = {
    "covid": Label.COVID19,
    "covid_19": Label.COVID19,
    "sars_cov_2": Label.COVID19,
    "positive_covid": Label.COVID19,
    "healthy": Label.NORMAL,
    "no_finding": Label.NORMAL,
    "no_findings": Label.NORMAL,
    "control": Label.NORMAL,
    "controls": Label.NORMAL,
    "tb": Label.TUBERCULOSIS,
    "copd": Label.CHRONIC_LUNG_DISEASE,
    "asthma": Label.CHRONIC_LUNG_DISEASE,
    "emphysema": Label.CHRONIC_LUNG_DISEASE,
    "bronchiectasis": Label.CHRONIC_LUNG_DISEASE,
    "bacterial_pneumonia": Label.PNEUMONIA,
    "viral_pneumonia": Label.PNEUMONIA,
    "other": Label.OTHER_ABNORMAL,
    "abnormal": Label.OTHER_ABNORMAL,
    "non_covid": Label.NOT_COVID19,
    "noncovid": Label.NOT_COVID19,
    "non_covid19": Label.NOT_COVID19,
    "covid_negative": Label.NOT_COVID19,
}

#: Marks a path that stands for all files in a folder; no listed file ends so.
_FOLDER_END = "/"

_OBTAIN = (
    "put the files into ROOT/ct/<label>/, ROOT/cxr/<label>/ and ROOT/cough_audio/<label>/"
    " (any one of the three is enough)"
)


def parse_label(text: str, mend: str = "rename the folder") -> Label:
    """The label that a folder name or a cell means.

    Args:
        text: the name, in upper or lower case, with "-", "_" or blanks.
        mend: what to do with a wrong one; begins the remedy.

    Raises:
        UnknownLabel: neither a label nor one of `ALIASES`; the remedy names the nearest.
    """
    key = "_".join(text.strip().lower().replace("-", " ").replace("_", " ").split())
    known = {label.value: label for label in Label} | ALIASES
    if key in known:
        return known[key]
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    remedy = (
        f"{mend}; the nearest label is {known[nearest[0]].value}"
        if nearest
        else f"{mend} to one of {', '.join(label.value for label in Label)}"
    )
    raise UnknownLabel(text, "this is not a label", remedy)


def scan(root: Path) -> Scan:
    """Scan a folder in the default layout."""
    return scan_layout(root, "folder", companions=())


def scan_layout(root: Path, source: str, companions: Iterable[str]) -> Scan:
    """Scan the default layout on behalf of `source`.

    Args:
        root: folder that holds ct/, cxr/ or cough_audio/.
        source: prefix of the ids.
        companions: names of files beside the three folders that are known and no data.

    Raises:
        SourceError: none of the three folders is there, or patients.csv is faulty.
    """
    modalities = {f: m for m, f in MODALITY_FOLDERS.items() if (root / f).is_dir()}
    if not modalities:
        wanted = ", ".join(MODALITY_FOLDERS.values())
        raise SourceError(root, f"holds none of the folders {wanted}", _OBTAIN)
    listing = list_files(root, source, modalities)
    patients = read_patients(root)
    rows: list[dict[str, object]] = []
    excluded = [*listing.excluded, *_strangers(root, source, {*companions, PATIENTS_FILE})]
    for path in _with_volumes(listing.files, patients):
        modality = modalities[path.split("/", 1)[0]]
        made = _record(path, modality, source, patients)
        if isinstance(made, Exclusion):
            excluded.append(made)
        else:
            rows.append(made)
    excluded += _absent(patients, listing.files, source)
    return Scan(manifest_frame(rows), tuple(excluded))


def _record(
    path: str, modality: Modality, source: str, patients: Patients
) -> dict[str, object] | Exclusion:
    """The manifest row of one file, or why it has none."""
    parts = PurePosixPath(path).parts
    fault: tuple[str, str] | None
    if len(parts) < 3:
        fault = (
            "the file stands outside a label folder",
            f"move it into {parts[0]}/<label>/",
        )
        return Exclusion(path, modality.value, source, "scan", *fault)
    try:
        label = parse_label(parts[1])
    except UnknownLabel as error:
        reason = f"the folder {parts[1]!r} is not a label"
        return Exclusion(path, modality.value, source, "scan", reason, error.remedy)
    volume = path.endswith(_FOLDER_END)
    fault = None if volume else suffix_fault(parts[-1], modality)
    if fault is not None:
        return Exclusion(path, modality.value, source, "scan", *fault)
    path = path.removesuffix(_FOLDER_END)
    in_series = len(parts) > 3 and not volume
    series = f"{source}:{'/'.join(parts[:-1])}" if in_series else None
    stranger = f"{source}:{'/'.join(parts[:3])}"
    about = patients.find(path)
    cells = about.cells(source)
    return {
        "record_id": f"{source}:{path}",
        "patient_id": f"{source}:{about.patient_id}" if about.patient_id else stranger,
        "patient_known": bool(about.patient_id),
        "modality": modality.value,
        "path": path,
        "label": label.value,
        "source": source,
        **cells,
        "series_id": cells["series_id"] or series,
    }


def _with_volumes(files: Iterable[str], patients: Patients) -> list[str]:
    """The paths of records: a folder of DICOM slices, marked by its end, stands for its files."""
    slices: dict[str, list[str]] = {}
    for path in files:
        place = PurePosixPath(path)
        deep = place.parts[0] == MODALITY_FOLDERS[Modality.CT] and len(place.parts) > 3
        if deep and suffix_of(place.name) in DICOM_SUFFIXES and name_key(path) not in patients.rows:
            slices.setdefault(place.parent.as_posix(), []).append(path)
    volumes = {folder: members for folder, members in slices.items() if len(members) > 1}
    members = {path for paths in volumes.values() for path in paths}
    kept = [path for path in files if path not in members]
    return sorted([*kept, *(folder + _FOLDER_END for folder in volumes)])


def _strangers(root: Path, source: str, known: set[str]) -> list[Exclusion]:
    """What stands beside the modality folders and is none of ours, one exclusion each."""
    folders = set(MODALITY_FOLDERS.values())
    found: list[Exclusion] = []
    for entry in sorted(root.iterdir()):
        if is_hidden(entry.name) or entry.name in known or entry.name in folders:
            continue
        near = difflib.get_close_matches(entry.name.lower(), folders, n=1, cutoff=0.3)
        hint = f"rename it to {near[0]}" if near and entry.is_dir() else "move it elsewhere"
        name = entry.name.encode("utf-8", "replace").decode("utf-8")
        reason = f"stands beside the folders {', '.join(sorted(folders))}"
        found.append(Exclusion(name, "", source, "scan", reason, f"{hint}, if it is data"))
    return found


def _absent(patients: Patients, files: Iterable[str], source: str) -> list[Exclusion]:
    """Paths in patients.csv that name nothing on disk."""
    there = {name_key(path) for path in files}
    there |= {parent.as_posix() for path in there for parent in PurePosixPath(path).parents}
    return [
        Exclusion(
            path,
            "",
            source,
            "scan",
            missing_from_disk(f"line {line} of {PATIENTS_FILE}"),
            "mend the path, or remove the line",
        )
        for path, line in patients.lines.items()
        if path not in there
    ]


SOURCE = Source(
    name="folder",
    title="A folder in the default layout",
    modalities=tuple(Modality),
    labels=tuple(Label),
    patients_known=None,
    licence="as you hold it",
    url="",
    citation="",
    obtain=_OBTAIN,
    size="any",
    scan=scan,
    generic=True,
)
