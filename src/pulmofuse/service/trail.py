"""Keys and the audit trail, as the service reads and writes them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pulmofuse.errors import ServiceError
from pulmofuse.service.database import ApiKey, PredictionRow, UploadRow
from pulmofuse.service.keys import fits, key_id_of, make_key

_MAX_NAME = 100


@dataclass(frozen=True)
class KeyFacts:
    """What may be shown of a key."""

    key_id: str
    name: str
    created: datetime.datetime
    revoked: datetime.datetime | None


@dataclass(frozen=True)
class Upload:
    """What is kept of one file; `remarks` are JSON values."""

    modality: str
    sha256: str
    n_bytes: int
    used: bool
    remarks: Sequence[dict[str, str]] = ()


@dataclass(frozen=True)
class Entry:
    """One answered prediction; see `database.PredictionRow`."""

    prediction_id: str
    created: datetime.datetime
    key_id: str
    idempotency_key: str | None
    request_sha256: str
    bundle_sha256: str
    version: str
    subset: str
    method: str
    latency_ms: float
    answer: str
    uploads: Sequence[Upload]


@dataclass(frozen=True)
class Stored:
    """An answer that was given before, and the hash of the request that it was given to."""

    request_sha256: str
    answer: str


class Trail:
    """The database of one service; every method is one transaction, and may run in any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ping(self) -> None:
        """Ask the database for nothing.

        Raises:
            SQLAlchemyError: it does not answer.
        """
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add_key(self, name: str) -> str:
        """Make a key and return it; it cannot be shown again.

        Raises:
            ServiceError: no name, too long a one, or one that a valid key has.
        """
        shown = " ".join(name.split())
        if not 0 < len(shown) <= _MAX_NAME or not shown.isprintable():
            raise ServiceError(
                "key", f"a name has 1 to {_MAX_NAME} printable characters", "give another"
            )
        key = self._insert_key(shown)
        if key is None:
            raise ServiceError(
                f"key {shown!r}", "there is one of this name", "revoke it first, or choose another"
            )
        return key

    def _insert_key(self, name: str) -> str | None:
        """A new key; None where a valid one has the name."""
        new = make_key()
        row = ApiKey(id=new.key_id, name=name, sha256=new.sha256, created=_now())
        try:
            with Session(self._engine) as session, session.begin():
                session.add(row)
        except IntegrityError:
            return None
        return new.text

    def list_keys(self) -> list[KeyFacts]:
        """All keys that were ever made, the oldest first."""
        with Session(self._engine) as session:
            rows = session.scalars(select(ApiKey).order_by(ApiKey.created, ApiKey.id))
            return [KeyFacts(row.id, row.name, row.created, row.revoked) for row in rows]

    def revoke_key(self, which: str) -> KeyFacts:
        """Make a key invalid, by its name or its id; its predictions stay.

        Raises:
            ServiceError: there is no valid key of that name or id.
        """
        with Session(self._engine.execution_options(immediate=True)) as session, session.begin():
            row = session.scalar(
                select(ApiKey).where(
                    (ApiKey.name == which) | (ApiKey.id == which), ApiKey.revoked.is_(None)
                )
            )
            if row is None:
                raise ServiceError(
                    f"key {which!r}", "there is no valid key of this name or id",
                    "see `pulmofuse keys list`",
                )  # fmt: skip
            row.revoked = _now()
            return KeyFacts(row.id, row.name, row.created, row.revoked)

    def first_key(self, name: str) -> str | None:
        """A new key if there never was one, else None; another service may be making it too."""
        with Session(self._engine) as session:
            if session.scalar(select(func.count()).select_from(ApiKey)):
                return None
        return self._insert_key(name)

    def authenticate(self, sent: str) -> str | None:
        """The id of a valid key; None for anything else."""
        key_id = key_id_of(sent)
        if key_id is None:
            return None
        query = select(ApiKey.sha256).where(ApiKey.id == key_id, ApiKey.revoked.is_(None))
        with self._engine.connect() as connection:
            stored = connection.scalar(query)
        return key_id if stored is not None and fits(sent, stored) else None

    def answered(self, key_id: str, idempotency_key: str) -> Stored | None:
        """What this key was answered under that idempotency key."""
        query = select(PredictionRow.request_sha256, PredictionRow.answer).where(
            PredictionRow.key_id == key_id, PredictionRow.idempotency_key == idempotency_key
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else Stored(row.request_sha256, row.answer)

    def prediction(self, key_id: str, prediction_id: str) -> str | None:
        """The answer of a prediction of this key; None if it has none of this id."""
        query = select(PredictionRow.answer).where(
            PredictionRow.id == prediction_id, PredictionRow.key_id == key_id
        )
        with self._engine.connect() as connection:
            answer: str | None = connection.scalar(query)
        return answer

    def record(self, entry: Entry) -> Stored | None:
        """Commit a prediction to the disk.

        Returns:
            None once it is there; where the same idempotency key was faster, what that was
            answered, and nothing is written.

        Raises:
            SQLAlchemyError: it could not be written.
        """
        row = PredictionRow(
            id=entry.prediction_id,
            created=entry.created,
            key_id=entry.key_id,
            idempotency_key=entry.idempotency_key,
            request_sha256=entry.request_sha256,
            bundle_sha256=entry.bundle_sha256,
            version=entry.version,
            subset=entry.subset,
            method=entry.method,
            latency_ms=entry.latency_ms,
            answer=entry.answer,
        )
        uploads = [
            UploadRow(
                prediction_id=entry.prediction_id,
                modality=upload.modality,
                sha256=upload.sha256,
                n_bytes=upload.n_bytes,
                used=int(upload.used),
                remarks=json.dumps(list(upload.remarks)),
            )
            for upload in entry.uploads
        ]
        try:
            with Session(self._engine) as session, session.begin():
                session.add(row)
                session.flush()  # no relationship tells the order of the two tables
                session.add_all(uploads)
        except IntegrityError:
            if entry.idempotency_key is None:
                raise
            before = self.answered(entry.key_id, entry.idempotency_key)
            if before is None:
                raise
            return before
        return None


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
