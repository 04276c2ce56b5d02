"""Sizes, times and numbers: what is too much is refused, named, and forgotten."""

from __future__ import annotations

import asyncio
import gzip
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from pulmofuse.errors import UnreadableFile
from pulmofuse.inference import Predictor
from pulmofuse.io import Bounds, bounded, read_image, read_sound
from pulmofuse.schema import Modality
from pulmofuse.service import ServiceSettings
from pulmofuse.service.forms import Form, read_form
from pulmofuse.service.limits import Admission, RateLimit
from pulmofuse.service.problems import ProblemError
from tests.service import material
from tests.service.conftest import Serve, Served
from tests.service.test_api import problem

BOUNDARY = "b0undary"
LONG = f"multipart/form-data; boundary={'b' * 300}"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    """A form as a browser sends it."""
    out = b""
    for head, content in parts:
        out += f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"
    return out + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def part(name: str, content: bytes = b"x") -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"; filename="a"', content


def read(
    chunks: list[bytes], headers: dict[str, str] | None = None, pause_s: float = 0.0, **limits: Any
) -> Form:
    """Read a form that arrives in these chunks."""

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause_s)
        body = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    waiting = list(chunks)
    heads = {"content-type": TYPE, **(headers or {})}
    raw = [(k.encode(), v.encode()) for k, v in heads.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    return asyncio.run(read_form(request, ServiceSettings(**limits), lambda _: None))


class TestForm:
    @given(
        content=st.binary(max_size=300) | st.just(f"\r\n--{BOUNDARY}".encode()[:-1] * 3),
        cuts=st.lists(st.integers(0, 700), max_size=20),
    )
    def test_how_it_is_cut_into_chunks_does_not_matter(
        self, content: bytes, cuts: list[int]
    ) -> None:
        if f"\r\n--{BOUNDARY}".encode() in content:
            return
        body = form(part("cough", content), part("method", b"mean"), part("ct", b"2"))
        places = sorted({0, len(body), *(c for c in cuts if c < len(body))})
        chunks = [body[a:b] for a, b in pairwise(places)]

        assert read(chunks) == Form(
            {Modality.CT: b"2", Modality.COUGH: content}, {"method": "mean"}
        )

    @given(cut=st.integers(0, 150))
    def test_cut_off_anywhere_it_is_refused(self, cut: int) -> None:
        body = form(part("ct"), part("cxr"))
        with pytest.raises(ProblemError) as caught:
            read([body[: min(cut, len(body) - 5)]])
        assert caught.value.problem.status == 400

    @pytest.mark.parametrize(
        ("body", "headers", "limits", "status"),
        [
            (form(part("ct")), {"content-type": "application/json"}, {}, 415),
            (form(part("ct")), {"content-type": "multipart/form-data"}, {}, 400),
            (form(part("ct")), {"content-type": LONG}, {}, 400),
            (b"", {}, {}, 400),
            (b"no form at all", {}, {}, 400),
            (form(part("ct"), end=False), {}, {}, 400),
            (form(("X: " + "y" * 5000, b"")), {}, {}, 400),
            (form(("\r\n".join(f"X-{i}: y" for i in range(9)), b"")), {}, {}, 400),
            (form(("Content-Type: image/png", b"")), {}, {}, 422),
            (form(part("../../etc/passwd")), {}, {}, 422),
            (form(part("ct"), part("ct")), {}, {}, 422),
            (form(part("method")), {}, {}, 422),
            (form(part("ct"), part("method", b"\xff")), {}, {}, 422),
            (form(part("ct"), part("method", b"m" * 257)), {}, {}, 413),
            (form(part("ct", b"x" * 101)), {}, {"max_file_bytes": 100}, 413),
            (form(part("ct", b"x" * 100)), {}, {"max_body_bytes": 100}, 413),
            (form(part("ct")), {"content-length": "1"}, {}, 400),
            (form(part("ct")), {"content-length": "99999"}, {}, 400),
            (form(part("ct")), {"content-length": "999999999999"}, {}, 413),
            (form(part("ct")), {"content-length": "-5"}, {}, 400),
            (form(part("ct")), {"content-length": "1_0"}, {}, 400),
            (form(part("ct"), part("cxr"), part("cough")), {}, {"max_parts": 2}, 422),
        ],
    )  # fmt: skip
    def test_what_breaks_a_limit_is_refused(
        self, body: bytes, headers: dict[str, str], limits: dict[str, int], status: int
    ) -> None:
        with pytest.raises(ProblemError) as caught:
            read([body[i : i + 64] for i in range(0, len(body), 64)] or [b""], headers, **limits)
        assert caught.value.problem.status == status

    def test_what_just_keeps_the_limits_is_read(self) -> None:
        body = form(part("ct", b"x" * 100))
        found = read(
            [body], {"content-length": str(len(body))}, max_file_bytes=100, max_body_bytes=len(body)
        )
        assert found.files == {Modality.CT: b"x" * 100}

    def test_reading_stops_where_the_limit_is_broken(self) -> None:
        chunks = [form(part("ct", b""), end=False)[:-2]] + [b"x" * 100] * 1000
        left = chunks.copy()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": left.pop(0), "more_body": True}

        raw = [(b"content-type", TYPE.encode())]
        request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
        with pytest.raises(ProblemError):
            asyncio.run(read_form(request, ServiceSettings(max_file_bytes=500), lambda _: None))
        assert len(chunks) - len(left) <= 8

    def test_a_body_that_trickles_in_is_given_up(self) -> None:
        with pytest.raises(ProblemError) as caught:
            read([form(part("ct"))[:1], *[b""] * 100], pause_s=0.02, body_timeout_s=0.1)
        assert caught.value.problem.status == 408


class Stopped:
    """A predictor whose files wait at a gate before they are prepared."""

    def __init__(self, predictor: Predictor) -> None:
        self.gate = threading.Event()
        self.inferred = 0
        self.arrived = threading.Semaphore(0)
        self._predictor = predictor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def prepare(self, *args: Any) -> Any:
        self.arrived.release()
        assert self.gate.wait(30)
        return self._predictor.prepare(*args)

    def infer(self, *args: Any) -> Any:
        self.inferred += 1
        return self._predictor.infer(*args)


@pytest.fixture
def stopped(predictor: Predictor) -> Iterator[Stopped]:
    found = Stopped(predictor)
    yield found
    found.gate.set()


class TestTooMuchAtOnce:
    def test_overload_is_503_with_retry_after_and_passes(
        self, serve: Serve, stopped: Stopped
    ) -> None:
        served = serve({"max_in_flight": 3}, predictor=stopped)
        with ThreadPoolExecutor(3) as pool:
            waiting: list[Future[Any]] = [
                pool.submit(served.predict, {"cxr": material.cxr(i)}) for i in range(3)
            ]
            for _ in range(2):  # as many as there are workers
                assert stopped.arrived.acquire(timeout=30)
            _until(lambda: _in_flight(served) == 3)
            refused = served.predict({"cxr": material.cxr()})
            problem(refused, 503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            assert served.client.get("/healthz").status_code == 200
            stopped.gate.set()
            assert [future.result().status_code for future in waiting] == [200] * 3
        assert served.predict({"cxr": material.cxr()}).status_code == 200

    def test_out_of_time_is_504_and_the_slot_is_kept_until_the_work_ends(
        self, serve: Serve, stopped: Stopped
    ) -> None:
        served = serve({"max_in_flight": 1, "predict_timeout_s": 0.2}, predictor=stopped)

        late = served.predict({"cxr": material.cxr()}, headers={"Idempotency-Key": "late"})
        problem(late, 504, "out-of-time")
        problem(served.predict({"cxr": material.cxr()}), 503, "overloaded")
        stopped.gate.set()
        _until(lambda: _in_flight(served) == 0)
        assert served.trail.answered(served.key.split("_")[1], "late") is None
        assert stopped.inferred == 0

    def test_bytes_in_memory_are_bounded_and_given_back(self, serve: Serve) -> None:
        served = serve({"max_buffered_bytes": 20_000})
        problem(served.predict({"cxr": b"x" * 30_000}), 503, "overloaded")
        assert served.predict({"cxr": material.cxr()}).status_code == 200

    def test_refusals_give_their_slots_back(self, serve: Serve) -> None:
        served = serve({"max_in_flight": 1})
        for files in ({"cxr": b"bad"}, {"mri": b"x"}, {"cxr": b""}, {"cough": material.cxr()}):
            assert served.predict(files).status_code in {415, 422}
        assert served.predict({"cxr": material.cxr()}).status_code == 200


class TestUnpacking:
    """What a file may unpack to is bounded before it is unpacked."""

    BOUNDS = Bounds(pixels=10_000, voxels=50_000, samples=10_000)

    @pytest.mark.parametrize(
        "data",
        [material.png(np.eye(101, 100, dtype=np.uint8)), None],
        ids=["png", "nifti"],
    )
    def test_images_beyond_the_bounds_are_refused(self, data: bytes | None) -> None:
        data = nifti((100, 100, 6)) if data is None else data
        read_image(data, "it")
        with bounded(self.BOUNDS), pytest.raises(UnreadableFile, match="more than are read here"):
            read_image(data, "it")

    def test_sounds_beyond_the_bounds_are_refused(self) -> None:
        data = material.wav((np.sin(np.arange(10_001)) * 9000).astype(np.int16))
        read_sound(data, "it")
        with bounded(self.BOUNDS), pytest.raises(UnreadableFile, match="10,001 frames"):
            read_sound(data, "it")

    def test_the_size_is_announced_before_the_pixels_are_read(self) -> None:
        seen: list[int] = []
        with bounded(Bounds(10**9, 10**9, 10**9, seen.append)):
            read_image(nifti((40, 50, 3)), "it")
        assert seen == [6000]

    def test_the_service_holds_uploads_to_its_bounds(self, serve: Serve) -> None:
        served = serve({"max_pixels": 5000})
        body = problem(served.predict({"cxr": material.cxr()}), 422, "unreadable-file")
        assert "more than are read here" in body["detail"]

    def test_what_is_explained_is_read_within_them_and_once(
        self, serve: Serve, predictor: Predictor
    ) -> None:
        read: list[int] = []

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(predictor, name)

            def prepare(self, *args: Any) -> Any:
                with pytest.raises(UnreadableFile, match="more than are read here"):
                    read_image(material.png(np.eye(97, dtype=np.uint8)), "one row too many")
                read.append(1)
                return predictor.prepare(*args)

        def explain(_: object, files: Any, __: object) -> list[int]:
            return [len(prepared.instances) for prepared in files.values()]

        served = serve({"max_pixels": 9216}, predictor=Watched(), explain=explain)
        asked = {"files": {"cxr": material.cxr()}, "data": {"explain": "true"}}
        once = {"Idempotency-Key": "once"}
        assert served.predict(**asked, headers=once).json()["explanations"] == [1]
        assert len(read) == 1
        # An answer that is given again is explained from a file that is read anew.
        again = served.predict(**asked, headers=once)
        assert (again.headers["idempotent-replayed"], len(read)) == ("true", 2)

    def test_a_bomb_is_refused_by_its_header(self, served: Served) -> None:
        head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
        chunk = b"IHDR" + head
        bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
        bomb += struct.pack(">I", zlib.crc32(chunk)) + zlib.compress(bytes(1000))
        assert served.predict({"cxr": bomb}).status_code == 422


def test_a_bucket_never_gives_more_than_its_rate() -> None:
    now = [0.0]
    limit = RateLimit(rate=2.0, burst=5, clock=lambda: now[0])
    given_out = 0
    for _ in range(1000):
        now[0] += 0.01
        given_out += limit.take("a") == 0
    assert given_out == 5 + 2 * 10 - 1  # the burst and the rate, less what the last moment lacks


def test_retry_after_is_the_time_in_which_those_in_flight_are_answered() -> None:
    admission = Admission(32)
    for _ in range(32):
        admission.enter()
    for _ in range(200):  # of 10 a second, 32 in flight take 3.2 s each
        admission.took(3.2)
    with pytest.raises(ProblemError) as refused:
        admission.enter()
    assert refused.value.retry_after_s == pytest.approx(3.2, abs=0.01)


def nifti(shape: tuple[int, int, int]) -> bytes:
    import nibabel as nib

    volume = np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)
    image = nib.Nifti1Image(volume, np.eye(4))
    return gzip.compress(image.to_bytes())


def _in_flight(served: Served) -> int:
    text = served.client.get("/metrics", headers=served.auth).text
    (line,) = [x for x in text.splitlines() if x.startswith("pulmofuse_predictions_in_flight")]
    return int(float(line.split()[1]))


def _until(true: Callable[[], bool]) -> None:
    for _ in range(400):
        if true():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it never came true")
