"""Negative controls of a study: what its models, and a probe, still see with the disease taken out.

    run_controls(parts, cohort, config, reporter.update)

Two questions are asked of every control. *model*: does the trained model, as it is, still tell the
classes apart? An altered image is unlike all it was trained on, so a "no" clears nobody. *probe*:
could it have been learnt from what is left? A logistic regression on frozen features (Alain &
Bengio 2017) of altered training instances answers it, with its penalty chosen on validation. The
features are those of the trained network and of the network it started from: the one knows what
the study's classes look like, the other was never taught to look away from the border.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from pulmofuse.config import EvaluationConfig, StudyConfig
from pulmofuse.curation.check import two_digits
from pulmofuse.curation.confounding import WARN_AUC
from pulmofuse.evaluation import roc_auc
from pulmofuse.evaluation.intervals import patient_interval
from pulmofuse.inference import Unimodal, build_model, instance_rows
from pulmofuse.models import Classifier
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.models import codes
from pulmofuse.preprocessing.controls import CONTROLS, Altered, Control
from pulmofuse.schema import Modality, Split
from pulmofuse.statistics import FloatArray
from pulmofuse.training import Progress, infer, mean_per_record

#: Columns of the table that `run_controls` gives.
COLUMNS = (
    "modality", "control", "method", "metric", "value", "low", "high", "n_patients", "detail",
)  # fmt: skip

#: Name of the row of unaltered instances.
NONE = "none"

#: More records of a split are sampled by patient: an AUC from 3,000 is known to about .02.
MAX_RECORDS = 3000

#: Instances altered and scored at once: 3 MB of images, 8 MB of coughs.
_BLOCK_INSTANCES = 64

#: Penalties of the probe, scikit-learn's C, from almost none of 2,560 features to all of them.
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_ITERATIONS = 500

#: The AUC of a coin.
CHANCE = 0.5

_PARTS = {Modality.CT: "lungs", Modality.CXR: "lungs", Modality.COUGH: "coughs"}


def run_controls(
    parts: Mapping[Modality, Unimodal],
    cohort: Cohort,
    config: StudyConfig,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Run every control on the test records of every modality.

    Args:
        parts: the trained models.
        cohort: split records and caches; caches are read in blocks and never copied whole.
        config: classes, seed, and the statistics of the intervals.
        progress: told (controls done, all, which).

    Returns:
        One row per modality, control ("none" is the unaltered instances) and method ("model" or
        "probe"; `lung_outline` has a probe only): the columns `COLUMNS`. `metric` is "roc_auc", of
        the positive class of two or the macro mean over classes against the rest; what is undefined
        is None.
    """
    todo = [(part, name) for part in parts.values() for name in _names(part.modality)]
    benches: dict[Modality, _Bench] = {}
    rows: list[dict[str, Any]] = []
    for done, (part, name) in enumerate(todo):
        if progress is not None:
            progress(done, len(todo), f"{part.modality.value}, {name}")
        if part.modality not in benches:
            benches = {part.modality: _Bench.of(part, cohort, config)}
        rows += benches[part.modality].rows(name, config)
    if progress is not None:
        progress(len(todo), len(todo), "")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _names(modality: Modality) -> list[str]:
    return [NONE, *(name for name, control in CONTROLS.items() if modality in control.modalities)]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Records of one split under one control.

    p (n, classes) calibrated, features (n, d); `missed`: share of the instances whose lungs or
    coughs were not found.
    """

    p: FloatArray
    features: FloatArray
    missed: float


@dataclass(frozen=True, eq=False)
class _Bench:
    """One modality's models and the records that they are tried on."""

    part: Unimodal
    start: Classifier
    records: dict[Split, pd.DataFrame]
    instances: np.ndarray
    classes: tuple[str, ...]
    positive: int | None

    @classmethod
    def of(cls, part: Unimodal, cohort: Cohort, config: StudyConfig) -> _Bench:
        classes, positive = config.target.classes, config.target.positive
        records = cohort.of(part.modality)
        with torch.random.fork_rng(devices=[]):
            # Layers that no weights were given for start at random, and must not differ by run.
            torch.manual_seed(config.seed)
            start = build_model(part.modality, part.config, len(classes))
        return cls(
            part,
            start,
            {s: _sample(records[records["split"] == s], len(classes), config.seed) for s in Split},
            cohort.caches[part.modality].instances,
            classes,
            None if positive is None else classes.index(positive),
        )

    def rows(self, name: str, config: StudyConfig) -> Iterator[dict[str, Any]]:
        """The rows of one control; none where no record is in the test split."""
        if self.records[Split.TEST].empty:
            return
        control = CONTROLS.get(name)
        seen = {split: self._see(split, control) for split in Split}
        test = seen[Split.TEST]
        answers = {"model": test.p} if control is None or control.picture else {}
        for method, p in (answers | {"probe": self._probe(seen)}).items():
            value, low, high = self._auc(p, config.evaluation, config.seed)
            yield {
                "modality": self.part.modality.value,
                "control": name,
                "method": method,
                "metric": "roc_auc",
                "value": _null(value),
                "low": _null(low),
                "high": _null(high),
                "n_patients": int(self.records[Split.TEST]["patient_id"].nunique()),
                "detail": _words(self.part.modality, control, method, (value, low), test.missed),
            }

    def _y(self, split: Split) -> np.ndarray:
        return codes(self.records[split]["y_true"], self.classes)

    def _see(self, split: Split, control: Control | None) -> _Seen:
        """Score the records of a split in blocks."""
        p, features, missed = [], [], 0
        for block in _blocks(self.records[split]):
            rows, counts = instance_rows(block)
            altered = self._altered(np.asarray(self.instances[rows]), control)
            places = np.arange(len(rows))
            with self._precision():
                p_rows, trained = infer(self.part.model, altered.instances, places)
                _, started = infer(self.start, altered.instances, places)
            p.append(mean_per_record(p_rows, counts))
            features.append(mean_per_record(np.hstack([trained, started]), counts))
            missed += int(altered.missed.sum())
        n = int((self.records[split]["stop"] - self.records[split]["start"]).sum())
        return _Seen(
            self.part.calibration.apply(np.concatenate(p)), np.concatenate(features), missed / n
        )

    def _precision(self) -> torch.autocast:
        """The precision of training: three times as fast, and the third digit matters to nobody."""
        device = next(self.part.model.parameters()).device.type
        fast = self.part.config.training.precision == "bf16"
        return torch.autocast(device, dtype=torch.bfloat16, enabled=fast)

    def _altered(self, instances: np.ndarray, control: Control | None) -> Altered:
        if control is None:
            return Altered(instances, np.zeros(len(instances), dtype=bool))
        return control.alter(instances, self.part.modality, self.part.config.preprocessing)

    def _probe(self, seen: Mapping[Split, _Seen]) -> FloatArray:
        """Probabilities (n_test, classes) of the probe whose penalty does best on validation."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        y_train, y_val = self._y(Split.TRAIN), self._y(Split.VAL)
        best, answer = -np.inf, np.full((len(seen[Split.TEST].p), len(self.classes)), np.nan)
        for penalty in _PENALTIES:
            regression = LogisticRegression(
                C=penalty, max_iter=_ITERATIONS, class_weight="balanced"
            )
            probe = make_pipeline(StandardScaler(), regression)
            probe.fit(seen[Split.TRAIN].features, y_train)
            p_val = probe.predict_proba(seen[Split.VAL].features)
            auc = float(roc_auc(y_val, p_val, None, self.positive))
            if auc > best:
                best, answer = auc, probe.predict_proba(seen[Split.TEST].features)
        return np.asarray(answer)

    def _auc(
        self, p: FloatArray, config: EvaluationConfig, seed: int
    ) -> tuple[float, float, float]:
        """AUC on the test records with its interval."""
        y = self._y(Split.TEST)
        value = float(roc_auc(y, p, None, self.positive))
        patients = self.records[Split.TEST]["patient_id"].astype(str)
        low, high = patient_interval(
            lambda weights: roc_auc(y, p, None, self.positive, weights), patients, config, seed
        )
        return value, low, high


def _sample(records: pd.DataFrame, n_classes: int, seed: int) -> pd.DataFrame:
    """At most about `MAX_RECORDS` records, as many of each class, patients whole.

    Equal shares keep rare classes; an AUC does not depend on how frequent the classes are.
    """
    if len(records) <= MAX_RECORDS:
        return records
    rng = np.random.default_rng(seed)
    kept: set[str] = set()
    for _, own in records.groupby("y_true", sort=True):
        counts = own["patient_id"].value_counts().sort_index()
        order = rng.permutation(len(counts))
        within = counts.to_numpy()[order].cumsum() <= MAX_RECORDS // n_classes
        kept |= set(counts.index[order[within]])
    return records[records["patient_id"].isin(kept)]


def _blocks(records: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Successive records of about `_BLOCK_INSTANCES` instances together."""
    ends = (records["stop"] - records["start"]).cumsum().to_numpy()
    numbers = (ends - 1) // _BLOCK_INSTANCES
    for _, block in records.groupby(numbers, sort=True):
        yield block


def _words(
    modality: Modality,
    control: Control | None,
    method: str,
    figures: tuple[float, float],
    missed: float,
) -> str:
    """What one row means."""
    value, low = figures
    who = "the trained model" if method == "model" else "a probe"
    what = "on the unaltered records" if control is None else control.words
    if not np.isfinite(value):
        return f"{what}: the test records hold one class only, so there is no figure"
    part = _PARTS[modality]
    text = f"{what} {who} {_reaches(low)} AUC {two_digits(value)}"
    if control is not None and control.healthy:
        text += f": {_conclusion(method, low, part)}"
    if missed > 0 and control is not None:
        text += f" (no {part} were found in {missed:.0%} of the instances"
        text += (
            ", where a central box stands in)" if part == "lungs" else ", which stay as they are)"
        )
    return text


def _reaches(low: float) -> str:
    return "still reaches" if low > CHANCE else "reaches"


def _conclusion(method: str, low: float, part: str) -> str:
    """What an AUC with the disease taken out says of the modality's figure."""
    if low > WARN_AUC:
        if method == "model":
            return f"the figure of this modality does not come from the {part} alone"
        return f"the figure of this modality can be reached without the {part}"
    if low > CHANCE:
        return "a little of the class is left"
    if method == "model":
        return "which clears nobody by itself, since the model never saw such records"
    return "no shortcut was found in what is left"


def _null(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
