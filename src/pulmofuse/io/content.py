"""A source (path or bytes) as checked bytes, and the one border where decoders may fail.

Everything here is untrusted: a folder of research data holds empty files, half copies, renamed
web pages and headers that promise terabytes. Whatever happens, the caller sees one
`UnreadableFile` that names the file, the reason and a remedy.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pulmofuse.errors import PulmofuseError, UnreadableFile
from pulmofuse.io.bounds import current_bounds
from pulmofuse.io.kinds import Kind, look

#: Larger files are no single image, volume or cough (a 512 x 512 x 1,000 CT has 0.5 GiB).
MAX_FILE_BYTES = 1 << 30
#: The largest detectors (5,000 x 4,000) and scans of films (5,200 x 6,300) stay below this; a
#: colour image of 16 bits and this size can be read within 1 GiB.
MAX_PIXELS = 50_000_000
#: A whole-body CT of 512 x 512 x 1,100; as float32 it needs 1.2 GB.
MAX_VOXELS = 300_000_000

COPY_AGAIN = "copy or download the file again, or leave it out"


@dataclass(frozen=True, eq=False)
class Content:
    """What a source holds.

    Attributes:
        name: what errors call the file.
        data: the whole file.
        kind: what its first bytes say it is.
    """

    name: str
    data: bytes
    kind: Kind


def load(source: Path | bytes, name: str | None) -> Content:
    """Read a source whole and look at what it is.

    Raises:
        UnreadableFile: missing, not a regular file, no permission, empty, larger than 1 GiB.
    """
    if isinstance(source, bytes):
        label = name or "data in memory"
        data = source
        _check_size(label, len(data))
    else:
        label = name or str(source)
        data = _read(source, label)
    return Content(label, data, look(data))


def _read(path: Path, label: str) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableFile(label, "is a folder", "name one file in it")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFile(label, "is not a regular file", "name an ordinary file")
        _check_size(label, status.st_size)
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableFile(label, "no such file", "check the path and the data root") from None
    except PermissionError:
        raise UnreadableFile(
            label, "may not be read by this user", "change its permissions"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableFile(label, f"cannot be read ({reason})", COPY_AGAIN) from None


def list_folder(path: Path) -> list[Path]:
    """The ordinary files directly in a folder, by name; hidden ones are left out.

    Raises:
        UnreadableFile: not a folder, or no permission.
    """
    try:
        return sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError as error:
        raise UnreadableFile(
            path, f"cannot be listed ({error.strerror})", "check the path and its permissions"
        ) from None


def _check_size(label: str, n_bytes: int) -> None:
    if n_bytes == 0:
        raise UnreadableFile(label, "is empty (0 bytes)", COPY_AGAIN)
    if n_bytes > MAX_FILE_BYTES:
        raise UnreadableFile(
            label,
            f"has {n_bytes:,} bytes, more than the {MAX_FILE_BYTES:,} allowed",
            "cut it into smaller files",
        )


def check_pixels(name: str, height: int, width: int, slices: int = 1) -> None:
    """Refuse declared dimensions that no chest image has, before anything is allocated."""
    if min(height, width, slices) < 1:
        raise UnreadableFile(name, f"declares {slices} x {height} x {width} pixels", COPY_AGAIN)
    bounds = current_bounds()
    if height * width > MAX_PIXELS or slices * height * width > MAX_VOXELS:
        why = "which no chest image has"
    elif bounds and (height * width > bounds.pixels or slices * height * width > bounds.voxels):
        why = "more than are read here"
    else:
        why = ""
    if why:
        raise UnreadableFile(
            name,
            f"declares {slices:,} x {height:,} x {width:,} pixels, {why}",
            "its header is damaged, or it must be made smaller first",
        )
    if bounds is not None and bounds.announce is not None:
        bounds.announce(slices * height * width)


@contextmanager
def decoding(name: str, why: str, remedy: str = COPY_AGAIN) -> Iterator[None]:
    """Turn whatever a decoder raises on broken bytes into one `UnreadableFile`.

    Decoders of untrusted bytes raise almost anything (struct.error, KeyError, zlib.error, classes
    of their own that derive from Exception), and no list of them stays complete.
    """
    try:
        yield
    except PulmofuseError:
        raise
    except MemoryError:
        raise UnreadableFile(
            name, "needs more memory than there is", "make it smaller, or use another machine"
        ) from None
    except Exception as error:
        raise UnreadableFile(name, why, remedy) from error
