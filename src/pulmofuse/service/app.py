"""The application: routes, who may use them, and what OpenAPI says of them."""

# No `from __future__ import annotations`: FastAPI would not find the local `caller` in it.

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Security
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from pulmofuse import __version__
from pulmofuse.inference import DEFAULT_METHOD, Predictor
from pulmofuse.service.answering import Answerer, Explain, in_database
from pulmofuse.service.headers import Outermost
from pulmofuse.service.limits import RateLimit
from pulmofuse.service.metrics import Metrics
from pulmofuse.service.problems import Problem, ProblemError, documented
from pulmofuse.service.schemas import (
    ANSWER_EXAMPLE,
    IDEMPOTENCY_HEADER,
    PREDICT_BODY,
    Answer,
    Health,
    ModelBody,
)
from pulmofuse.service.settings import ServiceSettings
from pulmofuse.service.trail import Trail

_STATIC = Path(__file__).parent / "static"
#: What the page may be made of; anything else in the folder is not served.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}

_DESCRIPTION = (
    "Probabilities of respiratory disease from chest CT, chest X-ray and cough, in any combination."
    " **Research use only, not a medical device.** Every error is `application/problem+json` with"
    " a reason and a remedy."
)


def create_app(
    predictor: Predictor,
    bundle_sha256: str,
    trail: Trail,
    settings: ServiceSettings | None = None,
    explain: Explain | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        predictor: a loaded bundle.
        bundle_sha256: what `files.sha256_path` gives of its folder.
        trail: an open database.
        settings: the limits.
        explain: makes explanations; see `answering.Explain`.
        clock: of the rate limit.
    """
    settings = settings or ServiceSettings()
    metrics = Metrics()
    answerer = Answerer(predictor, bundle_sha256, trail, settings, metrics, explain)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        answerer.start()
        yield
        await answerer.stop()

    app = FastAPI(
        title="Pulmofuse", version=__version__, description=_DESCRIPTION, lifespan=lifespan,
        openapi_url=None, docs_url=None, redoc_url=None,
    )  # fmt: skip
    limit = RateLimit(settings.rate_per_minute / 60.0, settings.burst, clock)
    caller = _caller(trail, limit)
    _add_api(app, answerer, caller)
    _add_operations(app, answerer, caller)
    _add_page(app)
    _add_problems(app, metrics)
    app.add_middleware(Outermost, metrics=metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # as FastAPI documents
    return app


Caller = Callable[..., Any]


def _caller(trail: Trail, limit: RateLimit) -> Caller:
    """The dependency that lets in whoever has a key, and not too often; gives the key's id."""
    bearer = HTTPBearer(auto_error=False, description="An API key.")
    header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")

    async def caller(
        request: Request,
        sent: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
        other: Annotated[str | None, Security(header)],
    ) -> str:
        text = sent.credentials if sent is not None else other
        key_id = await in_database(trail.authenticate, text) if text else None
        if key_id is None:
            raise ProblemError(
                401, "key-needed", "no valid key was sent",
                "send a key as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
            )  # fmt: skip
        request.state.key_id = key_id
        wait_s = limit.take(key_id)
        if wait_s:
            raise ProblemError(
                429, "rate-limit", "this key sends more requests than it may",
                "send it again after the time in Retry-After", retry_after_s=wait_s,
            )  # fmt: skip
        return key_id

    return caller


def _add_api(app: FastAPI, answerer: Answerer, caller: Caller) -> None:
    """The routes of the API, version 1."""

    @app.post(
        "/v1/predict",
        summary="Predict from a CT, an X-ray and a cough, or any of them",
        responses={
            200: {"model": Answer, "content": {"application/json": {"example": ANSWER_EXAMPLE}}},
            **documented(400, 401, 408, 413, 415, 422, 429, 500, 503, 504),
        },
        openapi_extra={"requestBody": PREDICT_BODY, "parameters": [IDEMPOTENCY_HEADER]},
        response_class=JSONResponse,
    )
    async def predict(request: Request, key_id: Annotated[str, Depends(caller)]) -> Response:
        answered = await answerer.handle(request, key_id)
        headers = {"Idempotent-Replayed": "true"} if answered.replayed else {}
        return Response(answered.text, 200, headers, "application/json")

    @app.get(
        "/v1/predictions/{prediction_id}",
        summary="A prediction that this key was answered",
        responses={
            200: {"model": Answer, "content": {"application/json": {"example": ANSWER_EXAMPLE}}},
            **documented(401, 404, 422, 429, 500, 503),
        },
        response_class=JSONResponse,
    )
    async def prediction(
        prediction_id: Annotated[str, PathParameter(pattern="^[0-9a-f]{32}$")],
        key_id: Annotated[str, Depends(caller)],
    ) -> Response:
        text = await in_database(answerer.trail.prediction, key_id, prediction_id)
        if text is None:
            raise ProblemError(
                404, "not-found", "this key has no such prediction", "check the id and the key"
            )
        return Response(text, media_type="application/json")

    @app.get(
        "/v1/model",
        summary="What this service can do",
        responses=documented(401, 429, 500, 503),
        dependencies=[Depends(caller)],
    )
    async def model() -> ModelBody:
        return _model(answerer)


def _model(answerer: Answerer) -> ModelBody:
    bundle, settings = answerer.predictor.bundle, answerer.settings
    return ModelBody(
        study=bundle.name,
        question=bundle.question,
        bundle_sha256=answerer.bundle_sha256,
        version=__version__,
        classes=list(bundle.classes),
        positive=bundle.positive,
        modalities=[m.value for m in bundle.unimodal],
        methods=list(answerer.predictor.methods),
        default_method=DEFAULT_METHOD,
        explanations=answerer.can_explain,
        limits={
            name: getattr(settings, name)
            for name in (
                "max_file_bytes", "max_body_bytes", "max_pixels", "max_voxels", "max_samples",
                "predict_timeout_s", "rate_per_minute", "burst",
            )
        },
        warnings=[str(warning["text"]) for warning in bundle.facts.get("warnings", ())],
        research_use_only=True,
    )  # fmt: skip


def _add_operations(app: FastAPI, answerer: Answerer, caller: Caller) -> None:
    """The routes for whoever runs the service."""

    @app.get("/healthz", summary="Is the process alive?", responses=documented(500))
    async def healthz() -> Health:
        return Health(status="alive")

    @app.get(
        "/readyz", summary="Can it answer: networks running, database at hand?",
        responses=documented(500, 503),
    )  # fmt: skip
    async def readyz() -> Health:
        await in_database(answerer.trail.ping)
        if not answerer.runs:
            raise ProblemError(
                503, "not-running", "the networks have stopped", "restart the service"
            )
        return Health(status="ready")

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **documented(401, 429, 500, 503),
        },
        dependencies=[Depends(caller)],
        response_class=Response,
    )
    async def metrics() -> Response:
        return Response(answerer.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(caller)])
    async def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())


def _add_page(app: FastAPI) -> None:
    """One route for each file of the page, read once: no path of a client ever meets a disk."""
    for path in sorted(_STATIC.rglob("*")):
        media_type = _TYPES.get(path.suffix)
        if media_type is None or not path.is_file():
            continue
        name = path.relative_to(_STATIC).as_posix()
        url = "/" if name == "index.html" else f"/{name}"
        app.add_api_route(
            url, _page_file(path.read_bytes(), media_type), methods=["GET", "HEAD"],
            include_in_schema=False,
        )  # fmt: skip


def _page_file(content: bytes, media_type: str) -> Callable[[], Any]:
    async def serve() -> Response:
        # A browser asks every time, so that a page is never older than the service behind it.
        return Response(content, headers={"Content-Type": media_type, "Cache-Control": "no-cache"})

    return serve


def _add_problems(app: FastAPI, metrics: Metrics) -> None:
    """Every error is a problem, those of the framework too."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)  # noqa: S101  # registered for it
        metrics.refusals.labels(error.kind).inc()
        return error.response()

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  # registered for it
        problems = {
            404: ("not-found", "there is nothing at this address", "see /openapi.json"),
            405: ("method-not-allowed", "this address does not take this method", "see Allow"),
        }
        kind, detail, remedy = problems.get(
            error.status_code, ("bad-request", "the request cannot be understood", "check it")
        )
        answer = await ours(request, ProblemError(error.status_code, kind, detail, remedy))
        answer.headers.update(error.headers or {})
        return answer

    async def invalid(request: Request, error: Exception) -> Response:
        del error  # quotes what was sent
        detail, remedy = "a parameter is not of its form", "compare it with /openapi.json"
        return await ours(request, ProblemError(422, "invalid-request", detail, remedy))

    app.add_exception_handler(ProblemError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, invalid)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The description of the API, with the one schema that all errors have."""
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    return schema
