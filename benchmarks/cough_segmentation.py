"""Learn and measure how coughs are found, on the published cuts of covid19-cough.

    python benchmarks/cough_segmentation.py fit ../shared/data/covid19-cough
    python benchmarks/cough_segmentation.py report ../shared/data/covid19-cough

Every published file is an annotated cough stretch, cut out of a call. Here each is put into a new
call among speech and other sound (`cough_material.py`), so that its place is known. Files with an
even hash are for development, the others only for the figures. `fit` learns the network, writes
src/pulmofuse/curation/coughs.safetensors, and prints what the thresholds are chosen from; `report`
prints the figures as JSON. Needs `apt-get install espeak-ng`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import soundfile
from cough_material import KINDS, Call, Wave, clip, frame_power, make_call, trim_padding
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.ndimage import uniform_filter1d
from sklearn.neural_network import MLPClassifier

from pulmofuse.curation import coughs as found
from pulmofuse.errors import UnreadableFile
from pulmofuse.io import Sound, read_sound
from pulmofuse.schema import Label
from pulmofuse.sources.covid19_cough import scan
from pulmofuse.sources.phantom.cough import SAMPLE_RATE_HZ as SYNTHETIC_RATE_HZ
from pulmofuse.sources.phantom.cough import draw_cough

Spans: TypeAlias = NDArray[np.float64]
#: A method: spans of a call, given its parameters.
Finder: TypeAlias = Callable[[int, tuple[float, ...]], Spans]

WEIGHTS = Path(found.__file__).with_name("coughs.safetensors")
#: A longer file is a whole voice message, not a bout.
LONGEST_CUT_S = 15.0
IOU = 0.5
REPLICATES = 2000
FOLDS = 4
#: Share of the frames without cough that is learned from.
KEPT = 0.2
#: A frame of a stretch (or of speech) counts as cough (or speech) within this of its loudest.
ACTIVE_DB = 25.0
HIDDEN = 16
#: Synthetic recordings that are learned from besides.
SYNTHETIC = 100
#: Their wheeze lies 16 dB below the cough and is a tone: it must not be learned as a cough.
SYNTHETIC_ACTIVE_DB = 10.0
FRAME_S = 0.02
#: Bout rules tuned for every method: join closer than, widen by, shortest, longest, in seconds.
BOUTS = list(itertools.product((0.3, 0.8, 1.8), (0.0, 0.1), (0.1, 0.4, 0.8), (2.0, 4.0, 99.0)))
#: Plain energy: dB below the loudest frame (negative) or above the quietest tenth (positive).
ENERGY = [(float(x),) for x in (*range(-36, -3, 4), *range(4, 37, 4))]
#: Orlandic 2021: lower and upper multiple of the mean power.
COMPARATOR = list(itertools.product((0.02, 0.05, 0.1, 0.2), (1.0, 2.0, 4.0, 8.0)))
#: What `fit` chose on the development half: parameters of the method, rules of its bouts.
CHOSEN = {
    "energy threshold": ((12.0,), (0.8, 0.1, 0.4, 2.0)),
    "power comparator": ((0.1, 1.0), (0.8, 0.1, 0.4, 2.0)),
    "find_coughs": ((), (1.8, 0.1, 0.4, 99.0)),
}


def published(root: Path, half: str) -> list[tuple[str, str, Sound]]:
    """Name, channel and sound of the readable files of one half, each content once."""
    rows: dict[str, tuple[str, str, Sound]] = {}
    for path, site in scan(root).records[["path", "site"]].itertuples(index=False):
        data = (root / path).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest in rows or int(digest[:8], 16) % 2 != (half == "test"):
            continue
        try:
            rows[digest] = (Path(path).name, str(site), read_sound(data, path))
        except UnreadableFile as error:
            print(error, file=sys.stderr)
    return list(rows.values())


def calls_of(files: Sequence[tuple[str, str, Sound]], half: str) -> list[Call]:
    """One call for each file that is a bout."""
    out = []
    for name, channel, sound in files:
        cut = trim_padding(sound.samples.mean(axis=0), sound.sample_rate_hz)
        if len(cut) <= LONGEST_CUT_S * sound.sample_rate_hz:
            out.append(make_call(cut, sound.sample_rate_hz, half, name, channel))
    return out


def synthetic_calls() -> list[Call]:
    """Calls with the demo's synthetic coughs, so that they count as coughs as well."""
    signs = (Label.COVID19, Label.PNEUMONIA, Label.TUBERCULOSIS, Label.CHRONIC_LUNG_DISEASE)
    out = []
    for number in range(SYNTHETIC):
        rng = np.random.default_rng([number, SYNTHETIC])
        some = {} if number % 5 == 4 else {signs[number % 5]: rng.uniform()}
        drawn = draw_cough(rng, some, female=number % 2 == 0, coarse=number % 3 == 0)
        cut = trim_padding((drawn / 32768).astype(np.float32), SYNTHETIC_RATE_HZ)
        out.append(make_call(cut, SYNTHETIC_RATE_HZ, "dev", f"synthetic {number}", "synthetic"))
    return out


def examples(call: Call, active_db: float = ACTIVE_DB) -> tuple[Wave, NDArray[np.int64]]:
    """Features and classes (indices of `CLASSES`) of the frames that are learned from."""
    seen = found.frame_features(call.samples, call.sample_rate_hz)
    level = found.frame_level_db(call.samples, call.sample_rate_hz)
    at_s = np.arange(len(seen)) * found.FRAME_S
    truth = np.full(len(seen), found.CLASSES.index("other"))
    spoken = [(a, b) for kind, a, b in call.events if kind in {"speech", "whisper"}]
    for start_s, end_s in spoken:
        inside = (at_s >= start_s) & (at_s < end_s)
        truth[inside & (level >= level[inside].max() - ACTIVE_DB)] = found.CLASSES.index("speech")
    inside = (at_s >= call.start_s) & (at_s < call.end_s)
    # Nobody says what the pauses of an annotated stretch hold: they are not learned from.
    truth[inside] = -1
    truth[inside & (level >= level[inside].max() - active_db)] = found.CLASSES.index("cough")
    rng = np.random.default_rng(len(seen))
    kept = (truth == 0) | ((truth > 0) & (rng.random(len(truth)) < KEPT))
    return seen[kept], truth[kept]


def learn(parts: Sequence[tuple[Wave, NDArray[np.int64]]]) -> dict[str, Wave]:
    """Fit the network on frames; its weights by the names that `coughs.py` reads."""
    net = MLPClassifier(
        (HIDDEN,), alpha=1e-2, batch_size=1024, learning_rate_init=2e-3, max_iter=12, tol=0.0,
        random_state=0,
    )  # fmt: skip
    net.fit(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
    layers = zip(("hidden", "out"), net.coefs_, net.intercepts_, strict=True)
    return {
        f"{name}.{what}": np.ascontiguousarray(value, np.float32)
        for name, weight, bias in layers
        for what, value in (("weight", weight), ("bias", bias))
    }


def use(weights: dict[str, Wave]) -> None:
    """Let `coughs.py` work with these weights in this process; the stored ones stay."""
    found._weights = lambda: weights


def as_file(samples: Wave, rate: int) -> Sound:
    """A sound as it comes from a 16 bit WAV, with its traits."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype="PCM_16")
    return read_sound(stream.getvalue(), "clip.wav")


def not_coughs(half: str, per_kind: int) -> dict[str, list[Sound]]:
    """Clips without cough by kind, at 8 and 48 kHz; silence too (noise at -75 dB)."""
    out: dict[str, list[Sound]] = {kind: [] for kind in (*KINDS, "silence")}
    for kind, sounds in out.items():
        for number in range(per_kind):
            seed = hashlib.sha256(f"{kind} {number} {half}".encode()).digest()
            rng, rate = np.random.default_rng(list(seed)), (8000, 48_000)[number % 2]
            if kind == "silence":
                sounds.append(as_file(10 ** (-75 / 20) * rng.standard_normal(4 * rate), rate))
                continue
            event = np.concatenate([clip(rng, kind, rate, half) for _ in range(2)])
            hiss = 10 ** (rng.uniform(-60, -30) / 20)
            sound = event + hiss * rng.standard_normal(len(event))
            sounds.append(as_file(0.9 * rng.uniform(0.1, 1) * sound / np.abs(sound).max(), rate))
    return out


def bouts(spans: Spans, rule: tuple[float, ...], duration_s: float) -> Spans:
    """Join, filter by length, widen: the annotation is a bout, not a single cough."""
    gap, pad, shortest, longest = rule
    spans = found.merge(spans, gap)
    length = spans[:, 1] - spans[:, 0]
    kept = spans[(length >= shortest) & (length <= longest)]
    return np.clip(kept + np.array([-pad, pad]), 0.0, duration_s)


def count(spans: Spans, start_s: float, end_s: float) -> tuple[int, int, int]:
    """True positives, false positives, false negatives at the overlap `IOU`."""
    both = np.clip(np.minimum(spans[:, 1], end_s) - np.maximum(spans[:, 0], start_s), 0, None)
    either = spans[:, 1] - spans[:, 0] + end_s - start_s - both
    hit = int((both / either >= IOU).any())
    return hit, len(spans) - hit, 1 - hit


def finders(calls: Sequence[Call], p: Sequence[Wave]) -> dict[str, tuple[Finder, list]]:
    """Each method with the parameters that may be chosen on the development half."""
    power = [frame_power(call.samples, call.sample_rate_hz, FRAME_S) for call in calls]

    def spans(loud: NDArray[np.bool_]) -> NDArray[np.intp]:
        return np.flatnonzero(np.diff(np.r_[False, loud, False])).reshape(-1, 2)

    def energy(number: int, rule: tuple[float, ...]) -> Spans:
        level = power[number]
        base = level.max() if rule[0] < 0 else max(np.percentile(level, 10), 1e-12)
        return spans(level > base * 10 ** (rule[0] / 10)) * FRAME_S

    def comparator(number: int, rule: tuple[float, ...]) -> Spans:
        level = power[number] / power[number].mean()
        runs = [run for run in spans(level > rule[0]) if level[slice(*run)].max() > rule[1]]
        return np.array(runs, np.float64).reshape(-1, 2) * FRAME_S

    def network(number: int, _rule: tuple[float, ...]) -> Spans:
        call = calls[number]
        return found.coughs_of(p[number], len(call.samples) / call.sample_rate_hz)

    return {
        "energy threshold": (energy, ENERGY),
        "power comparator": (comparator, COMPARATOR),
        "find_coughs": (network, [()]),
    }


def counts(calls: Sequence[Call], finder: Finder, rule: tuple, bout: tuple) -> NDArray[np.int64]:
    """(calls, 3) true positives, false positives, false negatives."""
    rows = []
    for number, call in enumerate(calls):
        spans = bouts(finder(number, rule), bout, len(call.samples) / call.sample_rate_hz)
        rows.append(count(spans, call.start_s, call.end_s))
    return np.array(rows)


def figures(rows: NDArray[np.int64]) -> dict[str, list[float]]:
    """Precision, recall and F1, each with its 95 % bootstrap interval over recordings."""

    def scores(total: NDArray[np.float64]) -> NDArray[np.float64]:
        tp, fp, fn = np.moveaxis(total, -1, 0)
        return np.stack([tp / np.maximum(tp + fp, 1), tp / (tp + fn), 2 * tp / (2 * tp + fp + fn)])

    draws = np.random.default_rng(0).multinomial(
        len(rows), np.full(len(rows), 1 / len(rows)), REPLICATES
    )
    low, high = np.percentile(scores(draws @ rows), (2.5, 97.5), axis=1)
    value = scores(rows.sum(axis=0))
    names = ("precision", "recall", "f1")
    return {n: [round(float(v[i]), 3) for v in (value, low, high)] for i, n in enumerate(names)}


def chosen(calls: Sequence[Call], methods: dict[str, tuple[Finder, list]]) -> dict[str, tuple]:
    """The parameters with the best F1 of each method."""
    best = {}
    for name, (finder, grid) in methods.items():
        tried = []
        for rule in grid:
            raw = [finder(number, rule) for number in range(len(calls))]
            for bout in BOUTS:
                rows = counts(calls, lambda number, _rule, raw=raw: raw[number], (), bout)
                tp, fp, fn = rows.sum(axis=0)
                tried.append((2 * tp / (2 * tp + fp + fn), rule, bout))
        best[name] = max(tried)
    return best


def smooth(sound: Sound | Call) -> Wave:
    """Smoothed cough probability of each frame."""
    mono = sound.samples if sound.samples.ndim == 1 else sound.samples.mean(axis=0)
    p = found.frame_probabilities(mono, sound.sample_rate_hz)[:, 0]
    return uniform_filter1d(p, found._SMOOTH_FRAMES, mode="nearest")


def fit(root: Path) -> dict:
    """Learn on the development half; what the thresholds are chosen from is out of fold."""
    files = published(root, "dev")
    calls = calls_of(files, "dev")
    print("calls made", file=sys.stderr)
    parts = [examples(call) for call in calls]
    made = [examples(call, SYNTHETIC_ACTIVE_DB) for call in synthetic_calls()]
    fold = {f[0]: int(hashlib.sha256(f[0].encode()).hexdigest()[:8], 16) % FOLDS for f in files}
    p: dict[str, Wave] = {}
    heard: list[float] = []
    for k in range(FOLDS):
        others = [part for call, part in zip(calls, parts, strict=True) if fold[call.name] != k]
        use(learn(others + made))
        p |= {call.name: smooth(call) for call in calls if fold[call.name] == k}
        heard += [found.listen(sound).cough for name, _, sound in files if fold[name] == k]
    print("folds done", file=sys.stderr)
    methods = finders(calls, [p[call.name] for call in calls])
    weights = learn(parts + made)
    save_file(weights, WEIGHTS)
    use(weights)
    clips = {
        kind: [(h.cough, h.speech) for h in map(found.listen, sounds)]
        for kind, sounds in not_coughs("dev", 20).items()
    }
    return {
        "calls": len(calls),
        "chosen": chosen(calls, methods),
        "cough score of files, out of fold, percentiles 0.5 1 2 3 5 10": np.percentile(
            heard, (0.5, 1, 2, 3, 5, 10)
        ).round(3).tolist(),
        "cough score of clips, percentiles 50 90 95; speech 10 50 90": {
            kind: np.r_[
                np.percentile([h[0] for h in v], (50, 90, 95)),
                np.percentile([h[1] for h in v], (10, 50, 90)),
            ].round(2).tolist()
            for kind, v in clips.items()
        },
    }  # fmt: skip


def remarks_table(files: Sequence[tuple[str, str, Sound]]) -> dict:
    """Remarks on the real files of the test half, and on clips that hold no cough."""
    table: dict[str, dict[str, int]] = {}
    groups = {
        channel: [s for _, c, s in files if c == channel] for channel in ("call-center", "telegram")
    }
    for group, sounds in (groups | not_coughs("test", 60)).items():
        row = {"n": len(sounds), "excluded": 0}
        for sound in sounds:
            kinds = [str(remark.kind) for remark in found.sound_remarks(sound)]
            row["excluded"] += bool(set(kinds) & {"blank", "no_cough", "speech"})
            for kind in kinds:
                row[kind] = row.get(kind, 0) + 1
        table[group] = row
    return table


def cost_ms() -> dict[str, float]:
    """Fastest of 50 runs of both functions on 5 s at 48 kHz."""
    sound = as_file(0.1 * np.random.default_rng(0).standard_normal(5 * 48_000), 48_000)
    best = {"find_coughs": np.inf, "sound_remarks": np.inf}
    for _ in range(50):
        begin = time.perf_counter()
        found.find_coughs(sound.samples[0], sound.sample_rate_hz)
        middle = time.perf_counter()
        found.sound_remarks(sound)
        end = time.perf_counter()
        best["find_coughs"] = min(best["find_coughs"], 1e3 * (middle - begin))
        best["sound_remarks"] = min(best["sound_remarks"], 1e3 * (end - middle))
    return {name: round(ms, 2) for name, ms in best.items()}


def report(root: Path, rules: dict[str, tuple]) -> dict:
    """The figures on the test half, with the rules that `fit` chose."""
    files = published(root, "test")
    calls = calls_of(files, "test")
    table = {}
    for name, (finder, _) in finders(calls, [smooth(call) for call in calls]).items():
        rule, bout = rules[name]
        rows = counts(calls, finder, rule, bout)
        for channel in ("call-center", "telegram", "both"):
            mine = np.array([channel in {"both", call.channel} for call in calls])
            table[f"{name}, {channel}"] = {"calls": int(mine.sum())} | figures(rows[mine])
    return {"table": table, "remarks": remarks_table(files), "cost_ms": cost_ms()}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["fit", "report"])
    parser.add_argument("root", type=Path, help="folder of covid19-cough")
    given = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        sys.exit("skipped: espeak-ng is missing (apt-get install espeak-ng)")
    if given.what == "fit":
        print(json.dumps(fit(given.root), indent=1))
    else:
        print(json.dumps(report(given.root, CHOSEN), indent=1))


if __name__ == "__main__":
    main()
