"""API keys: what they look like, and what is stored of them.

A key is `pf_<id>_<secret>`. The id (12 hex digits) is public: it finds the row, and stands in logs.
The secret has 256 random bits, and only its SHA-256 is stored. A slow hash such as Argon2 protects
passwords, which people choose and a machine can guess; nobody guesses 256 bits, so it would cost a
tenth of a second on every request for nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_SECRET_BYTES = 32
_FORM = re.compile(r"pf_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True)
class NewKey:
    """A key just made.

    Attributes:
        key_id: the public part.
        text: the whole key, to be shown once and never stored.
        sha256: what is stored.
    """

    key_id: str
    text: str
    sha256: str


def make_key() -> NewKey:
    """A new random key."""
    key_id = secrets.token_hex(6)
    text = f"pf_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return NewKey(key_id, text, _digest(text))


def key_id_of(text: str) -> str | None:
    """The public part of something that has the form of a key; None for anything else."""
    match = _FORM.fullmatch(text)
    return match[1] if match else None


def fits(text: str, sha256: str) -> bool:
    """Whether a key is the one that was stored, in a time that does not depend on how near it is.

    Args:
        text: what was sent.
        sha256: what is stored.
    """
    return hmac.compare_digest(_digest(text), sha256)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
