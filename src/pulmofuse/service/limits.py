"""How much at once: requests of one key, predictions in flight, bytes in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pulmofuse.service.problems import ProblemError

#: Keys whose buckets are remembered; beyond it those unused for longest are dropped, full or not.
_MOST_BUCKETS = 10_000
#: Weight of the newest prediction in the running mean of how long one takes.
_NEWEST = 0.1


class RateLimit:
    """A token bucket per key: `rate` requests a second in the long run, `burst` at once.

    Args:
        rate: tokens a second.
        burst: tokens that a full bucket holds.
        clock: seconds, never running backwards.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key_id: str) -> float:
        """Take one token; the seconds until there is one, 0 if it was there."""
        now = self._clock()
        tokens, then = self._buckets.pop(key_id, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        allowed = tokens >= 1.0
        self._buckets[key_id] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - tokens) / self._rate


class Admission:
    """Predictions in flight, counted; one too many is refused at once rather than queued for ever.

    A slot is held until the work behind it has ended, even if nobody waits for it any more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.in_flight = 0
        self._mean_s = 0.5

    def enter(self) -> None:
        """Take a slot.

        Raises:
            ProblemError: 503; there is none.
        """
        if self.in_flight >= self._most:
            raise ProblemError(
                503,
                "overloaded",
                f"{self.in_flight} predictions wait or run, as many as may",
                "send it again after the time in Retry-After",
                # Waiting is part of the mean: by then what is in flight now has been answered.
                retry_after_s=min(60.0, self._mean_s),
            )
        self.in_flight += 1

    def leave(self) -> None:
        """Give a slot back."""
        self.in_flight -= 1

    def took(self, seconds: float) -> None:
        """Tell how long one prediction took, with all that it waited for."""
        self._mean_s += _NEWEST * (seconds - self._mean_s)


class Buffered:
    """Bytes of requests in memory, all together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    @contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """A function that reserves more bytes; all are given back at the end of the block.

        Raises:
            ProblemError: 503, by that function; there is no more room.
        """
        mine = 0

        def reserve(n_bytes: int) -> None:
            nonlocal mine
            if self.held + n_bytes > self._most:
                raise ProblemError(
                    503,
                    "overloaded",
                    "the uploads in work fill the memory set aside for them",
                    "send it again after the time in Retry-After",
                    retry_after_s=2.0,
                )
            self.held += n_bytes
            mine += n_bytes

        try:
            yield reserve
        finally:
            self.held -= mine
