"""Whether the clock can be trusted (P8)."""

import threading
from datetime import timedelta

from trien_server.core.errors import ClockNotTrusted
from trien_server.core.ports import Clock, Report, Store
from trien_server.core.sealing import CLOCK_TOLERANCE


class ClockGuard:
    """Watches the clock against the database's, against the audit log, and for jumps. May be used from any thread."""

    def __init__(self, *, store: Store, clock: Clock, report: Report) -> None:
        self._store = store
        self._clock = clock
        self._report = report
        self._lock = threading.Lock()
        self._trusted = True
        self._unchecked = False
        self._told = True
        """Whether the clock was trusted when that was last reported."""
        self._last = (clock.now(), clock.monotonic())

    def assert_trusted(self) -> None:
        """Raises `ClockNotTrusted` when the last check failed; a clock that jumped since is reported and checked anew.

        Costs no call of the database unless the clock jumped. Raises `StoreUnavailable` when that check fails.
        """
        if self._jumped() or self._unchecked:
            self.check()
        if not self._trusted:
            raise ClockNotTrusted

    def check(self) -> None:
        """Compares the clock with the database's and with the newest audit entry, and remembers the outcome.

        Raises `ClockNotTrusted`, reported when it is new, or `StoreUnavailable`.
        """
        now, stored = self._clock.now(), self._store.now()
        latest = self._store.read(lambda snapshot: snapshot.latest_time())
        behind_log = latest is not None and now < latest - CLOCK_TOLERANCE
        trusted = abs(now - stored) <= CLOCK_TOLERANCE and not behind_log
        with self._lock:
            changed = trusted is not self._told
            self._trusted, self._unchecked, self._told = trusted, False, trusted
        if changed:
            event = "clock_trusted_again" if trusted else "clock_not_trusted"
            self._report(event, {"now": now.isoformat(), "store": stored.isoformat(), "log": str(latest)})
        if not trusted:
            raise ClockNotTrusted

    def _jumped(self) -> bool:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        with self._lock:
            last_now, last_monotonic = self._last
            self._last = (now, monotonic)
        jump = (now - last_now) - timedelta(seconds=monotonic - last_monotonic)
        if abs(jump) <= CLOCK_TOLERANCE:
            return False
        # Until a check says otherwise: it may not be possible now.
        with self._lock:
            self._trusted = False
            self._unchecked = True
        self._report("clock_jumped", {"seconds": f"{jump.total_seconds():+.1f}"})
        return True
