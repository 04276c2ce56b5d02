"""What the input gate must refuse: pictures, other modalities, damaged files, speech and noise.

Nothing of it is stored. Sounds are made with espeak-ng and sox, spectrograms of the recordings of
the study; pictures come from packages whose folders are named on the command line.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import soundfile
from cough_material import PHRASES, VOICES
from numpy.typing import NDArray

Grey: TypeAlias = NDArray[np.uint8]

_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}
_LEAST_SIDE, _LEAST_STD, _LARGEST_BYTES = 100, 6.0, 12 << 20
_LONGEST_SIDE = 1024
#: Sample rates of the made sounds: telephone to studio.
RATES_HZ = (8000, 16000, 44100, 48000)

#: sox: what `synth` makes, with the seconds.
NOISES = {
    "white noise": "synth 4 whitenoise",
    "pink noise": "synth 4 pinknoise",
    "brown noise": "synth 4 brownnoise",
    "sine": "synth 3 sine {hz}",
    "sweep": "synth 3 sine {hz}-{high}",
    "chord": "synth 3 sine {hz} sine {fifth} remix 1,2",
    "square": "synth 2 square {hz}",
    "plucks": "synth 2 pluck {hz} pluck {fifth} remix 1,2 repeat 1",
    "tremolo": "synth 4 triangle {hz} tremolo 6 60",
    "noise in gusts": "synth 5 brownnoise tremolo 0.7 90",
}


def pictures(folder: Path, most: int, seed: int) -> list[bytes]:
    """Different pictures of a package in their own colours, as PNG of at most 1,024 pixels."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _ENDINGS and p.is_file())
    order = np.random.default_rng(seed).permutation(len(paths))
    seen: set[bytes] = set()
    out: list[bytes] = []
    for path in (paths[i] for i in order):
        if len(out) == most:
            break
        if path.stat().st_size > _LARGEST_BYTES:
            continue
        pixels = cv2.imread(str(path))
        if pixels is None or min(pixels.shape[:2]) < _LEAST_SIDE or pixels.std() < _LEAST_STD:
            continue
        coarse = (cv2.resize(pixels, (8, 8), interpolation=cv2.INTER_AREA) // 32).tobytes()
        if coarse not in seen:
            seen.add(coarse)
            shrink = min(1.0, _LONGEST_SIDE / max(pixels.shape[:2]))
            size = [round(side * shrink) for side in pixels.shape[1::-1]]
            out.append(png(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)))
    return out


def grey_crops(photos: Sequence[bytes], seed: int) -> list[bytes]:
    """Two details of each picture in grey, a quarter to all of its sides."""
    rng = np.random.default_rng(seed)
    out = []
    for photo in itertools.chain(photos, photos):
        grey = decode(photo)
        side = [max(96, round(s * rng.uniform(0.25, 1))) for s in grey.shape]
        top, left = (
            int(rng.integers(0, max(1, s - c + 1))) for s, c in zip(grey.shape, side, strict=True)
        )
        detail = grey[top : top + side[0], left : left + side[1]]
        if min(detail.shape) >= _LEAST_SIDE // 2 and detail.std() >= _LEAST_STD:
            out.append(png(detail))
    return out


def drawn(rng: np.random.Generator, n: int) -> Iterator[bytes]:
    """Charts, block diagrams, pages of text, tables, heat maps, drawings and screenshots."""
    import matplotlib as mpl

    mpl.use("Agg")
    makers: tuple[Callable[[np.random.Generator], NDArray[np.uint8]], ...] = (
        _chart, _chart, _diagram, _page, _window, _face,
    )  # fmt: skip
    for i in range(n):
        yield png(makers[i % len(makers)](rng))


def _chart(rng: np.random.Generator) -> NDArray[np.uint8]:
    import matplotlib.pyplot as plt

    style = str(rng.choice(["default", "dark_background", "ggplot", "grayscale"]))
    with plt.style.context(style):
        figure, axes = plt.subplots(figsize=rng.uniform(3, 7, 2), dpi=80)
        kind, n = int(rng.integers(6)), int(rng.integers(5, 40))
        x, y = np.arange(n), rng.normal(size=n).cumsum()
        if kind == 0:
            axes.plot(x, y, label="a")
            axes.legend()
        elif kind == 1:
            axes.bar(x, np.abs(y))
        elif kind == 2:
            axes.scatter(rng.normal(size=200), rng.normal(size=200))
        elif kind == 3:
            axes.imshow(rng.normal(size=(n, n)), cmap=str(rng.choice(["viridis", "gray", "jet"])))
        elif kind == 4:
            axes.pie(rng.uniform(1, 5, 5), labels=list("abcde"))
        else:
            grid = np.add.outer(np.sin(x / 3), np.cos(x / rng.uniform(2, 9)))
            axes.contourf(grid, cmap=str(rng.choice(["gray", "magma"])))
        axes.set_title("Figure " + str(rng.integers(99)))
        figure.canvas.draw()
        shown = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
        plt.close(figure)
    return shown[..., ::-1]


def _diagram(rng: np.random.Generator) -> NDArray[np.uint8]:
    page = np.full((int(rng.integers(200, 600)), int(rng.integers(200, 800)), 3), 255, np.uint8)
    places = rng.integers(20, [page.shape[1] - 100, page.shape[0] - 60], (rng.integers(3, 9), 2))
    for a, b in itertools.pairwise(places):
        cv2.arrowedLine(page, tuple(map(int, a + 30)), tuple(map(int, b + 30)), (0, 0, 0), 2)
    for x, y in places:
        colour = [int(v) for v in rng.integers(120, 255, 3)]
        cv2.rectangle(page, (int(x), int(y)), (int(x) + 90, int(y) + 45), colour, -1)
        cv2.putText(page, "step", (int(x) + 10, int(y) + 28), 0, 0.6, (0, 0, 0), 1)
    return page


def _page(rng: np.random.Generator) -> NDArray[np.uint8]:
    page = np.full((int(rng.integers(300, 900)), int(rng.integers(250, 700)), 3), 250, np.uint8)
    for y in range(40, len(page) - 20, int(rng.integers(16, 30))):
        words = "".join(rng.choice(list("abcdefghij klmnop qrst  uvw"), 60))
        cv2.putText(page, words, (20, y), int(rng.integers(0, 4)), 0.5, (20, 20, 20), 1)
    return page


def _window(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A program's window with bars, panels, buttons and some text."""
    dark = bool(rng.integers(2))
    screen = np.full((480, 720, 3), 40 if dark else 235, np.uint8)
    screen[:28] = rng.integers(0, 255, 3)
    screen[28:, : int(rng.integers(80, 240))] = 70 if dark else 205
    for _ in range(int(rng.integers(8, 30))):
        x, y = (int(v) for v in rng.integers(10, [640, 450]))
        ink = (230, 230, 230) if dark else (20, 20, 20)
        cv2.putText(screen, str(rng.integers(10**6)), (x, y), 0, 0.45, ink, 1)
    for _ in range(int(rng.integers(2, 8))):
        x, y = (int(v) for v in rng.integers(40, [600, 420]))
        colour = [int(v) for v in rng.integers(0, 255, 3)]
        cv2.rectangle(screen, (x, y), (x + 80, y + 26), colour, int(rng.choice([-1, 1])))
    return screen


def _face(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A hand-drawn face, house or sun of lines and ovals."""
    page = np.full((400, int(rng.integers(280, 520)), 3), int(rng.choice([255, 250, 0])), np.uint8)
    for _ in range(int(rng.integers(4, 14))):
        centre = tuple(int(v) for v in rng.integers(60, 340, 2))
        axes = tuple(int(v) for v in rng.integers(5, 120, 2))
        colour = [int(v) for v in rng.integers(0, 255, 3)]
        cv2.ellipse(page, centre, axes, float(rng.uniform(0, 90)), 0, 360, colour, 3)
        points = rng.integers(20, 380, (int(rng.integers(3, 6)), 1, 2)).astype(np.int32)
        cv2.polylines(page, [points], bool(rng.integers(2)), colour, 2)
    return page


def spectrogram(path: Path, colour: bool) -> bytes:
    """A picture of the short-time spectrum of a recording, as a study of sounds would draw it."""
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    frames = np.lib.stride_tricks.sliding_window_view(samples[:, 0], 512)[::160]
    level = 20 * np.log10(np.abs(np.fft.rfft(frames * np.hanning(512))) + 1e-5)
    shown = cv2.normalize(level.T[::-1], None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    shown = cv2.resize(shown, (384, 288), interpolation=cv2.INTER_LINEAR)
    return png(cv2.applyColorMap(shown, cv2.COLORMAP_VIRIDIS) if colour else shown)


#: Ways in which a file of the right kind is damaged or not whole.
DAMAGES: dict[str, Callable[[Grey], Grey]] = {
    "lower half grey": lambda grey: _lower(grey, 128),
    "lower half black": lambda grey: _lower(grey, 0),
    "upper third": lambda grey: grey[: len(grey) // 3],
    "upper left quarter": lambda grey: grey[: len(grey) // 2, : grey.shape[1] // 2],
    "40 pixels": lambda grey: np.asarray(cv2.resize(grey, (40, 40), interpolation=cv2.INTER_AREA)),
    "contrast x 8": lambda grey: np.clip((grey - 128.0) * 8 + 128, 0, 255).astype(np.uint8),
    "blank": lambda grey: (
        np.uint8(128) + (np.arange(grey.size).reshape(grey.shape) % 2).astype(np.uint8)
    ),
}


def _lower(grey: Grey, level: int) -> Grey:
    out = grey.copy()
    out[len(grey) // 2 :] = level
    return out


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file."""
    return cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes()


def decode(data: bytes) -> Grey:
    """The grey levels of an image file."""
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))


def speech(folder: Path, half: str, n: int, seed: int) -> dict[str, list[Path]]:
    """Sentences of espeak-ng: as they are, as a telephone passes them, and in a noisy room."""
    rng = np.random.default_rng(seed)
    languages, variants = VOICES[half]
    out: dict[str, list[Path]] = {"speech": [], "speech, telephone": [], "speech, noisy room": []}
    for i in range(n):
        language, variant = str(rng.choice(languages)), str(rng.choice(variants))
        words = PHRASES.get(language.split("-", maxsplit=1)[0], "")
        text = f"{words} {' '.join(str(v) for v in rng.integers(0, 9999, 3))}"
        said, rate = folder / f"{half}-{i}.wav", int(rng.choice(RATES_HZ))
        voice = ["-v", language + variant, "-s", str(rng.integers(110, 230))]
        _run("espeak-ng", *voice, "-p", str(rng.integers(10, 90)), "-w", str(said), "--", text)
        plain, phone, room = (folder / f"{half}-{i}-{way}.wav" for way in ("a", "b", "c"))
        _sox(said, plain, f"rate {rate}")
        _sox(said, phone, "sinc 300-3400 rate 8000")
        _sox(said, room, f"rate {rate} reverb {rng.integers(20, 80)} channels 1")
        _add_noise(room, float(rng.uniform(8, 25)), rng)
        for name, path in zip(out, (plain, phone, room), strict=True):
            out[name].append(path)
    return out


def noises(folder: Path, n: int, seed: int) -> dict[str, list[Path]]:
    """Noise, tones and plucked strings of sox, n of each kind at several rates and pitches."""
    rng = np.random.default_rng(seed)
    out: dict[str, list[Path]] = {"noise": [], "tones and music": []}
    for (name, effect), i in itertools.product(NOISES.items(), range(n)):
        hz = int(rng.integers(120, 900))
        path, rate = folder / f"{seed}-{name.replace(' ', '-')}-{i}.wav", int(rng.choice(RATES_HZ))
        made = effect.format(hz=hz, fifth=round(hz * 1.5), high=3 * hz)
        _run("sox", "-n", "-R", "-r", str(rate), "-c", "1", str(path), *made.split(), "gain", "-n",
             f"-{rng.integers(1, 20)}")  # fmt: skip
        out["noise" if "noise" in name else "tones and music"].append(path)
    return out


def damaged_sounds(folder: Path, paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Coughs cut to 0.15 s, driven far into clipping, and all but silenced."""
    out: dict[str, list[Path]] = {
        "0.15 s of a cough": [],
        "clipped by 40 dB": [],
        "all but silent": [],
    }
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = samples[:, 0] / max(float(np.abs(samples[:, 0]).max()), 1e-9)
        first = max(0, int(np.abs(mono).argmax()) - rate // 20)
        made = (mono[first : first + round(0.15 * rate)], np.clip(mono * 100, -1, 1), mono * 2e-4)
        for name, sound in zip(out, made, strict=True):
            target = folder / f"{path.stem}-{name.replace(' ', '-')}.wav"
            soundfile.write(target, sound, rate)
            out[name].append(target)
    return out


def _add_noise(path: Path, snr_db: float, rng: np.random.Generator) -> None:
    sound, rate = soundfile.read(path, dtype="float32")
    noise = np.cumsum(rng.normal(size=len(sound)))
    noise = noise - np.convolve(noise, np.ones(401) / 401, mode="same")
    scale = np.sqrt(np.square(sound).mean() / np.square(noise).mean()) * 10 ** (-snr_db / 20)
    mixed = sound + (scale * noise).astype(np.float32)
    soundfile.write(path, mixed / max(1.0, float(np.abs(mixed).max())), rate)


def _sox(source: Path, target: Path, effects: str) -> None:
    _run("sox", "-R", str(source), str(target), "gain", "-6", *effects.split())


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
