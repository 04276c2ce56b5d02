"""COVIDx CT: the CT slices of COVID-Net CT, collected from other data sets.

Origin: Hayden Gunraj, Linda Wang, Ali Sabri, David Koff, Alexander Wong, Tia Tuinstra (University
of Waterloo), 2020-2022. The images are those of other data sets, converted to 8-bit PNG.
Licence: of each image, that of the data set it comes from (CNCB: CC BY 3.0 CN; TCIA: CC BY 4.0;
LIDC-IDRI: CC BY 3.0; COVID-CTSet: CC BY-NC 4.0; Radiopaedia and coronacases: CC BY-NC-SA;
MosMedData: CC BY-NC-ND 3.0; the others as their authors state).
Citation: Gunraj H., Sabri A., Koff D., Wong A., COVID-Net CT-2: Enhanced Deep Neural Networks for
Detection of COVID-19 From Chest CT Images Through Bigger, More Diverse Learning, Frontiers in
Medicine 8, 729287, 2022. Tuinstra T. et al., COVIDx CT-3, arXiv:2206.03043, 2022.

Layout (2A; 3A has "3A" in each place):
    ROOT/{train,val,test}_COVIDx_CT-2A.txt    file class xmin ymin xmax ymax
    ROOT/2A_images/*.png
    ROOT/metadata.csv                         optional: one row per patient
The lists of one version may lie in ROOT. The lists rule: an image that none names is excluded, and
so is a name without a file. The B versions add cases without a confirmed diagnosis to the training
list and must be built from scratch; their folder is 2B_images or 3B_images here.

Labels: 0 is normal, 1 is pneumonia (not COVID-19), 2 is covid19. In volumes of sick people only
slices with lesions are listed; the slices of 0 come from people without them. The box is the body
in pixels and is not used.

Patients: read from the file name, which each collection builds in its own way (see `identify`);
`series_id` is the name without its slice number. metadata.csv, where present, gives `site` (its
column source), sex and age. A name that neither explains is a patient of its own with
`patient_known` false. Where one collection numbers several series of a person (TCIA's 0383_1), or
one case has two studies (Radiopaedia), they are one patient here, though metadata.csv counts two.

Known defects:
- The collection gives much of the label away: LIDC-IDRI holds only normal slices; TCIA, iCTCF,
  STOIC, coronacases and Radiopaedia only COVID-19. Pneumonia comes from CNCB and COVID-CT-MD alone.
  Look at results within CNCB or COVID-CTSet.
- In the published val and test lists of 2A (25,486 and 25,658 slices) every name is explained, and
  no patient stands in both. The training list was not at hand.
- Ten patients of COVID-CTSet in the val and test lists of 2A stand in two of its archives (normal1
  and normal4 or normal5) with one patient number: they are one patient here, as its own table says.
- The Radiopaedia cases appear under two kinds of names (radiopaedia_29_86491_1 of the lesion
  segmentation set, radiopaedia-CASE-STUDY-STACK of the site). One case under both is not joined.
- Windows, slice distance and reconstruction differ by collection; 8-bit images hold no Hounsfield
  units. Validation and test labels are by radiologists, part of the training labels by a model
  (column "slice selection").

How to obtain: https://www.kaggle.com/datasets/hgunraj/covidxct; metadata.csv lies in
https://github.com/haydengunraj/COVIDNet-CT.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pulmofuse.errors import SourceError
from pulmofuse.schema import Label, Modality, Split, manifest_frame
from pulmofuse.sources.base import (
    Scan,
    Source,
    list_files,
    name_key,
    read_text_table,
    suffix_fault,
    text_rows,
)
from pulmofuse.sources.listed import (
    absent_lists,
    age_in_years,
    find_lists,
    not_named,
    not_on_disk,
    read_lines,
)

_NAME = "covidx_ct"
_URL = "https://www.kaggle.com/datasets/hgunraj/covidxct"
_OBTAIN = f"get the lists and the images from {_URL}"
_TABLE = "metadata.csv"
_LIST = re.compile(r"(train|val|test)_COVIDx_CT-(\d[AB])\.txt")
_LINE = re.compile(r"(\S.*?)\s+([012])(?:\s+-?\d+){4}")
_CLASSES = {"0": Label.NORMAL, "1": Label.PNEUMONIA, "2": Label.COVID19}
_SLICE = re.compile(r"[-_][A-Za-z]*\d+\.\w+$")

#: Collection and pattern of the series part of its names; the group "patient" names the person.
_COLLECTIONS = tuple(
    (site, re.compile(pattern))
    for site, pattern in (
        # CNCB: class, patient, scan.
        ("CNCB", r"(?P<patient>(?:CP|NCP|Normal)_\d+)_\d+"),
        # COVID-CTSet: archive, patient, series. Its own table knows the patient by number alone.
        ("COVID-CTSet", r"\w+_(?P<patient>patient\d+)_SR_\d+"),
        # COVID-19-20 ("_ct") is drawn from TCIA and keeps its numbers; "_0", "_1" count series.
        ("TCIA", r"(?P<patient>volume-covid19-A-\d+)(?:_\d+)?(?:_ct)?"),
        ("LIDC-IDRI", r"(?P<patient>LIDC-IDRI-\d+)-[\d.]+"),
        ("coronacases.org", r"(?P<patient>coronacases_\d+)"),
        # Case, study, stack.
        ("radiopaedia.org", r"(?P<patient>radiopaedia[_-]\d+)[_-]\d+[_-]\d+"),
        ("iCTCF", r"(?P<patient>HUST-Patient\d+)"),
        ("STOIC", r"(?P<patient>STOIC-\d+)"),
        ("COVID-CT-MD", r"(?P<patient>COVIDCTMD-[A-Za-z]*\d+)"),
        # Stony Brook: patient, study description, series number.
        ("Stony Brook", r"(?P<patient>A\d{6})-.+"),
        ("MosMedData", r"(?P<patient>study_\d+)"),
    )
)


@dataclass(frozen=True)
class Identity:
    """What a file name tells: the collection, the person in it, and the series."""

    site: str
    patient: str
    series: str


@dataclass(frozen=True)
class _About:
    """What metadata.csv says of one patient."""

    patient: str
    site: str | None
    sex: str | None
    age: float | None


def identify(name: str) -> Identity | None:
    """Collection, patient and series of an image; None where the name follows no known rule.

    >>> identify("NCP_341_1834_0022.png").patient, identify("NCP_341_1834_0022.png").series
    ('NCP_341', 'NCP_341_1834')
    """
    series, cut = _SLICE.subn("", name)
    if cut:
        for site, pattern in _COLLECTIONS:
            parts = pattern.fullmatch(series)
            if parts is not None:
                return Identity(site, parts["patient"], series)
    return None


def scan(root: Path) -> Scan:
    """Scan COVIDx CT; see the data sheet above.

    Raises:
        SourceError: there is no list, there are lists of several versions, the image folder is
            missing, a line or metadata.csv is not what it should be, or an image has two labels
            or stands in two splits.
    """
    version, lists = find_lists(root, _LIST, _OBTAIN)
    folder = f"{version}_images"
    # Without the folder every image is missing, and each is named.
    listing = list_files(root, _NAME, (folder,) if (root / folder).is_dir() else ())
    on_disk = {name_key(path): path for path in listing.files}
    patients = _read_patients(root)
    excluded = list(listing.excluded)
    excluded += absent_lists(lists, Split, Modality.CT, _NAME, _OBTAIN)
    rows: list[dict[str, object]] = []
    for name, (label, split) in _read_lists(lists).items():
        path = on_disk.pop(f"{folder}/{name}", None)
        if path is None:
            key, remedy = f"{folder}/{name}", f"get {folder} from {_URL}"
            excluded.append(not_on_disk(key, Modality.CT, _NAME, lists[split].name, remedy))
        else:
            rows.append(_row(path, name, label, split, patients))
    excluded += [not_named(path, Modality.CT, _NAME) for path in on_disk.values()]
    return Scan(manifest_frame(rows), tuple(excluded))


def _read_lists(lists: dict[Split, Path]) -> dict[str, tuple[Label, Split]]:
    """Label and split of each image name."""
    found: dict[str, tuple[Label, Split]] = {}
    for split, path in lists.items():
        for number, line in read_lines(path, _OBTAIN):
            where = f"{path}, line {number}"
            parts = _LINE.fullmatch(line)
            if parts is None or suffix_fault(parts[1], Modality.CT) is not None:
                why = f"{line!r} is not `image class xmin ymin xmax ymax` with class 0, 1 or 2"
                raise SourceError(where, why, "use the published list")
            name, entry = name_key(parts[1]), (_CLASSES[parts[2]], split)
            before = found.setdefault(name, entry)
            if before != entry:
                why = f"{name} is {before[0].value} in the {before[1].value} split as well"
                raise SourceError(where, why, "use the published lists")
    return found


def _row(
    path: str, name: str, label: Label, split: Split, patients: dict[str, _About]
) -> dict[str, object]:
    """One manifest row."""
    identity = identify(name)
    about = _find(name, identity, patients)
    patient = identity.patient if identity else about.patient if about else None
    return {
        "record_id": f"{_NAME}:{name}",
        "patient_id": f"{_NAME}:{patient or name}",
        "patient_known": patient is not None,
        "modality": Modality.CT.value,
        "path": path,
        "label": label.value,
        "source": _NAME,
        "site": (about and about.site) or (identity.site if identity else None),
        "split": split.value,
        "age": about.age if about else None,
        "sex": about.sex if about else None,
        "view": "axial",
        "series_id": f"{_NAME}:{identity.series}" if identity else None,
    }


def _find(name: str, identity: Identity | None, patients: dict[str, _About]) -> _About | None:
    """The row of metadata.csv for an image: its patient's, or the longest id that begins its name.

    The table also numbers series and studies (volume-covid19-A-0028_1, radiopaedia_29_86491).
    """
    start = name if patients else ""
    while start:
        if start in patients:
            return patients[start]
        start = re.sub(r"(^|[-_])[^-_]*$", "", start)
    return patients.get(identity.patient) if identity else None


def _read_patients(root: Path) -> dict[str, _About]:
    """The rows of metadata.csv by patient id; empty where there is no such file."""
    path = root / _TABLE
    if not path.is_file():
        return {}
    found: dict[str, _About] = {}
    for cells in text_rows(read_text_table(path, ("patient id", "source"), _OBTAIN)):
        sex = cells.get("sex", "")
        found[cells["patient id"]] = _About(
            patient=cells["patient id"],
            site=cells["source"] or None,
            sex=sex if sex in {"F", "M"} else None,
            age=age_in_years(cells.get("age", "")),
        )
    found.pop("", None)
    return found


SOURCE = Source(
    name=_NAME,
    title="COVIDx CT",
    modalities=(Modality.CT,),
    labels=(Label.NORMAL, Label.PNEUMONIA, Label.COVID19),
    patients_known=True,
    licence="per data set, some non-commercial",
    url=_URL,
    citation=(
        "Gunraj H., Sabri A., Koff D., Wong A., COVID-Net CT-2: Enhanced Deep Neural Networks for"
        " Detection of COVID-19 From Chest CT Images Through Bigger, More Diverse Learning,"
        " Frontiers in Medicine 8, 729287, 2022"
    ),
    obtain=_OBTAIN,
    size="194,922 (2A) or 425,024 (3A) slices",
    scan=scan,
)
