"""What goes wrong, as an answer (RFC 9457): reason and remedy, and never a traceback."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from pulmofuse.errors import PulmofuseError

MEDIA_TYPE = "application/problem+json"

_KIND = "urn:pulmofuse:problem:"


class Problem(BaseModel):
    """The body of every answer that is an error."""

    type: str = Field(description="Which problem, as a URN that stays the same.")
    title: str = Field(description="The problem in a few words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened, in plain words.")
    remedy: str = Field(description="What can be done about it.")
    modality: str | None = Field(None, description="Which upload is concerned, if one is.")
    id: str | None = Field(None, description="Of an unexpected error: what to tell the operator.")


class ProblemError(Exception):
    """A refusal on its way to the client.

    Args:
        status: HTTP status.
        kind: short name, the end of the URN.
        detail, remedy: without a full stop, as in `PulmofuseError`.
        modality: the upload concerned.
        retry_after_s: when to try again (503 and 429).
        reference: the id of the log line of an unexpected error.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        remedy: str,
        *,
        modality: str | None = None,
        retry_after_s: float | None = None,
        reference: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.problem = Problem(
            type=_KIND + kind,
            title=kind.replace("-", " ").capitalize(),
            status=status,
            detail=_sentence(detail),
            remedy=_sentence(remedy),
            modality=modality,
            id=reference,
        )

    def response(self) -> Response:
        """The answer."""
        headers: dict[str, str] = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after_s + 0.499)))
        if self.problem.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        body = json.dumps(self.problem.model_dump(), ensure_ascii=False)
        return Response(body, self.problem.status, headers, MEDIA_TYPE)


def from_error(error: PulmofuseError, status: int, kind: str, modality: str | None) -> ProblemError:
    """The refusal that an error of the domain is."""
    detail = f"{error.what}: {error.why}"
    return ProblemError(status, kind, detail, error.remedy, modality=modality)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI shall say of the errors of a route."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema, "example": EXAMPLES.get(status)}},
        }
        for status in statuses
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _example(*args: Any, **options: Any) -> dict[str, Any]:
    return ProblemError(*args, **options).problem.model_dump()


_KEY = "send a key as `Authorization: Bearer KEY` or `X-API-Key: KEY`"

#: One example of each status, for the documentation.
EXAMPLES: dict[int, dict[str, Any]] = {
    400: _example(400, "malformed-form", "the form has no boundary", "send multipart/form-data"),
    401: _example(401, "key-needed", "no valid key was sent", _KEY),
    404: _example(404, "not-found", "there is no such prediction", "check its id"),
    408: _example(408, "too-slow", "the request did not arrive within 30 s", "send it faster"),
    413: _example(
        413, "too-large", "the cxr file has more than 67,108,864 bytes", "send a smaller one",
        modality="cxr",
    ),
    415: _example(
        415, "unsupported-media-type", "the cxr file: this is a PDF document, not an image",
        "give PNG, JPEG or DICOM", modality="cxr",
    ),
    422: _example(
        422, "unreadable-file", "the cxr file: PNG ends after 412 of 20,480 bytes",
        "copy or download the file again, or leave it out", modality="cxr",
    ),
    429: _example(429, "rate-limit", "this key has sent too much", "wait and send again"),
    500: _example(
        500, "unexpected-error", "something unexpected went wrong", "tell the operator the id",
        reference="5f1c0c2e9d0b4a4f",
    ),
    503: _example(503, "overloaded", "too many predictions wait", "send it again later"),
    504: _example(504, "out-of-time", "no answer within 30 s", "send a smaller file"),
}  # fmt: skip
