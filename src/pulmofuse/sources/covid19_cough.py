"""covid19-cough: forced coughs recorded over the telephone and in Telegram, with a COVID-19 label.

Origin: the covid19-cough project, Russia, 2020-2021. People were asked to cough; some called a
call centre, others sent a voice message to a Telegram bot.
Licence: CC0 1.0. Citation: covid19-cough/dataset, https://github.com/covid19-cough/dataset.

Layout:
    ROOT/metadata.json      a list of {filename, covid19, source, verified, asymptomatic, ...}
    ROOT/raw/*.mp3          1,324 recordings
The table rules: a recording that it does not name is excluded, and so is a row without a file.

Labels: `covid19` true is covid19 (682 recordings), false is not_covid19 (642). A negative is
somebody who says to be healthy or not infected, not somebody examined; a negative may cough for
another reason. `verified` says that a laboratory's PCR result was seen (382 recordings, all of
them positive); the other positives rest on the person's word. Negatives have no check at all.

Patients: nobody's identity is published and one person may have called twice. Each recording is
a patient of its own with `patient_known` false.

Known defects:
- `site` is the channel (`source` in the table: telegram or call-center) and it predicts the
  label: 71 % of the call-center recordings (8 kHz, two channels) are positive, 30 % of those from
  Telegram (48 kHz, one channel). A classifier that tells the channels apart looks better than it
  is: look at results within each site.
- The same sound stands there more than once: the 1,324 files have 1,201 distinct contents. 111
  contents (230 files, the two broken ones apart) stand under both labels: one of the labels is
  wrong, and which one nobody knows.
- Two files of 261 bytes are broken as published; reading them fails later and says so.
- A file is a stretch cut out of a longer call. An older metadata.json in the repository's history
  has `start_at` and `end_at`, in seconds into the whole call; the published MP3 is that stretch
  (one annotated as 1.967 s lasts 2.067 s). The README still names these columns; the newest table
  lacks them, and the whole calls are not published. 098d66e5-..., one of the two broken files,
  was annotated with its end before its start.
- The free-text comments are in Russian; some say that the illness was months ago.

How to obtain: clone https://github.com/covid19-cough/dataset.
"""

from __future__ import annotations

import json
from pathlib import Path

from pulmofuse.errors import SourceError
from pulmofuse.schema import Exclusion, Label, Modality, manifest_frame
from pulmofuse.sources.base import (
    Scan,
    Source,
    list_files,
    missing_from_disk,
    name_key,
    require_file,
    require_folder,
)

_NAME = "covid19_cough"
_TABLE = "metadata.json"
_FOLDER = "raw"
_URL = "https://github.com/covid19-cough/dataset"
_OBTAIN = f"clone {_URL}"


def scan(root: Path) -> Scan:
    """Scan covid19-cough; see the data sheet above.

    Raises:
        SourceError: raw/ or metadata.json is missing, the table is not a list of rows with
            `filename`, `covid19` and `source`, or two rows contradict each other.
    """
    require_folder(root, _FOLDER, _OBTAIN)
    listing = list_files(root, _NAME, (_FOLDER,))
    on_disk = {name_key(path): path for path in listing.files}
    rows: list[dict[str, object]] = []
    excluded = list(listing.excluded)
    for name, (label, channel) in _labels(root).items():
        path = on_disk.pop(f"{_FOLDER}/{name}", None)
        if path is None:
            reason = missing_from_disk(_TABLE)
            remedy = f"get this file from {_URL}"
            excluded.append(Exclusion(f"{_FOLDER}/{name}", "cough", _NAME, "scan", reason, remedy))
        else:
            rows.append(_row(path, label, channel))
    excluded += [
        Exclusion(path, "cough", _NAME, "scan", f"{_TABLE} does not name it", "remove the file")
        for path in on_disk.values()
    ]
    return Scan(manifest_frame(rows), tuple(excluded))


def _row(path: str, label: Label, channel: str | None) -> dict[str, object]:
    """One manifest row."""
    short = path.removeprefix(f"{_FOLDER}/")
    return {
        "record_id": f"{_NAME}:{short}",
        "patient_id": f"{_NAME}:{short}",
        "patient_known": False,
        "modality": Modality.COUGH.value,
        "path": path,
        "label": label.value,
        "source": _NAME,
        "site": channel,
    }


def _labels(root: Path) -> dict[str, tuple[Label, str | None]]:
    """Label and recording channel of each file name in the table."""
    path = require_file(root, _TABLE, _OBTAIN)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(path, f"cannot be read as JSON ({error})", _OBTAIN) from None
    if not isinstance(table, list):
        raise SourceError(path, "is not a list of recordings", _OBTAIN)
    found: dict[str, tuple[Label, str | None]] = {}
    for number, row in enumerate(table, start=1):
        where = f"{path}, entry {number}"
        name = row.get("filename") if isinstance(row, dict) else None
        if not isinstance(name, str) or not isinstance(row.get("covid19"), bool):
            raise SourceError(where, "needs a filename and covid19 (true or false)", _OBTAIN)
        label = Label.COVID19 if row["covid19"] else Label.NOT_COVID19
        entry = (label, row.get("source") or None)
        if found.setdefault(name_key(name), entry) != entry:
            raise SourceError(where, f"contradicts an earlier entry of {name}", "keep one of them")
    return found


SOURCE = Source(
    name=_NAME,
    title="covid19-cough",
    modalities=(Modality.COUGH,),
    labels=(Label.COVID19, Label.NOT_COVID19),
    patients_known=False,
    licence="CC0 1.0",
    url=_URL,
    citation="covid19-cough/dataset, https://github.com/covid19-cough/dataset, 2021",
    obtain=_OBTAIN,
    size="1,324 recordings, 682 COVID-19",
    scan=scan,
)
