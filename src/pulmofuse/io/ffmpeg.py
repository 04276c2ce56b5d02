"""Sounds that libsndfile does not know, by the ffmpeg inside PyAV: WebM, MP4, AAC, AMR, WMA.

PyAV is imported when the first such file comes; its wheels carry ffmpeg, so nothing needs to be
installed beside it. The container is fixed by the content and never guessed by ffmpeg, whose
guesses include play lists that name other files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pulmofuse.errors import UnreadableFile
from pulmofuse.io.content import COPY_AGAIN, Content, decoding
from pulmofuse.io.quiet import quiet_stderr

#: What ffmpeg calls the containers of our kinds.
DEMUXERS = {
    "webm": "matroska",
    "mp4": "mov",
    "aac": "aac",
    "amr": "amr",
    "wma": "asf",
    "wav": "wav",
    "ogg": "ogg",
}
#: Sample formats of ffmpeg: range of the integers, and what lies in the middle of it.
_SCALES = {"u8": (128.0, 128.0), "s16": (32768.0, 0.0), "s32": (2147483648.0, 0.0)}
#: Containers round their duration, and count the priming samples that decoders take away.
_DURATION_SLACK_S, _DURATION_SLACK = 0.25, 0.02


def decode_by_ffmpeg(
    content: Content, max_samples: int
) -> tuple[npt.NDArray[np.float32], int, str]:
    """Decode the first sound track of a container.

    Args:
        content: the file.
        max_samples: of all channels; decoding stops there, whatever the header declares.

    Returns:
        Samples (channels, n) as stored, sample rate in Hz, and the codec.

    Raises:
        UnreadableFile: damaged, without a sound track, longer than allowed, shorter than the
            container says, or of a rate or number of channels that changes on the way.
    """
    label = content.kind.format.upper()
    with decoding(content.name, f"{label} is damaged or holds no audio frames"), quiet_stderr():
        import av

        demuxer = DEMUXERS[content.kind.format]
        with av.open(
            io.BytesIO(content.data), format=demuxer, metadata_errors="replace"
        ) as container:
            if not container.streams.audio:
                raise UnreadableFile(
                    content.name,
                    f"{label} holds no sound track" + (" (a film)" * bool(container.streams.video)),
                    "record it with sound",
                )
            stream = container.streams.audio[0]
            stream.codec_context.thread_count = 1
            declared_s = _declared_s(container, stream)
            samples, rate = _collect(content.name, container, stream, max_samples)
            codec = stream.codec_context.name
    decoded_s = samples.shape[1] / rate
    if decoded_s < (declared_s or 0.0) * (1 - _DURATION_SLACK) - _DURATION_SLACK_S:
        raise UnreadableFile(
            content.name, f"{label} ends after {decoded_s:.1f} of {declared_s:.1f} s", COPY_AGAIN
        )
    return samples, rate, str(codec)


def _declared_s(container: Any, stream: Any) -> float | None:
    """Duration that the container declares; raw streams declare none, ffmpeg only guesses it."""
    if container.format.name in {"aac", "amr"}:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration) / 1e6  # AV_TIME_BASE
    return None


def _collect(
    name: str, container: Any, stream: Any, max_samples: int
) -> tuple[npt.NDArray[np.float32], int]:
    blocks: list[npt.NDArray[np.float32]] = []
    rate, n_samples = 0, 0
    for frame in _frames(container, stream):
        block = _block(frame)
        if blocks and (frame.sample_rate != rate or len(block) != len(blocks[0])):
            raise UnreadableFile(
                name, "its sample rate or number of channels changes", "record it in one piece"
            )
        rate = frame.sample_rate
        n_samples += block.size
        if n_samples > max_samples:
            raise UnreadableFile(
                name,
                f"holds more than {max_samples:,} samples, which no cough recording has",
                "cut the recording",
            )
        blocks.append(block)
    if not n_samples:
        raise UnreadableFile(name, "holds no audio frames", COPY_AGAIN)
    return np.concatenate(blocks, axis=1), int(rate)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames, to the end or to where the container is damaged.

    A recording that was cut has a torn packet at its end; what came before it is whole. Whether
    that is enough is decided by the duration.
    """
    import av

    started = False
    try:
        for frame in container.decode(stream):
            started = True
            yield frame
    except av.FFmpegError:
        if not started:
            raise


def _block(frame: Any) -> npt.NDArray[np.float32]:
    """One frame as float32 (channels, n) in [-1, 1]."""
    values = frame.to_ndarray()
    layout = frame.format.name
    if not frame.format.is_planar:
        values = values.reshape(-1, len(frame.layout.channels)).T
    scale, middle = _SCALES.get(layout.removesuffix("p"), (1.0, 0.0))
    block: npt.NDArray[np.float32] = values.astype(np.float32)
    block -= np.float32(middle)
    block /= np.float32(scale)
    return block
