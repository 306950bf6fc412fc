"""Whether the log can be trusted, and is sealed: else nothing is done that it would have to tell of (P8, P10)."""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from trien_server.core.errors import LogNotSealed, LogNotTrusted, RecordNotTrusted, Refusal
from trien_server.core.ports import Clock, Report, Snapshot
from trien_server.core.records import AuditEntry, LogHead
from trien_server.services.log_history import LogHistory, read_checkpoint
from trien_server.services.seals import Seals
from trien_server.services.unsealed_entries import EntriesInTheWay, UnsealedEntries

LONGEST_UNSEALED = timedelta(seconds=60)


class LogGuard:
    """Watches the log of a serving process. May be used from any thread; before `start` it refuses nothing."""

    def __init__(self, *, history: LogHistory, seals: Seals, clock: Clock, report: Report) -> None:
        self._history = history
        self._seals = seals
        self._clock = clock
        self._report = report
        self._unsealed = UnsealedEntries(seals=seals, report=_tell_nobody)
        self._started = False
        self._witnessed: str | None = None
        self._lock = threading.Lock()
        self._refuse: Callable[[], Refusal] | None = None
        self._told: str | None = None

    def start(self) -> None:
        """Begins to refuse what is asked for while the last check failed."""
        self._started = True

    def assert_trusted(self) -> None:
        """Raises `LogNotTrusted` when the last check found another log. Costs nothing."""
        self._raise(LogNotTrusted)

    def assert_open(self) -> None:
        """Raises `LogNotTrusted` or `LogNotSealed` when the last check found so. Costs nothing."""
        self._raise(Refusal)

    def _raise(self, kind: type[Refusal]) -> None:
        refuse = self._refuse
        if self._started and refuse is not None:
            refusal = refuse()
            if isinstance(refusal, kind):
                raise refusal

    def distrust(self, finding: str) -> None:
        """Has every check fail, until `trust_again`: a witness knows of another log."""
        self._witnessed = finding

    def trust_again(self) -> None:
        """Takes back what `distrust` said: the log continues what the witnesses know."""
        self._witnessed = None

    def check(self) -> None:
        """Looks at the log, and remembers the outcome.

        Raises `LogNotTrusted` or `LogNotSealed`, reported when it is new; `StoreUnavailable`, `HsmUnavailable`.
        """
        try:
            if self._witnessed is not None:
                raise LogNotTrusted(self._witnessed)
            self._history.check(self._require_sealed)
        except (LogNotTrusted, LogNotSealed) as refusal:
            self._found(refusal)
            raise
        self._found(None)

    def _found(self, refusal: LogNotTrusted | LogNotSealed | None) -> None:
        finding = ""
        if isinstance(refusal, LogNotTrusted):
            finding = refusal.finding
            self._refuse = lambda: LogNotTrusted(finding)
        else:
            self._refuse = None if refusal is None else LogNotSealed
        told = "" if refusal is None else f"{refusal.reason}: {finding}"
        with self._lock:
            new = told != (self._told or "")
            self._told = told
        if not new:
            return
        if refusal is None:
            self._report("log_in_order_again", {})
        elif finding:
            self._report("log_not_trusted", {"finding": finding})
        else:
            self._report("log_not_sealed", {})

    def _require_sealed(self, snapshot: Snapshot, head: LogHead) -> None:
        """Raises `LogNotSealed` when an entry that is older than a minute has no position, or no checkpoint."""
        before = self._clock.now() - LONGEST_UNSEALED
        if self._waits(snapshot, before):
            raise LogNotSealed
        stored = read_checkpoint(snapshot, self._seals)
        covered = stored.size if stored is not None and stored.origin == head.origin else 0
        if covered < head.size and self._entry(snapshot, covered).time < before:
            raise LogNotSealed

    def _entry(self, snapshot: Snapshot, position: int) -> AuditEntry:
        """Returns the entry at a position that the head covers. Raises `LogNotTrusted`; may call the token."""
        try:
            found = snapshot.log(position, limit=1)
            if found and found[0][0] == position:
                return self._seals.verify(found[0][1])
        except RecordNotTrusted as fault:
            raise LogNotTrusted(f"the entry at position {position} cannot be trusted: {fault.finding}") from fault
        raise LogNotTrusted(f"the entry at position {position} is missing")

    def _waits(self, snapshot: Snapshot, before: datetime) -> bool:
        try:
            oldest = snapshot.oldest_unsealed()
        except RecordNotTrusted:
            pass
        else:
            if oldest is None or oldest >= before:
                return False
        # Rows that somebody put there do not count: the log takes in none of them, nor one that it has.
        old = (entry for entry in self._unsealed.walk(snapshot) if entry.time < before)
        try:
            return any(snapshot.position(entry.name) is None for entry in old)
        except EntriesInTheWay:
            return True  # what waits behind them is not known


def _tell_nobody(event: str, fields: Mapping[str, str]) -> None:
    """The process that seals reports them."""
