"""Writes a plausible study folder without training anything: normal scores, made-up pictures."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from pulmofuse.config import StudyConfig, dump_config
from pulmofuse.schema import JOIN, manifest_frame, subset_name

MODALITIES = ("ct", "cxr", "cough")
TWO = ("not_covid19", "covid19")
THREE = ("normal", "covid19", "pneumonia")
SOURCES = {"ct": "covid-ct", "cxr": "darkcovidnet", "cough": "covid19-cough"}
SITES = {"ct": ("radiopaedia", "medrxiv"), "cxr": ("nih", "cohen"), "cough": ("telegram", "call")}
STRENGTH = {"ct": 0.95, "cxr": 1.15, "cough": 0.4}
METHODS = ("mean", "weighted_mean", "log_odds", "gated_attention")
PATIENTS = {"train": 90, "val": 40, "test": 120}
SUBSETS = [
    subset_name(chosen) for size in (1, 2, 3) for chosen in itertools.combinations(MODALITIES, size)
]


def make_study(
    folder: Path,
    classes: tuple[str, ...] = TWO,
    simulated: bool = True,
    truth: bool = False,
    seed: int = 5,
) -> Path:
    """Write every file that docs/decisions/0001-shape.md lists and return the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(classes)
    predictions = _predictions(rng, classes, simulated)
    metrics = _metrics(predictions, classes, simulated)
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    (folder / "config.resolved.yaml").write_text(dump_config(config), encoding="utf-8")
    _manifest(rng, classes).to_parquet(folder / "manifest.parquet", index=False)
    write(folder / "metrics.json", metrics)
    write(folder / "audit.json", _audit())
    write(folder / "study.json", _about(config, metrics, simulated, truth))
    _excluded().to_csv(folder / "excluded.csv", index=False)
    _controls().to_csv(folder / "controls.csv", index=False)
    _remarks().to_csv(folder / "remarks.csv", index=False)
    _histories(rng, folder)
    _examples(rng, folder, classes)
    _explanations(rng, folder, classes)
    return folder


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _config(classes: tuple[str, ...]) -> StudyConfig:
    mapping = {name: name for name in classes}
    if classes == TWO:
        mapping |= {"normal": "not_covid19", "pneumonia": "not_covid19"}
    elif classes != THREE:
        mapping = dict(zip(("normal", "covid19", "pneumonia"), classes, strict=False))
    return StudyConfig.model_validate(
        {
            "name": "COVID-19 from CT, CXR and cough",
            "question": "How well do chest CT, chest X-ray and cough, alone and together, tell"
            " COVID-19 from everything else?",
            "target": {
                "classes": classes,
                "positive": classes[1] if len(classes) == 2 else None,
                "mapping": mapping,
            },
            "sources": [{"name": source} for source in SOURCES.values()],
        }
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _rows(
    p: np.ndarray, y: np.ndarray, classes: tuple[str, ...], **columns: object
) -> pd.DataFrame:
    frame = pd.DataFrame(columns | {"y_true": np.array(classes, dtype=object)[y]})
    frame["y_pred"] = np.array(classes, dtype=object)[p.argmax(axis=1)]
    for index, name in enumerate(classes):
        frame[f"p_{name}"] = p[:, index]
        frame[f"p_raw_{name}"] = _softmax(1.7 * np.log(p))[:, index]
    return frame


def _predictions(
    rng: np.random.Generator, classes: tuple[str, ...], simulated: bool
) -> pd.DataFrame:
    k = len(classes)
    frames = []
    for split, n in PATIENTS.items():
        y = rng.integers(0, k, n)
        logits = {m: rng.normal(size=(n, k)) + STRENGTH[m] * np.eye(k)[y] for m in MODALITIES}
        real = {m: [f"{SOURCES[m]}:{split}{i:03d}" for i in range(n)] for m in MODALITIES}
        site = {m: rng.choice(SITES[m], n) for m in MODALITIES}
        for subset in SUBSETS:
            chosen = subset.split("+")
            ids = [
                JOIN.join(real[m][i] for m in (MODALITIES if simulated else MODALITIES[:1]))
                for i in range(n)
            ]
            records = [JOIN.join(f"{real[m][i]}/{i}" for m in chosen) for i in range(n)]
            common = {"record_id": records, "split": split, "subset": subset, "site": None}
            if len(chosen) == 1:
                m = chosen[0]
                p = _softmax(logits[m])
                single = common | {"patient_id": real[m], "site": site[m], "simulated": False}
                frames.append(_rows(p, y, classes, method="per_record", **single))
                alone = common | {"patient_id": ids, "simulated": simulated}
                frames.append(_rows(p, y, classes, method="unimodal", **alone))
                continue
            for method in METHODS:
                weights = [STRENGTH[m] if method == "weighted_mean" else 1.0 for m in chosen]
                parts = [w * _softmax(logits[m]) for m, w in zip(chosen, weights, strict=True)]
                p = np.sum(parts, axis=0) / sum(weights)
                if method == "log_odds":
                    p = _softmax(np.sum([logits[m] * STRENGTH[m] for m in chosen], axis=0))
                if method == "gated_attention":
                    p = _softmax(np.log(p) + 0.3 * rng.normal(size=p.shape))
                joined = common | {"patient_id": ids, "simulated": simulated}
                frames.append(_rows(p, y, classes, method=method, **joined))
    return pd.concat(frames, ignore_index=True)


def _values(rows: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, float]:
    k = len(classes)
    p = rows[[f"p_{c}" for c in classes]].to_numpy()
    truth = np.eye(k)[[classes.index(c) for c in rows["y_true"]]]
    table = confusion_matrix(rows["y_true"], rows["y_pred"], labels=list(classes))
    hit = np.diag(table)
    recall, precision = hit / table.sum(1), hit / np.maximum(table.sum(0), 1)
    rest = table.sum() - table.sum(1) - table.sum(0) + hit
    specificity = rest / (table.sum() - table.sum(1))
    one = slice(1, 2) if k == 2 else slice(None)
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-9)
    return {
        "roc_auc": float(np.mean([roc_auc_score(truth[:, c], p[:, c]) for c in range(k)])),
        "accuracy": float(hit.sum() / table.sum()),
        "recall": float(recall[one].mean()),
        "specificity": float(specificity[one].mean()),
        "precision": float(precision[one].mean()),
        "f1": float(f1[one].mean()),
        "average_precision": float(
            np.mean([average_precision_score(truth[:, c], p[:, c]) for c in range(k)][one])
        ),
        "brier": float(((p - truth) ** 2).sum(1).mean() / (2 if k == 2 else 1)),
        "ece": 0.04,
    }


def _metrics(
    predictions: pd.DataFrame, classes: tuple[str, ...], simulated: bool
) -> list[dict[str, Any]]:
    found = []
    groups: list[tuple[str, str, str, str, pd.DataFrame]] = []
    for (split, subset, method), rows in predictions.groupby(["split", "subset", "method"]):
        if split == "train":
            continue
        groups.append((split, subset, method, "", rows))
        if method == "per_record":
            groups += [(split, subset, method, str(s), r) for s, r in rows.groupby("site")]
    for split, subset, method, site, rows in groups:
        n = rows["patient_id"].nunique()
        for metric, value in _values(rows, classes).items():
            half = 1.96 * float(np.sqrt(max(value * (1 - value), 0.002) / len(rows)))
            found.append(
                {
                    "subset": subset,
                    "method": method,
                    "split": split,
                    "site": site,
                    "metric": metric,
                    "value": value,
                    "low": max(0.0, value - half) if split == "test" else None,
                    "high": min(1.0, value + half) if split == "test" else None,
                    "n_patients": n,
                    "simulated": simulated and method != "per_record",
                }
            )
    auc = {
        (r["subset"], r["method"]): r["value"]
        for r in found
        if r["metric"] == "roc_auc" and r["split"] == "test" and r["site"] == ""
    }
    for method in METHODS:
        gain = auc["ct+cxr+cough", method] - auc["cxr", "unimodal"]
        found.append(
            {
                "subset": "ct+cxr+cough",
                "method": method,
                "split": "test",
                "site": "",
                "metric": "roc_auc_difference",
                "value": gain,
                "low": gain - 0.031,
                "high": gain + 0.031,
                "n_patients": PATIENTS["test"],
                "simulated": simulated,
                "against": "cxr",
            }
        )
    return found


def _manifest(rng: np.random.Generator, classes: tuple[str, ...]) -> pd.DataFrame:
    labels = ("covid19", "normal", "pneumonia") if classes != TWO else ("covid19", "not_covid19")
    rows = [
        {
            "record_id": f"{modality}-{split}-{i}",
            "patient_id": f"{SOURCES[modality]}:{split}{i:03d}",
            "patient_known": modality != "ct" or i % 5 == 0,
            "modality": modality,
            "path": f"{SOURCES[modality]}/{split}/{i}.png",
            "label": labels[int(rng.integers(len(labels)))],
            "source": SOURCES[modality],
            "site": SITES[modality][i % 2],
            "split": split,
        }
        for modality in MODALITIES
        for split, n in PATIENTS.items()
        for i in range(n)
    ]
    return manifest_frame(rows)


def _check(
    name: str,
    verdict: str,
    modality: str,
    figures: tuple[float | None, float | None, float | None],
    detail: str,
    remedy: str = "",
) -> dict[str, Any]:
    return {
        "id": name,
        "verdict": verdict,
        "value": figures[0],
        "low": figures[1],
        "high": figures[2],
        "detail": detail,
        "remedy": remedy,
        "modality": modality,
    }


def _audit() -> dict[str, Any]:
    none = (None, None, None)
    zero = (0.0, None, None)
    return {
        "verdict": "fail",
        "checks": [
            _check("leakage.patient", "pass", "", zero,
                   "No patient has records in more than one split."),
            _check("leakage.exact_duplicate", "fail", "", (3.0, None, None),
                   "3 files with identical content in more than one split (such as a.png and"
                   " b.png): the model is tested on what it has seen.",
                   "keep one copy of each file, or give the copies one patient_id"),
            _check("labels.contradiction", "pass", "", zero, "No patient has two classes."),
            _check("confounding.source", "fail", "cxr", (0.98, 0.96, 1.0),
                   "In cxr, source and site alone tell the classes apart with AUC .98.",
                   "use sources that hold every class, and read the results within each source"),
            _check("confounding.traits", "warn", "cough", (0.83, 0.76, 0.89),
                   "In cough, acquisition traits alone tell the classes apart with AUC .83.",
                   "match the classes on these traits"),
            _check("confounding.traits", "pass", "ct", (0.57, 0.49, 0.64),
                   "In ct, acquisition traits alone tell the classes apart with AUC .57."),
            _check("confounding.demographics", "pass", "ct", none,
                   "In ct, this could not be measured: age and sex are not known."),
            _check("power", "warn", "cough", (0.14, None, None),
                   "The 120 test patients of cough can show an AUC difference of .14 or more.",
                   "add test patients, or report the interval and claim no difference"),
            _check("support", "pass", "ct", (41.0, None, None), "Patients of ct - train: 41."),
        ],
    }  # fmt: skip


def _about(
    config: StudyConfig, metrics: list[dict[str, Any]], simulated: bool, truth: bool
) -> dict[str, Any]:
    reached = {
        row["subset"]: row["value"]
        for row in metrics
        if row["metric"] == "roc_auc"
        and row["split"] == "test"
        and row["site"] == ""
        and row["method"] in ("unimodal", "log_odds")
    }
    return {
        "name": config.name,
        "question": config.question,
        "seconds": {"prepare": 41.2, "train_ct": 312.0, "train_cxr": 355.4, "train_cough": 120.9,
                    "fusion": 9.3, "evaluate": 48.8},
        "versions": {"python": "3.11.9", "pulmofuse": "0.1.0", "torch": "2.13.0"},
        "split_hash": "9f2c51d07ab3e64488d1",
        "test_opened": 2,
        "seed": 17,
        "patients": "simulated" if simulated else "paired",
        "truth": {s: min(v + 0.03, 1.0) for s, v in reached.items()} if truth else None,
    }  # fmt: skip


def _excluded() -> pd.DataFrame:
    broken = [
        {
            "path": f"covid19-cough/raw/{i:03d}.mp3",
            "modality": "cough",
            "source": "covid19-cough",
            "stage": "read",
            "reason": "no audio stream",
            "remedy": "copy the file again",
        }
        for i in range(2)
    ]
    unmapped = [
        {
            "path": f"covid-chestxray-dataset/images/a-rather-long-file-name-{i:03d}.jpg",
            "modality": "cxr",
            "source": "covid-chestxray-dataset",
            "stage": "label",
            "reason": "label unknown is not mapped to a class",
            "remedy": "map it in target.mapping",
        }
        for i in range(61)
    ]
    return pd.DataFrame(broken + unmapped)


def _controls() -> pd.DataFrame:
    names = {"ct": ["none", "lungs_blanked", "border_only"], "cough": ["none", "between_coughs"]}
    rows = [
        (modality, control, method, "roc_auc", 0.9 - 0.1 * place, 0.8 - 0.1 * place, 0.95, 120,
         f"{control} seen by the {method}")
        for modality, controls in names.items()
        for place, control in enumerate(controls)
        for method in ("model", "probe")
    ]  # fmt: skip
    columns = ["modality", "control", "method", "metric", "value", "low", "high", "n_patients"]
    unmatched = ("cxr", "matched", "model", "roc_auc", None, None, None, 4, "too few matched")
    return pd.DataFrame([*rows, unmatched], columns=[*columns, "detail"])


def _remarks() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": ["cxr/side.png", "cxr/words.png", "cxr/more words.png"],
            "modality": "cxr",
            "source": "made up",
            "kind": ["lateral", "burnt_in_text", "burnt_in_text"],
            "reason": ["looks like a lateral view", "letters <b>", "letters"],
            "remedy": "none needed",
            "excluded": [True, False, False],
        }
    )


def _histories(rng: np.random.Generator, folder: Path) -> None:
    for name, epochs, top in (("ct", 18, 0.88), ("cxr", 18, 0.93), ("cough", 14, 0.7),
                              ("fusion/gated_attention", 25, 0.95)):  # fmt: skip
        epoch = np.arange(epochs)
        noise = rng.normal(scale=0.015, size=epochs)
        frame = pd.DataFrame(
            {
                "epoch": epoch,
                "train_loss": 0.15 + 0.55 * np.exp(-epoch / 5),
                "val_loss": 0.35 + 0.35 * np.exp(-epoch / 4) + 0.004 * epoch + noise,
                "val_auc": top - 0.35 * np.exp(-epoch / 4) + noise,
                "lr": 1e-3 * np.sin(np.pi * (epoch + 1) / (epochs + 1)),
                "seconds": 17.0,
            }
        )
        path = folder / "checkpoints" / name / "history.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)


def _picture(rng: np.random.Generator, modality: str) -> np.ndarray:
    shape = (64, 160) if modality == "cough" else (224, 224)
    noise = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 3 if modality == "cough" else 6)
    noise = 40 * noise / noise.std()
    if modality == "cough":
        time = np.exp(-(((np.arange(160)[None] % 70) - 20) ** 2) / 150)
        band = 190 * time * np.exp(-np.arange(64)[::-1, None] / 40)
        return cv2.applyColorMap(np.clip(band + noise, 0, 255).astype(np.uint8), cv2.COLORMAP_MAGMA)
    y, x = np.mgrid[-1:1:224j, -1:1:224j]
    body = (x**2 / 0.85 + y**2 / 0.6 < 1) * 150.0
    for side in (-0.42, 0.42):
        body[((x - side) ** 2 / 0.08 + (y + 0.02) ** 2 / 0.25) < 1] = 45
    return np.clip(body + 0.6 * noise * (body > 0), 0, 255).astype(np.uint8)


def _examples(rng: np.random.Generator, folder: Path, classes: tuple[str, ...]) -> None:
    (folder / "examples").mkdir(exist_ok=True)
    index = []
    for modality in MODALITIES:
        for number, name in enumerate(classes):
            for i in range(2):
                image = f"{modality}_{number}_{i}.png"
                cv2.imwrite(str(folder / "examples" / image), _picture(rng, modality))
                index.append({"modality": modality, "class": name, "image": image})
    write(folder / "examples" / "index.json", index)


def _explanations(rng: np.random.Generator, folder: Path, classes: tuple[str, ...]) -> None:
    (folder / "explanations").mkdir(exist_ok=True)
    index = []
    for modality in MODALITIES:
        for i in range(4):
            picture = _picture(rng, modality)
            colour = picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
            heat = cv2.GaussianBlur(rng.normal(size=picture.shape[:2]), (0, 0), 22)
            heat = cv2.normalize(heat, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
            overlay = cv2.addWeighted(
                colour, 0.6, cv2.applyColorMap(heat, cv2.COLORMAP_JET), 0.4, 0
            )
            names = (f"{modality}_{i}.png", f"{modality}_{i}_overlay.png")
            for name, pixels in zip(names, (picture, overlay), strict=True):
                cv2.imwrite(str(folder / "explanations" / name), pixels)
            index.append(
                {
                    "modality": modality,
                    "record_id": f"{SOURCES[modality]}:test{i:03d}/{i}",
                    "y_true": classes[i % len(classes)],
                    "y_pred": classes[1 if i < 3 else 0],
                    "p": round(0.55 + 0.1 * i, 3),
                    "image": names[0],
                    "overlay": names[1],
                }
            )
    write(folder / "explanations" / "index.json", index)
