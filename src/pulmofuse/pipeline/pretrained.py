"""What the starting weights of a study have seen, and whether its test set is among it.

`pulmofuse pretrain` leaves fingerprints.parquet beside its weights, and the weights say in their
header which file of fingerprints is theirs: weights that lost it are refused, not trusted.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pulmofuse.config import CoughConfig, CtConfig, CxrConfig, StudyConfig
from pulmofuse.curation import Check
from pulmofuse.curation.leakage import leakage_pretraining, unknown_pretraining
from pulmofuse.errors import WeightsError
from pulmofuse.files import sha256_file
from pulmofuse.pipeline.fingerprints import FINGERPRINTS, read_fingerprints, shared_contents
from pulmofuse.schema import Modality, Split

#: In the header of pre-trained weights: the SHA-256 of their fingerprints.parquet.
MARK = "pulmofuse.fingerprints"

_NO_FILE = ("imagenet", "none")
_REMEDY = "run `pulmofuse pretrain` again"
_COLUMNS = ["record_id", "patient_id", "modality", "sha256", "fingerprint", "split"]


def weights_file(part: CtConfig | CxrConfig | CoughConfig) -> Path | None:
    """The file that a model starts from; None for a package, a URL, and for no weights."""
    weights = part.model.weights
    unused = (isinstance(part, CoughConfig) and part.model.architecture != "spectrogram_cnn") or (
        isinstance(part, CtConfig) and part.model.aggregation == "volume"
    )
    if unused or weights in _NO_FILE or urlsplit(weights).scheme in {"http", "https"}:
        return None
    return Path(weights).expanduser()


def weights_key(part: CtConfig | CxrConfig | CoughConfig) -> list[str]:
    """Hashes of that file and of the fingerprints beside it, for the inputs of a step."""
    path = weights_file(part)
    files = [] if path is None else [path, path.with_name(FINGERPRINTS)]
    return [sha256_file(file) for file in files if file.is_file()]


def seen_by(weights: Path) -> pd.DataFrame | None:
    """What was seen in pre-training: record_id, patient_id, modality, sha256, fingerprint, split.

    Args:
        weights: a file of weights.

    Returns:
        None where the weights do not say.

    Raises:
        WeightsError: the fingerprints that the weights name are not beside them.
        StudyError: the fingerprints cannot be read.
    """
    beside, mark = weights.with_name(FINGERPRINTS), _mark(weights)
    found = sha256_file(beside) if beside.is_file() else None
    if mark is not None and found != mark:
        raise WeightsError(
            weights,
            f"was pre-trained on images whose {FINGERPRINTS} "
            + ("is not beside it" if found is None else "is not the one beside it"),
            "copy the whole folder that `pulmofuse pretrain` wrote, or pre-train again",
        )
    if found is None:
        return None
    table = read_fingerprints(beside, _REMEDY)
    return table.assign(patient_id=table.get("patient_id"))[_COLUMNS]


def seen_in_pretraining(config: StudyConfig, modalities: list[Modality]) -> pd.DataFrame:
    """The same of all models of a study, each content once; the record_ids are made unique."""
    tables = [
        table.assign(record_id=f"pretrain-{modality.value}/" + table["record_id"])
        for modality in modalities
        if (path := weights_file(config.of(modality))) is not None
        and (table := seen_by(path)) is not None
    ]
    if not tables:
        return pd.DataFrame(columns=_COLUMNS)
    return pd.concat(tables, ignore_index=True).drop_duplicates(["modality", "sha256"])


def pretraining_checks(config: StudyConfig, records: pd.DataFrame) -> list[Check]:
    """Hold what each model of a study starts from against its validation and test records.

    Args:
        config: the study.
        records: path, record_id, patient_id, modality, sha256, fingerprint, split.

    Returns:
        One check for each model that starts from a file, and none for the others.
    """
    tested = records[records["split"].isin([Split.VAL.value, Split.TEST.value])]
    checks = []
    for modality in Modality:
        path = weights_file(config.of(modality))
        if path is None or not (records["modality"] == modality.value).any():
            continue
        seen = seen_by(path)
        if seen is None:
            checks.append(unknown_pretraining(modality.value, str(path)))
            continue
        # Of every modality: a patient whose CT was seen must not be tested by their X-ray either.
        known = tested.assign(**_known(seen, tested))
        checks.append(leakage_pretraining(known, modality.value, str(path), len(seen)))
    return checks


def known_to_pretraining(config: StudyConfig, records: pd.DataFrame) -> pd.Series:
    """Which records the model of their own modality knows before it is trained.

    Args:
        config: the study.
        records: record_id, patient_id, modality, sha256, fingerprint.

    Returns:
        bool, with the index of `records`: what the model starts from has seen the record, a copy
        of it or its patient. False where the weights do not say what they have seen.

    Raises:
        WeightsError, StudyError: as `seen_by`.
    """
    known = pd.Series(data=False, index=records.index)
    for modality in Modality:
        own = records[records["modality"] == modality.value]
        path = weights_file(config.of(modality))
        if len(own) and path is not None and (seen := seen_by(path)) is not None:
            found = _known(seen, own)
            known[own.index] = found["copy"] | found["patient"]
    return known


def _known(seen: pd.DataFrame, records: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Of each record: "copy" and "patient", whether pre-training saw one of it."""
    patients = records["patient_id"].isin(seen["patient_id"].dropna())
    return {"copy": shared_contents(seen, records)[1], "patient": patients.to_numpy()}


def _mark(weights: Path) -> str | None:
    """What the header of a file of weights says of its fingerprints."""
    if weights.suffix.lower() != ".safetensors":
        return None
    try:
        with safe_open(weights, framework="pt") as stored:
            return (stored.metadata() or {}).get(MARK)
    except (OSError, SafetensorError):
        # Whoever builds the model says what is wrong with the file.
        return None
