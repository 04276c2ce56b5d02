"""A PostgreSQL of the test's own: made, started and removed again, by a user who is not root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_USER = "nobody"
_START_S = 60


def binaries() -> Path | None:
    """The folder with initdb and postgres; None where there is none."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


@contextmanager
def cluster(bin_dir: Path) -> Iterator[str]:
    """The URL of a server that listens on a socket in its own folder and nowhere else."""
    # Not below pytest's folder, which only its owner may enter.
    home = Path(tempfile.mkdtemp(prefix="pulmofuse-pg-"))
    as_user = {"user": _USER} if os.getuid() == 0 else {}
    if as_user:
        shutil.chown(home, _USER)
    try:
        init = ["-D", home / "data", "-U", "pulmofuse", "--auth=trust", "--no-sync"]
        subprocess.run(
            [bin_dir / "initdb", *init, "--encoding=UTF8", "--locale=C"],
            check=True, capture_output=True, cwd=home, **as_user,
        )  # fmt: skip
        # Durable as in earnest (fsync stays on): killing it is part of the tests.
        server = subprocess.Popen(
            [bin_dir / "postgres", "-D", home / "data", "-k", home, "-c", "listen_addresses="],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home, **as_user,
        )  # fmt: skip
        try:
            _wait(home / ".s.PGSQL.5432", server)
            yield f"postgresql://pulmofuse@/postgres?host={home}"
        finally:
            server.send_signal(signal.SIGINT)  # SIGTERM would wait for clients to leave
            server.wait(timeout=_START_S)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait(socket: Path, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while not socket.exists():
        assert server.poll() is None, "postgres ended by itself"
        assert time.monotonic() < end, "postgres does not start"
        time.sleep(0.05)
    # The socket is there a moment before the server takes connections.
    import psycopg

    while True:
        try:
            psycopg.connect(host=str(socket.parent), user="pulmofuse", dbname="postgres").close()
        except psycopg.OperationalError:
            assert time.monotonic() < end, "postgres takes no connections"
            time.sleep(0.05)
        else:
            return
