"""A multipart form, read as it arrives and refused as soon as it breaks a limit.

Uploads stay in memory: nothing of a patient is written to a disk, not even for a moment. File names
are not looked at and not kept; they say nothing about the content, and often who it is of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from pulmofuse.schema import Modality
from pulmofuse.service.problems import ProblemError
from pulmofuse.service.settings import ServiceSettings

_MAX_FIELD_BYTES = 256
_MAX_PART_HEADERS = 8
_MAX_PART_HEADER_BYTES = 4096

FILES = tuple(m.value for m in Modality)
FIELDS = ("method", "leave_out", "prevalence", "explain")


@dataclass(frozen=True)
class Form:
    """What was sent.

    Attributes:
        files: modality -> content of its file, in the order ct, cxr, cough.
        fields: name -> text of the other fields.
    """

    files: Mapping[Modality, bytes]
    fields: Mapping[str, str]


async def read_form(
    request: Request, settings: ServiceSettings, reserve: Callable[[int], None]
) -> Form:
    """Read the form of a request.

    Args:
        request: its body has not been touched.
        settings: the limits.
        reserve: told of every chunk before it is kept; it may refuse.

    Raises:
        ProblemError: 400 malformed, 408 too slow, 413 too large, 415 no multipart form, 422 unknown
            or repeated fields, or what `reserve` raises.
    """
    declared = _declared_bytes(request)
    if declared is not None and declared > settings.max_body_bytes:
        raise _too_large("the request", settings.max_body_bytes)
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise ProblemError(
            415, "unsupported-media-type", "this is no multipart/form-data", "send such a form"
        )
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise _malformed("its Content-Type names no boundary")
    reader = _Reader(settings)
    try:
        parser = reader.parser(boundary)
        async with asyncio.timeout(settings.body_timeout_s):
            await _feed(request.stream(), parser, settings.max_body_bytes, declared, reserve)
        parser.finalize()
    except FormParserError as error:
        raise _malformed(str(error)) from None
    except TimeoutError:
        raise ProblemError(
            408, "too-slow", f"the request did not arrive within {settings.body_timeout_s:g} s",
            "send it over a faster connection, or in a smaller file",
        ) from None  # fmt: skip
    except ClientDisconnect:
        raise _malformed("the connection ended before the form did") from None
    if not reader.complete:
        raise _malformed("it ends before its last boundary")
    return reader.form()


async def _feed(
    stream: AsyncIterator[bytes],
    parser: MultipartParser,
    most: int,
    declared: int | None,
    reserve: Callable[[int], None],
) -> None:
    """Hand the body to the parser, chunk by chunk, as far as the limits allow."""
    received = 0
    async for chunk in stream:
        received += len(chunk)
        if received > most:
            raise _too_large("the request", most)
        if declared is not None and received > declared:
            raise _malformed(f"it has more bytes than the {declared:,} that it declares")
        reserve(len(chunk))
        parser.write(chunk)
    if declared is not None and received < declared:
        raise _malformed(f"it has {received:,} bytes and declares {declared:,}")


def _declared_bytes(request: Request) -> int | None:
    text = request.headers.get("content-length")
    if text is None:
        return None
    # int() would take "+5", "1_000" and digits of other scripts.
    if not (text.isascii() and text.isdigit()):
        raise _malformed("its Content-Length is no number")
    return int(text)


def _too_large(what: str, most: int, modality: str | None = None) -> ProblemError:
    return ProblemError(
        413, "too-large", f"{what} has more than {most:,} bytes",
        "send a smaller one: one slice, a shorter recording, or lossless compression",
        modality=modality,
    )  # fmt: skip


def _malformed(why: str) -> ProblemError:
    return ProblemError(
        400, "malformed-form", f"the form cannot be read: {why}", "send multipart/form-data"
    )


def _refused(why: str, remedy: str, modality: str | None = None) -> ProblemError:
    return ProblemError(422, "invalid-request", why, remedy, modality=modality)


@dataclass
class _Reader:
    """The state of one form while it is read: what the parser calls back."""

    settings: ServiceSettings
    complete: bool = False
    _parts: dict[str, bytearray] = field(default_factory=dict)
    _n_parts: int = 0
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _name: str = ""

    def parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda d, a, b: self._header.extend(d[a:b]),
                "on_header_value": lambda d, a, b: self._value.extend(d[a:b]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_end": self._end,
            },
            max_header_count=_MAX_PART_HEADERS,
            max_header_size=_MAX_PART_HEADER_BYTES,
        )

    def form(self) -> Form:
        files = {m: bytes(self._parts[m.value]) for m in Modality if m.value in self._parts}
        fields: dict[str, str] = {}
        for name in FIELDS:
            if name in self._parts:
                try:
                    fields[name] = self._parts[name].decode()
                except UnicodeDecodeError:
                    raise _refused(f"{name} is not UTF-8 text", "send UTF-8") from None
        if not files:
            raise _refused("no file was sent", f"send at least one of {', '.join(FILES)}")
        return Form(files, fields)

    def _begin(self) -> None:
        self._n_parts += 1
        if self._n_parts > self.settings.max_parts:
            raise _refused(
                f"the form has more than {self.settings.max_parts} parts", "send one per field"
            )
        self._headers.clear()

    def _header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"").decode("latin-1")
        _, options = parse_options_header(disposition)
        name = options.get(b"name", b"").decode("latin-1")
        if name not in FILES + FIELDS:
            # What was sent is not repeated: it may be anything, and as long.
            known = ", ".join(FILES + FIELDS)
            raise _refused("the form has a field that is not known here", f"known are {known}")
        if name in self._parts:
            what = f"{name} was sent twice"
            raise _refused(what, "send each at most once", name if name in FILES else None)
        self._name = name
        self._parts[name] = bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        part, is_file = self._parts[self._name], self._name in FILES
        most = self.settings.max_file_bytes if is_file else _MAX_FIELD_BYTES
        if len(part) + end - start > most:
            what = f"the {self._name} file" if is_file else f"the field {self._name}"
            raise _too_large(what, most, self._name if is_file else None)
        part += data[start:end]

    def _end(self) -> None:
        self.complete = True
