"""Structured logs: one JSON object a line on standard error, and nothing of a patient in it.

Only the service's own events and the server's are written. What libraries log while they read a
file may quote it (pydicom quotes elements of the header), so it goes nowhere. Tracebacks are places
in the code without the message, for the same reason.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

LOG = logging.getLogger("pulmofuse.service")


class JsonLines(logging.Formatter):
    """One JSON object per record: time, level, event, and the fields given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line |= describe_error(record.exc_info[1])
        return json.dumps(line, default=str)


def set_up(level: int = logging.INFO) -> None:
    """Send the service's and the server's records to standard error; silence all others."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    # Without a handler, Python would print warnings of any library by itself.
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    for name in ("pulmofuse.service", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def event(name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log one event."""
    LOG.log(level, name, extra={"fields": fields})


def describe_error(error: BaseException) -> dict[str, Any]:
    """Type and places of an error, without its message, which may quote a file."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "trace": [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames],
    }
