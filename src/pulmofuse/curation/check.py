"""One question that the audit asks of a data set, and its answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
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
        p_value: share of shuffled labels that do as well as the real ones; None where not asked.
        null_95: 95th percentile of a simpler classifier's figure under shuffled labels; None where
            not asked.
        thresholds: the limits that `value` (and `p_value`) were held against, by name.
        table: rows behind the sentence, each with the same keys, for a page to draw.
    """

    id: str
    verdict: Verdict
    value: float | None
    low: float | None
    high: float | None
    detail: str
    remedy: str
    modality: str = ""
    p_value: float | None = None
    null_95: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    table: tuple[Mapping[str, str | float | None], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form; JSON has no NaN, so that becomes null."""
        content = asdict(self)
        for key in ("value", "low", "high", "p_value", "null_95"):
            content[key] = _finite(content[key])
        content["table"] = [{k: _finite(v) for k, v in row.items()} for row in self.table]
        return content


def _finite(value: Any) -> Any:
    """The value, or None for a float that JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
