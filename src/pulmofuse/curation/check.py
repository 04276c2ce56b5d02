"""One question that the audit asks of a data set, and its answer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["pass", "warn", "fail"]

_ORDER: tuple[Verdict, ...] = ("pass", "warn", "fail")


@dataclass(frozen=True)
class Check:
    """The answer to one question.

    Attributes:
        id: of the question, e.g. "confounding.traits"; each modality answers for itself.
        verdict: "pass", "warn" or "fail".
        value: the figure behind the verdict (a count, an AUC); None where it cannot be measured.
        low: lower end of the 95 % interval of `value`, or None.
        high: upper end, or None.
        detail: a sentence for a reader who does not know the id.
        remedy: what to do about it; "" for a pass.
        modality: "ct", "cxr" or "cough"; "" for all.
    """

    id: str
    verdict: Verdict
    value: float | None
    low: float | None
    high: float | None
    detail: str
    remedy: str
    modality: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form; JSON has no NaN, so that becomes null."""
        content = asdict(self)
        for key in ("value", "low", "high"):
            number = content[key]
            content[key] = number if number is not None and math.isfinite(number) else None
        return content


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest of some verdicts; "pass" of none."""
    return max(verdicts, key=_ORDER.index, default="pass")


def grade(value: float, warn_above: float, fail_above: float = math.inf) -> Verdict:
    """Verdict on a figure of which less is better."""
    if value > fail_above:
        return "fail"
    return "warn" if value > warn_above else "pass"


def counted(n: int, noun: str) -> str:
    """A number with its noun: "1 patient", "2 patients"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def two_digits(value: float) -> str:
    """An AUC as papers print it: ".77", "1.00"."""
    return f"{value:.2f}".removeprefix("0")
