"""Negative controls of a study: what its models, and a probe, still see with the disease taken out.

    run_controls(parts, scores, cohort, predictions, config, reporter.update)

Two questions are asked of every control. *model*: does the trained model, as it is, still tell the
classes apart? An altered image is unlike all it was trained on, so a "no" clears nobody. *probe*:
could it have been learnt from what is left? A logistic regression on frozen features (Alain &
Bengio 2017) of altered training instances answers it, with its penalty chosen on validation. The
features are those of the trained network and of the network it started from: the one knows what
the study's classes look like, the other was never taught to look away from the border.

Matched figures (`evaluation.matching`), which ask the same of what stands in the manifest, end the
table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from pulmofuse.config import EvaluationConfig, StudyConfig
from pulmofuse.curation.check import two_digits
from pulmofuse.curation.confounding import WARN_AUC
from pulmofuse.curation.shortcut import draw_patients
from pulmofuse.evaluation import roc_auc
from pulmofuse.evaluation.intervals import patient_interval
from pulmofuse.evaluation.matching import matched_rows
from pulmofuse.evaluation.questions import positive_of
from pulmofuse.inference import Scores, Unimodal, build_model, instance_rows
from pulmofuse.labelsets import Partition
from pulmofuse.models import Classifier, frozen, infer_records, mean_per_record
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.pipeline.models import codes
from pulmofuse.pipeline.probe import probe
from pulmofuse.preprocessing.controls import CONTROLS, Control, find
from pulmofuse.schema import Modality, Split, class_columns
from pulmofuse.statistics import FloatArray
from pulmofuse.training import Progress

#: Columns of the table that `run_controls` gives.
COLUMNS = (
    "modality", "control", "method", "metric", "value", "low", "high", "n_patients", "detail",
)  # fmt: skip

#: Name of the rows of unaltered instances.
NONE = "none"

#: Instances altered and scored at once: 3 MB of images, 8 MB of coughs.
_BLOCK_INSTANCES = 64

#: The AUC of a coin.
CHANCE = 0.5

_SPLITS = {Split.TRAIN: "training", Split.VAL: "validation", Split.TEST: "test"}
_PARTS = {Modality.CT: "lungs", Modality.CXR: "lungs", Modality.COUGH: "coughs"}


def run_controls(
    parts: Mapping[Modality, Unimodal],
    scores: Mapping[Modality, Scores],
    cohort: Cohort,
    predictions: pd.DataFrame,
    config: StudyConfig,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Run every control on the test records of every modality, and match them.

    Args:
        parts: the trained models.
        scores: what these say of the unaltered records, every record of the cohort.
        cohort: split records and caches; caches are read in blocks and never copied whole.
        predictions: as `predictions.parquet`.
        config: classes, seed, and the statistics of the intervals.
        progress: told (instances done, all, modality).

    Returns:
        The columns `COLUMNS`. One row per modality, control ("none" is the unaltered instances)
        and method ("model" or "probe"; `lung_outline` has a probe only), with `metric` "roc_auc"
        of the positive class of two or the macro mean over classes against the rest; then the rows
        of `matched_rows`, with control "matched on ...". What is undefined is None, and `detail`
        says why.
    """
    benches = [_Bench.of(part, scores[m], cohort, config) for m, part in parts.items()]
    benches = [bench for bench in benches if bench.has(Split.TEST)]
    total, done = sum(bench.n_instances for bench in benches), 0
    rows: list[dict[str, Any]] = []
    for bench in benches:
        name, before = bench.part.modality.value, done

        def tell(own: int, name: str = name, before: int = before) -> None:
            if progress is not None:
                progress(before + own, total, name)

        rows += bench.rows(config, tell)
        done += bench.n_instances
    rows += _matched(predictions, cohort.records, config)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _matched(
    predictions: pd.DataFrame, records: pd.DataFrame, config: StudyConfig
) -> Iterator[dict[str, Any]]:
    """Matched figures as rows of the table of controls."""
    target = config.target
    found = matched_rows(
        predictions, records, target.classes, target.positive, config.evaluation, config.seed
    )
    for row in found:
        names = {
            "modality": row["subset"],
            "control": f"matched on {row['matched_on']}",
            "method": "model",
        }
        yield names | {name: row[name] for name in COLUMNS if name not in names}


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the networks make of the records under one control.

    p (n, classes) calibrated, features (n, d); `missed` (n,): share of each record's instances
    whose lungs or coughs were not found.
    """

    p: FloatArray
    features: np.ndarray
    missed: FloatArray


@dataclass(frozen=True, eq=False)
class _Bench:
    """One modality's models and the records that they are tried on."""

    part: Unimodal
    model: Classifier
    start: Classifier
    records: pd.DataFrame
    scores: Scores
    instances: np.ndarray
    partition: Partition
    positive: int | None

    @property
    def classes(self) -> tuple[str, ...]:
        """What the model tells apart: classes, or parts of them."""
        return self.partition.names

    @classmethod
    def of(cls, part: Unimodal, scores: Scores, cohort: Cohort, config: StudyConfig) -> _Bench:
        """At most 3,000 records of each split: a control must not cost more than the training."""
        partition = part.partition or Partition.fine(config.target.classes)
        classes, positive = partition.names, positive_of(partition, config.target.positive)
        records = cohort.of(part.modality)
        # A test record may carry a set that lies across the parts: it answers nothing here.
        records = records[partition.codes(records["y_true"]) >= 0]
        named = [classes[i] for i in partition.codes(records["y_true"])]
        records = records.assign(y_true=named)
        drawn = [draw_patients(records[records["split"] == s], config.seed) for s in Split]
        with torch.random.fork_rng(devices=[]):
            # Layers that no weights were given for start at random, and must not differ by run.
            torch.manual_seed(config.seed)
            # The members of an ensemble start alike, so one of them says what all start from.
            training = part.config.training.model_copy(update={"members": 1})
            alone = part.config.model_copy(update={"training": training})
            start = build_model(part.modality, alone, len(classes))
        return cls(
            part,
            frozen(part.model),
            frozen(start),
            pd.concat(drawn, ignore_index=True),
            scores,
            cohort.caches[part.modality].instances,
            partition,
            None if positive is None else classes.index(positive),
        )

    def has(self, split: Split) -> bool:
        """Whether any record is in a split."""
        return bool(self._of(split).any())

    @property
    def n_instances(self) -> int:
        """Of all records drawn."""
        return int((self.records["stop"] - self.records["start"]).sum())

    def rows(self, config: StudyConfig, tell: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        """The rows of every control."""
        modality, seen = self.part.modality, self._see(tell)
        for name in list(seen):
            # Popped: the features of all controls are what takes the memory.
            control, own = CONTROLS.get(name), seen.pop(name)
            n_instances = self._test["stop"] - self._test["start"]
            missed = np.average(own.missed[self._of(Split.TEST)], weights=n_instances)
            answers = [("probe", *self._probe(own.features))]
            if control is None or control.picture:
                answers.insert(0, ("model", own.p[self._of(Split.TEST)], ""))
            for method, p, failed in answers:
                reason = failed or self._lacking(Split.TEST)
                value, low, high = (
                    (np.nan,) * 3 if reason else self._auc(p, config.evaluation, config.seed)
                )
                yield {
                    "modality": modality.value,
                    "control": name,
                    "method": method,
                    "metric": "roc_auc",
                    "value": _null(value),
                    "low": _null(low),
                    "high": _null(high),
                    "n_patients": int(self._test["patient_id"].nunique()),
                    "detail": _words(modality, control, method, reason, (value, low), missed),
                }

    def _of(self, split: Split) -> np.ndarray:
        """Which records are in a split, (n,) bool."""
        return np.asarray(self.records["split"] == split)

    @property
    def _test(self) -> pd.DataFrame:
        return self.records[self._of(Split.TEST)]

    @property
    def _y(self) -> np.ndarray:
        return codes(self.records["y_true"], self.classes)

    def _see(self, tell: Callable[[int], None]) -> dict[str, _Seen]:
        """Score all records under every control, block by block; `tell` hears of instances done."""
        controls = {n: c for n, c in CONTROLS.items() if self.part.modality in c.modalities}
        parts: dict[str, list[_Seen]] = {name: [] for name in (NONE, *controls)}
        done = 0
        for block in _blocks(self.records):
            tell(done)
            rows, counts = instance_rows(block)
            instances = np.asarray(self.instances[rows])
            parts[NONE].append(self._unaltered(block, instances, counts))
            found = find(instances, self.part.modality, self.part.config.preprocessing)
            for name, control in controls.items():
                missed = found.missed if control.masked else np.zeros(len(rows), dtype=bool)
                altered = control.alter(instances, found.masks)
                parts[name].append(self._score(altered, missed, counts))
            done += len(rows)
        tell(done)
        return {
            name: _Seen(
                np.concatenate([part.p for part in seen]),
                np.concatenate([part.features for part in seen]),
                np.concatenate([part.missed for part in seen]),
            )
            for name, seen in parts.items()
        }

    def _unaltered(self, block: pd.DataFrame, instances: np.ndarray, counts: np.ndarray) -> _Seen:
        """Records as they are: the trained model has scored them before."""
        columns = class_columns(self.partition.classes)
        table = self.scores.table[columns].loc[block["record_id"]]
        places = self.scores.table.index.get_indexer(table.index)
        started = infer_records(self.start, instances, np.arange(len(instances)), counts)
        features = np.hstack([self.scores.features[places], started.features])
        p = self.partition.collapse(table.to_numpy(dtype=np.float64))
        return _Seen(p, features, np.zeros(len(block)))

    def _score(self, instances: np.ndarray, missed: np.ndarray, counts: np.ndarray) -> _Seen:
        rows = np.arange(len(instances))
        trained = infer_records(self.model, instances, rows, counts)
        started = infer_records(self.start, instances, rows, counts)
        return _Seen(
            self.part.calibration.apply(trained.p),
            np.hstack([trained.features, started.features]),
            mean_per_record(missed[:, None], counts)[:, 0],
        )

    def _probe(self, features: np.ndarray) -> tuple[FloatArray, str]:
        """Probabilities (n_test, classes) of the probe, or why there are none."""
        for split in (Split.TRAIN, Split.VAL):
            lacking = self._lacking(split)
            if lacking:
                return np.empty((0, len(self.classes))), f"{lacking}, so there is no probe"
        splits = {split: self._of(split) for split in Split}
        return probe(features, self._y, splits, self.positive), ""

    def _lacking(self, split: Split) -> str:
        """In words, which classes a split lacks; empty if none."""
        present = set(self.records.loc[self._of(split), "y_true"])
        absent = [name for name in self.classes if name not in present]
        return f"the {_SPLITS[split]} records lack {' and '.join(absent)}" if absent else ""

    def _auc(
        self, p: FloatArray, config: EvaluationConfig, seed: int
    ) -> tuple[float, float, float]:
        """AUC on the test records with its interval."""
        y = self._y[self._of(Split.TEST)]
        value = float(roc_auc(y, p, None, self.positive))
        low, high = patient_interval(
            lambda weights: roc_auc(y, p, None, self.positive, weights),
            self._test["patient_id"].astype(str),
            config,
            seed,
        )
        return value, low, high


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
    reason: str,
    figures: tuple[float, float],
    missed: float,
) -> str:
    """What one row means."""
    value, low = figures
    who = "the trained model" if method == "model" else "a probe"
    what = "on the unaltered records" if control is None else control.words
    if reason:
        return f"{what}: {reason}"
    part = _PARTS[modality]
    text = f"{what} {who} {_reaches(low)} AUC {two_digits(value)}"
    if control is not None and control.healthy:
        text += f": {_conclusion(method, figures, part)}"
    if missed > 0 and control is not None:
        text += f" (no {part} were found in {missed:.0%} of the instances"
        text += (
            ", where a central box stands in)" if part == "lungs" else ", which stay as they are)"
        )
    return text


def _reaches(low: float) -> str:
    return "still reaches" if low > CHANCE else "reaches"


def _conclusion(method: str, figures: tuple[float, float], part: str) -> str:
    """What an AUC (value, low end) with the disease taken out says of the modality's figure."""
    value, low = figures
    if low > WARN_AUC:
        if method == "model":
            return f"the figure of this modality does not come from the {part} alone"
        return f"the figure of this modality can be reached without the {part}"
    if low > CHANCE:
        return "a little of the class is left"
    if value > WARN_AUC:
        return "with so few patients this may be chance, and may be none"
    if method == "model":
        return "which clears nobody by itself, since the model never saw such records"
    return "no shortcut was found in what is left"


def _null(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
