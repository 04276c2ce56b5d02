"""What takes the traits of acquisition away, and what that is worth on sites never seen.

    python benchmarks/unseen_sites.py --data-root ../shared/data --out runs/unseen

Every variant of studies/unseen_sites.yaml is trained with every seed inside COVID-CT and
DarkCovidNet, then tested on covid-chestxray-dataset without a patient or picture that it knows.
Which variant to take is to be said from validation alone: it should tell the classes, and no longer
when the lungs are blanked (`leans`: AUC on validation with the lungs blanked, .5 is none).

Results are lines of `unseen_sites.jsonl`; a line that is there is not computed again. Each carries
the stamp of the settings and the study file that it came from, as its run's folder does; lines of
other stamps stay in the file, and are neither taken nor shown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from pulmofuse.config import StudyConfig, load_config
from pulmofuse.console import Display
from pulmofuse.evaluation import roc_auc
from pulmofuse.external import evaluate_external
from pulmofuse.files import read_json, sha256_file, sha256_json
from pulmofuse.inference import load_bundle
from pulmofuse.pipeline import prepare_cohort, scan, split_cohort, without_leaks
from pulmofuse.pipeline.folds import scores_under_controls
from pulmofuse.schema import Modality, Split, class_columns
from pulmofuse.study import run_study

STUDY = Path(__file__).parent.parent / "studies" / "unseen_sites.yaml"
OUTSIDE = "covid_chestxray:covid-chestxray-dataset"

_CROP = {"cxr.preprocessing.crop": "lungs", "ct.preprocessing.crop": "lungs"}
_PROBE = {
    f"{m}.{key}": value
    for m in ("ct", "cxr")
    for key, value in (
        ("model.pooling", "levels"),
        ("training.trainable", "head"),
        ("training.epochs", "15"),
        ("training.patience", "15"),
    )
}
#: Strengths as the docstrings of `preprocessing.acquisition` call moderate; not tuned.
_ACQUISITION = {
    f"{m}.augmentation.{key}": value
    for m in ("ct", "cxr")
    for key, value in (
        ("blur", "1.5"),
        ("sharpen", "1.0"),
        ("downscale", "3.0"),
        ("jpeg", "0.3"),
        ("tone", "0.5"),
        ("style", "0.5"),
        ("border", "0.12"),
        ("crop_scale", "0.6"),
    )
}
_VIEWS = {"ct.training.probe_views": "4", "cxr.training.probe_views": "4"}
_MATCHED = {"cxr.preprocessing.histogram": "matched", "ct.preprocessing.histogram": "matched"}

VARIANTS: dict[str, dict[str, str]] = {
    "probe": _PROBE,
    "probe, lung crop": _PROBE | _CROP,
    "probe, lung crop, matched histogram": _PROBE | _CROP | _MATCHED,
    "probe, lung crop, acquisition varied": _PROBE | _CROP | _ACQUISITION | _VIEWS,
    "fine-tuned": {},
    "fine-tuned, lung crop": _CROP,
    "fine-tuned, lung crop, acquisition varied": _CROP | _ACQUISITION,
}


def main() -> None:
    """Run what is not done, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/unseen"))
    parser.add_argument("--seeds", default="17,18,19")
    parser.add_argument("--variants", default="", help="numbers from 0; all by default")
    options = parser.parse_args()
    names = list(VARIANTS)
    chosen = [names[int(i)] for i in options.variants.split(",")] if options.variants else names
    lines = options.out / "unseen_sites.jsonl"
    for seed in map(int, options.seeds.split(",")):
        for name in chosen:
            wanted = {"variant": name, "seed": seed, "stamp": stamp(name)}
            if not any(wanted.items() <= line.items() for line in read_lines(lines)):
                rows = [wanted | row for row in run(name, seed, options.data_root, options.out)]
                with lines.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in rows)
    current = {name: stamp(name) for name in VARIANTS}
    show(
        pd.DataFrame(
            [r for r in read_lines(lines) if r.get("stamp") == current.get(str(r["variant"]))]
        )
    )


def stamp(name: str) -> str:
    """16 hex digits of what a variant's figures depend on: its settings, the study, the sites."""
    return sha256_json([VARIANTS[name], sha256_file(STUDY), OUTSIDE])[:16]


def read_lines(path: Path) -> list[dict[str, object]]:
    """Results so far."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(name: str, seed: int, data_root: Path, out: Path) -> list[dict[str, object]]:
    """Train one variant with one seed, inside; test it inside and outside."""
    overrides = [f"{key}={value}" for key, value in VARIANTS[name].items()]
    config = load_config(STUDY, [*overrides, f"seed={seed}"])
    folder = out / stamp(name) / str(seed)
    with Display() as display:
        run_study(config, data_root, folder, display, out / "cache")
        evaluate_external(folder, OUTSIDE, data_root, folder / "outside", display)
    leaning = leans(config, data_root, folder, out / "cache")
    rows: list[dict[str, object]] = []
    for modality in (Modality.CT, Modality.CXR):
        row: dict[str, object] = {"modality": modality.value}
        row |= leaning[modality]
        for place, path in (("inside", folder), ("outside", folder / "outside")):
            row |= {f"{place}_{k}": v for k, v in figures(path, modality).items()}
        rows.append(row)
    return rows


def leans(
    config: StudyConfig, data_root: Path, folder: Path, cache: Path
) -> dict[Modality, dict[str, float]]:
    """AUC on validation as it is, and with the lungs blanked or nothing but the border left."""
    manifest, excluded = scan(config.sources, data_root)
    cohort = prepare_cohort(manifest, excluded, config, data_root, cache, lambda *_: None)
    cohort = without_leaks(split_cohort(cohort, config))
    bundle = load_bundle(folder / "bundle")
    classes = config.target.classes
    found: dict[Modality, dict[str, float]] = {}
    for modality, part in bundle.unimodal.items():
        records = cohort.of(modality)
        val = records[records["split"] == Split.VAL]
        y = (val["y_true"] == config.target.positive).to_numpy().astype(int)
        scores = scores_under_controls(
            part, classes, val, cohort.caches[modality].instances, lambda *_: None
        )
        found[modality] = {
            f"val_{control}": float(
                roc_auc(y, scored.table[class_columns(classes)].to_numpy(), None, 1)
            )
            for control, scored in scores.items()
        }
    return found


def figures(path: Path, modality: Modality) -> dict[str, float | list[float] | None]:
    """AUC, sensitivity and specificity on test records, with intervals."""
    wanted = {"roc_auc": "auc", "recall": "sensitivity", "specificity": "specificity"}
    return {
        wanted[row["metric"]]: [row["value"], row["low"], row["high"], row["n_patients"]]
        for row in read_json(path / "metrics.json")
        if row["subset"] == modality.value
        and row["metric"] in wanted
        and row["split"] == Split.TEST.value
        and row["site"] == ""
        and row["method"] == "per_record"
    }


def show(table: pd.DataFrame) -> None:
    """Mean over seeds of each figure."""

    def first(value: object) -> float:
        return float(value[0]) if isinstance(value, list) and value[0] is not None else np.nan

    columns = [c for c in table if c not in {"variant", "seed", "stamp", "modality"}]
    plain = table.assign(
        **{c: table[c].map(first) for c in columns if table[c].map(type).eq(list).any()}
    )
    means = plain.groupby(["modality", "variant"], sort=False)[columns].mean()
    print(means.round(3).to_string())


if __name__ == "__main__":
    main()
