"""Pictures of the pairs of copies, so that a person can judge each of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from pulmofuse.config import CoughPreprocessing, CtPreprocessing
from pulmofuse.curation.leakage import across_splits
from pulmofuse.errors import UnreadableFile
from pulmofuse.files import write_bytes, write_json
from pulmofuse.inference.pictures import decibel_picture
from pulmofuse.io import read_image
from pulmofuse.preprocessing import LogMel, prepare, to_tensor
from pulmofuse.preprocessing.images import window_ct
from pulmofuse.schema import Modality, iterate
from pulmofuse.training import Progress

#: Pairs that are drawn; duplicates.csv lists all of them, the gravest first.
MOST_PAIRS = 1_000
#: Contradicting pairs and those across splits are drawn beyond that, up to here: a split that
#: tears thousands of copies apart is refused, and nobody looks at more of them.
MOST_GRAVE_PAIRS = 5_000

#: Longer side of an image, and width and height of a spectrogram: 500 pairs of the most detailed
#: images stay below 15 MB on the page.
_LONGEST_PX = 168
_SPECTROGRAM_PX = (224, 84)
_JPEG_QUALITY = 78


def draw_pairs(
    duplicates: pd.DataFrame,
    modalities: dict[str, str],
    data_root: Path,
    folder: Path,
    progress: Progress | None = None,
) -> None:
    """Draw both files of the pairs, each file once and one at a time.

    Args:
        duplicates: `curation.Audit.duplicates`, the gravest first.
        modalities: of each path.
        data_root: folder that the paths are relative to.
        folder: takes `<number>.jpg` and `index.json`, a list of the pairs with `image_a` and
            `image_b` (null where a file cannot be drawn). Pictures of an earlier audit go.
        progress: told (files drawn, files in all, path).
    """
    shown = duplicates.head(n_drawn(duplicates))
    paths = list(dict.fromkeys(shown[["path_a", "path_b"]].to_numpy().ravel().tolist()))
    names: dict[str, str | None] = {}
    for number, path in enumerate(paths):
        jpeg = _jpeg(data_root / path, Modality(modalities[path]))
        names[path] = None if jpeg is None else f"{number:04d}.jpg"
        if jpeg is not None:
            write_bytes(folder / f"{number:04d}.jpg", jpeg)
        if progress is not None:
            progress(number + 1, len(paths), path)
    index = [
        {key: _json_cell(value) for key, value in pair.items()}
        | {"image_a": names[pair["path_a"]], "image_b": names[pair["path_b"]]}
        for pair in iterate(shown)
    ]
    write_json(folder / "index.json", index)
    for old in {*folder.glob("*.jpg"), *folder.glob("*.png")}:
        if old.name not in names.values():
            old.unlink()


def n_drawn(duplicates: pd.DataFrame) -> int:
    """How many of the first pairs are drawn.

    Args:
        duplicates: contradicting, split_a, split_b; the gravest first.
    """
    n_grave = int((duplicates["contradicting"] | across_splits(duplicates)).sum())
    return min(len(duplicates), max(MOST_PAIRS, min(n_grave, MOST_GRAVE_PAIRS)))


def _jpeg(path: Path, modality: Modality) -> bytes | None:
    """A small picture of a file; null where it is no recording of its modality after all."""
    try:
        picture = _spectrogram(path) if modality is Modality.COUGH else _image(path)
    except UnreadableFile:
        # It was read for its fingerprint, so this is a sound without a cough's worth of samples,
        # or a file that changed since: the page says that there is no picture.
        return None
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return encoded.tobytes()


def _image(path: Path) -> np.ndarray:
    """(height, width) uint8: the middle slice as it is, from its darkest to its brightest value."""
    image = read_image(path)
    plane = image.pixels[len(image.pixels) // 2]
    if image.hounsfield:
        window = CtPreprocessing()
        plane = window_ct(plane, window.window_level_hu, window.window_width_hu)
    scale = _LONGEST_PX / max(plane.shape)
    # Copies of different size are shown at one size, or nobody could compare them by eye.
    size = [max(1, round(side * scale)) for side in plane.shape[::-1]]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    plane = cv2.resize(plane, size, interpolation=method)
    spread = max(float(np.ptp(plane)), 1e-9)
    return np.asarray((plane - plane.min()) / spread * 255).astype(np.uint8)


def _spectrogram(path: Path) -> np.ndarray:
    """(height, width) uint8: the log-mel spectrogram of the recording, silent ends cut off."""
    front_end = CoughPreprocessing()
    sound = prepare(path, Modality.COUGH, front_end).instances.reshape(-1)
    # The last window is padded with zeros, which say nothing; one frame has to stay.
    sound = sound[: max(front_end.n_fft + 1, 1 + int(np.flatnonzero(sound).max(initial=0)))]
    with torch.inference_mode():
        log_mel = LogMel(front_end)(to_tensor(sound[None]))[0].numpy()
    return cv2.resize(decibel_picture(log_mel), _SPECTROGRAM_PX, interpolation=cv2.INTER_AREA)


def _json_cell(value: object) -> object:
    return None if pd.isna(value) else value  # type: ignore[call-overload]
