"""Around every request: headers that protect the page, the log line, the figures, and the last net.

Written as plain ASGI, because a middleware that wraps responses would buffer them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pulmofuse.service import logs
from pulmofuse.service.metrics import Metrics
from pulmofuse.service.problems import ProblemError

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "media-src blob:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
}
#: What the head of a request may have; servers in front of this one commonly allow 8 KiB.
MAX_HEAD_BYTES, _MAX_HEADERS = 16 << 10, 100
#: A client that is refused while it still sends would see a broken connection and not the reason,
#: so that much of the rest is read and thrown away, for so long.
_DRAIN_BYTES, _DRAIN_S = 8 << 20, 2.0


class Outermost:
    """The middleware around the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, seen = time.perf_counter(), _Seen()
        app = self._app if _head_is_sane(scope) else _REFUSE_HEAD

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                if message["status"] >= 400:
                    await _drain(seen, receiving)
            await send(message)

        async def receiving() -> Message:
            message = await receive()
            seen.ended = seen.ended or not message.get("more_body", False)
            return message

        try:
            await app(scope, receiving, sending)
        except Exception as error:  # noqa: BLE001  # the last net: nobody else is above
            problem = _unexpected(error)
            if seen.status == 0:
                await problem.response()(scope, receiving, sending)
        self._note(scope, seen.status, time.perf_counter() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = _route(scope), scope["method"]
        if method not in {"GET", "HEAD", "POST", "OPTIONS"}:
            method = "other"  # a label that a client can choose freely would fill the memory
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.latency.labels(route).observe(seconds)
        key = scope.get("state", {}).get("key_id")
        logs.event(
            "request", method=method, route=route, status=status, ms=round(1000 * seconds, 1),
            key=key,
        )  # fmt: skip


def _head_is_sane(scope: Scope) -> bool:
    """Whether the head is of a size that clients have; the server itself bounds only slow ones."""
    n_bytes = sum(len(name) + len(value) for name, value in scope["headers"])
    n_bytes += len(scope.get("raw_path") or b"") + len(scope["query_string"])
    return len(scope["headers"]) <= _MAX_HEADERS and n_bytes <= MAX_HEAD_BYTES


_REFUSE_HEAD = ProblemError(
    431, "head-too-large", "the request has too many headers, or too long ones",
    f"send at most {_MAX_HEADERS} headers and {MAX_HEAD_BYTES:,} bytes of them",
).response()  # fmt: skip


class _Seen:
    """What went by of one request."""

    status = 0
    ended = False


async def _drain(seen: _Seen, receive: Receive) -> None:
    """Read and drop what is left of the body, within bounds."""
    left = _DRAIN_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while not seen.ended and left > 0:
                message = await receive()
                if message["type"] != "http.request":
                    return
                left -= len(message.get("body", b""))


def _unexpected(error: Exception) -> ProblemError:
    """The answer to an error that nobody foresaw; what it was stands in the log, under the id."""
    reference = secrets.token_hex(8)
    logs.event("unexpected error", logging.ERROR, id=reference, **logs.describe_error(error))
    return ProblemError(
        500, "unexpected-error", "something unexpected went wrong",
        f"tell the operator the id {reference}; the log has more", reference=reference,
    )  # fmt: skip


def _route(scope: Scope) -> str:
    """The route's pattern, never the path: an id or a stranger's words in it are nobody's label."""
    route = scope.get("route")
    return str(getattr(route, "path", "other")) if route is not None else "other"
