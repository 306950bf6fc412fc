"""What one client may take of one server process: calls a minute, and items at work at once.

The counts are in this process's memory: with several workers or nodes each counts for itself, so a client gets at
most its limit from each. They are lost with the process, which costs nothing but the rest of a minute.
"""

import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from trien_server.core.errors import RateLimitReached, TooManyDigests
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal

_WINDOW = 60
"""Seconds. With the present one they are kept apart second by second: never more than the limit in any minute."""
_SWEEP = 1024
"""From how many clients on those that were quiet for a minute are forgotten."""


class ClientRates:
    """Counts clients' calls and items. May be used from any thread."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: dict[str, _Minute] = {}
        self._items: Counter[str] = Counter()
        self._sweep_at = _SWEEP

    def take_call(self, principal: Principal) -> None:
        """Counts a call, before anything of its message is looked at. Raises `RateLimitReached`."""
        most = principal.calls_per_minute
        if not most:
            return
        now = self._clock.monotonic()
        with self._lock:
            minute = self._calls.get(principal.name)
            if minute is None:
                self._forget_quiet(now)
                minute = self._calls[principal.name] = _Minute()
            wait = minute.take(now, most)
        if wait is not None:
            raise RateLimitReached(
                f"You may make {most} calls a minute of one server process.", retry_after=timedelta(seconds=wait)
            )

    @contextmanager
    def items(self, principal: Principal, count: int) -> Iterator[None]:
        """Holds items at work, before a one-time password is looked at.

        Raises `RateLimitReached` when the client has too many at work, `TooManyDigests` for a request that is too
        large even alone.
        """
        most = principal.concurrent_items
        if not most:
            yield
            return
        if count > most:
            raise TooManyDigests("items", f"you may have {most} at work at once")
        with self._lock:
            if self._items[principal.name] + count > most:
                raise RateLimitReached(
                    f"You may have {most} items at work at once in one server process.",
                    retry_after=timedelta(seconds=1),
                )
            self._items[principal.name] += count
        try:
            yield
        finally:
            with self._lock:
                self._items[principal.name] -= count
                if not self._items[principal.name]:
                    del self._items[principal.name]

    def _forget_quiet(self, now: float) -> None:
        if len(self._calls) < self._sweep_at:
            return
        self._calls = {name: minute for name, minute in self._calls.items() if not minute.quiet(now)}
        self._sweep_at = max(_SWEEP, 2 * len(self._calls))


class _Minute:
    """How many calls each of the last seconds had: at most 61 numbers."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        self._total = 0

    def take(self, now: float, most: int) -> float | None:
        """Counts a call and returns None; or returns after how many seconds there is room again."""
        second = int(now)
        self._drop(second)
        if self._total >= most:
            # The limit may have been lowered: wait until enough of the old calls are out of the window.
            over = self._total - most + 1
            for old, count in self._seconds:
                over -= count
                if over <= 0:
                    return old + _WINDOW + 1 - now
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + 1)
        else:
            self._seconds.append((second, 1))
        self._total += 1
        return None

    def quiet(self, now: float) -> bool:
        self._drop(int(now))
        return not self._total

    def _drop(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] < second - _WINDOW:
            self._total -= self._seconds.popleft()[1]
