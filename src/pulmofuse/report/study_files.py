"""Read the folder of a study once: the only place of the report that knows file names.

`predictions.parquet` must be there, for without it there is no study to speak of. Every other
file may be missing: its section of the report then says so instead of vanishing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pulmofuse.config import StudyConfig, load_config
from pulmofuse.errors import StudyError
from pulmofuse.report.fusion_files import FusionFiles, read_fusion
from pulmofuse.report.names import FUSION_CURVE
from pulmofuse.schema import Exclusion, Modality, Split

_PREDICTION_COLUMNS = ("patient_id", "split", "subset", "method", "simulated", "y_true", "y_pred")
_METRIC_COLUMNS = ("subset", "method", "split", "site", "metric", "value", "low", "high")
_EXCLUSION_COLUMNS = tuple(Exclusion.__dataclass_fields__)
_REMARK_COLUMNS = ("path", "modality", "source", "kind", "reason", "remedy", "excluded")
_CONTROL_COLUMNS = ("modality", "control", "method", "value", "low", "high", "n_patients", "detail")
_AGAIN = "run the study again; finished steps are kept"


@dataclass(frozen=True)
class Check:
    """One check of `audit.json`."""

    id: str
    verdict: str
    value: float | None
    low: float | None
    high: float | None
    detail: str
    remedy: str
    modality: str = ""
    table: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Audit:
    """`audit.json`."""

    verdict: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Example:
    """A training example: a picture of one modality and class."""

    modality: str
    label: str
    image: Path


@dataclass(frozen=True)
class Explanation:
    """A test example with the picture of what the model looked at."""

    modality: str
    record_id: str
    y_true: str
    y_pred: str
    p: float | None
    image: Path
    overlay: Path


@dataclass(frozen=True)
class About:
    """`study.json`."""

    name: str = "Study"
    question: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    split_hash: str = ""
    test_opened: int | None = None
    seed: int | None = None
    patients: str = ""
    truth: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class StudyFiles:
    """Everything the report is made of.

    Attributes:
        classes: class names in the order of the probability columns.
        positive: the class that sensitivity speaks of; null with more than two classes.
        absent: file name -> why its section is empty, for each optional file that is missing.
    """

    folder: Path
    predictions: pd.DataFrame
    classes: tuple[str, ...]
    positive: str | None
    about: About
    config: StudyConfig | None
    manifest: pd.DataFrame | None
    excluded: pd.DataFrame | None
    metrics: pd.DataFrame
    audit: Audit | None
    controls: pd.DataFrame | None
    remarks: pd.DataFrame | None
    history: dict[str, pd.DataFrame]
    examples: tuple[Example, ...]
    explanations: tuple[Explanation, ...]
    absent: dict[str, str]
    fusion: FusionFiles = field(default_factory=FusionFiles)

    @property
    def simulated(self) -> bool:
        """Whether any patient was put together from different people."""
        return self.about.patients == "simulated" or bool(self.predictions["simulated"].any())

    @property
    def test(self) -> pd.DataFrame:
        """Predictions of the test split."""
        return self.predictions[self.predictions["split"] == Split.TEST.value]

    def rows(self, subset: str, method: str) -> pd.DataFrame:
        """Test predictions of one subset and method."""
        test = self.test
        return test[(test["subset"] == subset) & (test["method"] == method)]

    def target_of(self, label: str) -> str | None:
        """The study's class for a label of the data sets; null where it is not mapped."""
        if self.config is None:
            return label
        return {str(key): name for key, name in self.config.target.truth.items()}.get(label)


def read_study(folder: Path) -> StudyFiles:
    """Read a study folder.

    Raises:
        StudyError: `predictions.parquet` is missing, or a file is damaged.
    """
    predictions = _predictions(folder / "predictions.parquet")
    absent: dict[str, str] = {}
    config_path = folder / "config.resolved.yaml"
    config = load_config(config_path) if config_path.is_file() else None
    if config is None:
        absent["config.resolved.yaml"] = _why_empty("config.resolved.yaml")
    classes, positive = _classes(predictions, config)
    return StudyFiles(
        folder=folder,
        predictions=predictions,
        classes=classes,
        positive=positive,
        about=_about(folder, config, absent),
        config=config,
        manifest=_table(folder, "manifest.parquet", absent),
        excluded=_table(folder, "excluded.csv", absent, _EXCLUSION_COLUMNS),
        metrics=_metrics(folder, absent),
        audit=_audit(folder, absent),
        controls=_controls(folder, absent),
        remarks=_table(folder, "remarks.csv", absent, _REMARK_COLUMNS),
        history=_history(folder, absent, predictions),
        examples=_examples(folder, absent),
        explanations=_explanations(folder, absent),
        absent=absent,
        fusion=read_fusion(folder),
    )


def _why_empty(name: str) -> str:
    return f"This section is empty because the study folder holds no {name}."


def _predictions(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise StudyError(path, "no such file, so there is nothing to report", _AGAIN)
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StudyError(path, f"is not a Parquet table ({error})", _AGAIN) from None
    missing = [column for column in _PREDICTION_COLUMNS if column not in frame]
    if missing:
        raise StudyError(path, f"column {', '.join(missing)} is missing", _AGAIN)
    if frame.empty:
        raise StudyError(path, "holds no prediction", _AGAIN)
    return frame


def _classes(
    predictions: pd.DataFrame, config: StudyConfig | None
) -> tuple[tuple[str, ...], str | None]:
    """Classes and positive class; without a configuration the last of two classes is positive."""
    if config is not None:
        classes = tuple(config.target.classes)
        positive = config.target.positive
    else:
        columns = [str(c) for c in predictions.columns]
        named = {c.removeprefix("p_") for c in columns if c.startswith("p_")}
        raw = {f"raw_{name}" for name in named}
        classes = tuple(
            c.removeprefix("p_")
            for c in columns
            if c.startswith("p_") and c.removeprefix("p_") not in raw
        )
        positive = classes[-1] if classes else None
    missing = [name for name in classes if f"p_{name}" not in predictions]
    if missing or len(classes) < 2:
        why = f"no probability column for class {', '.join(missing) or '(none found)'}"
        raise StudyError("predictions.parquet", why, _AGAIN)
    return classes, positive if len(classes) == 2 else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(path, f"is not JSON ({error})", _AGAIN) from None


def _about(folder: Path, config: StudyConfig | None, absent: dict[str, str]) -> About:
    path = folder / "study.json"
    if not path.is_file():
        absent["study.json"] = _why_empty("study.json")
        return About(
            name=config.name if config else folder.resolve().name,
            question=config.question if config else "",
            seed=config.seed if config else None,
        )
    tree = _json(path)
    known = {name: tree[name] for name in About.__dataclass_fields__ if tree.get(name) is not None}
    return About(**known)


def _table(
    folder: Path, name: str, absent: dict[str, str], columns: tuple[str, ...] = ()
) -> pd.DataFrame | None:
    """A CSV (every cell as text) or Parquet table; null, with a note, where there is none."""
    path = folder / name
    if not path.is_file():
        absent[name] = _why_empty(name)
        return None
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise StudyError(path, f"cannot be read as a table ({error})", _AGAIN) from None
    return frame.reindex(columns=list(columns), fill_value="") if columns else frame


def _metrics(folder: Path, absent: dict[str, str]) -> pd.DataFrame:
    path = folder / "metrics.json"
    columns = [*_METRIC_COLUMNS, "n_patients", "simulated", "against", "question"]
    if not path.is_file():
        absent["metrics.json"] = _why_empty("metrics.json")
        return pd.DataFrame(columns=columns)
    frame = pd.DataFrame(_json(path)).reindex(columns=columns)
    for column in ("value", "low", "high", "n_patients"):
        frame[column] = pd.to_numeric(frame[column], errors="coerce")
    frame["question"] = frame["question"].fillna("").astype(str)
    return frame


def _controls(folder: Path, absent: dict[str, str]) -> pd.DataFrame | None:
    frame = _table(folder, "controls.csv", absent, _CONTROL_COLUMNS)
    if frame is None:
        return None
    numbers = ["value", "low", "high", "n_patients"]
    frame[numbers] = frame[numbers].apply(pd.to_numeric, errors="coerce")
    return frame


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def _audit(folder: Path, absent: dict[str, str]) -> Audit | None:
    if not (folder / "audit.json").is_file():
        absent["audit.json"] = _why_empty("audit.json")
        return None
    return read_audit(folder)


def read_audit(folder: Path) -> Audit:
    """Read `audit.json` of a folder.

    Raises:
        StudyError: there is none, or it is damaged.
    """
    tree = _json(folder / "audit.json")
    checks = tuple(
        Check(
            id=str(check["id"]),
            verdict=str(check["verdict"]),
            value=_number(check.get("value")),
            low=_number(check.get("low")),
            high=_number(check.get("high")),
            detail=str(check.get("detail") or ""),
            remedy=str(check.get("remedy") or ""),
            modality=str(check.get("modality") or ""),
            table=tuple(check.get("table") or ()),
        )
        for check in tree.get("checks", [])
    )
    return Audit(str(tree["verdict"]), checks)


def _history(
    folder: Path, absent: dict[str, str], predictions: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Training curves of the models behind the predictions; others are of an earlier run."""
    found: dict[str, pd.DataFrame] = {}
    used = {m.value: m.value for m in Modality if m.value in set(predictions["subset"])}
    for method in dict.fromkeys(predictions["method"]):
        used[f"{FUSION_CURVE}{method}"] = f"fusion/{method}"
    for name, place in used.items():
        path = folder / "checkpoints" / place / "history.csv"
        if not path.is_file():
            # An ensemble: the curve of its first member stands for all.
            path = path.parent / "member-0" / path.name
        if not path.is_file():
            continue
        try:
            found[name] = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise StudyError(path, f"cannot be read as a table ({error})", _AGAIN) from None
    if not found:
        absent["history.csv"] = _why_empty("checkpoints/*/history.csv")
    return found


def _index(folder: Path, name: str, absent: dict[str, str]) -> list[dict[str, Any]]:
    path = folder / name / "index.json"
    if not path.is_file():
        absent[name] = _why_empty(f"{name}/index.json")
        return []
    entries = _json(path)
    if not entries:
        absent[name] = f"This section is empty because {name}/index.json lists no picture."
    return list(entries)


def _examples(folder: Path, absent: dict[str, str]) -> tuple[Example, ...]:
    here = folder / "examples"
    return tuple(
        Example(str(entry["modality"]), str(entry["class"]), here / str(entry["image"]))
        for entry in _index(folder, "examples", absent)
    )


def _explanations(folder: Path, absent: dict[str, str]) -> tuple[Explanation, ...]:
    here = folder / "explanations"
    return tuple(
        Explanation(
            modality=str(entry["modality"]),
            record_id=str(entry["record_id"]),
            y_true=str(entry["y_true"]),
            y_pred=str(entry["y_pred"]),
            p=_number(entry.get("p")),
            image=here / str(entry["image"]),
            overlay=here / str(entry["overlay"]),
        )
        for entry in _index(folder, "explanations", absent)
    )
