"""The tables of the service, and how a database is opened and brought up to date.

    api_keys      who may ask: the hash of a key, never the key
    predictions   what was answered, word for word, to whom and when
    uploads       of which content: SHA-256 and size; never the content, never a file name

SQLite by default, PostgreSQL by URL. Both commit to the disk before a commit returns (SQLite:
write-ahead log with synchronous=FULL; PostgreSQL: synchronous_commit, on by default).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Connection,
    DateTime,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pulmofuse.errors import ServiceError

#: How long a writer waits for another one, s.
_BUSY_S = 10
#: How long a connection of the pool is waited for, s.
_POOL_S = 5
#: When a silent PostgreSQL is given up (names of libpq); a URL may say otherwise.
_PATIENCE = {
    "connect_timeout": "5",  # s
    "tcp_user_timeout": "10000",  # ms
    "options": "-c statement_timeout=10000",  # ms
}
#: Any number: the lock of PostgreSQL that whoever migrates holds.
_MIGRATION_LOCK = 0x70756C6D


class Base(DeclarativeBase):
    """All tables; constraints have names, so that a later migration can change them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
        }
    )


class ApiKey(Base):
    """A key that was given out; a name has one valid key."""

    __tablename__ = "api_keys"
    __table_args__ = (
        Index(
            "uq_api_keys_name", "name", unique=True,
            sqlite_where=text("revoked IS NULL"), postgresql_where=text("revoked IS NULL"),
        ),
    )  # fmt: skip

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime.datetime] = mapped_column(DateTime(timezone=True))
    revoked: Mapped[datetime.datetime | None] = mapped_column(DateTime(timezone=True))


class PredictionRow(Base):
    """A prediction that was answered; `answer` is the JSON text that was sent."""

    __tablename__ = "predictions"
    __table_args__ = (UniqueConstraint("key_id", "idempotency_key"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created: Mapped[datetime.datetime] = mapped_column(DateTime(timezone=True), index=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    request_sha256: Mapped[str] = mapped_column(String(64))
    bundle_sha256: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(40))
    subset: Mapped[str] = mapped_column(String(20))
    method: Mapped[str] = mapped_column(String(40))
    latency_ms: Mapped[float] = mapped_column(Float)
    answer: Mapped[str] = mapped_column(Text)


class UploadRow(Base):
    """One file of a prediction; `remarks` is JSON text; `used` is 0 if it was left out."""

    __tablename__ = "uploads"

    prediction_id: Mapped[str] = mapped_column(ForeignKey("predictions.id"), primary_key=True)
    modality: Mapped[str] = mapped_column(String(10), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    n_bytes: Mapped[int] = mapped_column(Integer)
    used: Mapped[int] = mapped_column(Integer)
    remarks: Mapped[str] = mapped_column(Text)


def open_database(where: str) -> Engine:
    """Connect, and bring the tables up to date under a lock.

    Args:
        where: a path (SQLite), or a URL of SQLite or PostgreSQL.

    Raises:
        ServiceError: no such database, no way to it, or made by a newer program.
    """
    url = database_url(where)
    engine = _engine(url)
    try:
        with _migrating(engine, url) as connection:
            _upgrade(connection, url)
    except SQLAlchemyError as error:
        engine.dispose()
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ServiceError(
            _shown(url), f"cannot be used ({cause})", "check that it runs, its name and the rights"
        ) from None
    return engine


def database_url(where: str) -> URL:
    """The URL that a user means: a path is SQLite; PostgreSQL is spoken to by psycopg.

    Raises:
        ServiceError: neither.
    """
    if "://" not in where:
        return URL.create("sqlite", database=where)
    try:
        url = make_url(where)
    except ArgumentError:
        raise ServiceError(
            "database", "its URL cannot be read", "give a path, or postgresql://USER@HOST/NAME"
        ) from None
    if url.drivername in {"postgres", "postgresql"}:
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ServiceError(
            "database", f"{url.get_backend_name()} is not known here", "use SQLite or PostgreSQL"
        )
    return url


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        try:
            return create_engine(
                url, pool_pre_ping=True, pool_size=8, max_overflow=8, pool_timeout=_POOL_S,
                connect_args={k: v for k, v in _PATIENCE.items() if k not in url.query},
            )  # fmt: skip
        except ModuleNotFoundError as error:
            raise ServiceError(
                _shown(url), f"needs {error.name}", "pip install 'pulmofuse[postgresql]'"
            ) from None
    if not url.database or url.database == ":memory:":
        raise ServiceError("database", "an audit trail in memory is lost", "give a path")
    _make_private(Path(url.database))
    engine = create_engine(url, connect_args={"timeout": _BUSY_S}, pool_size=8, max_overflow=32)

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, _record: object) -> None:
        # Python's sqlite3 would begin transactions by itself, and none around CREATE TABLE.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # Who reads and then writes must have the lock from the beginning, or may lose it between.
        immediate = connection.get_execution_options().get("immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _make_private(path: Path) -> None:
    """Make the file before SQLite does, so that only its owner can read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise ServiceError(
            path, f"cannot be written ({error.strerror})", "choose another --database"
        ) from None


@contextmanager
def _migrating(engine: Engine, url: URL) -> Iterator[Connection]:
    """A connection whose holder alone migrates; others wait."""
    if url.get_backend_name() == "sqlite":
        import fcntl  # POSIX only, as `files.exclusive`

        with Path(f"{url.database}.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with engine.begin() as connection:
                yield connection
        return
    with engine.begin() as connection:
        # Another may migrate a large trail meanwhile. Both end with the transaction.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _MIGRATION_LOCK})
        yield connection


def _upgrade(connection: Connection, url: URL) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise ServiceError(
            _shown(url), f"was made by a newer Pulmofuse (revision {current})", "update Pulmofuse"
        )
    alembic.command.upgrade(config, "head")


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)
