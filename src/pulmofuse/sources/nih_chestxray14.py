"""NIH ChestX-ray14: 112,120 frontal chest X-rays with labels mined from the reports.

Origin: NIH Clinical Center, Bethesda, United States, 1992-2015; published 2017 by Xiaosong Wang,
Yifan Peng, Le Lu, Zhiyong Lu, Mohammadhadi Bagheri, Ronald Summers. The first release with eight
findings was called ChestX-ray8.
Licence: no restriction on use; NIH asks for a link to its download page, the citation below and
an acknowledgement of the NIH Clinical Center as provider.
Citation: Wang X. et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017.

Layout (official, and as Kaggle repeats it):
    ROOT/Data_Entry_2017_v2020.csv or ROOT/Data_Entry_2017.csv    one row per image
    ROOT/images/*.png, or ROOT/images_001/images/*.png to ROOT/images_012/images/*.png
    ROOT/train_val_list.txt, ROOT/test_list.txt                   official split: names only
Much public code (of CheXNet and its descendants) brings lists with labels instead:
    ROOT/{train,val,test}_list.txt      NNNNNNNN_NNN.png and 14 times 0 or 1
Both kinds of test_list.txt are told apart by their columns. Where a Data_Entry table is present it
gives the labels and the lists give the split; otherwise the lists with labels give both. The 14
columns are, in this order: Atelectasis, Cardiomegaly, Effusion, Infiltration, Mass, Nodule,
Pneumonia, Pneumothorax, Consolidation, Edema, Emphysema, Fibrosis, Pleural_Thickening, Hernia.
An image that the tables do not name is excluded, and so is a row without a file.

Labels: an image may have several findings and takes one label, the first that applies:
1. Pneumonia: pneumonia. It is the finding that the other data sets here label.
2. Emphysema or Fibrosis: chronic_lung_disease. These two are lasting changes of the lung itself
   (chronic obstructive and interstitial disease); the other findings are signs of many diseases.
3. Any other finding: other_abnormal.
4. No Finding (in the lists: 14 times 0): normal.
Findings: all 14 are stated for every image, as the authors' program claims to have looked for each:
one that is not listed is absent (0), and No Finding is all 14 absent.
Split: train_val_list is train; a study then takes its validation patients from it.

Patients: known; the first part of the name (NNNNNNNN) is the table's patient number. View (PA or
AP), sex and age come from the table and are null without it. All images are of one hospital, so
`site` is null.

Known defects:
- The findings were read from reports by a program; its authors expect more than 90 % to be
  right, and a radiologist found less (Oakden-Rayner, Academic Radiology 27, 2020). Infiltration and
  Consolidation often are pneumonia in other words. "No Finding" means that the program found none
  of the 14, not that the person is healthy.
- Some ages in the first table are impossible (such as 411); an age over 130 is null here.
- The number of a patient's images predicts the label: in the val and test lists with labels, 26 %
  of the images of patients with one image have a finding, and 62 % of those of patients with 20 or
  more (at most 184).
- `rsna_pneumonia`, the normal and pneumonia images of `covidx_cxr` (site rsna), `darkcovidnet`
  (site nih) and part of `radiography_database` are images of this set: a study that holds two of
  them has the same image twice. The audit finds them as duplicates.
- In the published test_list.txt and val_list.txt with labels (22,433 and 11,219 images of 6,187
  and 3,090 patients) no patient stands in both.

How to obtain: https://nihcc.app.box.com/v/ChestXray-NIHCC, files images_001.tar.gz to
images_012.tar.gz, Data_Entry_2017_v2020.csv, train_val_list.txt, test_list.txt.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pulmofuse.errors import SourceError
from pulmofuse.findings import NIH_FINDINGS, findings_text
from pulmofuse.schema import Exclusion, Label, Modality, Split, manifest_frame
from pulmofuse.sources.base import Scan, Source, list_files, read_text_table
from pulmofuse.sources.listed import (
    age_in_years,
    by_name,
    not_named,
    not_on_disk,
    read_lines,
)

_NAME = "nih_chestxray14"
_URL = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
_OBTAIN = (
    f"get images_001.tar.gz to images_012.tar.gz, Data_Entry_2017_v2020.csv, train_val_list.txt"
    f" and test_list.txt from {_URL}"
)
_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_LISTS = {
    "train_val_list.txt": Split.TRAIN,
    "train_list.txt": Split.TRAIN,
    "val_list.txt": Split.VAL,
    "test_list.txt": Split.TEST,
}
_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
_NO_FINDING = "No Finding"
_CHRONIC = frozenset({"Emphysema", "Fibrosis"})
_IMAGE_NAME = re.compile(r"(\d{8})_\d{3}\.png")
_IMAGE_FOLDER = re.compile(r"images(_\d{3})?")

#: First image of images_001.tar.gz to images_012.tar.gz; the archives follow the order of names.
_ARCHIVE_STARTS = (
    "00000001_000.png",
    "00001336_000.png",
    "00003923_014.png",
    "00006585_007.png",
    "00009232_004.png",
    "00011558_008.png",
    "00013774_026.png",
    "00016051_010.png",
    "00018387_035.png",
    "00020945_050.png",
    "00024718_000.png",
    "00028173_003.png",
)


@dataclass(frozen=True)
class _About:
    """What the tables say of one image; `label` is None where a finding is not one of the 14."""

    label: Label | None
    findings: str
    age: float | None = None
    sex: str | None = None
    view: str | None = None


def label_of(findings: Collection[str]) -> Label | None:
    """The one label of an image with these findings; None where one of them is unknown.

    >>> label_of(["Fibrosis", "Pneumonia"]).value, label_of(["Mass", "Emphysema"]).value
    ('pneumonia', 'chronic_lung_disease')
    """
    found = set(findings) - {_NO_FINDING}
    if not findings or not found <= set(_FINDINGS):
        return None
    if "Pneumonia" in found:
        return Label.PNEUMONIA
    if found & _CHRONIC:
        return Label.CHRONIC_LUNG_DISEASE
    return Label.OTHER_ABNORMAL if found else Label.NORMAL


def archive_of(name: str) -> str:
    """The official archive that holds the image of this name."""
    number = max(bisect_right(_ARCHIVE_STARTS, name), 1)
    return f"images_{number:03d}.tar.gz"


def scan(root: Path) -> Scan:
    """Scan NIH ChestX-ray14; see the data sheet above.

    Raises:
        SourceError: there is no table with labels, a table is not what it
            should be, or two lists name the same image.
    """
    folders = _image_folders(root)
    listed, splits = _read_lists(root)
    table = next((name for name in _TABLES if (root / name).is_file()), None)
    about = _read_table(root / table) if table else listed
    if not about:
        why = "there is neither a Data_Entry_2017 table nor a list with labels"
        raise SourceError(root, why, _OBTAIN)
    on_disk, excluded = by_name(list_files(root, _NAME, folders), Modality.CXR, _NAME)
    rows: list[dict[str, object]] = []
    for name, row in about.items():
        path = on_disk.pop(name, None)
        fault = _fault(name, row, path, table or "a list")
        if fault is not None:
            excluded.append(fault)
        elif path is not None:
            rows.append(_row(name, path, row, splits.get(name)))
    excluded += [not_named(path, Modality.CXR, _NAME, table) for path in on_disk.values()]
    excluded += [
        not_named(f"images/{name}", Modality.CXR, _NAME, table)
        for name in sorted(splits.keys() - about.keys() - on_disk.keys())
    ]
    return Scan(manifest_frame(rows), tuple(excluded))


def _image_folders(root: Path) -> list[str]:
    """The folders images, images_001, ... that are there."""
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    return [name for name in names if _IMAGE_FOLDER.fullmatch(name) and (root / name).is_dir()]


def _fault(name: str, row: _About, path: str | None, table: str) -> Exclusion | None:
    """Why a table row makes no record; None where it does."""
    if path is None:
        remedy = f"unpack {archive_of(name)} of {_URL}"
        return not_on_disk(f"images/{name}", Modality.CXR, _NAME, table, remedy)
    if row.label is None:
        reason = f"finding {row.findings!r} is none of the 14"
        remedy = "report it, so that it can be mapped"
        return Exclusion(path, Modality.CXR.value, _NAME, "scan", reason, remedy)
    return None


def _row(name: str, path: str, row: _About, split: Split | None) -> dict[str, object]:
    """One manifest row."""
    return {
        "record_id": f"{_NAME}:{name}",
        "patient_id": f"{_NAME}:{name.partition('_')[0]}",
        "patient_known": True,
        "modality": Modality.CXR.value,
        "path": path,
        "label": str(row.label),
        "source": _NAME,
        "split": split.value if split else None,
        "age": row.age,
        "sex": row.sex,
        "view": row.view,
        "findings": _stated(row.findings),
    }


def _stated(findings: str) -> str | None:
    """All 14 findings as the manifest writes them, from those that are present, joined by |."""
    present = {finding.strip() for finding in findings.split("|")}
    published = zip(NIH_FINDINGS, _FINDINGS, strict=True)
    return findings_text({finding: int(name in present) for finding, name in published})


def _read_table(path: Path) -> dict[str, _About]:
    """The rows of a Data_Entry table by image name."""
    table = read_text_table(path, ("image index", "finding labels"), _OBTAIN)
    # The releases call this column "Patient Gender" or "Patient Sex".
    sexes = "patient gender" if "patient gender" in table else "patient sex"
    wanted = ["image index", "finding labels", "patient age", sexes, "view position"]
    columns = table.reindex(columns=wanted, fill_value="")
    found: dict[str, _About] = {}
    for number, row in enumerate(columns.itertuples(index=False, name=None), start=2):
        name, findings, age, sex, view = map(str, row)
        about = _About(
            label=label_of([finding.strip() for finding in findings.split("|")]),
            findings=findings,
            age=age_in_years(age),
            sex=sex if sex in {"F", "M"} else None,
            view=view or None,
        )
        _add(found, name, about, path, number)
    return found


def _add(found: dict[str, _About], name: str, about: _About, path: Path, number: int) -> None:
    """Add a row of a file, or raise a SourceError: no image name, or another row contradicts it."""
    if not _IMAGE_NAME.fullmatch(name):
        why, remedy = f"{name!r} is not an image name (NNNNNNNN_NNN.png)", _OBTAIN
    elif found.setdefault(name, about) != about:
        why, remedy = f"contradicts an earlier row of {name}", "use the official table"
    else:
        return
    raise SourceError(f"{path}, line {number}", why, remedy)


def _read_lists(root: Path) -> tuple[dict[str, _About], dict[str, Split]]:
    """Labels (of the lists that give them) and split of each image name in the lists."""
    labels: dict[str, _About] = {}
    splits: dict[str, Split] = {}
    for file, split in _LISTS.items():
        path = root / file
        if not path.is_file():
            continue
        for number, line in read_lines(path, _OBTAIN):
            name, *marks = line.split()
            if marks:
                _add(labels, name, _marked(marks, f"{path}, line {number}"), path, number)
            if splits.setdefault(name, split) is not split:
                why = f"{name} is in the {splits[name].value} split as well"
                raise SourceError(f"{path}, line {number}", why, "keep the lists of one split")
    return labels, splits


def _marked(marks: list[str], where: str) -> _About:
    """The label of 14 marks."""
    if len(marks) != len(_FINDINGS) or not set(marks) <= {"0", "1"}:
        why = f"needs an image name and {len(_FINDINGS)} times 0 or 1"
        raise SourceError(where, why, "use the published list")
    found = [name for name, mark in zip(_FINDINGS, marks, strict=True) if mark == "1"]
    return _About(label_of(found or [_NO_FINDING]), "|".join(found))


SOURCE = Source(
    name=_NAME,
    title="NIH ChestX-ray14",
    modalities=(Modality.CXR,),
    labels=(Label.NORMAL, Label.PNEUMONIA, Label.CHRONIC_LUNG_DISEASE, Label.OTHER_ABNORMAL),
    patients_known=True,
    licence="no restriction, acknowledge NIH",
    url=_URL,
    citation=(
        "Wang X. et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on"
        " Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017"
    ),
    obtain=_OBTAIN,
    size="112,120 X-rays, 30,805 patients",
    scan=scan,
)
