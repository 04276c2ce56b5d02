"""Run the service: load, migrate, make the first key, serve, and end gracefully."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
import uvicorn

from pulmofuse.curation.inspection import Seen
from pulmofuse.errors import ServiceError
from pulmofuse.files import sha256_path
from pulmofuse.inference import Predictor
from pulmofuse.preprocessing import Prepared, instance_dtype, instance_shape
from pulmofuse.service import logs
from pulmofuse.service.answering import Explain
from pulmofuse.service.app import create_app
from pulmofuse.service.database import open_database
from pulmofuse.service.headers import MAX_HEAD_BYTES
from pulmofuse.service.settings import ServiceSettings
from pulmofuse.service.trail import Trail

FIRST_KEY = "first"
_KEEP_ALIVE_S = 10
#: Longer than a prediction may take, so that what is in flight at the end is answered.
_GRACE_S = 10


def serve(
    bundle: Path,
    database: str,
    host: str,
    port: int,
    settings: ServiceSettings,
    say: Callable[[str], None],
    explain: Explain | None = None,
) -> None:
    """Serve a bundle until the process is told to end (SIGTERM or Ctrl+C).

    Args:
        bundle: folder of the bundle.
        database: path or URL of the audit trail.
        host: address to listen on.
        port: its port.
        settings: the limits.
        say: told what a person must know, the first key among it.
        explain: makes explanations; see `answering.Explain`.

    Raises:
        PulmofuseError: the bundle, the database or the address cannot be used.
    """
    torch.set_num_threads(settings.torch_threads)
    cv2.setNumThreads(1)  # files are decoded beside each other already
    predictor = Predictor.load(bundle)
    warm_up(predictor)
    trail = Trail(open_database(database))
    try:
        key = trail.first_key(FIRST_KEY)
        if key is not None:
            say(f"The first API key, shown this once: {key}")
            # Behind a "#", so that the browser keeps it and no log of a server ever has it.
            say(f"The page with this key: http://{host}:{port}/#key={key}")
        logs.set_up()
        app = create_app(predictor, sha256_path(bundle), trail, settings, explain)
        config = uvicorn.Config(
            app, host=host, port=port, log_config=None, access_log=False, server_header=False,
            proxy_headers=False, h11_max_incomplete_event_size=MAX_HEAD_BYTES, http="h11",
            ws="none", limit_concurrency=settings.max_connections,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=round(settings.predict_timeout_s) + _GRACE_S,
        )  # fmt: skip
        say(f"Listening on http://{host}:{port}. Research use only, not a medical device.")
        server = uvicorn.Server(config)
        with _ending_well():
            server.run()
        if not server.started:
            raise ServiceError(
                f"{host}:{port}", "cannot be listened on", "choose another --host or --port"
            )
    finally:
        trail.close()


@contextmanager
def _ending_well() -> Iterator[None]:
    """Let the signals that end the service end it with code 0.

    Uvicorn takes them while it serves, and sends them again when all is answered; as they would be
    handled by default, the process would then die of them before it has closed the database.
    """
    before = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def warm_up(predictor: Predictor) -> None:
    """Run each network once, so that the first client does not pay for what is set up lazily."""
    for modality, part in predictor.bundle.unimodal.items():
        shape = instance_shape(modality, part.config.preprocessing)
        blank = np.zeros((1, *shape), dtype=instance_dtype(modality))
        predictor.infer(modality, [Prepared(blank, Seen({}, b"", ()))])
