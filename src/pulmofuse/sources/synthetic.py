"""A synthetic cohort: drawn CT, chest X-ray and cough of the same patients, with known truth.

Origin: made by this module; nobody's data. Licence: CC0 1.0. Citation: Pulmofuse.

No public data set holds CT, X-ray and cough of the same people. This cohort does, so that the
whole pipeline can be run, and so that fusion can be checked against an answer: the truth file
holds the ROC-AUC that the best possible reader would reach with every subset of modalities (see
`latents` for the model). A trained model should come near it and cannot beat it, but for
chance. The correlation between modalities given the class can be turned up (does naive fusion
become over-confident?), and an acquisition shortcut can be planted (does the audit find it?).

Layout (an ordinary folder in the default layout, plus the truth):
    ROOT/ct/<label>/P00001.png            axial slice, 8 bit
    ROOT/cxr/<label>/P00001.png           frontal X-ray, 8 bit
    ROOT/cough_audio/<label>/P00001.wav   16 kHz mono, 16 bit
    ROOT/patients.csv                     path, patient_id, age, sex, site
    ROOT/truth.csv                        patient_id, label, trait, z_<modality>_<disease>
    ROOT/truth.json                       {generator, config, oracle_auc: {subset: auc}}

Labels: any two or more of normal, covid19, pneumonia, tuberculosis, chronic_lung_disease. Patients
are known. Age, sex and site (two scanners, one coarser) say nothing about the label.
The shortcut: in CT a brightness offset, in X-ray a white block in a corner that differs by class,
in cough a low-pass filter such as a telephone's; it carries the label's own trait with probability
`shortcut_agreement`, else another class's.

Known defects: the pictures are drawings. They carry the textbook signs (peripheral ground glass,
lobar consolidation, upper-zone nodules and cavities, hyperinflation with bullae; dry, wet, long
and wheezing coughs) and none of the variety of real disease. A result on this cohort says that the
software works; it says nothing about patients.

How to obtain: `pulmofuse.sources.synthetic.generate`.
"""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from pulmofuse.errors import SourceError
from pulmofuse.files import write_bytes, write_json, write_text
from pulmofuse.schema import MODALITY_FOLDERS, Label, Modality
from pulmofuse.sources.base import Scan, Source
from pulmofuse.sources.folder import scan_layout
from pulmofuse.sources.latents import (
    DRAWN,
    Patient,
    SyntheticConfig,
    draw_patient,
    oracle_auc,
    target_classes,
)
from pulmofuse.sources.patients import PATIENTS_FILE

__all__ = ["SOURCE", "SyntheticConfig", "demo_cohort", "generate", "oracle_auc", "read_truth"]

_NAME = "synthetic"
_TRUTH_JSON = "truth.json"
_TRUTH_CSV = "truth.csv"
_OBTAIN = "make a cohort with pulmofuse.sources.synthetic.generate"
_GENERATOR = 2  # raised whenever the same configuration gives other bytes

#: The sign's strength is Phi((z - centre) / width): graded over the latents' range, never flat.
_STRENGTH = NormalDist(mu=0.75, sigma=1.5)

#: The planted acquisition trait of each class, by its place in the configuration.
_CT_OFFSETS = (0, 28, 56, 84, 112)  # grey levels
_COUGH_CUTOFFS_HZ = (7600, 3400, 2400, 1700, 1200)
_BLOCK = 0.09  # side of the X-ray block, share of the image

_SUFFIX = {Modality.CT: ".png", Modality.CXR: ".png", Modality.COUGH: ".wav"}
_WORKERS = 2


def demo_cohort(seed: int, patients: int = 360) -> SyntheticConfig:
    """The cohort of the demo and of the notebook: signs that 200 patients suffice to learn.

    Args:
        seed: of everything.
        patients: number of patients.
    """
    strength = {Modality.CT: 2.5, Modality.CXR: 2.1, Modality.COUGH: 1.8}
    return SyntheticConfig(patients=patients, seed=seed, strength=strength)


def generate(
    root: Path,
    config: SyntheticConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Draw a cohort into `root`, or what is missing of it, and scan it.

    Every patient depends on the configuration and the patient's number alone, so a generation that
    was interrupted goes on where it was, and a larger cohort contains the smaller one.

    Args:
        root: an empty or new folder, or one that this very cohort was begun in.
        config: the cohort.
        progress: called with (patients done, patients in all).

    Raises:
        SourceError: the folder holds something else.
    """
    _claim(root, config)
    patients = [draw_patient(config, index) for index in range(config.patients)]
    write_text(root / PATIENTS_FILE, _patients_table(patients).to_csv(index=False))
    write_text(root / _TRUTH_CSV, _truth_table(patients).to_csv(index=False))

    def draw(index: int) -> None:
        for path, content in _files(root, config, patients[index], index):
            write_bytes(path, content)

    # Drawing spends its time in array code, which lets two threads run beside each other.
    with ThreadPoolExecutor(_WORKERS) as pool:
        for done, _ in enumerate(pool.map(draw, range(len(patients))), start=1):
            if progress is not None:
                progress(done, len(patients))
    return scan(root)


def read_truth(
    root: Path, mapping: Mapping[Label, str] | None = None, positive: str | None = None
) -> dict[str, float] | None:
    """The best possible ROC-AUC per subset of modalities, or None where there is no such figure.

    There is none if `root` has no truth, if the mapping leaves fewer than two of the cohort's
    classes, or if `positive` is not among them.

    Args:
        root: a cohort's folder.
        mapping: class of a study for each label, as `oracle_auc` takes it; without it and
            `positive` the stored figures for the cohort's own classes are given.
        positive: class whose AUC is wanted, as `oracle_auc` takes it.

    Raises:
        SourceError: the truth file is damaged.
    """
    stored = _stored(root)
    if stored is None:
        return None
    try:
        if mapping is None and positive is None:
            return {str(k): float(v) for k, v in stored["oracle_auc"].items()}
        config = SyntheticConfig.model_validate(stored["config"])
    except (KeyError, AttributeError, TypeError, ValidationError):
        raise SourceError(root / _TRUTH_JSON, "is not a truth file", _OBTAIN) from None
    groups = target_classes(config, mapping)
    if len(groups) < 2 or (positive is not None and positive not in groups):
        return None
    return oracle_auc(config, mapping, positive)


def scan(root: Path) -> Scan:
    """Scan a cohort as the ordinary folder that it is."""
    return scan_layout(root, _NAME, companions=(_TRUTH_CSV, _TRUTH_JSON))


def _stored(root: Path) -> dict[str, Any] | None:
    """Content of truth.json, or None where there is none."""
    path = root / _TRUTH_JSON
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(path, f"cannot be read as JSON ({error})", _OBTAIN) from None
    if not isinstance(content, dict):
        raise SourceError(path, "is not a truth file", _OBTAIN)
    return content


def _claim(root: Path, config: SyntheticConfig) -> None:
    """Write the truth of a new cohort, or make sure that `root` holds this very one."""
    wanted = {"generator": _GENERATOR, "config": config.model_dump(mode="json")}
    stored = _stored(root)
    if stored is None:
        if root.is_dir() and any(root.iterdir()):
            raise SourceError(root, "the folder is not empty", "name a new folder")
        write_json(root / _TRUTH_JSON, wanted | {"oracle_auc": oracle_auc(config)})
    elif {key: stored.get(key) for key in wanted} != wanted:
        raise SourceError(root, "the folder holds another cohort", "name a new folder")


def _path(patient: Patient, modality: Modality) -> str:
    """Path of a record, relative to the cohort's folder."""
    folder = MODALITY_FOLDERS[modality]
    return f"{folder}/{patient.label.value}/{patient.name}{_SUFFIX[modality]}"


def _patients_table(patients: list[Patient]) -> pd.DataFrame:
    """Content of patients.csv."""
    return pd.DataFrame(
        [
            {
                "path": _path(patient, modality),
                "patient_id": patient.name,
                "age": patient.age,
                "sex": patient.sex,
                "site": patient.site,
            }
            for patient in patients
            for modality in patient.present
        ]
    )


def _truth_table(patients: list[Patient]) -> pd.DataFrame:
    """Content of truth.csv."""
    return pd.DataFrame(
        [
            {"patient_id": p.name, "label": p.label.value, "trait": p.trait.value}
            | {f"z_{m.value}_{k.value}": z for (m, k), z in p.latents.items()}
            for p in patients
        ]
    )


def _files(
    root: Path, config: SyntheticConfig, patient: Patient, index: int
) -> Iterator[tuple[Path, bytes]]:
    """Path and content of each record of a patient that is not there yet."""
    for number, modality in enumerate(Modality, start=1):
        path = root / _path(patient, modality)
        if modality in patient.present and not path.exists():
            # A stream of its own: a modality looks the same whether or not the others exist.
            rng = np.random.default_rng([config.seed, index, number])
            yield path, _draw(rng, config, patient, modality)


def _draw(
    rng: np.random.Generator, config: SyntheticConfig, patient: Patient, modality: Modality
) -> bytes:
    """Content of one record."""
    from pulmofuse.sources import phantom

    signs = {k: _STRENGTH.cdf(patient.latents[modality, k]) for k in config.diseases}
    female, coarse = patient.sex == "F", patient.site == "site_b"
    trait = config.classes.index(patient.trait) if config.shortcut is modality else None
    if modality is Modality.COUGH:
        return _wav(_telephone(phantom.draw_cough(rng, signs, female=female, coarse=coarse), trait))
    if modality is Modality.CT:
        image = phantom.draw_ct(rng, config.image_size, signs, female=female, coarse=coarse)
        return _png(_brighten(image, trait))
    image = phantom.draw_cxr(rng, config.image_size, signs, female=female, coarse=coarse)
    return _png(_block(image, trait))


def _brighten(image: NDArray[np.uint8], trait: int | None) -> NDArray[np.uint8]:
    """Add the CT shortcut: a brightness offset."""
    if trait is None:
        return image
    lifted = image.astype(np.int16) + _CT_OFFSETS[trait]
    return np.clip(lifted, 0, 255).astype(np.uint8)


def _block(image: NDArray[np.uint8], trait: int | None) -> NDArray[np.uint8]:
    """Add the X-ray shortcut: a white block in the corner of the trait (none for the first)."""
    if not trait:
        return image
    out = image.copy()
    side = round(_BLOCK * image.shape[0])
    rows = slice(0, side) if trait in {1, 2} else slice(-side, None)
    columns = slice(0, side) if trait in {2, 4} else slice(-side, None)
    out[rows, columns] = 255
    return out


def _telephone(samples: NDArray[np.int16], trait: int | None) -> NDArray[np.int16]:
    """Add the cough shortcut: a low-pass filter."""
    if trait is None:
        return samples
    from scipy.signal import butter, sosfilt

    from pulmofuse.sources.phantom import SAMPLE_RATE_HZ

    sos = butter(6, _COUGH_CUTOFFS_HZ[trait], fs=SAMPLE_RATE_HZ, output="sos")
    filtered = np.asarray(sosfilt(sos, samples), np.float64)
    return np.clip(np.round(filtered), -32768, 32767).astype(np.int16)


def _png(image: NDArray[np.uint8]) -> bytes:
    """A PNG file."""
    import cv2

    return bytes(cv2.imencode(".png", image)[1])


def _wav(samples: NDArray[np.int16]) -> bytes:
    """A mono 16-bit WAV file."""
    from pulmofuse.sources.phantom import SAMPLE_RATE_HZ

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE_HZ)
        out.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


SOURCE = Source(
    name=_NAME,
    title="Synthetic cohort (drawn, no patients)",
    modalities=tuple(Modality),
    labels=DRAWN,
    patients_known=True,
    licence="CC0 1.0",
    url="",
    citation="Pulmofuse synthetic cohort",
    obtain=_OBTAIN,
    size="360 simulated patients by default",
    scan=scan,
    generic=True,
)
