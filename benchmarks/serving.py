"""What the benchmarks of the service share: a bundle, a server of its own process, and clients."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import httpx

HOST = "127.0.0.1"
_START_S = 120


def make_bundle(folder: Path) -> Path:
    """A bundle with the default networks, which learnt nothing: speed does not depend on it."""
    import numpy as np

    from pulmofuse.config import CoughConfig, CtConfig, CxrConfig
    from pulmofuse.evaluation import identity_calibration
    from pulmofuse.inference import Bundle, DecisionFusion, Unimodal, save_bundle
    from pulmofuse.inference.bundle import build_model
    from pulmofuse.schema import Modality

    parts = {}
    kinds = {Modality.CT: CtConfig, Modality.CXR: CxrConfig, Modality.COUGH: CoughConfig}
    for modality, kind in kinds.items():
        config = kind()
        config = config.model_copy(
            update={"model": config.model.model_copy(update={"weights": "none"})}
        )
        model = build_model(modality, config, 2).eval()
        parts[modality] = Unimodal(modality, config, model, identity_calibration(2))
    half = np.full(2, 0.5)
    decision = DecisionFusion(tuple(parts), half, np.tile(half, (3, 1)), np.ones(3), 1.0)
    classes = ("normal", "covid19")
    save_bundle(folder, Bundle("untrained", "", classes, "covid19", parts, decision, {}, {}))
    return folder


def picture(seed: int, size: int) -> bytes:
    """A drawn X-ray as PNG."""
    import cv2
    import numpy as np

    from pulmofuse.sources.phantom import draw_cxr

    drawn = draw_cxr(np.random.default_rng(seed), size, {}, female=False, coarse=False)
    return bytes(cv2.imencode(".png", drawn)[1])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Process(Protocol):
    """What is needed of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """The exit code, None while it runs."""

    def wait(self, timeout: float) -> int:
        """The exit code, once it has one."""


#: Starts a process: command, file for what it writes.
Spawn = Callable[[list[str], Path], Process]


def spawn(command: list[str], log: Path) -> Process:
    """A process of its own."""
    with log.open("ab") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream)


class Server:
    """`pulmofuse serve` (or another command that listens) in a process of its own.

    Args:
        command: what to run.
        log: file for what it writes.
        port: where it will listen.
        ready: path that answers 200 once it serves.
        by: starts the process.
    """

    def __init__(
        self, command: Sequence[str], log: Path, port: int, ready: str, by: Spawn = spawn
    ) -> None:
        self.command, self.log, self.port, self.ready = list(command), log, port, ready
        self.url = f"http://{HOST}:{port}"
        self._spawn = by
        self._process: Process | None = None

    @classmethod
    def of_bundle(
        cls, bundle: Path, database: str, log: Path, *options: str, by: Spawn = spawn
    ) -> Server:
        """The service of a bundle."""
        port = free_port()
        command = [sys.executable, "-m", "pulmofuse", "serve", str(bundle)]
        command += ["--database", database, "--port", str(port), *options]
        return cls(command, log, port, "/readyz", by)

    def start(self) -> float:
        """Start, and wait until it answers; the seconds that took."""
        begun = time.perf_counter()
        self._process = self._spawn(self.command, self.log)
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.log.read_text()[-2000:]}")
            try:
                if httpx.get(self.url + self.ready, timeout=5).status_code == 200:
                    return time.perf_counter() - begun
            except httpx.TransportError:
                pass
            if time.perf_counter() - begun > _START_S:
                raise RuntimeError("the server does not start")
            time.sleep(0.05)

    @property
    def process(self) -> Process:
        """The running process."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever went wrong, no server stays behind."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=60)

    def ask_to_stop(self) -> None:
        """Ask it to end, as an operator would, and do not wait."""
        os.kill(self.process.pid, signal.SIGTERM)

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self.process.wait(timeout=60)

    def stop(self) -> int:
        """End it as an operator would; the exit code."""
        self.ask_to_stop()
        return self.wait()

    def peak_mib(self) -> float:
        """The most memory that the process ever held (VmHWM)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else float("nan")


def percentile(values: Sequence[float], q: float) -> float:
    """The nearest-rank percentile of unsorted values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q / 100 * len(ordered)))]
