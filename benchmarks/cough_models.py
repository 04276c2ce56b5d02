"""Compare cough models on the covid19-cough part of a study, inside its recording channels.

    python benchmarks/cough_models.py studies/covid.yaml ../shared/data --out runs/cough
    python benchmarks/cough_models.py studies/covid.yaml ../shared/data --out runs/cough --cv 5
    python benchmarks/cough_models.py studies/covid.yaml ../shared/data --out runs/cough --open-test

The records and their split are those of the study (a deal of one modality hangs on no other, so
the other sources need not be read). Every model is trained in every variant with every seed; each
result is a line of `OUT/results.jsonl` and is not run again. Choose on the validation records (the
default; a network's epoch and a regression's penalty are chosen on them too, which flatters all
alike) or by `--cv K`: K folds by patient of training and validation records, where each fold is
scored by a model that never saw it, its epoch chosen on a part of the next fold. `--open-test`
scores the test records with the models of the default split and writes down that it did so.

Figures: AUC overall and of each channel; `within`, over pairs of patients of one channel (the
mean of the channels' AUCs, weighted by their positive-negative pairs); `matched`, with as many
positives as negatives of each channel; `gain`, of `within` over the regression on MFCC statistics
whose `within` is highest; all are means over seeds, with intervals from one bootstrap of the
patients. `tells channel` is how well a regression on the model's own features tells the channel
inside the classes. The table is written to `OUT/table-<part>.csv` too.

A variant joins parts by "+": see `PARTS`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pulmofuse.config import EvaluationConfig, SplitConfig, StudyConfig, load_config
from pulmofuse.curation import assign_splits, split_hash
from pulmofuse.curation.shortcut import measure_shortcut, trait_table
from pulmofuse.evaluation.intervals import patient_interval
from pulmofuse.evaluation.matching import matched_weights
from pulmofuse.files import sha256_json, write_csv
from pulmofuse.inference import score_records
from pulmofuse.pipeline import (
    Cohort,
    prepare_cohort,
    scan,
    split_cohort,
    train_unimodal,
    without_leaks,
)
from pulmofuse.pipeline.baselines import mfcc_regression, mfcc_statistics
from pulmofuse.pipeline.probe import regression
from pulmofuse.schema import Modality, Split
from pulmofuse.statistics import FloatArray, within_auc

Line: TypeAlias = dict[str, Any]

#: The networks on spectrograms are at their best on validation by the second or third epoch, and
#: cost seven times an epoch of the LSTM: ten epochs would only be slower.
_SHORT = "cough.training.epochs=6"

#: Every model by what it sets; the regression has nothing to set.
MODELS: dict[str, tuple[str, ...]] = {
    "logistic": (),
    "mfcc_lstm": ("cough.model.architecture=mfcc_lstm",),
    "crnn": ("cough.model.architecture=crnn", _SHORT),
    "cnn_scratch": ("cough.model.weights=none", _SHORT),
    "cnn_imagenet": (_SHORT,),
}
LOGISTIC = "logistic"

#: What a variant is made of. The first three prepare the recordings, the others train.
PARTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "bandwidth": (
        "cough.preprocessing.bandwidth_hz=3400",
        "cough.preprocessing.low_cut_hz=300",
        "cough.preprocessing.f_min_hz=300",
        "cough.preprocessing.f_max_hz=3400",
    ),
    "floor": ("cough.preprocessing.noise_floor_db=30",),
    "within": ("cough.training.choose_epoch=auc_within_site",),
    "adversarial": (
        "cough.training.adversarial=1.0",
        "cough.training.choose_epoch=auc_within_site",
    ),
    "balanced_sites": ("cough.training.sampling=balanced_sites",),
    "attention": ("cough.model.aggregation=attention",),
}
PREPARING = ("bandwidth", "floor")
VARIANTS = (
    "plain",
    "bandwidth",
    "floor",
    "bandwidth+floor",
    "bandwidth+floor+adversarial",
    "bandwidth+floor+balanced_sites",
    "bandwidth+floor+attention",
)

SOURCE = "covid19_cough"
POSITIVE = "covid19"
TRAITS = "traits alone"

#: Validation share inside the folds, as in `split.val`.
_VAL_SHARE = 0.15


@dataclass(frozen=True)
class Job:
    """One model to train and score: `part` is val, test or cv; `fold` is 0 unless cv."""

    model: str
    variant: str
    seed: int
    part: str
    fold: int

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What a line of the results is found again by."""
        return (self.model, self.variant, self.seed, self.part, self.fold)


class Bench:
    """The records of every variant, and the lines that are done.

    Args:
        given: the command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.path = given.out / "results.jsonl"
        self.lines: dict[tuple[Any, ...], Line] = {}
        if self.path.exists():
            for text in self.path.read_text(encoding="utf-8").splitlines():
                line = json.loads(text)
                self.lines[tuple(line["key"])] = line
        self._cohorts: dict[str, Cohort] = {}

    def config(self, model: str, variant: str) -> StudyConfig:
        """The study with the sources, the model and the variant of a job."""
        sets = [*MODELS[model], *(s for part in variant.split("+") for s in PARTS[part])]
        config = load_config(self.given.study, [*sets, *self.given.set])
        sources = tuple(source for source in config.sources if source.name == SOURCE)
        return config.model_copy(update={"sources": sources})

    def cohort(self, config: StudyConfig) -> Cohort:
        """Split records in the study's own split, and their instances."""
        name = sha256_json(config.cough.preprocessing.model_dump(mode="json"))[:16]
        if name not in self._cohorts:
            found = prepare_cohort(
                *scan(config.sources, self.given.data_root), config, self.given.data_root,
                self.given.out / "cache", lambda _done, _total, _note: None,
            )  # fmt: skip
            self._cohorts[name] = without_leaks(split_cohort(found, config))
        return self._cohorts[name]

    def in_folds(self, cohort: Cohort, config: StudyConfig, fold: int) -> Cohort:
        """The records of training and validation alone, dealt anew: `test` is the fold."""
        seen = cohort.records[cohort.records["split"] != Split.TEST].reset_index(drop=True)
        method = SplitConfig(method="kfold", folds=self.given.cv, fold=fold, val=_VAL_SHARE)
        dealt = assign_splits(seen, seen["y_true"], method, config.seed, seen["group"])
        return replace(cohort, records=dealt)

    def run(self, job: Job) -> Line:
        """The line of a job, from the file where it is done."""
        config = self.config(job.model, job.variant)
        cohort = self.cohort(config)
        if job.part == "cv":
            cohort = self.in_folds(cohort, config, job.fold)
        inputs = [config.cough.model_dump(mode="json"), config.seed, job.seed]
        stamp = sha256_json([*inputs, split_hash(cohort.records)])
        found = self.lines.get(job.key)
        if found is not None and found["stamp"] == stamp:
            return found
        begin = time.perf_counter()
        config = config.model_copy(update={"seed": job.seed})
        line = self._scores(job, config, cohort, stamp)
        line |= {"stamp": stamp, "opened_test": job.part == "test"}
        line |= {"split_hash": split_hash(cohort.records)}
        line |= {"seconds": round(time.perf_counter() - begin, 1)}
        return self.write(job.key, line)

    def write(self, key: tuple[Any, ...], line: Line) -> Line:
        """Keep a line."""
        line = {"key": list(key)} | line
        self.given.out.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self.lines[key] = line
        return line

    def _scores(self, job: Job, config: StudyConfig, cohort: Cohort, stamp: str) -> Line:
        """Scores of the records that a job asks about, and what the training took."""
        records = cohort.of(Modality.COUGH)
        if job.part == "val":
            records = records[records["split"] != Split.TEST]
        asked = (records["split"] == (Split.VAL if job.part == "val" else Split.TEST)).to_numpy()
        instances, part = cohort.caches[Modality.COUGH].instances, config.cough
        line: Line = {}
        if job.model == LOGISTIC:
            features = mfcc_statistics(records, instances, part.preprocessing)
            classes = config.target.classes
            p = mfcc_regression(records, instances, part.preprocessing, classes, POSITIVE)
            scores = p[:, classes.index(POSITIVE)]
        else:
            # A finished training is only loaded, so that the test costs no second one.
            folder = self.given.out / "checkpoints" / sha256_json([job.model, stamp])[:16]
            unimodal, note = train_unimodal(
                Modality.COUGH, cohort, config, folder, lambda _done, _total, _note: None
            )
            found = score_records(unimodal, config.target.classes, records, instances)
            scores, features = found.table[f"p_raw_{POSITIVE}"].to_numpy(), found.features
            seconds = [pd.read_csv(path)["seconds"] for path in folder.rglob("history.csv")]
            line = {"note": note, "seconds_per_epoch": round(float(pd.concat(seconds).mean()), 2)}
        return line | {
            "tells_channel": _tells_channel(features, records, asked),
            "scores": dict(zip(records["record_id"][asked], scores[asked].tolist(), strict=True)),
        }

    def traits(self, cohort: Cohort, config: StudyConfig) -> Line:
        """How well traits of the files alone tell the label, on training and validation."""
        key = (TRAITS, split_hash(cohort.records))
        if key in self.lines:
            return self.lines[key]
        seen = cohort.records[cohort.records["split"] != Split.TEST].reset_index(drop=True)
        found = measure_shortcut(
            trait_table(seen["traits"]), seen["y_true"], seen["group"], config.seed
        )
        figures = (np.nan,) * 3 if found is None else (found.auc, found.low, found.high)
        return self.write(key, {"auc": figures[0], "low": figures[1], "high": figures[2]})


def _tells_channel(
    features: NDArray[Any], records: pd.DataFrame, asked: NDArray[np.bool_]
) -> float | None:
    """AUC with which a regression on features tells two channels inside the classes."""
    names, site = np.unique(records["site"].astype(str), return_inverse=True)
    train, val = ((records["split"] == s).to_numpy() for s in (Split.TRAIN, Split.VAL))
    if len(names) != 2 or any(len(set(site[part])) != 2 for part in (train, val)):
        return None
    p = regression(features, site, train, val, 1)[:, 1]
    y = records["y_true"].to_numpy(dtype=str)
    return round(float(within_auc(site[asked] == 1, p[asked], y[asked])), 4)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model in a variant said: scores (seeds, n) of records in the order of `truth`.

    truth: sick, site, fold and patient of the n records.
    """

    truth: pd.DataFrame
    scores: FloatArray

    def figure(self, name: str, weights: FloatArray | None = None) -> FloatArray:
        """A figure's mean over the seeds: () or (replicates,).

        Args:
            name: auc, within, matched, or the name of a channel.
            weights: None, or (replicates, n) of a bootstrap.
        """
        sick, fold = self.truth["sick"].to_numpy(), self.truth["fold"].to_numpy()
        site = self.truth["site"].to_numpy()
        cell = np.array([f"{f}/{s}" for f, s in zip(fold, site, strict=True)])
        base = np.ones(len(sick)) if weights is None else weights
        if name == "within":
            strata = cell
        elif name == "matched":
            strata, base = fold, matched_weights(sick, cell, base)
        elif name == "auc":
            strata = fold
        else:
            strata, base = fold, base * (site == name)
        return np.asarray(
            np.mean([within_auc(sick, own, strata, base) for own in self.scores], axis=0)
        )


def answers(bench: Bench, model: str, variant: str, part: str, seeds: Sequence[int]) -> Answers:
    """Train and score one model in one variant with every seed and fold."""
    folds = range(bench.given.cv) if part == "cv" else range(1)
    records = bench.cohort(bench.config(model, variant)).records.set_index("record_id")
    rows, spoken = [], []
    for seed in seeds:
        own: dict[str, float] = {}
        for fold in folds:
            line = bench.run(Job(model, variant, seed, part, fold))
            own |= line["scores"]
            if seed == seeds[0]:
                rows += [(record_id, str(fold)) for record_id in line["scores"]]
        spoken.append(own)
    ids, fold_of = zip(*rows, strict=True)
    of = records.loc[list(ids)]
    truth = pd.DataFrame(
        {
            "sick": (of["y_true"] == POSITIVE).to_numpy(),
            "site": of["site"].astype(str).to_numpy(),
            "fold": fold_of,
            "patient": of["group"].astype(str).to_numpy(),
        },
        index=list(ids),
    )
    return Answers(truth, np.array([[own[i] for i in ids] for own in spoken]))


def table(bench: Bench, part: str) -> pd.DataFrame:
    """The comparison on one part, a row per model and variant."""
    given = bench.given
    pairs = list(_pairs(given.models, given.variants))
    said: dict[tuple[str, str], Answers] = {}
    for number, (model, variant) in enumerate(pairs, start=1):
        seeds = given.seeds[:1] if model == LOGISTIC else given.seeds
        begin = time.perf_counter()
        said[model, variant] = answers(bench, model, variant, part, seeds)
        took = time.perf_counter() - begin
        print(f"[{number}/{len(pairs)}] {part}: {model} {variant}, {took:.0f} s", flush=True)
    references = [own for (model, _), own in said.items() if model == LOGISTIC]
    reference = max(references, key=lambda own: float(own.figure("within")), default=None)
    rows = []
    for (model, variant), own in said.items():
        lines = [line for key, line in bench.lines.items() if key[:2] == (model, variant)]
        lines = [line for line in lines if line["key"][3] == part]
        rows.append(
            {"model": model, "variant": variant} | _row(own, reference, given) | _cost(lines)
        )
    return pd.DataFrame(rows)


def _pairs(models: Sequence[str], variants: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every model in every variant; the regression in each way to prepare recordings once."""
    for model in models:
        done = set()
        for variant in variants:
            parts = variant.split("+")
            if model == LOGISTIC:
                parts = [part for part in parts if part in PREPARING] or ["plain"]
            name = "+".join(parts)
            if name not in done:
                done.add(name)
                yield model, name


def _row(own: Answers, reference: Answers | None, given: argparse.Namespace) -> Line:
    """Figures with intervals of one model in one variant."""
    config = EvaluationConfig(bootstrap=given.bootstrap)
    patients = own.truth["patient"].to_numpy()

    def interval(statistic: Callable[[FloatArray], FloatArray], of: NDArray[Any]) -> list[float]:
        return [round(x, 3) for x in patient_interval(statistic, of, config, given.seeds[0])]

    row: Line = {"n": len(own.truth), "seeds": len(own.scores)}
    for name in ("auc", *sorted(own.truth["site"].unique()), "within", "matched"):
        row[name] = round(float(own.figure(name)), 3)
        row[f"{name} 95 %"] = interval(partial(own.figure, name), patients)
    spread = [float(Answers(own.truth, one[None]).figure("within")) for one in own.scores]
    row["within, seeds"] = [round(value, 3) for value in spread]
    if reference is not None and reference is not own:
        # A recording may be too silent in one band and not in the other.
        both = own.truth.index.intersection(reference.truth.index)
        left, right = _restricted(own, both), _restricted(reference, both)
        row["gain"] = round(float(left.figure("within") - right.figure("within")), 3)
        row["gain 95 %"] = interval(
            lambda w: left.figure("within", w) - right.figure("within", w),
            left.truth["patient"].to_numpy(),
        )
    return row


def _restricted(own: Answers, ids: pd.Index) -> Answers:
    """The same of some records, in their order."""
    places = own.truth.index.get_indexer(ids)
    return Answers(own.truth.iloc[places], own.scores[:, places])


def _cost(lines: Sequence[Line]) -> Line:
    """Means over the lines of one model in one variant."""
    means = {}
    for name in ("tells_channel", "seconds_per_epoch", "seconds"):
        values = [line[name] for line in lines if line.get(name) is not None]
        means[name] = round(float(np.mean(values)), 3) if values else None
    return means


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[17, 18, 19])
    parser.add_argument("--cv", type=int, default=0, metavar="K")
    parser.add_argument("--open-test", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--bootstrap", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    unknown = {p for v in given.variants for p in v.split("+")} - PARTS.keys()
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    torch.set_num_threads(given.threads)
    bench = Bench(given)
    for model, variant in _pairs(given.models, given.variants):
        bench.config(model, variant)  # a wrong key must not cost an hour of training first
    config = bench.config(*next(_pairs(given.models, given.variants)))
    traits = bench.traits(bench.cohort(config), config)
    parts = ["cv" if given.cv else "val", *(["test"] if given.open_test else [])]
    for part in parts:
        found = table(bench, part)
        write_csv(given.out / f"table-{part}.csv", found)
        with pd.option_context("display.width", 250, "display.max_columns", 30):
            print(f"\n{part}:\n{found.to_string(index=False)}")
    print(
        f"\ntraits of the files alone: AUC {traits['auc']:.3f}"
        f" ({traits['low']:.3f}-{traits['high']:.3f}), cross-validated on training and validation"
    )


if __name__ == "__main__":
    main()
