"""Leave one source (or site) out: a study for each, trained on the others and tested on it.

    leave_one_source_out(load_config(Path("studies/covid.yaml")), Path("data"), Path("runs/loso"))

Inside a data set a model can be right for reasons that hold nowhere else (Zech et al. 2018,
"Variable generalization performance of a deep learning model to detect pneumonia in chest
radiographs"). Here every figure is one of data that the model never saw anything like.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pulmofuse.config import SourceConfig, SplitConfig, StudyConfig, Target
from pulmofuse.errors import LeakageFound, StudyError
from pulmofuse.files import read_json, write_csv
from pulmofuse.labelsets import members
from pulmofuse.pipeline import Reporter, Silent, locked, scan
from pulmofuse.pipeline.controls import CHANCE
from pulmofuse.report.figures import Estimate, forest_figure, save_figure
from pulmofuse.report.names import colour_key, method_title, subset_title
from pulmofuse.schema import SUBSET_JOIN, Split
from pulmofuse.study import run_study

#: Columns of `loso.csv`.
COLUMNS = (
    "held_out", "modality", "method", "n", "n_positive", "roc_auc", "roc_auc_low",
    "roc_auc_high", "sensitivity", "specificity", "reason",
)  # fmt: skip

#: What cannot be learnt without a part of the data is a row of the table, not the end of it.
_NOT_RUN = (StudyError, LeakageFound)

#: Folder of the prepared files, which all the studies share; no study's name.
_CACHE = "cache"
_STEM_CHARACTERS = 40


def leave_one_source_out(
    config: StudyConfig,
    data_root: Path,
    out: Path,
    by: Literal["source", "site"] = "source",
    reporter: Reporter | None = None,
) -> pd.DataFrame:
    """Hold out every source (or site) in turn.

    Every name gets a study of its own in `out/<name>`, of the data sets that share a modality with
    it; files are prepared once, in `out/cache`. Run again, it goes on where it was: a study repeats
    no finished step.

    Args:
        config: the study; its split is replaced.
        data_root: folder below which the data sets lie.
        out: takes the studies, `loso.csv` and the picture `loso.png` (where an AUC is defined).
        by: what to hold out.
        reporter: shows progress.

    Returns:
        One row per held-out name, subset of modalities and method, the columns `COLUMNS`: n counts
        records (patients for fused ones), n_positive those of the positive class. What the
        held-out part cannot say is None: the AUC without two classes, sensitivity without a
        positive, specificity without a negative. A part that cannot be held out has one row, with
        the reason.

    Raises:
        StudyError: there are not two names to choose from, or `out` is in use.
        PulmofuseError: the data or the configuration cannot be used at all.
    """
    reporter = reporter or Silent()
    with locked(out):
        parts = _scan(config, data_root)
        names = sorted({name for part in parts for name in part.names(by)})
        if len(names) < 2:
            raise StudyError(
                f"leave one {by} out",
                f"the records of this study have {len(names)} {by}",
                "add data sets to `sources`, or hold out the other of source and site",
            )
        rows: list[dict[str, Any]] = []
        for place, (name, folder) in enumerate(zip(names, _folders(names), strict=True), start=1):
            reporter.step(f"Hold out {by} {name} ({place} of {len(names)})")
            reporter.finish(folder)
            held_out = _held_out(config, parts, name, by)
            try:
                run_study(held_out, data_root, out / folder, reporter, out / _CACHE)
            except _NOT_RUN as error:
                rows.append(_empty(name) | {"reason": str(error)})
                continue
            rows += _rows(name, out / folder, config.target, _modalities(parts, name, by))
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        write_csv(out / "loso.csv", table)
        _draw(table, out)
    return table


@dataclass(frozen=True, eq=False)
class _Part:
    """One data set of the study and its records with a class of the study."""

    source: SourceConfig
    records: pd.DataFrame

    def names(self, by: str) -> set[str]:
        """Sources or sites in it; records of no known site belong to none."""
        return {str(name) for name in self.records[by].dropna()}

    def modalities(self, name: str | None = None, by: str = "source") -> set[str]:
        """Modalities of its records, or of those of one name."""
        own = self.records if name is None else self.records[self.records[by] == name]
        return set(own["modality"])


def _scan(config: StudyConfig, data_root: Path) -> list[_Part]:
    """The data sets one by one, without the records that the study does not use."""
    parts = []
    for source in config.sources:
        manifest, _ = scan((source,), data_root)
        parts.append(_Part(source, manifest[manifest["label"].isin(config.target.mapping)]))
    return parts


def _held_out(
    config: StudyConfig, parts: Sequence[_Part], name: str, by: Literal["source", "site"]
) -> StudyConfig:
    """The study with one name held out, of the data sets that have something to do with it."""
    modalities = _modalities(parts, name, by)
    sources = tuple(part.source for part in parts if part.modalities() & modalities)
    split = SplitConfig(
        method="held_out", held_out=(name,), test=config.split.test, val=config.split.val
    )
    update = {"name": f"{config.name}, {name} held out", "split": split, "sources": sources}
    return config.model_copy(update=update)


def _modalities(parts: Sequence[_Part], name: str, by: str) -> set[str]:
    """Modalities of the held-out records; only these are tested on something unseen."""
    return {modality for part in parts for modality in part.modalities(name, by)}


def _folders(names: Sequence[str]) -> list[str]:
    """A folder name for each held-out name; equal ones are told apart by a hash of the name."""
    stems = [
        re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:_STEM_CHARACTERS] for name in names
    ]
    lower = [*(stem.lower() for stem in stems), _CACHE]
    return [
        stem if stem and lower.count(stem.lower()) == 1 else f"{stem}-{_hash(name)}"
        for stem, name in zip(stems, names, strict=True)
    ]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _empty(name: str) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"held_out": name, "modality": "", "method": "", "reason": ""}


def _rows(name: str, study: Path, target: Target, modalities: set[str]) -> list[dict[str, Any]]:
    """The test figures of one study, per subset of `modalities` and method."""
    predictions = pd.read_parquet(study / "predictions.parquet")
    test = predictions[predictions["split"] == Split.TEST]
    figures = _figures(study)
    rows = []
    for (subset, method), group in test.groupby(["subset", "method"], sort=False):
        if not set(str(subset).split(SUBSET_JOIN)) <= modalities:
            continue
        own = figures.get((str(subset), str(method)), {})
        auc = own.get("roc_auc", {})
        found = set(group["y_true"])
        # Of three classes or more, a macro average over classes that are not there says nothing.
        two = len(target.classes) == 2 and target.positive is not None
        n_positive = int((group["y_true"] == target.positive).sum()) if two else None
        complete = {c for name in found for c in members(name)} == set(target.classes)
        rows.append(
            {
                "held_out": name,
                "modality": subset,
                "method": method,
                "n": len(group),
                "n_positive": n_positive,
                "roc_auc": auc.get("value"),
                "roc_auc_low": auc.get("low"),
                "roc_auc_high": auc.get("high"),
                "sensitivity": _value(own, "recall", complete or n_positive),
                "specificity": _value(own, "specificity", complete or (two and not n_positive)),
                "reason": "" if complete else f"held out were only {', '.join(sorted(found))}",
            }
        )
    return rows


def _value(figures: dict[str, dict[str, Any]], metric: str, defined: object) -> float | None:
    """A figure of metrics.json; None where the held-out part cannot say it."""
    return figures.get(metric, {}).get("value") if defined else None


def _figures(study: Path) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Rows of metrics.json on the whole test split, by (subset, method) and metric."""
    out: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in read_json(study / "metrics.json"):
        if row["split"] == Split.TEST and not row["site"]:
            out.setdefault((row["subset"], row["method"]), {})[row["metric"]] = row
    return out


def _draw(table: pd.DataFrame, out: Path) -> None:
    """A forest plot of every AUC that is defined; an old picture goes where there is none."""
    shown = table[table["roc_auc"].notna()]
    if shown.empty:
        for suffix in ("png", "svg"):
            (out / f"loso.{suffix}").unlink(missing_ok=True)
        return
    estimates, last = [], None
    for row in shown.to_dict("records"):
        name = str(row["held_out"])
        low, high = (
            float(row[key]) if np.isfinite(row[key]) else None
            for key in ("roc_auc_low", "roc_auc_high")
        )
        subset = str(row["modality"])
        estimates.append(
            Estimate(
                f"{subset_title(subset)}, {method_title(str(row['method']))} (n = {row['n']:,})",
                colour_key(subset),
                float(row["roc_auc"]),
                low,
                high,
                heading=f"Held out: {name}" if name != last else "",
            )
        )
        last = name
    save_figure(forest_figure(estimates, CHANCE), out, "loso")
