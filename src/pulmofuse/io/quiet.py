"""Keep what C libraries write to standard error away from the user's terminal.

libjpeg, libpng, libtiff and libmpg123 write straight to file descriptor 2, past Python. The
reader tells the user about a broken file in one clear line of its own; theirs only confuse.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_STDERR = 2
#: How lines of the decoders begin. Anything else is somebody else's message and is passed on.
_CHATTER = re.compile(
    rb"libpng |Corrupt JPEG|Premature end of JPEG|Invalid (SOS|component|crop)|Bogus |"
    rb"Unsupported marker|Inconsistent progression|Application transferred|"
    rb"TIFF|OpenCV|\[ ?(WARN|ERROR|INFO)|imread_|Grayscale|"
    rb"\[src/libmpg123|\[.*mpg123|Warning: |Note: |Illegal Audio|\n|\r"
)


class _Diversion:
    """Descriptor 2 points to a scratch file as long as at least one thread is decoding.

    The descriptor belongs to the whole process, so threads share one diversion: the first to come
    sets it up, the last to leave takes it down and passes on what was not the decoders'.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._saved: int | None = None
        self._scratch: IO[bytes] | None = None

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            try:
                self._saved = os.dup(_STDERR)
            except OSError:  # the process has no standard error: nothing to keep quiet
                return
            self._scratch = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `leave`
            os.dup2(self._scratch.fileno(), _STDERR)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._saved is None or self._scratch is None:
                return
            os.dup2(self._saved, _STDERR)
            os.close(self._saved)
            self._scratch.seek(0)
            foreign = [line for line in self._scratch if not _CHATTER.match(line)]
            self._scratch.close()
            self._saved = self._scratch = None
            if foreign:
                os.write(_STDERR, b"".join(foreign))


_diversion = _Diversion()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what C libraries write to standard error; other messages come a moment later."""
    _diversion.enter()
    try:
        yield
    finally:
        _diversion.leave()
