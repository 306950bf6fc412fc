"""Removes request records when their time is over (`retention`), of all processes one at a time."""

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from trien_server.core.errors import Busy, RecordNotTrusted, Refusal
from trien_server.core.ports import Clock, R, Report, VersionConflict
from trien_server.core.records import Installation, Record, RequestPurge
from trien_server.core.retention import REMOVED, is_due
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.installation import NAME as INSTALLATION
from trien_server.services.integrity import REQUEST_PURGE as NAME
from trien_server.services.leases import Leases
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import TrustedView

LEASE = "leases/request-purge"
STEP = timedelta(days=1)
"""How much later than the last time a new one is at least: so often all request records are looked at."""

_PAGE = 200
_TOGETHER = 50
"""How many records one transaction removes: a few milliseconds, between those of requests."""
_PAUSE_SECONDS = 0.02
"""Between two transactions, so that requests get theirs."""
_TURN_SECONDS = 20.0
"""How long is gone on before the lease is taken again: less than a lease lasts."""
_LOOK_SECONDS = 3600.0
_RETRY_SECONDS = 60.0
_SECONDS = 30.0


class RequestPurging:
    """Removes what is over, in a thread of its own, under a lease.

    1. The slow record `requestPurge` says from before which time records may be missing. It is in force, and named by
       the log, before the first one goes: what is younger and missing was deleted by somebody else (`fsck`).
    2. Record by record, kind by kind, in the order of `retention`: each transaction removes a few, asserts that the
       record of step 1 is in force, and says in an audit entry how many of which kind it removed.
    3. A pass that came to its end is remembered by this process alone. A crash leaves what was not removed yet to the
       next pass, of this or another process: a pass that finds nothing costs reading.

    A process that was paused and wakes removes what it would have removed before: the time in force never goes back.
    """

    def __init__(
        self,
        *,
        transactions: Transactions,
        changes: Changes,
        leases: Leases,
        clock: Clock,
        report: Report,
        keep: timedelta,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._transactions = transactions
        self._changes = changes
        self._leases = leases
        self._clock = clock
        self._report = report
        self._keep = keep
        self._pause_seconds = pause_seconds
        self._passed: datetime | None = None
        """Up to which time this process saw that everything was removed."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-purge", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Finishes the transaction that is under way, and ends; another process or the next start goes on."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def purge(self) -> int:
        """Removes what is over now and returns how many records that was.

        Raises `Busy` while another process is at it, and refusals of its ports.
        """
        removed = 0
        with self._leases.hold(LEASE, wait=0.0, stopped=self._stopped):
            before = self._put_in_force()
        if before is None or before == self._passed:
            return removed
        steps = self._steps(before)
        while not self._stopped.is_set():
            with self._leases.hold(LEASE, wait=0.0, stopped=self._stopped):
                end = self._clock.monotonic() + _TURN_SECONDS
                while self._clock.monotonic() < end:
                    step = next(steps, None)
                    if step is None:
                        self._passed = before
                        return removed
                    removed += step
                    if self._stopped.wait(self._pause_seconds):
                        return removed
        return removed

    def _put_in_force(self) -> datetime | None:
        """Returns from before which time records go; a day after the last time it becomes later.

        None while the installation is younger than what is kept.
        """
        at = self._clock.now()
        wanted = at - self._keep
        in_force: datetime | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal in_force
            found = view.get(RequestPurge, NAME)
            in_force = None if found is None else found.purged_before
            installation = view.require(Installation, INSTALLATION)
            if wanted < (installation.create_time if in_force is None else in_force + STEP):
                return Change(kind="request_purge_begun", slow=[])
            in_force = wanted
            if found is None:
                purge = RequestPurge(name=NAME, purged_before=wanted, time=at)
            else:
                purge = next_version(found, purged_before=wanted, time=at)
            return Change(kind="request_purge_begun", slow=[purge])

        self._changes.make("server", prepare, deadline=Deadline(self._clock, _SECONDS))
        return in_force

    def _steps(self, before: datetime) -> Iterator[int]:
        """Yields after each page that was read, and after each transaction how many records it removed."""
        for kind in REMOVED:
            after: str | None = ""
            while after is not None:
                found, after = self._page(kind, after)
                due = [record for record in found if is_due(record, before)]
                yield 0
                for begin in range(0, len(due), _TOGETHER):
                    yield self._remove(due[begin : begin + _TOGETHER], before)

    def _page(self, kind: type[R], after: str) -> tuple[list[R], str | None]:
        """Returns records by name, and behind which name the next ones are; None behind the last.

        One that cannot be trusted was reported. It stays, to be looked at.
        """
        try:
            found = self._transactions.read(lambda view: view.find(kind, limit=_PAGE, after=after))
        except RecordNotTrusted:
            return self._one_by_one(kind, after)
        return found, found[-1].name if len(found) == _PAGE else None

    def _one_by_one(self, kind: type[R], after: str) -> tuple[list[R], str | None]:
        found: list[R] = []
        while len(found) < _PAGE:
            try:
                one = self._transactions.read(lambda view, after=after: view.find(kind, limit=1, after=after))  # type: ignore[misc]
            except RecordNotTrusted as fault:
                return found, fault.name if fault.name > after else None
            if not one:
                return found, None
            found += one
            after = one[0].name
        return found, after

    def _remove(self, due: Sequence[Record], before: datetime) -> int:
        """Removes records of one kind in one transaction, but those that another process removed."""

        def in_force(view: TrustedView) -> TrustedView:
            purge = view.require(RequestPurge, NAME)
            if purge.purged_before < before:
                raise AssertionError("the time from before which records go went back")
            return view

        def attempt() -> int:
            view = self._transactions.read(in_force)

            def work(ledger: Ledger) -> int:
                ledger.assert_unchanged(view)
                removed = sum(_removed(ledger, record) for record in due)
                if removed:
                    details = {"table": due[0].table, "count": removed, "purgedBefore": before.isoformat()}
                    ledger.record("request_records_removed", {"actor": "server", **details})
                return removed

            return self._transactions.run(work, timeout=_SECONDS)

        return self._transactions.decide(attempt, deadline=Deadline(self._clock, _SECONDS))

    def _run(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = _LOOK_SECONDS
            try:
                self.purge()
            except Busy:
                pause = _RETRY_SECONDS  # another process is at it, and may not come to the end
            except Exception as fault:  # noqa: BLE001 - the next look goes on
                because = fault.reason if isinstance(fault, Refusal) else type(fault).__name__
                self._report("request_purge_delayed", {"because": because})
                pause = _RETRY_SECONDS


def _removed(ledger: Ledger, record: Record) -> bool:
    try:
        ledger.remove(record)
    except VersionConflict:
        return False
    return True
