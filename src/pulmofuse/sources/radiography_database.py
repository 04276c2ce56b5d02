"""COVID-19 Radiography Database: chest X-rays of four classes, collected from other data sets.

Origin: Muhammad E.H. Chowdhury, Tawsifur Rahman, Amith Khandakar and others (Qatar University,
University of Dhaka), 2020-2021. Only the collection is new:
- COVID (3,616): 2,473 of PadChest/BIMCV, 183 of a German medical school, 559 of SIRM, GitHub,
  Kaggle and Twitter, 400 of another GitHub repository (as its page counts them);
- Normal (10,192): 8,851 of RSNA, 1,341 of the children's X-rays of Kermany;
- Lung_Opacity (6,012): RSNA; Viral Pneumonia (1,345): Kermany.
Licence: of each image, that of its own source; see the Kaggle page.
Citation: Chowdhury M.E.H. et al., Can AI help in screening viral and COVID-19 pneumonia?, IEEE
Access 8, 132665-132676, 2020. Rahman T. et al., Exploring the effect of image enhancement
techniques on COVID-19 detection using chest X-ray images, Computers in Biology and Medicine 132,
104319, 2021.

Layout (Kaggle; older releases have the images in the class folder itself, and fewer classes):
    ROOT/{COVID,Lung_Opacity,Normal,Viral Pneumonia}/images/*.png    or ROOT/<class>/*.png
    ROOT/<class>/masks/*.png                                          lung masks; not used
    ROOT/<class>.metadata.xlsx                                        optional: where from
Class folders are found whatever their case; "COVID-19" and "Lung Opacity" are known too. The folder
is the label. A row of a workbook without a file is excluded. A file that no row names keeps its
folder's label, because the releases spell names differently in the workbook and on disk ("NORMAL-1"
is Normal-1.png); it has no `site`.

Labels: COVID is covid19, Normal is normal, Viral Pneumonia is pneumonia. Lung_Opacity is pneumonia:
these are the 6,012 images in which the radiologists of the RSNA challenge saw an opacity that
suggests pneumonia, and `rsna_pneumonia` and `covidx_cxr` label the same images so. The page calls
the class "non-COVID lung infection"; nobody confirmed an infection.
Findings: COVID says covid19 and nothing else; the other classes say not covid19, and pneumonia is
present or absent as the label has it.

Patients: not published; each image is a patient of its own with `patient_known` false. PadChest and
NIH have several images of many people, so a random split leaks.

Known defects:
- The class is the source: no collection holds COVID-19 images and any other class.
- Viral Pneumonia, and 1,341 of Normal, are X-rays of children of one to five years: against
  adults with COVID-19 a reader only needs to see a child.
- All images are resized to 299 x 299 pixels, from sources of differing sizes and bit depths.
- It overlaps `rsna_pneumonia`, `nih_chestxray14`, `covidx_cxr` (site sirm and rsna) and
  `covid_chestxray`.
- `site` is the host in the workbook's column URL (with the repository, for GitHub and Kaggle); it
  follows the class.

How to obtain: https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pandas as pd

from pulmofuse.errors import SourceError
from pulmofuse.findings import Finding, findings_text
from pulmofuse.schema import Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import Scan, Source, list_files, suffix_fault
from pulmofuse.sources.listed import not_on_disk

_NAME = "radiography_database"
_URL = "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database"
_OBTAIN = f"get the class folders with their images from {_URL}"
_CLASSES = {
    "covid": Label.COVID19,
    "covid-19": Label.COVID19,
    "normal": Label.NORMAL,
    "viral pneumonia": Label.PNEUMONIA,
    "lung opacity": Label.PNEUMONIA,
}
_FINDINGS: dict[Label, dict[Finding, int]] = {
    Label.COVID19: {Finding.COVID19: 1},
    Label.NORMAL: {Finding.PNEUMONIA: 0, Finding.COVID19: 0},
    Label.PNEUMONIA: {Finding.PNEUMONIA: 1, Finding.COVID19: 0},
}
_WORKBOOK_COLUMNS = ("FILE NAME", "URL")
_HOSTS_OF_MANY = frozenset({"github.com", "kaggle.com"})


@dataclass(frozen=True)
class _Group:
    """One class folder, relative to the root: its images and its workbook's rows.

    Attributes:
        images: the folder with the images.
        names, sites: of the workbook, by the name's key; empty where there is no workbook.
    """

    folder: str
    images: str
    label: Label
    names: dict[str, str]
    sites: dict[str, str | None]


def scan(root: Path) -> Scan:
    """Scan the COVID-19 Radiography Database; see the data sheet above.

    Raises:
        SourceError: there is no class folder, or a workbook cannot be read.
    """
    groups = _groups(root)
    if not groups:
        raise SourceError(root, "holds none of the class folders (COVID, Normal, ...)", _OBTAIN)
    rows: list[dict[str, object]] = []
    excluded: list[Exclusion] = []
    for group in groups:
        listing = list_files(root, _NAME, (group.images,))
        excluded += listing.excluded
        seen: set[str] = set()
        for path in listing.files:
            fault = suffix_fault(path, Modality.CXR)
            key = _key(PurePosixPath(path).stem)
            seen.add(key)
            if fault is not None:
                excluded.append(Exclusion(path, Modality.CXR.value, _NAME, "scan", *fault))
            else:
                rows.append(_row(path, group.label, group.sites.get(key)))
        excluded += [
            not_on_disk(
                f"{group.images}/{name}",
                Modality.CXR,
                _NAME,
                f"{group.folder}.metadata.xlsx",
                f"get the folder {group.folder} from {_URL}",
            )
            for key, name in group.names.items()
            if key not in seen
        ]
    return Scan(manifest_frame(rows), tuple(excluded))


def site_of(url: str) -> str | None:
    """The host in a URL, with the repository where a host has many; None where there is no host.

    >>> site_of("https://www.kaggle.com/a/b/data"), site_of("https://sirm.org/category/x/")
    ('kaggle.com/a/b', 'sirm.org')
    """
    text = url.strip()
    parts = urlsplit(text if "//" in text else f"//{text}")
    host = parts.netloc.lower().removeprefix("www.")
    if "." not in host:
        return None
    if host in _HOSTS_OF_MANY:
        return "/".join([host, *[part for part in parts.path.split("/") if part][:2]])
    return host


def _groups(root: Path) -> list[_Group]:
    """The class folders that are there."""
    found: list[_Group] = []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        label = _CLASSES.get(path.name.lower().replace("_", " "))
        if label is not None and path.is_dir():
            images = f"{path.name}/images" if (path / "images").is_dir() else path.name
            names, sites = _workbook(_workbook_path(root, path.name))
            found.append(_Group(path.name, images, label, names, sites))
    return found


def _workbook_path(root: Path, folder: str) -> Path:
    """The workbook of a class folder; Lung Opacity and Lung_Opacity are one class."""
    spellings = (folder, folder.replace(" ", "_"), folder.replace("_", " "))
    paths = [root / f"{name}.metadata.xlsx" for name in spellings]
    return next((path for path in paths if path.is_file()), paths[0])


def _row(path: str, label: Label, site: str | None) -> dict[str, object]:
    """One manifest row."""
    return {
        "record_id": f"{_NAME}:{path}",
        "patient_id": f"{_NAME}:{path}",
        "patient_known": False,
        "modality": Modality.CXR.value,
        "path": path,
        "label": label.value,
        "source": _NAME,
        "site": site,
        "findings": findings_text(_FINDINGS[label]),
    }


def _workbook(path: Path) -> tuple[dict[str, str], dict[str, str | None]]:
    """Image name and site of each row by the name's key; empty where there is no workbook."""
    if not path.is_file():
        return {}, {}
    try:
        table = pd.read_excel(path, dtype=str).fillna("")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(path, f"cannot be read as a workbook ({error})", _OBTAIN) from None
    table.columns = pd.Index([str(column).strip().upper() for column in table.columns])
    missing = [column for column in _WORKBOOK_COLUMNS if column not in table]
    if missing:
        raise SourceError(path, f"column {', '.join(missing)} is missing", _OBTAIN)
    names: dict[str, str] = {}
    sites: dict[str, str | None] = {}
    for name, url in table[list(_WORKBOOK_COLUMNS)].itertuples(index=False):
        if str(name).strip():
            names[_key(str(name))] = str(name).strip()
            sites[_key(str(name))] = site_of(str(url))
    return names, sites


def _key(name: str) -> str:
    """A name as it is compared: the workbooks differ from the disk in case and blanks."""
    return "".join(name.lower().split()).removesuffix(".png")


SOURCE = Source(
    name=_NAME,
    title="COVID-19 Radiography Database",
    modalities=(Modality.CXR,),
    labels=(Label.COVID19, Label.NORMAL, Label.PNEUMONIA),
    patients_known=False,
    licence="per source of the image",
    url=_URL,
    citation=(
        "Chowdhury M.E.H. et al., Can AI help in screening viral and COVID-19 pneumonia?, IEEE"
        " Access 8, 132665-132676, 2020"
    ),
    obtain=_OBTAIN,
    size="21,165 X-rays, 3,616 COVID-19",
    scan=scan,
)
