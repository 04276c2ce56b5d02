"""One tiny bundle for all tests of the service, and a service of its own for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from pulmofuse.inference import Predictor
from pulmofuse.service import ServiceSettings, Trail, create_app, open_database
from tests.service import material, postgres


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return material.write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def predictor(bundle: Path) -> Predictor:
    return Predictor.load(bundle)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Served:
    """A running service and what belongs to it."""

    client: TestClient
    trail: Trail
    key: str
    database: Path

    @property
    def auth(self) -> dict[str, str]:
        return {"X-API-Key": self.key}

    def predict(self, files: dict[str, bytes], **options: Any) -> Any:
        """POST /v1/predict with the key; `headers` and `data` as httpx takes them."""
        headers = {**self.auth, **options.pop("headers", {})}
        return self.client.post("/v1/predict", files=files, headers=headers, **options)


Serve = Callable[..., Served]


@pytest.fixture
def serve(predictor: Predictor, tmp_path: Path) -> Iterator[Serve]:
    """Start a service with settings of one's own."""
    with ExitStack() as stack:

        def start(settings: dict[str, Any] | None = None, **options: Any) -> Served:
            database = tmp_path / "trail.sqlite"
            trail = Trail(open_database(str(database)))
            stack.callback(trail.close)
            chosen = ServiceSettings(**{"workers": 2, "torch_threads": 1, **(settings or {})})
            model = options.pop("predictor", predictor)
            sha256, name = options.pop("bundle_sha256", "f" * 64), options.pop("name", "tester")
            app = create_app(model, sha256, trail, chosen, **options)
            client = stack.enter_context(TestClient(app))
            return Served(client, trail, trail.add_key(name), database)

        yield start


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL, or skip."""
    found = postgres.binaries()
    if found is None:
        pytest.skip("no initdb and postgres on PATH or in /usr/lib/postgresql/*/bin")
    with postgres.cluster(found) as url:
        yield url
