"""How much the input gate refuses, of what it should and of what it should not.

    pulmofuse study studies/input_gate.yaml --data-root DATA --out STUDY
    python benchmarks/input_gate.py STUDY --data-root DATA --photos DIR... --drawings DIR...
    python benchmarks/input_gate.py STUDY --data-root DATA --choose --photos ... --drawings ...

DIR is the folder of one package with pictures. Every file takes the whole way of a prediction;
refused is what cannot be read or has a remark that refuses. "Features" counts those that the
features alone refuse (beyond 1.3 times the limit, of coughs 1.1), "remarked" those that they
remark on. With --modality only those are measured, and what was written of the others stays.

With --choose nothing is reported, but the ways of measuring distance are compared, on validation
records and the pictures and sounds that are named: the way, 1.3 and 1.1 were chosen on these,
with other packages and other voices than those of the report. Writes
benchmarks/results/input_gate.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from gate_material import (
    DAMAGES,
    damaged_sounds,
    decode,
    drawn,
    grey_crops,
    noises,
    pictures,
    png,
    spectrogram,
    speech,
)
from machine import RESULTS, facts, write
from scipy.stats import binomtest
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from pulmofuse.curation.inspection import Seen
from pulmofuse.errors import UnreadableFile
from pulmofuse.inference import Predictor, Scores
from pulmofuse.inference.gate import FeatureSpace, fit_space
from pulmofuse.models import frozen, infer_records
from pulmofuse.pipeline import copies_of_study
from pulmofuse.preprocessing import prepare
from pulmofuse.schema import Modality, Split, read_manifest
from pulmofuse.sources import SOURCES

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
from view_pictures import _patient_split

MOST = 80
IMAGES = (Modality.CT, Modality.CXR)


def main() -> None:
    """Measure or choose."""
    options = _options()
    torch.set_num_threads(1)
    predictor = Predictor.load(options.study / "bundle")
    manifest = read_manifest(options.study / "manifest.parquet")
    machine = facts()
    wanted = [m for m in predictor.bundle.unimodal if m in options.modality]
    with tempfile.TemporaryDirectory() as name:
        material = Material(options, manifest, Path(name))
        if options.choose:
            for modality in wanted:
                choose(predictor, options.study, manifest, modality, material)
            return
        rows = _rows_of_others(wanted)
        for modality in wanted:
            for kind, sources in material.kinds(modality):
                if sources:
                    rows.append({"given as": modality.value, "kind": kind}
                                | measure(predictor, modality, sources))  # fmt: skip
                    print(rows[-1], flush=True)
    cleaned = pd.read_csv(options.study / "excluded.csv").query("stage == 'clean'")
    results = {"rows": rows, "left_out_as_odd": cleaned["modality"].value_counts().to_dict()}
    write(
        "input_gate", f"python benchmarks/input_gate.py {options.study.name} ...", results, machine
    )
    print(table(rows))


def _rows_of_others(wanted: Sequence[Modality]) -> list[dict[str, Any]]:
    """What an earlier run wrote of modalities that this one leaves out."""
    path = RESULTS / "input_gate.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    rows: list[dict[str, Any]] = before["results"]["rows"] if before else []
    return [row for row in rows if Modality(row["given as"]) not in wanted]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--drawings", type=Path, nargs="*", default=[])
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--modality", nargs="*", choices=[*Modality], default=[*Modality])
    return parser.parse_args()


class Material:
    """Files that the gate should pass or refuse, by modality that they are given as."""

    def __init__(self, options: argparse.Namespace, manifest: pd.DataFrame, folder: Path) -> None:
        self._root, self._study, self._folder = options.data_root, options.study, folder
        self._chooses = options.choose
        self._manifest = manifest
        # Everything of the development half has other seeds, voices, packages and patients.
        self._split = Split.VAL if options.choose else Split.TEST
        self._seed = options.seed + 100 * options.choose
        self._photos = [p for d in options.photos for p in pictures(d, MOST, self._seed)]
        self._drawings = [p for d in options.drawings for p in pictures(d, MOST, self._seed)]

    def own(self, modality: Modality) -> list[Path]:
        """Files of the validation or test records."""
        rows = self._manifest
        rows = rows[(rows["modality"] == modality.value) & (rows["split"] == self._split.value)]
        return [self._root / path for path in rows["path"]]

    def kinds(self, modality: Modality) -> Iterator[tuple[str, Sequence[Path | bytes]]]:
        """Kind and files, those that must pass first."""
        yield (
            "own test records" if not self._chooses else "own validation records",
            self.own(modality),
        )
        if modality is Modality.COUGH:
            yield from self._sounds()
            return
        if modality is Modality.CXR:
            yield "frontal, other hospitals", self._elsewhere(("PA", "AP", "AP Supine"))
            every = self._elsewhere(("L",))
            yield "lateral", every
            yield "lateral, unknown to the view classifier", self._elsewhere(("L",), fresh=True)
        else:
            yield "axial, other hospitals", self._elsewhere(("Axial",))
        other = Modality.CT if modality is Modality.CXR else Modality.CXR
        yield other.value.upper(), self.own(other)
        coughs = self.own(Modality.COUGH)[:100]
        yield "spectrogram", [spectrogram(p, i % 2 == 0) for i, p in enumerate(coughs)]
        yield "cough recording", coughs
        yield "photographs of packages", self._photos
        yield "details of them, grey", grey_crops(self._photos, self._seed)
        yield "pictures of documents and games", self._drawings
        yield (
            "drawn charts, diagrams, pages, windows",
            list(drawn(np.random.default_rng(self._seed), 120)),
        )
        greys = [decode(path.read_bytes()) for path in self.own(modality)[:100]]
        for name, damage in DAMAGES.items():
            yield name, [png(damage(grey)) for grey in greys]

    def _sounds(self) -> Iterator[tuple[str, Sequence[Path | bytes]]]:
        half = "dev" if self._chooses else "test"
        yield from speech(self._folder, half, 80, self._seed).items()
        yield from noises(self._folder, 12, self._seed).items()
        yield "X-ray", self.own(Modality.CXR)[:50]
        yield from damaged_sounds(self._folder, self.own(Modality.COUGH)[:60]).items()

    def _elsewhere(self, views: tuple[str, ...], *, fresh: bool = False) -> list[Path]:
        """Images of covid-chestxray-dataset of which the study holds no copy."""
        folder = self._root / "covid-chestxray-dataset"
        rows = SOURCES["covid_chestxray"].scan(folder).records
        rows = rows[rows["view"].isin(views)]
        if fresh:
            rows = rows[[_patient_split(p) is not Split.TRAIN for p in rows["patient_id"]]]
        seen = [_fingerprint(folder / path, modality) for path, modality
                in zip(rows["path"], rows["modality"], strict=True)]  # fmt: skip
        content = rows[["record_id", "modality"]].assign(
            sha256=[s[0] for s in seen], fingerprint=[s[1] for s in seen]
        )
        new = copies_of_study(self._study, content).isna()
        # Of the many, those of some patients to choose on, of the others to report.
        if "L" not in views:
            to_choose = [_patient_split(p) is Split.TRAIN for p in rows["patient_id"]]
            new &= np.array(to_choose) == self._chooses
        return [folder / path for path in rows.loc[new.to_numpy(), "path"]]


def _fingerprint(path: Path, modality: str) -> tuple[str, bytes]:
    import hashlib

    from pulmofuse.curation.inspection import inspect_image
    from pulmofuse.io import read_image

    seen: Seen = inspect_image(read_image(path), Modality(modality))
    return hashlib.sha256(path.read_bytes()).hexdigest(), seen.fingerprint


def measure(
    predictor: Predictor, modality: Modality, sources: Sequence[Path | bytes]
) -> dict[str, Any]:
    """Counts of what the gate makes of files."""
    refused = by_features = remarked = unreadable = 0
    codes: dict[str, int] = {}
    for source in sources:
        try:
            found = predictor.predict(**{modality.value: source}, gate="warn").quality
        except UnreadableFile:
            unreadable += 1
            refused += 1
            continue
        hard = {r["code"] for r in found if r["severity"] == "refuse"}
        refused += bool(hard)
        by_features += "unusual" in hard
        remarked += any(r["code"] == "unusual" for r in found)
        for code in hard:
            codes[code] = codes.get(code, 0) + 1
    low, high = binomtest(refused, len(sources)).proportion_ci(method="wilson")
    return {
        "n": len(sources),
        "refused": refused,
        "share": round(refused / len(sources), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "unreadable": unreadable,
        "features": by_features,
        "remarked": remarked,
        "codes": dict(sorted(codes.items())),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = ["| given as | kind | n | refused | share [95 %] | features alone | remarked |",
             "|---|---|---:|---:|---|---:|---:|"]  # fmt: skip
    for r in rows:
        share = f"{r['share']:.3f} [{r['low']:.3f}, {r['high']:.3f}]"
        lines.append(
            f"| {r['given as']} | {r['kind']} | {r['n']} | {r['refused']} | {share} |"
            f" {r['features']} | {r['remarked']} |"
        )
    return "\n".join(lines)


Distance = Callable[[np.ndarray], np.ndarray]


def choose(
    predictor: Predictor,
    study: Path,
    manifest: pd.DataFrame,
    modality: Modality,
    material: Material,
) -> None:
    """AUROC of each distance, and shares beyond multiples of its limit."""
    scores = Scores.load(study / "scores", modality.value)
    split = manifest.set_index("record_id").loc[scores.table.index, "split"].to_numpy()
    train, val = (scores.features[split == part] for part in (Split.TRAIN, Split.VAL))
    kinds = {}
    for kind, sources in material.kinds(modality):
        found = _features(predictor, modality, sources[:MOST])
        if not kind.startswith("own") and len(found):
            kinds[kind] = found
    rows = []
    for name, distance in _distances(train, val):
        v = distance(val)
        limit = np.sort(v)[int(np.ceil((len(v) + 1) * 0.98)) - 1]
        for kind, x in kinds.items():
            d = distance(x)
            auc = roc_auc_score(np.r_[np.zeros(len(v)), np.ones(len(d))], np.r_[v, d])
            beyond = {f">{a}": (d > a * limit).mean() for a in (1, 1.1, 1.2, 1.3, 1.5)}
            rows.append({"distance": name, "kind": kind, "n": len(d), "auc": auc, **beyond})
    found = pd.DataFrame(rows)
    print(f"\n{modality.value}: {len(train)} train, {len(val)} val, {train.shape[1]} features")
    print(found.pivot_table(index="kind", columns="distance", values="auc").round(3).to_string())
    kept = found[found["distance"] == "mahalanobis 64"].drop(columns="distance")
    print(kept.round(3).to_string(index=False), flush=True)


def _features(
    predictor: Predictor, modality: Modality, sources: Sequence[Path | bytes]
) -> np.ndarray:
    part = predictor.bundle.unimodal[modality]
    model = frozen(part.model)
    out = []
    for source in sources:
        try:
            x = prepare(source, modality, part.config.preprocessing).instances
        except UnreadableFile:
            continue
        out.append(infer_records(model, x, np.arange(len(x)), np.array([len(x)])).features[0])
    return np.array(out)


def _distances(train: np.ndarray, val: np.ndarray) -> Iterator[tuple[str, Distance]]:
    """Mahalanobis as the gate has it, with a Ledoit-Wolf covariance, and nearest neighbours."""
    from pulmofuse.inference import gate

    for k in (16, 32, 64, 128, 256):
        gate._COMPONENTS, before = k, gate._COMPONENTS  # type: ignore[misc]
        space: FeatureSpace = fit_space(train, val)
        gate._COMPONENTS = before  # type: ignore[misc]
        yield f"mahalanobis {k}", space.distance
    shrunk = LedoitWolf().fit(train)
    yield "ledoit-wolf", lambda x: np.sqrt(shrunk.mahalanobis(x))

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    for k in (1, 10):
        yield f"neighbour {k}", lambda x, k=k: np.sort(_euclid(x, train), axis=1)[:, k - 1]
        yield (
            f"cosine neighbour {k}",
            lambda x, k=k: np.sort(_euclid(unit(x), unit(train)), axis=1)[:, k - 1],
        )


def _euclid(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(np.maximum(square, 0.0))


if __name__ == "__main__":
    main()
