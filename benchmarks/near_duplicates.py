"""Near-duplicate search: recall and precision, what it finds in the published sets, and growth.

    python benchmarks/near_duplicates.py accuracy --data-root DIR [--half tune|report] [--seed N]
                                                  [--large-crops]
    python benchmarks/near_duplicates.py lists    --data-root DIR --out DIR
    python benchmarks/near_duplicates.py growth   --data-root DIR --out DIR [--sizes N ...]

`accuracy` hides 500 transformed copies of images, and 500 of recordings, among the real ones;
with `--large-crops` only of images, each cut by 10 to 30 % of a side.
`lists` writes the pairs of each published set as CSV, with a picture of the pairs beside it.
`growth` times `find_pairs` on made-up collections, each size in a process of its own: real X-rays,
bent at random with a trace of another, so that they look like X-rays and none is a copy of another.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from near_duplicates_material import (
    KINDS,
    LARGE_KINDS,
    ONSET,
    Generator,
    image_copy,
    made_up_images,
    made_up_sounds,
    sound_copy,
)

from pulmofuse.curation.fingerprints import image_fingerprint, sound_fingerprint
from pulmofuse.curation.pairs import find_pairs
from pulmofuse.errors import UnreadableFile
from pulmofuse.io import read_image, read_sound
from pulmofuse.sources import scan_source

IMAGE_FOLDERS = (
    "covid-ct/Images-processed",
    "darkcovidnet",
    "covid-chestxray-dataset/images",
    "ct-volume-example",
)
XRAY_FOLDERS = ("darkcovidnet", "covid-chestxray-dataset/images")
SOUND_FOLDER = "covid19-cough/raw"
SOURCES = {
    "covid_ct": "covid-ct",
    "darkcovidnet": "darkcovidnet",
    "covid_chestxray": "covid-chestxray-dataset",
    "covid19_cough": "covid19-cough",
}
N_COPIES = 500
CELL = 200
MONTAGE_PAIRS = 60
COLUMNS = ["path_a", "path_b", "kind", "score", "label_a", "label_b"]
COLUMNS += ["split_a", "split_b", "patient_a", "patient_b"]


# ------------------------------------------------------------------------------------- accuracy
def files(root: Path, folders: tuple[str, ...]) -> list[Path]:
    """All files under some folders, sorted."""
    return sorted(p for folder in folders for p in (root / folder).rglob("*") if p.is_file())


def half_of(path: Path) -> str:
    """Which half of the data a file belongs to; by a hash of its name."""
    return ("tune", "report")[hashlib.sha256(path.name.encode()).digest()[0] % 2]


def image_print(source: Path | bytes) -> bytes:
    """Fingerprint of an image file."""
    return image_fingerprint(read_image(source))


def sound_print(source: Path | bytes) -> bytes:
    """Fingerprint of a sound file."""
    sound = read_sound(source)
    return sound_fingerprint(sound.samples.mean(axis=0), sound.sample_rate_hz)


def make_image_copy(path: Path, number: int, rng: Generator) -> tuple[str, bytes]:
    """Kind and file of the copy."""
    kind = KINDS[number % len(KINDS)]
    return kind, image_copy(read_image(path), kind, rng)


def make_large_crop(path: Path, number: int, rng: Generator) -> tuple[str, bytes]:
    """Kind and file of the copy."""
    kind = LARGE_KINDS[number % len(LARGE_KINDS)]
    return kind, image_copy(read_image(path), kind, rng)


def make_sound_copy(path: Path, _number: int, rng: Generator) -> tuple[str, bytes]:
    """Kind and file of the copy."""
    sound = read_sound(path)
    return "combination", sound_copy(sound.samples.mean(axis=0), sound.sample_rate_hz, rng)


def accuracy(root: Path, half: str, seed: int, large_crops: bool) -> None:
    """Hide copies, look for them, print recall and precision."""
    ordinary = (
        ("image", "cxr", IMAGE_FOLDERS, image_print, make_image_copy),
        ("sound", "cough", (SOUND_FOLDER,), sound_print, make_sound_copy),
    )
    cropped = (("large crop", "cxr", IMAGE_FOLDERS, image_print, make_large_crop),)
    for name, modality, folders, take, make in cropped if large_crops else ordinary:
        rng = np.random.default_rng([seed, half == "report"])
        rows, usable = [], []
        for path in files(root, folders):
            try:
                rows.append((path.relative_to(root).as_posix(), modality, None, take(path)))
            except UnreadableFile:
                continue
            usable.append(path)
        own = [path for path in usable if half_of(path) == half]
        chosen = sorted(rng.choice(len(own), N_COPIES, replace=False))
        kinds = {}
        for number, index in enumerate(chosen):
            kind, data = make(own[index], number, rng)
            record = f"{own[index].relative_to(root).as_posix()}#copy"
            rows.append((record, modality, None, take(data)))
            kinds[record] = kind
        columns = ["record_id", "modality", "sha256", "fingerprint"]
        result = judge(find_pairs(pd.DataFrame(rows, columns=columns)), kinds)
        print(json.dumps({"what": name, "half": half, "seed": seed, "among": len(usable)} | result))


def judge(pairs: pd.DataFrame, kinds: dict[str, str]) -> dict[str, object]:
    """Recall over the copies; precision over the pairs that a copy is part of.

    A pair of a copy with what the search also calls a copy of its original is left out of both:
    the sets hold duplicates of their own, which `lists` shows. So is one of two files of one name:
    DarkCovidNet took its images over by name, and cropped them.
    """
    found = set(zip(pairs["record_a"], pairs["record_b"], strict=True))
    right = {record for record in kinds if (record.removesuffix("#copy"), record) in found}
    wrong = []
    for a, b in sorted(found):
        origins = tuple(sorted({a.removesuffix("#copy"), b.removesuffix("#copy")}))
        copied = a.endswith("#copy") or b.endswith("#copy")
        one_name = len({Path(origin).stem for origin in origins}) == 1
        if copied and not one_name and origins not in found:
            wrong.append((a, b))
    by_kind = {
        kind: f"{sum(kinds[r] == kind for r in right)}/{list(kinds.values()).count(kind)}"
        for kind in sorted(set(kinds.values()))
    }
    return {
        "copies": len(kinds),
        "recall": round(len(right) / len(kinds), 4),
        "precision": round(len(right) / max(1, len(right) + len(wrong)), 4),
        "by_kind": by_kind,
        "missed": sorted(set(kinds) - right),
        "wrong": wrong,
    }


# ---------------------------------------------------------------------------------------- lists
def lists(root: Path, out: Path) -> None:
    """Write the pairs of the published sets and say how many there are."""
    scans = [scan_source(name, root, folder).records for name, folder in SOURCES.items()]
    records = pd.concat(scans, ignore_index=True)
    prints, hashes = [], []
    for path, modality in zip(records["path"], records["modality"], strict=True):
        data = (root / path).read_bytes()
        hashes.append(hashlib.sha256(data).hexdigest())
        try:
            prints.append((sound_print if modality == "cough" else image_print)(data))
        except UnreadableFile:
            prints.append(None)
    records = records.assign(sha256=hashes, fingerprint=prints).set_index("record_id", drop=False)
    pairs = find_pairs(records)
    table = pd.DataFrame({"kind": pairs["kind"], "score": pairs["score"].round(4)})
    for side in "ab":
        rows = records.loc[pairs[f"record_{side}"]]
        for column, name in (("path", "path"), ("label", "label"), ("split", "split"),
                             ("patient_id", "patient"), ("source", "source")):  # fmt: skip
            table[f"{name}_{side}"] = rows[column].to_numpy()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("covid_ct", "darkcovidnet", "covid_chestxray", "covid19_cough"):
        inside = table[(table["source_a"] == name) & (table["source_b"] == name)]
        write_list(root, out / name, inside)
    write_list(root, out / "shared", table[table["source_a"] != table["source_b"]])


def write_list(root: Path, stem: Path, table: pd.DataFrame) -> None:
    """One CSV, a montage of its pairs, and a line of counts."""
    table = table.sort_values(["kind", "score", "path_a", "path_b"])
    table[COLUMNS].to_csv(stem.with_suffix(".csv"), index=False)
    known = table["split_a"].notna() & table["split_b"].notna()
    crossing = table[known & (table["split_a"] != table["split_b"])]
    contradicting = table[table["label_a"] != table["label_b"]]
    counts = {
        "list": stem.name,
        "exact": int((table["kind"] == "exact").sum()),
        "near": int((table["kind"] == "near").sum()),
        "files": len(set(table["path_a"]) | set(table["path_b"])),
        "across_splits": len(crossing),
        "contradicting": contradicting["kind"].value_counts().to_dict(),
        "across_patients": int((table["patient_a"] != table["patient_b"]).sum()),
    }
    print(json.dumps(counts))
    if len(table) and not table["path_a"].iloc[0].startswith("covid19-cough"):
        near = table[table["kind"] == "near"].head(MONTAGE_PAIRS)
        tiles = [pair_tile(root, row) for row in near.itertuples()]
        if tiles:
            blank = np.full_like(tiles[0], 255)
            tiles += [blank] * (-len(tiles) % 10)
            rows = [np.hstack(tiles[i : i + 10]) for i in range(0, len(tiles), 10)]
            cv2.imwrite(str(stem.with_suffix(".png")), np.vstack(rows))


def pair_tile(root: Path, row: object) -> np.ndarray:
    """The two pictures one above the other, with the score."""
    cells = []
    for path in (row.path_a, row.path_b):
        pixels = read_image(root / path).pixels[0]
        factor = CELL / max(pixels.shape)
        small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        cell = np.zeros((CELL, CELL), np.uint8)
        cell[: small.shape[0], : small.shape[1]] = np.round(np.clip(small, 0, 1) * 255)
        cells.append(cell)
    label = np.full((18, CELL), 255, np.uint8)
    cv2.putText(label, f"{row.score:.3f}", (3, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0)
    return np.vstack([*cells, label])


# --------------------------------------------------------------------------------------- growth
def growth(root: Path, out: Path, sizes: list[int]) -> None:
    """Time `find_pairs` at several sizes and print the exponent between the first and the last."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for what in ("image", "sound"):
        path = out / f"made_up_{what}.npy"
        if not path.exists() and what == "image":
            np.save(path, made_up_images(files(root, XRAY_FOLDERS), max(sizes)))
        elif not path.exists():
            prints = [mark for mark in map(try_sound, files(root, (SOUND_FOLDER,))) if mark]
            np.save(path, made_up_sounds(prints, max(sizes)))
        measured = []
        for size in sizes:
            command = [sys.executable, __file__, "once", "--out", str(path), "--sizes", str(size)]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            measured.append(json.loads(result.stdout))
            print(json.dumps({"what": what} | measured[-1]), flush=True)
        seconds = [row["cpu_s"] for row in measured]
        slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0] if len(sizes) > 1 else None
        rows.append({"what": what, "exponent": None if slope is None else round(float(slope), 2)})
    print(json.dumps(rows))


def once(path: Path, size: int) -> None:
    """One measurement, in this process."""
    table = np.load(path, mmap_mode="r", allow_pickle=False)[:size]
    modality = "cxr" if path.stem.endswith("image") else "cough"
    prints = [
        bytes(row) if modality == "cxr" else bytes(row[1 : 1 + int(row[0]) * ONSET])
        for row in table
    ]
    numbers = [f"{i:07d}" for i in range(size)]
    records = pd.DataFrame(
        {"record_id": numbers, "modality": modality, "sha256": numbers, "fingerprint": prints}
    )
    del table
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    begin, cpu = time.perf_counter(), time.process_time()
    pairs = find_pairs(records)
    # On a machine that others use as well, the CPU's seconds say more than the clock's.
    cpu_s = round(time.process_time() - cpu, 2)
    seconds = round(time.perf_counter() - begin, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = {"records": size, "seconds": seconds, "cpu_s": cpu_s, "pairs": len(pairs)}
    print(json.dumps(row | {"peak_gib": round(peak, 2), "before_gib": round(before, 2)}))


def try_sound(path: Path) -> bytes | None:
    """Fingerprint, or None for a file that cannot be read."""
    try:
        return sound_print(path)
    except UnreadableFile:
        return None


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("accuracy", "lists", "growth", "once"))
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--half", choices=("tune", "report"), default="report")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--large-crops", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 50_000, 100_000, 200_000])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.what == "accuracy":
        accuracy(arguments.data_root, arguments.half, arguments.seed, arguments.large_crops)
    elif arguments.what == "lists":
        lists(arguments.data_root, arguments.out)
    elif arguments.what == "growth":
        growth(arguments.data_root, arguments.out, arguments.sizes)
    else:
        once(arguments.out, arguments.sizes[0])


if __name__ == "__main__":
    main()
