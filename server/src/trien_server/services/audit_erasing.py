"""Erases details of audit entries as it was agreed on: a few in each transaction, of all processes one at a time."""

import dataclasses
import threading
from collections.abc import Sequence

from trien_server.core.errors import Busy, RecordNotTrusted, Refusal
from trien_server.core.ports import Clock, Report, VersionConflict
from trien_server.core.records import AuditEntry, AuditErasure, AuditErasureState
from trien_server.services.changes import Changes
from trien_server.services.deadline import Deadline
from trien_server.services.leases import Leases
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import TrustedView

LEASE = "leases/audit-erasing"
_TOGETHER = 50
_TURN_SECONDS = 20.0
_PAUSE_SECONDS = 0.02
_LOOK_SECONDS = 60.0
_SECONDS = 30.0


class AuditErasing:
    """Looks for erasures that were agreed on, in a thread of its own, and carries them out under a lease.

    The record in force names every entry, so a crash leaves an erasure that the next look goes on with: an entry is
    erased once, as version 2 with the leaf that it had. When all were, the record becomes DONE, and the entry about
    that says which and why. The lease only keeps two processes from the same work: each replaces version 1 alone.
    """

    def __init__(
        self, *, transactions: Transactions, changes: Changes, leases: Leases, clock: Clock, report: Report
    ) -> None:
        self._transactions = transactions
        self._changes = changes
        self._leases = leases
        self._clock = clock
        self._report = report
        self._asked = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-erasing", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def ask(self) -> None:
        """Looks at once."""
        self._asked.set()

    def stop(self) -> None:
        """Finishes the transaction that is under way, and ends; another process or the next start goes on."""
        self._stopped.set()
        self._asked.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Carries out what was agreed on. Raises `Busy` while another process is at it, and refusals of its ports."""
        for erasure in self._transactions.read(_pending):
            self._carry_out(erasure)

    def _carry_out(self, erasure: AuditErasure) -> None:
        names, begin = erasure.audit_entries, 0
        while not self._stopped.is_set():
            with self._leases.hold(LEASE, wait=0.0, stopped=self._stopped):
                end = self._clock.monotonic() + _TURN_SECONDS
                while self._clock.monotonic() < end:
                    if begin >= len(names):
                        self._finish(erasure)
                        return
                    self._erase(erasure, names[begin : begin + _TOGETHER])
                    begin += _TOGETHER
                    if self._stopped.wait(_PAUSE_SECONDS):
                        return

    def _erase(self, erasure: AuditErasure, names: Sequence[str]) -> None:
        def attempt() -> None:
            view, entries = self._transactions.read(lambda view: (view, self._with_details(view, erasure, names)))

            def work(ledger: Ledger) -> None:
                ledger.assert_unchanged(view)
                for entry in entries:
                    try:
                        ledger.replace(next_version(entry, details="", salt=b""))
                    except VersionConflict:
                        continue  # another process was faster

            if entries:
                self._transactions.run(work, timeout=_SECONDS)

        self._transactions.decide(attempt, deadline=Deadline(self._clock, _SECONDS))

    def _with_details(self, view: TrustedView, erasure: AuditErasure, names: Sequence[str]) -> list[AuditEntry]:
        """Returns the entries that were not erased yet. The record in force has to name them still."""
        if view.require(AuditErasure, erasure.name) != erasure:
            return []
        entries = [self._trusted(view, name) for name in names]
        return [entry for entry in entries if entry is not None and entry.details]

    def _trusted(self, view: TrustedView, name: str) -> AuditEntry | None:
        """Returns an entry; None for one that cannot be trusted, which was reported and stays as it is."""
        try:
            return view.get(AuditEntry, name)
        except RecordNotTrusted:
            return None

    def _finish(self, erasure: AuditErasure) -> None:
        erased = 0
        for begin in range(0, len(erasure.audit_entries), _TOGETHER):
            names = erasure.audit_entries[begin : begin + _TOGETHER]
            found = self._transactions.read(lambda view, names=names: [self._trusted(view, name) for name in names])  # type: ignore[misc]
            erased += sum(entry is not None and not entry.details for entry in found)
        if erased < len(erasure.audit_entries):
            left = str(len(erasure.audit_entries) - erased)
            self._report("audit_details_not_erased", {"erasure": erasure.name, "entries": left})
        done = dataclasses.replace(erasure, version=erasure.version + 1, state=AuditErasureState.DONE, erased=erased)
        self._changes.swap(
            "server", erasure, done, kind="audit_details_erased", deadline=Deadline(self._clock, _SECONDS)
        )

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.look()
            except Busy:
                pass  # another process is at it
            except Exception as fault:  # noqa: BLE001 - it is looked at again
                because = fault.reason if isinstance(fault, Refusal) else type(fault).__name__
                self._report("audit_erasing_delayed", {"because": because})
            self._asked.wait(_LOOK_SECONDS)
            self._asked.clear()


def _pending(view: TrustedView) -> list[AuditErasure]:
    return view.find(AuditErasure, state=AuditErasureState.PENDING)
