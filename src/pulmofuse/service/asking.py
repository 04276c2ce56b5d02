"""What a request asks for: the fields of its form, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pulmofuse.schema import Modality
from pulmofuse.service.problems import ProblemError

_MAX_IDEMPOTENCY_KEY = 255


@dataclass(frozen=True)
class Asked:
    """A request, read and checked.

    Attributes:
        files: all that was sent.
        left_out: the modality that shall not be used.
        method, prevalence, explain: as in the API.
        idempotency_key: of the header, if there was one.
    """

    files: Mapping[Modality, bytes]
    left_out: Modality | None
    method: str
    prevalence: float | None
    explain: bool
    idempotency_key: str | None

    @property
    def used(self) -> dict[Modality, bytes]:
        """The files to predict from."""
        return {m: data for m, data in self.files.items() if m is not self.left_out}


def invalid(why: str, remedy: str) -> ProblemError:
    """A request that cannot be what was meant."""
    return ProblemError(422, "invalid-request", why, remedy)


def modality_of(text: str) -> Modality | None:
    """The modality of that name; None for no text."""
    if not text:
        return None
    try:
        return Modality(text)
    except ValueError:
        raise invalid("leave_out is no modality", f"give one of {', '.join(Modality)}") from None


def share_of(text: str) -> float | None:
    """A number between 0 and 1; None for no text."""
    if not text:
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 < share < 1.0:
        raise invalid("prevalence is no number between 0 and 1", "give a share such as 0.1")
    return share


def truth_of(text: str) -> bool:
    """True for "true"; false for "false" and no text."""
    if text not in {"", "true", "false"}:
        raise invalid("explain is neither true nor false", "give true or false")
    return text == "true"


def checked_idempotency_key(text: str | None) -> str | None:
    """The header as it came, if it is short and printable."""
    if text is None:
        return None
    if not 0 < len(text) <= _MAX_IDEMPOTENCY_KEY or not (text.isascii() and text.isprintable()):
        raise invalid(
            "the Idempotency-Key is not 1 to 255 printable ASCII characters", "use a random UUID"
        )
    return text
