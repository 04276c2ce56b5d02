"""COVIDx CXR: the chest X-rays of COVID-Net, collected from eight other data sets.

Origin: Linda Wang, Zhong Qiu Lin, Alexander Wong and others (University of Waterloo, DarwinAI),
2020-2023. The images are those of other data sets; the lists are what is new. Versions read here:
COVIDx 8A, 8B, 9A, 9B, CXR-2, CXR-3 and CXR-4, and older ones with the same lines.
Size: 30,530 X-rays in 9A (16,690 COVID-19, 8,185 normal, 5,655 pneumonia), 84,818 in CXR-4.
Licence: of each image, that of the data set it comes from; several allow no commercial use.
Citation: Wang L., Lin Z.Q., Wong A., COVID-Net: a tailored deep convolutional neural network
design for detection of COVID-19 cases from chest X-ray images, Scientific Reports 10, 19549, 2020.
Wu Y. et al., COVIDx CXR-4, arXiv:2311.17677, 2023.

Layout:
    ROOT/{train,test}_COVIDx9A.txt (or 8A, 8B, 9B, _COVIDx_CXR-3A, ...)    in the repository
    ROOT/{train,val,test}.txt                              on Kaggle; val.txt from CXR-4 on
    ROOT/{train,val,test}/*                                the images, by split
Each line of a list is `patient file class source`. The lists of one version may lie in ROOT. The
lists rule: an image that none names is excluded, and so is a name without a file.

Labels: COVID-19 and positive are covid19, normal is normal, pneumonia is pneumonia. In the binary
versions (8B, 9B, CXR-2 to CXR-4) negative is not_covid19: it mixes the two others.
Findings: COVID-19 and positive say covid19 and nothing else; normal says neither pneumonia nor
covid19, pneumonia says pneumonia and not covid19, negative says not covid19.

Patients: the first field, kept with its source as prefix, known where it can name a person:
- rsna: the id is the image's own name. The images come from NIH ChestX-ray14, whose patients often
  have several; who they are is told by neither list. `patient_known` is false.
- sirm (COVID-19 Radiography Database): an image number; false.
- fig1: the id is the image's name, where a closing letter tells images of one case apart
  (COVID-00015a and b). The letter is cut, so that a case stays together; `patient_known` is false.
- The other sources publish ids of persons: true.
`site` is the source field; "rnsa", a misspelling of 199 lines in 9A, becomes rsna.

Known defects:
- The source gives the label away. In the test list of 9A all 200 COVID-19 images are of ricord and
  all 200 others of rsna; in its training list every COVID-19 image is of a source without normal
  images, and only cohen (270 COVID-19, 52 pneumonia) holds both a positive and a negative class.
  Whoever knows the source tells COVID-19 from the rest on every test image of 9A. Results within
  one site are not possible in that test set: a figure on it says little about the disease.
- By the published ids no patient of 9A stands in both lists. For the 13,788 rsna images this is no
  evidence, as their ids name images.
- The sources overlap: images of sirm are also in covid-chestxray-dataset and others; the audit
  finds them as near duplicates.
- The rsna images show adults and children of one hospital between 1992 and 2015, the COVID-19
  images other hospitals in 2020 and 2021.

How to obtain: https://www.kaggle.com/datasets/andyczhao/covidx-cxr2 (CXR-2 to CXR-4 as versions);
the older versions are made by the notebooks of https://github.com/lindawangg/COVID-Net.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pulmofuse.errors import SourceError
from pulmofuse.findings import Finding, findings_text
from pulmofuse.schema import Label, Modality, Split, manifest_frame
from pulmofuse.sources.base import Scan, Source, list_files, name_key, suffix_fault
from pulmofuse.sources.listed import (
    absent_lists,
    find_lists,
    not_named,
    not_on_disk,
    read_lines,
)

_NAME = "covidx_cxr"
_URL = "https://www.kaggle.com/datasets/andyczhao/covidx-cxr2"
_OBTAIN = f"get the lists and the folders train, val and test from {_URL}"
_LIST = re.compile(r"(train|val|test)(?:_COVIDx_?([\w-]+))?\.txt")
_CLASSES = {
    "COVID-19": Label.COVID19,
    "positive": Label.COVID19,
    "normal": Label.NORMAL,
    "pneumonia": Label.PNEUMONIA,
    "negative": Label.NOT_COVID19,
}
_FINDINGS: dict[Label, dict[Finding, int]] = {
    Label.COVID19: {Finding.COVID19: 1},
    Label.NORMAL: {Finding.PNEUMONIA: 0, Finding.COVID19: 0},
    Label.PNEUMONIA: {Finding.PNEUMONIA: 1, Finding.COVID19: 0},
    Label.NOT_COVID19: {Finding.COVID19: 0},
}
#: A file name may hold blanks: the class, and a source without blanks, end the line.
_LINE = re.compile(rf"(\S+)\s+(\S.*?)\s+({'|'.join(_CLASSES)})(?:\s+(\S+))?")
_MISSPELT_SITES = {"rnsa": "rsna"}


@dataclass(frozen=True)
class Entry:
    """One line of a list.

    Attributes:
        patient: unique among all sources of the data set.
        patient_known: false where the id names an image.
        site: the data set that the image comes from; None in lists without it.
    """

    patient: str
    patient_known: bool
    label: Label
    site: str | None


def parse_line(line: str) -> tuple[str, Entry] | None:
    """File name and entry of one line of a list; None where it is not such a line.

    >>> parse_line("COVID-00015a COVID-00015a.png COVID-19 fig1")[1].patient
    'fig1_COVID-00015'
    """
    parts = _LINE.fullmatch(line.strip())
    if parts is None:
        return None
    patient, name, label, site = parts.groups()
    site = _MISSPELT_SITES.get(site, site)
    names_image = _plain(patient) == _plain(PurePosixPath(name).stem)
    if site == "fig1":
        patient = re.sub(r"(?<=\d)[a-z]$", "", patient)
    entry = Entry(f"{site}_{patient}" if site else patient, not names_image, _CLASSES[label], site)
    return name_key(name), entry


def scan(root: Path) -> Scan:
    """Scan COVIDx CXR; see the data sheet above.

    Raises:
        SourceError: there is no list, there are lists of several versions, a line
            that is not `patient file class source`, or two lines that contradict each other.
    """
    _, lists = find_lists(root, _LIST, _OBTAIN)
    # Without a folder every image of its list is missing, and each is named.
    folders = [split.value for split in Split if (root / split.value).is_dir()]
    listing = list_files(root, _NAME, folders)
    on_disk = {name_key(path): path for path in listing.files}
    excluded = list(listing.excluded)
    excluded += absent_lists(lists, (Split.TRAIN, Split.TEST), Modality.CXR, _NAME, _OBTAIN)
    rows: list[dict[str, object]] = []
    for split, list_path in lists.items():
        for name, entry in _read_list(list_path).items():
            key = f"{split.value}/{name}"
            path = on_disk.pop(key, None)
            if path is None:
                remedy = f"get the folder {split.value} from {_URL}"
                excluded.append(not_on_disk(key, Modality.CXR, _NAME, list_path.name, remedy))
            else:
                rows.append(_row(path, split, entry))
    excluded += [not_named(path, Modality.CXR, _NAME) for path in on_disk.values()]
    return Scan(manifest_frame(rows), tuple(excluded))


def _read_list(path: Path) -> dict[str, Entry]:
    """The entries of one list by file name."""
    found: dict[str, Entry] = {}
    for number, line in read_lines(path, _OBTAIN):
        where = f"{path}, line {number}"
        parsed = parse_line(line)
        if parsed is None:
            why = f"{line!r} is not `patient file class source`"
            raise SourceError(where, why, f"the classes are {', '.join(_CLASSES)}")
        name, entry = parsed
        fault = suffix_fault(name, Modality.CXR)
        if fault is not None:
            raise SourceError(where, f"names {name}, and {fault[0]}", "use the published list")
        if found.setdefault(name, entry) != entry:
            raise SourceError(where, f"contradicts an earlier line of {name}", "keep one of them")
    return found


def _row(path: str, split: Split, entry: Entry) -> dict[str, object]:
    """One manifest row."""
    return {
        "record_id": f"{_NAME}:{path}",
        "patient_id": f"{_NAME}:{entry.patient}",
        "patient_known": entry.patient_known,
        "modality": Modality.CXR.value,
        "path": path,
        "label": entry.label.value,
        "source": _NAME,
        "site": entry.site,
        "split": split.value,
        "findings": findings_text(_FINDINGS[entry.label]),
    }


def _plain(text: str) -> str:
    """Letters and digits alone: COVID(525) and COVID_525 are one name."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


SOURCE = Source(
    name=_NAME,
    title="COVIDx CXR",
    modalities=(Modality.CXR,),
    labels=(Label.COVID19, Label.NORMAL, Label.PNEUMONIA, Label.NOT_COVID19),
    patients_known=None,
    licence="per data set, some non-commercial",
    url=_URL,
    citation=(
        "Wang L., Lin Z.Q., Wong A., COVID-Net: a tailored deep convolutional neural network"
        " design for detection of COVID-19 cases from chest X-ray images, Scientific Reports 10,"
        " 19549, 2020"
    ),
    obtain=_OBTAIN,
    size="30,530 (9A) to 84,818 (CXR-4) X-rays",
    scan=scan,
)
