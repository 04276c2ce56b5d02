"""Kill the service under load, again and again: does the audit trail keep what was answered?

    python benchmarks/service_kill.py [--rounds 20] [--clients 8] [--database URL]

Every answer that a client received whole must be in the trail exactly once, word for word. Requests
that got no answer are sent again with their idempotency key, and must then be there once as well.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import serving
from sqlalchemy import text

from pulmofuse.service import Trail, open_database


@dataclass
class Seen:
    """What the clients saw: idempotency key -> answer, and keys without one."""

    answers: dict[str, str] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)


def client(url: str, key: str, data: bytes, seen: Seen, over: threading.Event) -> None:
    """Send one request after the other until it is over or the server is gone."""
    with httpx.Client(base_url=url, timeout=30) as session:
        while not over.is_set():
            mine = uuid.uuid4().hex
            try:
                answer = send(session, key, data, mine)
            except httpx.TransportError:
                seen.unanswered.append(mine)
                return
            if answer.status_code == 200:
                seen.answers[mine] = answer.text
            else:
                seen.refused[answer.status_code] += 1


def send(session: httpx.Client, key: str, data: bytes, idempotency_key: str) -> httpx.Response:
    """One prediction."""
    headers = {"X-API-Key": key, "Idempotency-Key": idempotency_key}
    return session.post("/v1/predict", files={"cxr": data}, headers=headers)


def run(
    bundle: Path,
    database: str,
    log: Path,
    rounds: int,
    clients: int,
    data: bytes,
    by: serving.Spawn = serving.spawn,
) -> Any:
    """Kill and restart; the findings, of which `missing`, `twice` and `different` must be 0."""
    trail = Trail(open_database(database))
    key = trail.add_key("benchmark")
    seen, restarts, random_ = Seen(), [], random.Random(0)  # noqa: S311
    server = serving.Server.of_bundle(
        bundle, database, log, "--rate-per-minute", "1e6", "--burst", "100000", by=by
    )
    with server:
        for _ in range(rounds):
            restarts.append(server.start())
            over = threading.Event()
            threads = [
                threading.Thread(target=client, args=(server.url, key, data, seen, over))
                for _ in range(clients)
            ]
            for thread in threads:
                thread.start()
            time.sleep(random_.uniform(0.5, 2.0))
            server.kill()
            over.set()
            for thread in threads:
                thread.join()
        restarts.append(server.start())
        before = len(seen.answers)
        with httpx.Client(base_url=server.url, timeout=60) as session:
            for mine in seen.unanswered:
                answer = send(session, key, data, mine)
                answer.raise_for_status()
                seen.answers[mine] = answer.text
        exit_code = server.stop()
    trail.close()
    return {
        "rounds": rounds, "answered": before, "sent_again": len(seen.unanswered),
        "refused": dict(seen.refused), **compare(database, key, seen),
        "restart_s_max": round(max(restarts), 2), "exit_code": exit_code,
    }  # fmt: skip


def compare(database: str, key: str, seen: Seen) -> dict[str, int]:
    """The clients' answers against the rows."""
    engine = open_database(database)
    query = text("SELECT idempotency_key, answer FROM predictions WHERE key_id = :key")
    with engine.connect() as connection:
        rows = connection.execute(query, {"key": key.split("_")[1]}).all()
    engine.dispose()
    counts, stored = Counter(row[0] for row in rows), {row[0]: row[1] for row in rows}
    return {
        "rows": len(rows),
        "missing": sum(counts[mine] == 0 for mine in seen.answers),
        "twice": sum(n > 1 for n in counts.values()),
        "different": sum(stored.get(m, answer) != answer for m, answer in seen.answers.items()),
    }


def main() -> None:
    """Run it and write the result."""
    import machine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--database", help="default: an SQLite file of its own")
    options = parser.parse_args()
    facts = machine.facts()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        found = run(
            serving.make_bundle(home / "bundle"), options.database or str(home / "trail.sqlite"),
            home / "log", options.rounds, options.clients, serving.picture(0, 256),
        )  # fmt: skip
    machine.write("service_kill", "python benchmarks/service_kill.py", found, facts)
    if found["missing"] or found["twice"] or found["different"]:
        sys.exit("the audit trail and the clients disagree")


if __name__ == "__main__":
    main()
