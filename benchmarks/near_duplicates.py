"""Near-duplicate search: recall and precision, what it finds in the published sets, and growth.

    python benchmarks/near_duplicates.py accuracy --data-root DIR [--half tune|report] [--seed N]
    python benchmarks/near_duplicates.py lists    --data-root DIR --out DIR
    python benchmarks/near_duplicates.py growth   --data-root DIR --out DIR [--sizes N ...]

`accuracy` hides 500 transformed copies of images, and 500 of recordings, among the real ones.
`lists` writes the pairs of each published set as CSV, with a picture of the pairs beside it.
`growth` times `find_pairs` on made-up collections, each size in a process of its own: real X-rays,
bent at random with a trace of another, so that they look like X-rays and none is a copy of another.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import soundfile
import soxr

from pulmofuse.curation.fingerprints import image_fingerprint, sound_fingerprint
from pulmofuse.curation.image_fingerprint import LENGTH
from pulmofuse.curation.pairs import find_pairs
from pulmofuse.curation.sound_fingerprint import N_BANDS, N_STEPS
from pulmofuse.errors import UnreadableFile
from pulmofuse.io import Image, read_image, read_sound
from pulmofuse.sources import scan_source

IMAGE_FOLDERS = (
    "covid-ct/Images-processed",
    "darkcovidnet",
    "covid-chestxray-dataset/images",
    "ct-volume-example",
)
SOUND_FOLDER = "covid19-cough/raw"
SOURCES = {
    "covid_ct": "covid-ct",
    "darkcovidnet": "darkcovidnet",
    "covid_chestxray": "covid-chestxray-dataset",
    "covid19_cough": "covid19-cough",
}
N_COPIES = 500
RATES_HZ = (8000, 16_000, 22_050, 44_100, 48_000)
OPUS_RATES_HZ = (8000, 16_000, 48_000)
BLOCK = 1 << 14
SIDE = 96
ONSET = 4 + N_BANDS * N_STEPS // 2
CELL = 200
MONTAGE_PAIRS = 60
COLUMNS = ["path_a", "path_b", "kind", "score", "label_a", "label_b"]
COLUMNS += ["split_a", "split_b", "patient_a", "patient_b"]

Generator = np.random.Generator


# ---------------------------------------------------------------------------- transformed copies
def crop(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    """Up to 5 % cut off at each edge."""
    height, width = pixels.shape
    top, bottom, left, right = rng.uniform(0, 0.05, 4)
    rows = slice(int(top * height), height - int(bottom * height))
    return pixels[rows, int(left * width) : width - int(right * width)]


def resize(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    """Half to one and a half times the size, now and then of other proportions."""
    scale = rng.uniform(0.5, 1.5)
    stretch = rng.uniform(0.9, 1.1) if rng.random() < 0.3 else 1.0
    height, width = pixels.shape
    size = max(32, round(width * scale * stretch)), max(32, round(height * scale))
    ways = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
    return cv2.resize(pixels, size, interpolation=ways[rng.integers(len(ways))])


def brighten(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    """Other gamma, contrast and brightness, clipped."""
    curved = np.clip(pixels, 0, 1) ** rng.uniform(0.8, 1.25)
    return (curved - 0.5) * rng.uniform(0.8, 1.2) + 0.5 + rng.uniform(-0.15, 0.15)


def encode(pixels: np.ndarray, way: str, rng: Generator) -> bytes:
    """A file: JPEG of quality 40 to 95, or PNG of 8 or 16 bits."""
    clipped = np.clip(pixels, 0, 1)
    if way == "jpeg":
        options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))]
        return cv2.imencode(".jpg", np.round(clipped * 255).astype(np.uint8), options)[1].tobytes()
    deep = np.round(clipped * 65535).astype(np.uint16)
    grey = deep if way == "png16" else np.round(clipped * 255).astype(np.uint8)
    return cv2.imencode(".png", grey)[1].tobytes()


CHANGES = {"crop": crop, "resize": resize, "brightness": brighten}
KINDS = ("re-encoded", "resize", "crop", "brightness", "16 bit", *["combination"] * 5)


def image_copy(image: Image, kind: str, rng: Generator) -> bytes:
    """A transformed copy of an image as a file."""
    pixels = image.pixels[0]
    if kind in CHANGES:
        pixels = CHANGES[kind](pixels, rng)
    elif kind == "combination":
        for change in CHANGES.values():
            if rng.random() < 0.7:
                pixels = change(pixels, rng)
    way = {"re-encoded": "jpeg", "16 bit": "png16"}.get(kind)
    return encode(pixels, way or ("jpeg", "png", "png16")[rng.integers(3)], rng)


def sound_copy(samples: np.ndarray, rate_hz: int, rng: Generator) -> bytes:
    """A copy trimmed, padded, resampled, louder, stereo or in another format; some of them."""
    if rng.random() < 0.7:
        start, stop = (int(x) for x in rng.uniform(0, 0.05, 2) * len(samples))
        samples = samples[start : len(samples) - stop]
    if rng.random() < 0.5:
        before, behind = (int(x) for x in rng.uniform(0, 1, 2) * rate_hz)
        samples = np.pad(samples, (before, behind))
    form = ("MP3", "OPUS", "VORBIS", "FLAC", "WAV")[rng.integers(5)]
    rates = OPUS_RATES_HZ if form == "OPUS" else RATES_HZ
    if rng.random() < 0.7 or rate_hz not in rates:
        to = rates[rng.integers(len(rates))]
        samples, rate_hz = soxr.resample(samples, rate_hz, to), to
    samples = np.clip(samples * 10 ** (rng.uniform(-12, 3) / 20), -1, 1)
    if rng.random() < 0.3:
        samples = np.stack([samples, samples], axis=1)
    stream = io.BytesIO()
    options = {
        "MP3": {"format": "MP3", "compression_level": float(rng.uniform(0.2, 0.9))},
        "OPUS": {"format": "OGG", "subtype": "OPUS"},
        "VORBIS": {"format": "OGG", "subtype": "VORBIS"},
    }
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    chosen = options.get(form, {"format": form})
    with soundfile.SoundFile(stream, "w", rate_hz, channels, **chosen) as file:
        # In blocks: libsndfile's Vorbis writer overflows its stack on a minute at once.
        for start in range(0, len(samples), BLOCK):
            file.write(samples[start : start + BLOCK])
    return stream.getvalue()


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


def make_sound_copy(path: Path, _number: int, rng: Generator) -> tuple[str, bytes]:
    """Kind and file of the copy."""
    sound = read_sound(path)
    return "combination", sound_copy(sound.samples.mean(axis=0), sound.sample_rate_hz, rng)


def accuracy(root: Path, half: str, seed: int) -> None:
    """Hide copies, look for them, print recall and precision."""
    jobs = (
        ("image", "cxr", files(root, IMAGE_FOLDERS), image_print, make_image_copy),
        ("sound", "cough", files(root, (SOUND_FOLDER,)), sound_print, make_sound_copy),
    )
    for name, modality, paths, take, make in jobs:
        rng = np.random.default_rng([seed, half == "report"])
        rows, usable = [], []
        for path in paths:
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
    for what, make in (("image", made_up_images), ("sound", made_up_sounds)):
        path = out / f"made_up_{what}.npy"
        if not path.exists():
            np.save(path, make(root, max(sizes)))
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
        bytes(row) if modality == "cxr" else bytes(row[1 : 1 + int(row[0]) * 196]) for row in table
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


def made_up_images(root: Path, count: int) -> np.ndarray:
    """Fingerprints (count, LENGTH) of bent X-rays with a trace of another; one in 200 is copied."""
    rng = np.random.default_rng(0)
    folders = ("darkcovidnet", "covid-chestxray-dataset/images")
    real = [
        cv2.resize(read_image(path).pixels[0], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for path in files(root, folders)
    ]
    out = np.empty((count, LENGTH), np.uint8)
    last = real[0]
    for row in range(count):
        one, other = (bent(real[rng.integers(len(real))], rng) for _ in range(2))
        share = rng.uniform(0, 0.2)
        picture = (1 - share) * one + share * other
        if row % 200 == 199:
            picture = brighten(last, rng)
        last = picture.astype(np.float32)
        out[row] = np.frombuffer(image_fingerprint(Image(last[None], False, {})), np.uint8)
    return out


def bent(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """A picture, mirrored or not, bent smoothly by about 4 % of its side, never twice alike."""
    places = np.arange(SIDE, dtype=np.float32)
    shifts = [
        cv2.resize(rng.normal(0, 0.04 * SIDE, (5, 5)).astype(np.float32), (SIDE, SIDE),
                   interpolation=cv2.INTER_CUBIC)
        for _ in range(2)
    ]  # fmt: skip
    columns = (places if rng.random() < 0.5 else places[::-1]) + shifts[0]
    return cv2.remap(picture, columns, places[:, None] + shifts[1], cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


def made_up_sounds(root: Path, count: int) -> np.ndarray:
    """Rows of number of onsets and fingerprint; each onset is a real one, moved."""
    rng = np.random.default_rng(0)
    width = ONSET
    prints = [p for p in map(try_sound, files(root, (SOUND_FOLDER,))) if p]
    onsets = np.frombuffer(b"".join(prints), np.uint8).reshape(-1, width)
    numbers = np.array([len(p) // width for p in prints])
    levels = np.stack([onsets[:, 4:] & 15, onsets[:, 4:] >> 4], axis=-1)
    levels = levels.reshape(-1, N_STEPS, N_BANDS).astype(np.float32)
    out = np.zeros((count, 1 + 16 * width), np.uint8)
    for row in range(count):
        n = int(rng.choice(numbers))
        mixed = [
            np.roll(levels[rng.integers(len(levels))], rng.integers((N_STEPS, N_BANDS)), (0, 1))
            + 0.3 * levels[rng.integers(len(levels))]
            for _ in range(n)
        ]
        whole = np.round(np.array(mixed) / 1.3).astype(np.uint8).reshape(n, -1, 2)
        times = rng.uniform(0, 0.5 * n, n).astype("<f4").view(np.uint8).reshape(n, 4)
        out[row, 0] = n
        out[row, 1 : 1 + n * width] = np.hstack([times, whole[..., 0] | whole[..., 1] << 4]).ravel()
    return out


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
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 50_000, 100_000, 200_000])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.what == "accuracy":
        accuracy(arguments.data_root, arguments.half, arguments.seed)
    elif arguments.what == "lists":
        lists(arguments.data_root, arguments.out)
    elif arguments.what == "growth":
        growth(arguments.data_root, arguments.out, arguments.sizes)
    else:
        once(arguments.out, arguments.sizes[0])


if __name__ == "__main__":
    main()
