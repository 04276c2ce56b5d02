"""The audit trail and the keys, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import socket
import stat
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, func, select, text
from starlette.testclient import TestClient

from pulmofuse.errors import ServiceError
from pulmofuse.inference import Predictor
from pulmofuse.service import ServiceSettings, Trail, create_app, open_database
from pulmofuse.service.database import Base, PredictionRow, database_url
from pulmofuse.service.trail import Entry, Upload
from tests.service import material
from tests.service.conftest import Serve, Served


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "deep" / "trail.sqlite")
    import psycopg

    url: str = request.getfixturevalue("postgres_url")
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?")


@pytest.fixture
def engine(where: str) -> Iterator[Engine]:
    engine = open_database(where)
    yield engine
    engine.dispose()


@pytest.fixture
def trail(engine: Engine) -> Trail:
    return Trail(engine)


def entry(key_id: str, idempotency_key: str | None = None, request: str = "a") -> Entry:
    number = uuid.uuid4().hex
    uploads = [
        Upload("cxr", "c" * 64, 1000, True, [{"code": "lateral"}]),
        Upload("ct", "d" * 64, 9, False),
    ]
    return Entry(
        number, datetime.datetime.now(datetime.UTC), key_id, idempotency_key, request * 64,
        "b" * 64, "1.0", "cxr", "unimodal", 12.5, f'{{"id": "{number}"}}',
        uploads,
    )  # fmt: skip


def key_of(trail: Trail, name: str = "a") -> str:
    key_id = trail.authenticate(trail.add_key(name))
    assert key_id is not None
    return key_id


class TestDatabase:
    def test_migrations_make_what_the_code_declares(self, engine: Engine) -> None:
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []

    def test_keys_of_one_name_that_an_older_program_let_be_get_names_of_their_own(
        self, where: str, engine: Engine
    ) -> None:
        with engine.begin() as connection:
            connection.execute(text("DROP INDEX uq_api_keys_name"))
            connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
            for key_id, revoked in (("a" * 12, None), ("b" * 12, None), ("c" * 12, "2026-01-01")):
                connection.execute(
                    text("INSERT INTO api_keys VALUES (:id, 'Ada', 'x', '2026-01-01', :revoked)"),
                    {"id": key_id, "revoked": revoked},
                )
        again = open_database(where)
        with again.connect() as connection:
            names = connection.execute(text("SELECT name FROM api_keys ORDER BY id")).scalars()
            assert names.all() == ["Ada", f"Ada {'b' * 12}", "Ada"]
        again.dispose()

    def test_many_may_start_at_once_and_again(self, where: str) -> None:
        with ThreadPoolExecutor(4) as pool:
            for engine in pool.map(open_database, [where] * 4):
                Trail(engine).ping()
                engine.dispose()

    def test_a_database_of_a_newer_program_is_refused(self, where: str, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(ServiceError, match="newer"):
            open_database(where)

    def test_sqlite_is_durable_and_private(self, tmp_path: Path) -> None:
        path = tmp_path / "trail.sqlite"
        engine = open_database(str(path))
        with engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
        engine.dispose()
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2: FULL
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        "where",
        [
            "mysql://root@localhost/x", "postgresql://", "sqlite://", "://", "/proc/nowhere/x",
            "postgresql://me:secret@127.0.0.1:1/x",
        ],
    )  # fmt: skip
    def test_what_cannot_be_used_says_so_without_the_password(self, where: str) -> None:
        with pytest.raises(ServiceError) as caught:
            open_database(where)
        assert "secret" not in str(caught.value)
        assert caught.value.remedy

    def test_a_server_that_takes_connections_and_says_nothing_is_given_up(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with pytest.raises(ServiceError, match="timeout"):
                open_database(f"postgresql://me@127.0.0.1:{port}/x?connect_timeout=2")

    def test_a_server_that_works_too_long_is_interrupted(self, postgres_url: str) -> None:
        engine = open_database(postgres_url)
        with engine.connect() as connection:
            longest = connection.exec_driver_sql("SHOW statement_timeout").scalar()
        engine.dispose()
        assert longest == "10s"

    def test_a_path_is_sqlite_and_postgres_is_spoken_to_by_psycopg(self) -> None:
        assert database_url("a b/c.sqlite").database == "a b/c.sqlite"
        assert database_url("postgres://u@h/n").drivername == "postgresql+psycopg"


class TestKeys:
    def test_life_of_a_key(self, trail: Trail) -> None:
        text = trail.add_key(" Ada  Lovelace ")
        (facts,) = trail.list_keys()
        assert (facts.name, facts.revoked) == ("Ada Lovelace", None)
        assert trail.authenticate(text) == facts.key_id
        assert trail.revoke_key(facts.key_id).revoked is not None
        assert trail.authenticate(text) is None
        assert trail.add_key("Ada Lovelace") != text  # the name is free again

    def test_keys_are_long_random_and_different(self, trail: Trail) -> None:
        keys = {trail.add_key(str(i)) for i in range(20)}
        assert len(keys) == 20
        assert all(re.fullmatch(r"pf_[0-9a-f]{12}_[\w-]{43}", key) for key in keys)

    def test_stored_is_the_sha256(self, trail: Trail, engine: Engine) -> None:
        key = trail.add_key("a")
        with engine.connect() as connection:
            stored = connection.execute(text("SELECT sha256 FROM api_keys")).scalar()
        assert stored == hashlib.sha256(key.encode()).hexdigest()

    @pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\x00b", "bell\x07"])
    def test_strange_names_are_refused(self, trail: Trail, name: str) -> None:
        with pytest.raises(ServiceError):
            trail.add_key(name)

    def test_one_name_one_valid_key(self, trail: Trail) -> None:
        trail.add_key("a")
        with pytest.raises(ServiceError, match="of this name"):
            trail.add_key("a")
        with pytest.raises(ServiceError, match="no valid key"):
            trail.revoke_key("b")

    def test_one_name_one_valid_key_however_many_ask_at_once(self, trail: Trail) -> None:
        def add(_: int) -> str | None:
            try:
                return trail.add_key("a")
            except ServiceError:
                return None

        with ThreadPoolExecutor(8) as pool:
            made = [key for key in pool.map(add, range(8)) if key is not None]
        assert len(made) == len(trail.list_keys()) == 1

    def test_one_of_many_services_that_start_at_once_makes_the_first_key(
        self, where: str, trail: Trail
    ) -> None:
        trails = [Trail(open_database(where)) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda one: one.first_key("first"), trails))
        for one in trails:
            one.close()
        assert sum(key is not None for key in made) == len(trail.list_keys()) == 1

    def test_keys_are_revoked_while_others_write(self, trail: Trail) -> None:
        names = [str(i) for i in range(40)]
        for name in names:
            trail.add_key(name)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(trail.revoke_key, names))
        assert all(facts.revoked is not None for facts in trail.list_keys())

    def test_the_first_key_is_made_once(self, trail: Trail) -> None:
        first = trail.first_key("first")
        assert first is not None
        assert trail.first_key("first") is None
        trail.revoke_key("first")
        assert trail.first_key("first") is None  # or a restart would undo a revocation


class TestRecord:
    def test_is_found_again_by_its_own_key_only(self, trail: Trail) -> None:
        mine, other = key_of(trail, "a"), key_of(trail, "b")
        one = entry(mine)
        assert trail.record(one) is None
        assert trail.prediction(mine, one.prediction_id) == one.answer
        assert trail.prediction(other, one.prediction_id) is None

    def test_an_idempotency_key_has_one_row_however_many_ask_at_once(
        self, trail: Trail, engine: Engine
    ) -> None:
        key_id = key_of(trail)
        entries = [entry(key_id, "once") for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(trail.record, entries))

        (winner,) = [e for e, r in zip(entries, results, strict=True) if r is None]
        assert {r.answer for r in results if r is not None} == {winner.answer}
        assert count(engine, "predictions") == 1
        assert count(engine, "uploads") == 2

    def test_idempotency_keys_of_two_api_keys_do_not_meet(self, trail: Trail) -> None:
        one, other = key_of(trail, "a"), key_of(trail, "b")
        assert trail.record(entry(one, "same")) is None
        assert trail.record(entry(other, "same")) is None
        assert trail.record(entry(one)) is None
        assert trail.record(entry(one)) is None  # without one, every request is its own

    def test_a_row_that_breaks_the_rules_is_an_error_and_leaves_nothing(
        self, trail: Trail, engine: Engine
    ) -> None:
        from sqlalchemy.exc import IntegrityError

        key_id = key_of(trail)
        twice = entry(key_id)
        with pytest.raises(IntegrityError):
            trail.record(replace(twice, uploads=[*twice.uploads, twice.uploads[0]]))
        with pytest.raises(IntegrityError):
            trail.record(entry("0" * 12))
        assert count(engine, "predictions") == count(engine, "uploads") == 0


class TestService:
    def test_the_row_holds_what_was_answered_and_nothing_of_the_file(
        self, predictor: Predictor, engine: Engine, trail: Trail
    ) -> None:
        key = {"X-API-Key": trail.add_key("a")}
        data, settings = material.cxr(), ServiceSettings(workers=1, torch_threads=1)
        with TestClient(create_app(predictor, "f" * 64, trail, settings)) as client:
            files = {"cxr": ("Miller_John.png", data), "ct": ("Miller.png", b"left out")}
            answer = client.post(
                "/v1/predict", files=files, data={"leave_out": "ct"}, headers=key
            ).json()

        with engine.connect() as connection:
            row = connection.execute(text("SELECT * FROM predictions")).mappings().one()
            uploads = connection.execute(
                text("SELECT * FROM uploads ORDER BY modality")
            ).mappings().all()  # fmt: skip
        assert json.loads(row["answer"]) == answer
        assert (row["id"], row["bundle_sha256"], row["subset"]) == (answer["id"], "f" * 64, "cxr")
        assert [(u["modality"], u["sha256"], u["n_bytes"], u["used"]) for u in uploads] == [
            ("ct", hashlib.sha256(b"left out").hexdigest(), 8, 0),
            ("cxr", hashlib.sha256(data).hexdigest(), len(data), 1),
        ]
        assert "Miller" not in str(row) + str(uploads)

    def test_refused_requests_leave_no_row(self, served: Served) -> None:
        served.predict({"cxr": b"nonsense"})
        assert rows(served) == 0

    def test_repeated_requests_are_answered_alike_and_recorded_once(self, served: Served) -> None:
        once = {"Idempotency-Key": "4711"}
        with ThreadPoolExecutor(4) as pool:
            answers = list(
                pool.map(lambda _: served.predict({"cxr": material.cxr()}, headers=once), range(4))
            )
        assert len({answer.text for answer in answers}) == 1
        assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
        assert rows(served) == 1

    def test_one_idempotency_key_for_two_requests_is_refused(self, served: Served) -> None:
        once = {"Idempotency-Key": "4711"}
        served.predict({"cxr": material.cxr(0)}, headers=once)
        for files, data in (
            ({"cxr": material.cxr(1)}, {}),
            ({"cxr": material.cxr(0)}, {"prevalence": "0.2"}),
        ):
            refused = served.predict(files, data=data, headers=once)
            assert refused.status_code == 422
            assert "Idempotency-Key" in refused.json()["detail"]
        assert rows(served) == 1

    @pytest.mark.parametrize("key", ["", "x" * 256, "é".encode()])
    def test_strange_idempotency_keys_are_refused(self, served: Served, key: Any) -> None:
        refused = served.predict({"cxr": material.cxr()}, headers={"Idempotency-Key": key})
        assert refused.status_code == 422

    def test_the_log_has_no_hash_name_or_content(
        self, serve: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = material.cxr()
        served = serve()
        with caplog.at_level("INFO", "pulmofuse.service"):
            served.predict({"cxr": ("Miller.png", data)})
        lines = [record.fields for record in caplog.records if hasattr(record, "fields")]
        assert [line.get("route", line.get("subset")) for line in lines] == ["cxr", "/v1/predict"]
        text = json.dumps(lines)
        assert "Miller" not in text
        assert hashlib.sha256(data).hexdigest() not in text
        assert served.key not in text
        engine = open_database(str(served.database))
        with engine.connect() as connection:
            stored = connection.scalar(select(PredictionRow.request_sha256))
        engine.dispose()
        assert stored is not None
        assert stored not in text


def count(engine: Engine, table: str) -> int:
    query = select(func.count()).select_from(Base.metadata.tables[table])
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def rows(served: Served) -> int:
    engine = open_database(str(served.database))
    try:
        return count(engine, "predictions")
    finally:
        engine.dispose()
