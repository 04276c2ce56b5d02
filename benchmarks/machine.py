"""What every benchmark says of the machine it ran on, and how its results are written."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

#: Instructions that decide how fast bfloat16 is on a CPU.
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "avx_vnni")
_PACKAGES = ("torch", "lightning", "monai", "numpy", "scipy", "librosa", "numba", "pillow")


def facts() -> dict[str, Any]:
    """CPU, memory, versions, threads, date, and what else ran when this was asked."""
    import torch

    cpuinfo = _fields(Path("/proc/cpuinfo"))
    flags = cpuinfo.get("flags", "").split()
    memory_kb = _fields(Path("/proc/meminfo")).get("MemTotal", "0 kB").split()[0]
    return {
        "cpu": cpuinfo.get("model name", platform.processor()),
        "family_model": f"{cpuinfo.get('cpu family', '?')}/{cpuinfo.get('model', '?')}",
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory_kb) / 2**20, 1),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "busy_cores_at_start": busy_cores(),
    }


def busy_cores(seconds: float = 0.5) -> float | None:
    """Cores that were not idle while this process slept: more than 0.1 spoils a timing."""
    first = _cpu_times()
    time.sleep(seconds)
    last = _cpu_times()
    if first is None or last is None:
        return None
    total, idle = last[0] - first[0], last[1] - first[1]
    return round((1 - idle / max(1, total)) * (os.cpu_count() or 1), 2)


def write(name: str, command: str, results: Any, machine: dict[str, Any]) -> Path:
    """Write one result file and show it.

    Args:
        name: of the file, without its ending.
        command: what to type to repeat it.
        results: JSON values.
        machine: `facts()` from the start of the run.
    """
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    content = {"command": command, "machine": machine, "results": results}
    text = json.dumps(content, indent=2) + "\n"
    path.write_text(text, encoding="utf-8")
    print(text)
    return path


def status(*names: str) -> dict[str, int]:
    """Fields of /proc/self/status in KiB, such as VmRSS, RssAnon and RssFile."""
    fields = _fields(Path("/proc/self/status"))
    return {name: int(fields[name].split()[0]) for name in names}


def _fields(path: Path) -> dict[str, str]:
    """Lines `name : value` of a file under /proc; the first of a name counts."""
    out: dict[str, str] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            out.setdefault(name.strip(), value.strip())
    return out


def _cpu_times() -> tuple[int, int] | None:
    """All and idle jiffies of the machine since it started."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    times = [int(v) for v in path.read_text(encoding="utf-8").splitlines()[0].split()[1:9]]
    return sum(times), times[3] + times[4]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
