"""The service under load, in overload, and beside the plain service that a user would write.

    python benchmarks/service_load.py [--seconds 60] [--clients 16] [--bundle DIR --files DIR]

Three parts in one run: one X-ray at a time on both services in turns (p50), many clients at once
(p50, p99, errors), and more clients than there is room for (503 with Retry-After, then recovery).
The plain service is FastAPI, PIL and the same network, eager and in single precision. Outside of
overload every request must be answered: one that is not ends the benchmark with an error, as its
time would be none of a prediction.

By default the networks are untrained and the X-rays drawn (PNG, as those of NIH ChestX-ray14 are);
`--bundle` and `--files` take trained ones and a folder of X-rays that their gate accepts.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import machine
import serving

from pulmofuse.service import Trail, open_database

_FILES = 8

_PLAIN = """
import io, sys
from pathlib import Path
import numpy as np, torch, uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from pulmofuse.inference import load_bundle
from pulmofuse.schema import Modality

bundle = load_bundle(Path(sys.argv[1]))
part = bundle.unimodal[Modality.CXR]
model, size = part.model.eval(), part.config.preprocessing.size
app = FastAPI()

@app.get("/ready")
def ready():
    return {}

@app.post("/predict")
def predict(cxr: UploadFile):
    image = Image.open(io.BytesIO(cxr.file.read())).convert("L").resize((size, size))
    x = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0)[None, None]
    with torch.no_grad():
        p = model((x - 0.5) / 0.5).softmax(dim=1)[0]
    return {name: float(value) for name, value in zip(bundle.classes, p)}

uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


@dataclass
class Result:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    without_retry_after: int = 0

    def figures(self) -> dict[str, Any]:
        """JSON values; times of answered predictions."""
        times = self.seconds or [float("nan")]
        return {
            "statuses": dict(self.statuses),
            "503_without_retry_after": self.without_retry_after,
            **{f"p{q}_ms": round(1000 * serving.percentile(times, q), 1) for q in (50, 90, 99)},
            "max_ms": round(1000 * max(times), 1),
        }


def ask(
    session: httpx.Client, path: str, field_: str, data: bytes, headers: Any, out: Result
) -> None:
    """One request, timed and counted."""
    begun = time.perf_counter()
    try:
        answer = session.post(path, files={field_: data}, headers=headers)
    except httpx.TransportError as error:
        out.statuses[type(error).__name__] += 1
        return
    if answer.status_code == 200:
        out.seconds.append(time.perf_counter() - begun)
    elif answer.status_code == 503 and "retry-after" not in answer.headers:
        out.without_retry_after += 1
    out.statuses[str(answer.status_code)] += 1


def many(url: str, headers: Any, files: list[bytes], clients: int, seconds: float) -> Result:
    """So many clients, each with one request after the other, for so long."""
    out, end = Result(), time.monotonic() + seconds

    def client(number: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as session:
            i = number
            while time.monotonic() < end:
                ask(session, "/v1/predict", "cxr", files[i % len(files)], headers, out)
                i += 1

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def one_at_a_time(ours: str, plain: str, headers: Any, files: list[bytes], n: int) -> Any:
    """Both services in turns, on the same files."""
    results = {"ours": Result(), "plain": Result()}
    with httpx.Client(base_url=ours) as a, httpx.Client(base_url=plain) as b:
        for i in range(n + 5):
            if i == 5:  # the first ones warm up
                results = {"ours": Result(), "plain": Result()}
            data = files[i % len(files)]
            ask(a, "/v1/predict", "cxr", data, headers, results["ours"])
            ask(b, "/predict", "cxr", data, {}, results["plain"])
    must_answer("one at a time", *results.values())
    found = {name: result.figures() for name, result in results.items()}
    ratio = found["plain"]["p50_ms"] / found["ours"]["p50_ms"]
    return {**found, "times_faster_p50": round(ratio, 2)}


def stages(url: str, headers: Any) -> dict[str, float]:
    """Mean milliseconds of each stage of our service, from its own metrics."""
    totals: dict[str, dict[str, float]] = {}
    for line in httpx.get(f"{url}/metrics", headers=headers).text.splitlines():
        if line.startswith(("pulmofuse_stage_seconds_sum", "pulmofuse_stage_seconds_count")):
            name, value = line.rsplit(" ", 1)
            stage = name.split('"')[1]
            totals.setdefault(stage, {})["sum" if "_sum" in name else "count"] = float(value)
    return {name: round(1000 * t["sum"] / t["count"], 2) for name, t in totals.items()}


def must_answer(part: str, *seen: Result) -> None:
    """End the benchmark where a request was not answered."""
    for result in seen:
        if set(result.statuses) - {"200"}:
            sys.exit(f"{part}: not every request was answered: {dict(result.statuses)}")


def main() -> None:
    """Run all three parts and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--singles", type=int, default=100)
    parser.add_argument("--pixels", type=int, default=1024, help="side of the X-rays")
    parser.add_argument("--bundle", type=Path, help="default: untrained networks")
    parser.add_argument("--files", type=Path, help="folder of X-rays; default: drawn ones")
    options = parser.parse_args()
    facts = machine.facts()
    if options.files is None:
        files = [serving.picture(seed, options.pixels) for seed in range(8)]
    else:
        files = [path.read_bytes() for path in sorted(options.files.iterdir())[:_FILES]]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        home = Path(folder)
        bundle = options.bundle or serving.make_bundle(home / "bundle")
        database = str(home / "trail.sqlite")
        trail = Trail(open_database(database))
        headers = {"X-API-Key": trail.add_key("load")}
        trail.close()
        free = ("--rate-per-minute", "1e6", "--burst", "100000")
        ours = running.enter_context(
            serving.Server.of_bundle(bundle, database, home / "log", *free)
        )
        port = serving.free_port()
        (home / "plain.py").write_text(_PLAIN)
        command = [sys.executable, str(home / "plain.py"), str(bundle), str(port)]
        plain = running.enter_context(serving.Server(command, home / "plain.log", port, "/ready"))

        found: dict[str, Any] = {"start_s": round(ours.start(), 2)}
        plain.start()
        found["one"] = one_at_a_time(ours.url, plain.url, headers, files, options.singles)
        found["one"]["our_stages_ms"] = stages(ours.url, headers)
        plain.kill()
        load = many(ours.url, headers, files, options.clients, options.seconds)
        must_answer("load", load)
        found["load"] = load.figures()
        found["load"]["per_s"] = round(len(load.seconds) / options.seconds, 1)
        found["load"]["peak_mib"] = round(ours.peak_mib())
        ours.stop()

        small = running.enter_context(
            serving.Server.of_bundle(bundle, database, home / "log", *free, "--max-in-flight", "4")
        )
        small.start()
        over = many(small.url, headers, files, 32, max(2.0, options.seconds / 6))
        after = many(small.url, headers, files, 1, 1.0)
        found["overload"] = {**over.figures(), "after": after.figures()["statuses"]}
        small.stop()
    given = options.bundle is not None or options.files is not None
    command = " ".join(["python benchmarks/service_load.py", *sys.argv[1:]])
    machine.write("service_load_real" if given else "service_load", command, found, facts)


if __name__ == "__main__":
    main()
