"""The service as a process: started, killed under load, ended gracefully, sent raw bytes."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import given, settings
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from pulmofuse.cli import app
from pulmofuse.errors import PulmofuseError
from pulmofuse.service import ServiceSettings, Trail
from tests.service import material

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RUNNER = CliRunner()


def load(name: str) -> ModuleType:
    """A module of the benchmarks."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Forked:
    """A process that the zygote forked, with the methods of `subprocess.Popen`."""

    def __init__(self, ask: Callable[[dict[str, Any]], Any], pid: int) -> None:
        self._ask, self.pid = ask, pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._ask({"poll": self.pid})
        return self._code

    def wait(self, timeout: float) -> int:
        if self._code is None:
            self._code = int(self._ask({"wait": self.pid}))
        return self._code


Spawn = Callable[[list[str], Path], Forked]


@pytest.fixture(scope="module")
def spawn() -> Iterator[Spawn]:
    """Starts `pulmofuse` quickly; see `zygote`."""
    command = [sys.executable, "-m", "tests.service.zygote"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=BENCHMARKS.parent
    ) as zygote:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        stdin, stdout = zygote.stdin, zygote.stdout

        def ask(question: dict[str, Any]) -> Any:
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
            return json.loads(stdout.readline())

        def start(command: list[str], log: Path) -> Forked:
            words = command[command.index("pulmofuse") + 1 :]
            return Forked(ask, ask({"start": words, "log": str(log)}))

        yield start
        stdin.close()


@pytest.fixture(scope="module")
def running(
    bundle: Path, spawn: Spawn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """URL and first key of a server that was started on an empty database."""
    home = tmp_path_factory.mktemp("running")
    server = load("serving").Server.of_bundle(
        bundle, str(home / "trail.sqlite"), home / "log", "--burst", "1000", by=spawn
    )
    server.start()
    keys = re.findall(r"pf_[0-9a-f]{12}_[\w-]{43}", server.log.read_text())
    # By itself, and in the address of the page.
    assert len(keys) == 2
    key = sorted(set(keys))
    assert len(key) == 1
    yield server.url, key[0]

    # Graceful end: a request that is half sent when SIGTERM comes is answered all the same.
    body = b'--b\r\nContent-Disposition: form-data; name="cxr"; filename="x"\r\n\r\n'
    body += material.cxr() + b"\r\n--b--\r\n"
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {key[0]}\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:100])
        httpx.get(server.url + "/healthz")  # the half has been taken in by now
        server.ask_to_stop()
        connection.sendall(body[100:])
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert server.wait() == 0
    assert key[0] not in "".join(server.log.read_text().splitlines()[2:])
    for line in server.log.read_text().splitlines()[3:]:
        assert {"time", "level", "event"} <= set(json.loads(line))


def test_it_listens_on_loopback_and_answers_whoever_has_the_first_key(
    running: tuple[str, str],
) -> None:
    url, key = running
    assert httpx.get(url + "/v1/model").status_code == 401
    answer = httpx.post(
        url + "/v1/predict", files={"cough": material.cough()}, headers={"X-API-Key": key}
    )
    assert answer.json()["subset"] == "cough"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde", 401),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /%2e%2e/%00 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ],
    ids=["long", "many", "tls", "negative", "keyless", "path", "encoded"],
)
def test_raw_bytes_are_refused(running: tuple[str, str], raw: bytes, status: int) -> None:
    port = int(running[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65_536)
    assert int(answer.split()[1]) == status
    assert b"Traceback" not in answer


def test_a_body_shorter_than_it_declares_is_not_waited_for(running: tuple[str, str]) -> None:
    port = int(running[0].rpartition(":")[2])
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {running[1]}\r\n"
        "Content-Length: 900\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode())
    # A slot that is not given back would keep the figure at one for good.
    for _ in range(200):
        figures = httpx.get(running[0] + "/metrics", headers={"X-API-Key": running[1]}).text
        if "pulmofuse_predictions_in_flight 0.0" in figures:
            break
        time.sleep(0.02)
    assert "pulmofuse_predictions_in_flight 0.0" in figures
    assert "pulmofuse_buffered_bytes 0.0" in figures


def test_the_api_keeps_to_its_description(running: tuple[str, str]) -> None:
    """`benchmarks/api_fuzz.py` tries hundreds, and says why two checks are left out."""
    url, key = running
    auth = {"X-API-Key": key}
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=auth)
    known = schemathesis.checks
    left_out = [known.positive_data_acceptance, known.ignored_auth]
    tried = 0
    for found in schema.get_all_operations():

        @settings(max_examples=6, deadline=None, derandomize=True, database=None)
        @given(case=found.ok().as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=auth, excluded_checks=left_out)

        check()
        tried += 1
    assert tried == 6


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_what_was_answered_survives_kill_9(
    bundle: Path, spawn: Spawn, tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    where = str(tmp_path / "trail.sqlite")
    if database == "postgresql":
        where = request.getfixturevalue("postgres_url")
    found = load("service_kill").run(
        bundle, where, tmp_path / "log", rounds=2, clients=6, data=material.cxr(), by=spawn
    )
    assert found["answered"] > 0
    assert found["missing"] == found["twice"] == found["different"] == 0
    assert found["rows"] >= found["answered"] + found["sent_again"]
    assert found["exit_code"] == 0


class TestCommands:
    def test_keys_are_added_listed_and_revoked(self, tmp_path: Path) -> None:
        where = ["--database", str(tmp_path / "t.sqlite")]
        made = RUNNER.invoke(app, ["keys", "add", "Ada", "--create", *where])
        added = made.stdout.strip()
        assert "t.sqlite" in made.stderr
        assert re.fullmatch(r"pf_[0-9a-f]{12}_[\w-]{43}", added)
        shown = RUNNER.invoke(app, ["keys", "list", *where]).output
        assert "Ada" in shown
        assert added.split("_")[1] in shown
        assert added not in shown
        assert "revoked Ada" in RUNNER.invoke(app, ["keys", "revoke", "Ada", *where]).output
        again = RUNNER.invoke(app, ["keys", "revoke", "Ada", *where])
        assert isinstance(again.exception, PulmofuseError)

    def test_the_database_may_come_from_the_environment(self, tmp_path: Path) -> None:
        env = {"PULMOFUSE_DATABASE": str(tmp_path / "e.sqlite")}
        assert RUNNER.invoke(app, ["keys", "add", "a", "--create"], env=env).exit_code == 0
        assert (tmp_path / "e.sqlite").exists()

    @pytest.mark.parametrize("words", [["add", "a"], ["list"], ["revoke", "a"]])
    def test_a_wrong_path_is_refused_and_makes_nothing(
        self, tmp_path: Path, words: list[str]
    ) -> None:
        where = tmp_path / "typo.sqlite"
        result = RUNNER.invoke(app, ["keys", *words, "--database", str(where)])
        assert isinstance(result.exception, PulmofuseError)
        assert "--create" in result.exception.remedy
        assert not where.exists()

    def test_a_database_that_fails_is_told_as_such(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def locked(*_: object) -> None:
            raise OperationalError("", {}, Exception("database is locked"))

        where = ["--database", str(tmp_path / "t.sqlite")]
        RUNNER.invoke(app, ["keys", "add", "Ada", "--create", *where])
        monkeypatch.setattr(Trail, "revoke_key", locked)
        failed = RUNNER.invoke(app, ["keys", "revoke", "Ada", *where])
        assert isinstance(failed.exception, PulmofuseError)
        assert "locked" in failed.exception.why

    @pytest.mark.parametrize("gate", ["refuse", "warn", "off"])
    def test_the_gate_may_be_set(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str
    ) -> None:
        seen: list[ServiceSettings] = []
        monkeypatch.setattr("pulmofuse.service.serve", lambda *given: seen.append(given[4]))
        RUNNER.invoke(app, ["serve", str(tmp_path), "--gate", gate])
        assert [settings.gate for settings in seen] == [gate]

    def test_a_gate_that_is_none_is_refused(self, tmp_path: Path) -> None:
        assert RUNNER.invoke(app, ["serve", str(tmp_path), "--gate", "open"]).exit_code == 2

    def test_a_folder_that_is_no_bundle_is_refused_before_anything_is_made(
        self, tmp_path: Path
    ) -> None:
        where = tmp_path / "t.sqlite"
        result = RUNNER.invoke(app, ["serve", str(tmp_path), "--database", str(where)])
        assert isinstance(result.exception, PulmofuseError)
        assert not where.exists()

    @pytest.mark.parametrize("words", [["serve", "--help"], ["keys", "--help"]])
    def test_help(self, words: list[str]) -> None:
        assert "Usage" in RUNNER.invoke(app, words).output


def test_hostile_uploads_are_refused_and_the_service_lives(
    bundle: Path, spawn: Spawn, tmp_path: Path
) -> None:
    """Two hundred of them; `benchmarks/hostile_uploads.py` sends thousands and looks at memory."""
    found = load("hostile_uploads").run(bundle, tmp_path, 200, seed=1, by=spawn)
    assert found["bad"] == []
    assert found["sent"] == 200
    assert (found["ready_after"], found["exit_code"]) == (200, 0)
    log = (tmp_path / "hostile.log").read_text()
    assert "Traceback" not in log
    assert "Miller" not in log
    assert "unexpected error" not in log
