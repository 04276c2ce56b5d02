"""From a form to an answer: prepared in threads, batched through the network, committed, sent."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from anyio import to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from pulmofuse import __version__
from pulmofuse.errors import PulmofuseError, UnreadableFile
from pulmofuse.files import sha256_json
from pulmofuse.inference import DEFAULT_METHOD, GateRemark, Predictor, refusal
from pulmofuse.io import Bounds, bounded
from pulmofuse.io.kinds import look
from pulmofuse.models import Inferred
from pulmofuse.preprocessing import Prepared
from pulmofuse.schema import Modality
from pulmofuse.service import logs
from pulmofuse.service.asking import (
    Asked,
    checked_idempotency_key,
    invalid,
    modality_of,
    share_of,
    truth_of,
)
from pulmofuse.service.batching import MicroBatcher
from pulmofuse.service.forms import Form, read_form
from pulmofuse.service.limits import Admission, Buffered
from pulmofuse.service.metrics import Metrics
from pulmofuse.service.problems import ProblemError, from_error
from pulmofuse.service.settings import ServiceSettings
from pulmofuse.service.trail import Entry, Trail, Upload

#: Explains an answer: predictor, files that were used, the answer as JSON values -> JSON values.
Explain = Callable[[Predictor, Mapping[Modality, Prepared], Mapping[str, Any]], Any]
#: A file prepared, and what its network says.
_Looked = tuple[Prepared, Inferred]


_T = TypeVar("_T")

#: Longer than `database` waits for a connection and a statement, s.
_DATABASE_S = 15.0


@dataclass(frozen=True)
class Answered:
    """The answer as JSON text, and whether it is one that was given before."""

    text: str
    replayed: bool


@dataclass
class _Progress:
    """How far a request has come.

    Attributes:
        over: set when nobody waits any more.
        committed: the answer, once it is in the trail and lacks only its explanations.
    """

    over: threading.Event = field(default_factory=threading.Event)
    committed: Answered | None = None


class Answerer:
    """Answers prediction requests for one bundle.

    Args:
        predictor: the models.
        bundle_sha256: which bundle that is.
        trail: where answers are committed before they leave.
        settings: the limits.
        metrics: told what happens.
        explain: makes explanations; None where there are none to be had.
    """

    def __init__(
        self,
        predictor: Predictor,
        bundle_sha256: str,
        trail: Trail,
        settings: ServiceSettings,
        metrics: Metrics,
        explain: Explain | None = None,
    ) -> None:
        self.predictor, self.bundle_sha256 = predictor, bundle_sha256
        self.trail, self.settings, self.metrics = trail, settings, metrics
        self.can_explain = explain is not None
        self._explain = explain
        self._admission = Admission(settings.max_in_flight)
        self._buffered = Buffered(settings.max_buffered_bytes)
        metrics.in_flight.set_function(lambda: self._admission.in_flight)
        metrics.buffered.set_function(lambda: self._buffered.held)
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="prepare")
        # One at a time: going backwards through a network takes some hundred megabytes.
        self._explaining = threading.Lock()
        self._one_large_file = threading.Lock()
        self._batcher = MicroBatcher(
            self._infer, settings.batch_window_s, settings.max_batch, metrics.batches.observe
        )

    def start(self) -> None:
        """Begin; inside a running event loop."""
        self._batcher.start()

    @property
    def runs(self) -> bool:
        """Whether the networks take files."""
        return self._batcher.runs

    async def stop(self) -> None:
        """End, when what is in work is done."""
        await run_in_threadpool(self._threads.shutdown)
        await self._batcher.stop()

    async def handle(self, request: Request, key_id: str) -> Answered:
        """Read a request and answer it.

        The slot and the memory of a request are held until its work has ended, even where the
        time is over and nobody waits: a thread cannot be stopped, only waited for.

        Raises:
            ProblemError: it is refused.
        """
        held = contextlib.ExitStack()
        with contextlib.ExitStack() as reading:
            self._admission.enter()
            reading.callback(self._admission.leave)
            reserve = reading.enter_context(self._buffered.reservation())
            form = await read_form(request, self.settings, reserve)
            asked = self._understand(form, request.headers.get("idempotency-key"))
            held = reading.pop_all()
        progress = _Progress()
        work = asyncio.get_running_loop().create_task(self._answer(asked, key_id, progress))
        work.add_done_callback(lambda _: held.close())
        done, _ = await asyncio.wait({work}, timeout=self.settings.predict_timeout_s)
        if not done:
            progress.over.set()
            work.add_done_callback(_forget)
            if progress.committed is None:
                raise _out_of_time(self.settings.predict_timeout_s)
            late = "was not explained in time", "send it again when less is asked"
            return replace(
                progress.committed, text=_unexplained(json.loads(progress.committed.text), *late)
            )
        return work.result()

    def _understand(self, form: Form, idempotency_key: str | None) -> Asked:
        """The request behind a form.

        Raises:
            ProblemError: 422; a field is not what it must be, or the bundle cannot do it.
        """
        fields = form.fields
        asked = Asked(
            form.files,
            modality_of(fields.get("leave_out", "")),
            fields.get("method", "") or DEFAULT_METHOD,
            share_of(fields.get("prevalence", "")),
            truth_of(fields.get("explain", "")),
            checked_idempotency_key(idempotency_key),
        )
        if not asked.used:
            raise invalid("nothing is left to predict from", "send another file as well")
        try:
            self.predictor.check(list(asked.used), asked.method)
        except PulmofuseError as error:
            raise from_error(error, 422, "invalid-request", None) from None
        if asked.prevalence is not None and self.predictor.bundle.positive is None:
            raise invalid("this model has no positive class", "leave prevalence out")
        if asked.explain and self._explain is None:
            raise invalid("this service makes no explanations", "leave explain out")
        return asked

    async def _answer(self, asked: Asked, key_id: str, progress: _Progress) -> Answered:
        begun, over = time.perf_counter(), progress.over
        hashes = await self._in_thread(_hashes, asked.files)
        request_sha256 = sha256_json([hashes, asked.left_out, asked.method, asked.prevalence])
        text = await self._before(asked, key_id, request_sha256)
        replayed, prepared = text is not None, None
        if text is None:
            looked = await _all(asked.used, lambda m, data: self._look(m, data, over))
            prepared = {m: one for m, (one, _) in looked.items()}
            entry = await run_in_threadpool(  # not among those that wait to be prepared
                self._entry, asked, key_id, looked, hashes, request_sha256, begun
            )
            self._admission.took(time.perf_counter() - begun)
            if over.is_set():
                raise _out_of_time(self.settings.predict_timeout_s)
            text, replayed = await self._commit(entry)
        if asked.explain:
            progress.committed = Answered(text, replayed)
            text = await self._explained(asked, prepared, text, over)
        return Answered(text, replayed)

    async def _before(self, asked: Asked, key_id: str, request_sha256: str) -> str | None:
        """What was answered under the same idempotency key."""
        if asked.idempotency_key is None:
            return None
        stored = await in_database(self.trail.answered, key_id, asked.idempotency_key)
        return (
            None if stored is None else _same(stored.request_sha256, request_sha256, stored.answer)
        )

    def _entry(
        self,
        asked: Asked,
        key_id: str,
        looked: Mapping[Modality, _Looked],
        hashes: Mapping[str, str],
        request_sha256: str,
        begun: float,
    ) -> Entry:
        """The prediction, and what the trail keeps of it; in a thread."""
        quality = [remark for m, (p, i) in looked.items() for remark in self._inspect(m, p, i)]
        seen = {m: inferred for m, (_, inferred) in looked.items()}
        prediction = self.predictor.conclude(seen, asked.method, asked.prevalence)
        remarks = {m: _remarks(m, prepared) for m, (prepared, _) in looked.items()}
        now = datetime.datetime.now(datetime.UTC)
        answer = {
            "id": uuid.uuid4().hex,
            "created": now.isoformat(timespec="milliseconds"),
            "model": {
                "name": self.predictor.bundle.name,
                "bundle_sha256": self.bundle_sha256,
                "version": __version__,
            },
            **prediction.to_dict(),
            "quality": [remark.to_dict() for remark in quality],
            "left_out": asked.left_out,
            "remarks": [remark for some in remarks.values() for remark in some],
            "explanations": None,
            "research_use_only": True,
        }
        uploads = [
            Upload(m.value, hashes[m.value], len(data), m in remarks, remarks.get(m, []))
            for m, data in asked.files.items()
        ]
        return Entry(
            answer["id"], now, key_id, asked.idempotency_key, request_sha256, self.bundle_sha256,
            __version__, prediction.subset, prediction.method,
            1000.0 * (time.perf_counter() - begun),
            json.dumps(answer, allow_nan=False, ensure_ascii=False), uploads,
        )  # fmt: skip

    async def _look(self, modality: Modality, data: bytes, over: threading.Event) -> _Looked:
        """One file, prepared and seen by its network.

        Raises:
            ProblemError: it cannot be read.
        """
        with self._batcher.coming(modality):
            prepared = await self._read(modality, data, over)
        if over.is_set():
            raise _out_of_time(self.settings.predict_timeout_s)
        begun = time.perf_counter()
        inferred = await self._batcher.infer(modality, prepared)
        self.metrics.stages.labels("network").observe(time.perf_counter() - begun)
        return prepared, inferred

    def _inspect(
        self, modality: Modality, prepared: Prepared, inferred: Inferred
    ) -> list[GateRemark]:
        """What the input gate says of one file.

        Raises:
            ProblemError: it is not what the model was made for.
        """
        if self.settings.gate == "off":
            return []
        said = self.predictor.inspect(modality, prepared, inferred)
        refused = refusal(said) if self.settings.gate == "refuse" else None
        if refused is not None:
            why, remedy = refused
            raise ProblemError(
                422, "not-for-this-model", f"the {modality.value} file {why}", remedy,
                modality=modality.value,
            )  # fmt: skip
        return said

    async def _read(self, modality: Modality, data: bytes, over: threading.Event) -> Prepared:
        """See `_prepare`."""
        prepared: Prepared = await self._in_thread(self._prepare, modality, data, over)
        return prepared

    def _prepare(self, modality: Modality, data: bytes, over: threading.Event) -> Prepared:
        """Decode and normalise one file, within the service's bounds; in a thread.

        Raises:
            ProblemError: it cannot be read.
        """
        if over.is_set():  # it waited for a thread until the time was over
            raise _out_of_time(self.settings.predict_timeout_s)
        begun = time.perf_counter()
        with contextlib.ExitStack() as stack:
            alone = False

            def announce(n_pixels: int) -> None:
                nonlocal alone
                if n_pixels > self.settings.large_pixels and not alone:
                    alone = True
                    stack.enter_context(self._one_large_file)

            s = self.settings
            stack.enter_context(
                bounded(Bounds(s.max_pixels, s.max_voxels, s.max_samples, announce))
            )
            try:
                prepared = self.predictor.prepare(modality, data, f"the {modality.value} file")
            except PulmofuseError as error:
                raise _refusal(error, modality, data) from None
        self.metrics.stages.labels("prepare").observe(time.perf_counter() - begun)
        return prepared

    def _infer(self, modality: Modality, prepared: Any) -> list[Inferred]:
        return self.predictor.infer(modality, prepared)

    async def _commit(self, entry: Entry) -> tuple[str, bool]:
        """Write the entry; the text to send, and whether an earlier answer came in between."""
        begun = time.perf_counter()
        stored = await in_database(self.trail.record, entry)
        self.metrics.stages.labels("commit").observe(time.perf_counter() - begun)
        if stored is not None:
            return _same(stored.request_sha256, entry.request_sha256, stored.answer), True
        self.metrics.predictions.labels(entry.subset).inc()
        logs.event(
            "prediction", id=entry.prediction_id, key=entry.key_id, subset=entry.subset,
            method=entry.method, ms=round(entry.latency_ms, 1),
            bytes={upload.modality: upload.n_bytes for upload in entry.uploads},
        )  # fmt: skip
        return entry.answer, False

    async def _explained(
        self,
        asked: Asked,
        prepared: Mapping[Modality, Prepared] | None,
        text: str,
        over: threading.Event,
    ) -> str:
        """The answer with explanations; these are pictures of the patient, and never stored.

        The answer is in the trail by now, so it goes out whatever becomes of its explanations.

        Args:
            asked: the request.
            prepared: its files; None for an answer that was given before.
            text: the answer without explanations.
            over: set when nobody waits any more.
        """
        answer = json.loads(text)
        if answer["model"]["bundle_sha256"] != self.bundle_sha256:
            return _unexplained(
                answer, "was answered by a model that is no longer here to explain it",
                "send it under another Idempotency-Key",
            )  # fmt: skip
        try:
            if prepared is None:
                prepared = await _all(asked.used, lambda m, data: self._read(m, data, over))
            answer["explanations"] = await self._in_thread(self._maps, prepared, answer, over)
        except Exception as error:  # noqa: BLE001  # the answer stands without them
            logs.event("explanation failed", 40, **logs.describe_error(error))
            return _unexplained(answer, "could not be explained", "tell the operator")
        return json.dumps(answer, allow_nan=False, ensure_ascii=False)

    def _maps(
        self, prepared: Mapping[Modality, Prepared], answer: dict[str, Any], over: threading.Event
    ) -> Any:
        assert self._explain is not None  # noqa: S101  # `_understand` refused it otherwise
        if over.is_set():  # it waited for a thread until the time was over
            raise _out_of_time(self.settings.predict_timeout_s)
        begun = time.perf_counter()
        with self._explaining:
            maps = self._explain(self.predictor, prepared, answer)
        self.metrics.stages.labels("explain").observe(time.perf_counter() - begun)
        return maps

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


async def in_database(function: Callable[..., _T], *args: Any) -> _T:
    """Run a method of the trail in a thread.

    No answer leaves without its row: a database that fails, or says nothing, makes it a 503. A
    thread that waits for a silent one is left to itself; the pool of connections bounds their
    number.

    Raises:
        ProblemError: 503.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        async with asyncio.timeout(_DATABASE_S):
            return await to_thread.run_sync(function, *args, abandon_on_cancel=True)
    except (SQLAlchemyError, TimeoutError) as error:
        logs.event("database failed", 40, **logs.describe_error(error))
        raise ProblemError(
            503, "database-unavailable", "the database cannot be used at present",
            "send it again after the time in Retry-After", retry_after_s=5.0,
        ) from None  # fmt: skip


async def _all(
    files: Mapping[Modality, bytes], look: Callable[[Modality, bytes], Awaitable[_T]]
) -> dict[Modality, _T]:
    """Look at all files at once; when all have ended, the first error there is, is raised."""
    results = await asyncio.gather(
        *(look(m, data) for m, data in files.items()), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return dict(zip(files, cast("list[_T]", results), strict=True))


def _hashes(files: Mapping[Modality, bytes]) -> dict[str, str]:
    return {m.value: hashlib.sha256(data).hexdigest() for m, data in files.items()}


def _remarks(modality: Modality, prepared: Prepared) -> list[dict[str, str]]:
    return [
        {"modality": modality.value, "code": r.kind.value, "text": r.reason, "remedy": r.remedy}
        for r in prepared.seen.remarks
    ]


def _refusal(error: PulmofuseError, modality: Modality, data: bytes) -> ProblemError:
    """What an error of reading a file is to the client."""
    family = "sound" if modality is Modality.COUGH else "image"
    if isinstance(error, UnreadableFile) and data and look(data).family != family:
        return from_error(error, 415, "unsupported-media-type", modality.value)
    kind = "unreadable-file" if isinstance(error, UnreadableFile) else "refused-file"
    return from_error(error, 422, kind, modality.value)


def _same(before: str, now: str, answer: str) -> str:
    """The earlier answer, if it was given to the same request."""
    if before != now:
        raise invalid(
            "this Idempotency-Key was used for another request", "use a new one for each request"
        )
    return answer


def _unexplained(answer: dict[str, Any], why: str, remedy: str) -> str:
    """The answer without explanations, and a remark for each of its files."""
    remarks = [
        {"modality": modality, "code": "not_explained", "text": why, "remedy": remedy}
        for modality in answer["by_modality"]
    ]
    answer = {**answer, "remarks": answer["remarks"] + remarks}
    return json.dumps(answer, allow_nan=False, ensure_ascii=False)


def _out_of_time(seconds: float) -> ProblemError:
    return ProblemError(
        504, "out-of-time", f"there was no answer within {seconds:g} s",
        "send a smaller file, or send it again when less is asked",
    )  # fmt: skip


def _forget(work: asyncio.Task[Answered]) -> None:
    """Take note of how work ended that nobody waits for, lest asyncio complain."""
    if not work.cancelled():
        work.exception()
