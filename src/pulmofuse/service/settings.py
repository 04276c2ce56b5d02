"""What the service allows: sizes, times, and how much at once."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_MIB = 1 << 20


def _cores() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class ServiceSettings(BaseModel):
    """Limits of the service; the defaults suit two cores and 2 GiB.

    Attributes:
        max_file_bytes, max_body_bytes: of one upload, and of a request with all its parts.
        max_buffered_bytes: of all requests that are being read or worked on.
        max_parts: of one form.
        max_pixels, max_voxels, max_samples: what a file may unpack to (one plane, a volume, a
            sound with all its channels). The largest detectors (4,280 x 3,520), a volume of 512 x
            512 x 120 and two minutes at 48 kHz fit; together with what waits, under 1.5 GiB.
        large_pixels: files that unpack to more than this are read one at a time.
        body_timeout_s: until the whole request must have arrived.
        predict_timeout_s: from then until the answer.
        max_in_flight: predictions that are read, wait or run; one more is answered with 503.
        workers: threads that read and prepare files.
        torch_threads: threads of the network.
        batch_window_s: how long a file waits for others of its modality that are on their way.
        max_batch: files of one modality that go through the network together.
        rate_per_minute, burst: requests of one key, in the long run and at once.
        gate: what becomes of a file that the model was not made for; see `inference.Gate`.
        max_connections: open connections; beyond it the server refuses by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_file_bytes: int = Field(default=64 * _MIB, gt=0)
    max_body_bytes: int = Field(default=80 * _MIB, gt=0)
    max_buffered_bytes: int = Field(default=128 * _MIB, gt=0)
    max_parts: int = Field(default=16, gt=0)
    max_pixels: int = Field(default=16_000_000, gt=0)
    max_voxels: int = Field(default=32_000_000, gt=0)
    max_samples: int = Field(default=6_000_000, gt=0)
    large_pixels: int = Field(default=4_000_000, gt=0)
    body_timeout_s: float = Field(default=30.0, gt=0)
    predict_timeout_s: float = Field(default=30.0, gt=0)
    max_in_flight: int = Field(default=32, gt=0)
    workers: int = Field(default_factory=lambda: min(4, _cores()), gt=0)
    torch_threads: int = Field(default_factory=_cores, gt=0)
    batch_window_s: float = Field(default=0.004, ge=0)
    max_batch: int = Field(default=16, gt=0)
    rate_per_minute: float = Field(default=1200.0, gt=0)
    burst: int = Field(default=100, gt=0)
    gate: Literal["refuse", "warn", "off"] = "refuse"
    max_connections: int = Field(default=512, gt=0)
